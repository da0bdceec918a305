"""Panoptic quality of a network on a validation part, in memory and spread over the workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seamless_pr.datasets.loader import PanopticImages
from seamless_pr.drawing.panoptic import draw_comparison
from seamless_pr.evaluation.class_names import GROUPS, unique_names
from seamless_pr.inference.predictor import Predictor
from seamless_pr.metrics.panoptic_meter import PanopticQuality
from seamless_pr.metrics.segment_table import SegmentTable
from seamless_pr.models.networks.network import Network
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment
from seamless_pr.structures.panoptic_target import Batch, PanopticTarget


def validate(predictor: Predictor, batches: Iterable[Batch]) -> dict[str, Any]:
    """Scores the images of all workers together; every worker gets the same numbers.

    Args:
        predictor: the network to score.
        batches: the share of this worker, images at network size and targets at the size of the
            file.

    Returns:
        "all", "things", "stuff" with "pq", "sq", "rq"; "pq_dagger" with the same three groups;
        "classes" with the PQ of each class. All in [0, 1]; a mean over nothing is 0.
    """
    meter = PanopticQuality(predictor.label_space)
    for batch, targets in batches:
        for image, size, target in zip(batch.images, batch.image_sizes, targets):
            resized = image[:, : size[0], : size[1]]
            (prediction,) = predictor.predict_resized([resized], [target.image_size])
            segmentation = prediction.require_panoptic()
            meter.update(
                target.id_map, true_segments(target), segmentation.id_map, segmentation.segments
            )
    meter.gather()
    return _scores(meter)


def true_segments(target: PanopticTarget) -> SegmentTable:
    """The segments of the ground truth as the meter takes them; areas are counted in its map."""
    return SegmentTable(
        np.arange(1, target.num_segments + 1),
        target.train_ids.numpy(),
        target.is_crowd.numpy(),
    )


def draw_examples(
    predictor_of: Callable[[Network], Predictor], images: PanopticImages, num_pictures: int
) -> Callable[[Network], dict[str, Tensor]]:
    """A function that draws prediction and truth of images spread over the part.

    Args:
        predictor_of: makes the predictor of a network.
        images: images at network size and targets at the size of the file.
        num_pictures: most pictures.

    Returns:
        Network -> image key -> picture [3, H, W] uint8 RGB.
    """
    count = min(num_pictures, len(images))
    indices = [index * len(images) // count for index in range(count)]

    def draw(network: Network) -> dict[str, Tensor]:
        predictor = predictor_of(network)
        pictures = {}
        for image, target in (images[index] for index in indices):
            # Drawn at network size: pictures of a log need not be larger.
            size = (image.shape[-2], image.shape[-1])
            (prediction,) = predictor.predict_resized([image], [size])
            predicted = prediction.require_panoptic()
            truth = true_segmentation(target, size)
            picture = draw_comparison(image, {"prediction": predicted, "truth": truth})
            pictures[target.image_key] = torch.from_numpy(picture).movedim(-1, 0)
        return pictures

    return draw


def true_segmentation(
    target: PanopticTarget, size: tuple[int, int] | None = None
) -> PanopticSegmentation:
    """Ground truth in the form of a prediction, resized by nearest neighbour if `size` is given."""
    id_map = target.id_map
    if size is not None:
        resized = nn.functional.interpolate(id_map[None, None].double(), size, mode="nearest-exact")
        id_map = resized[0, 0].int()
    areas = torch.bincount(id_map.flatten(), minlength=target.num_segments + 1)
    segments = tuple(
        Segment(index + 1, int(train_id), int(areas[index + 1]), None, bool(is_crowd))
        for index, (train_id, is_crowd) in enumerate(zip(target.train_ids, target.is_crowd))
    )
    return PanopticSegmentation(id_map, segments, target.label_space)


def _scores(meter: PanopticQuality) -> dict[str, Any]:
    scores, label_space = meter.compute(), meter.label_space
    groups = {name: asdict(getattr(scores, name)) for name in GROUPS}
    keys = unique_names((c.category_id, c.name) for c in label_space.categories)
    return {
        **{
            name: {key: group[key] or 0.0 for key in ("pq", "sq", "rq")}
            for name, group in groups.items()
        },
        "pq_dagger": {name: group["pq_dagger"] or 0.0 for name, group in groups.items()},
        "classes": {
            key: score.pq for key, score in zip(keys, scores.per_class) if score.is_counted
        },
    }
