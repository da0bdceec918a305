"""The masks of PointRend: losses of coarse masks and of points, and subdivision.

Letters: C channels that are read, K classes, R boxes, P points of a box.
Source: PointRend (CVPR 2020), sections 3 and 4; where the released code differs, it is the default.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.layers.point_head import PointHead
from seamless_pr.models.instances.box_branch import regressed_boxes
from seamless_pr.models.instances.coarse_masks import CoarseMaskHead, coarse_mask_logits
from seamless_pr.models.instances.positive_rois import (
    PositiveRoIs,
    positive_rois,
    targets_of_masks,
)
from seamless_pr.models.instances.two_stage import (
    MaskPart,
    SampledBatch,
)
from seamless_pr.ops.boxes import last_pixels
from seamless_pr.ops.masks import BoxMasks, PixelBoxMasks
from seamless_pr.ops.points import (
    PointReader,
    mask_uncertainty,
    points_to_image,
    regular_grid,
    sample_membership,
    sample_points,
    uncertain_coords,
)
from seamless_pr.ops.precision import at_least_single
from seamless_pr.ops.refinement import (
    gather_point_features,
    num_subdivision_steps,
    refine,
    uniform_drawer,
)
from seamless_pr.ops.vectors import image_indices
from seamless_pr.structures.features import Features
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import PointSettings


def point_mask_losses(
    coarse_head: CoarseMaskHead,
    point_head: PointHead,
    reader: PointReader,
    rois: PositiveRoIs,
    targets: Sequence[PanopticTarget],
    settings: PointSettings,
    generators: Sequence[torch.Generator],
    *,
    whole_pixels: bool = False,
) -> dict[str, LossSum]:
    """Losses `mask_coarse` (mean over boxes, cells) and `mask_point` (mean over boxes, points).

    Binary cross-entropy on the object's class. Coarse logits are not detached: the point loss
    trains the coarse head as well (released code).
    """
    num_rois = len(rois)
    if whole_pixels:
        rois = replace(rois, boxes=last_pixels(rois.boxes))
    coarse_logits = at_least_single(
        coarse_mask_logits(coarse_head, reader, rois.boxes, rois.image_indices)
    )
    classes = rois.thing_indices + coarse_head.first_thing
    own_coarse = _own_class(coarse_logits, classes)
    coarse_targets = targets_of_masks(
        rois, targets, coarse_head.mask_size, whole_pixels=whole_pixels
    )
    coarse_total = F.binary_cross_entropy_with_logits(
        own_coarse, coarse_targets.to(own_coarse), reduction="sum"
    )

    rows = torch.arange(num_rois, device=own_coarse.device)

    def sample_uncertainty(coords: Tensor) -> Tensor:
        num_points = coords.shape[1]
        values = sample_points(
            own_coarse[:, None], coords.flatten(0, 1), rows.repeat_interleave(num_points)
        )
        return mask_uncertainty(values).view(num_rois, num_points)

    if settings.train_points == "grid":
        coords = _grid_coords(settings.num_train_points, num_rois, own_coarse.device)
    else:
        coords = uncertain_coords(
            sample_uncertainty,
            num_rois,
            settings.num_train_points,
            settings.oversample_ratio,
            settings.importance_fraction,
            uniform_drawer(rois.rois_per_image(len(targets)), generators, own_coarse.device),
        )
    fine, coarse = gather_point_features(
        reader, coarse_logits, coords, rois.boxes, rois.image_indices
    )
    point_logits = at_least_single(point_head(fine, coarse)).unflatten(0, coords.shape[:2])
    own_points = point_logits.gather(
        2, classes[:, None, None].expand(-1, coords.shape[1], 1)
    ).squeeze(2)
    point_targets = sample_membership(
        [target.id_map for target in targets],
        rois.segment_ids,
        points_to_image(coords, rois.boxes),
        rois.image_indices,
    )
    point_total = F.binary_cross_entropy_with_logits(
        own_points, point_targets.to(own_points), reduction="sum"
    )
    return {
        "mask_coarse": LossSum(coarse_total, own_coarse.numel()),
        "mask_point": LossSum(point_total, own_points.numel()),
    }


def _own_class(logits: Tensor, thing_indices: Tensor) -> Tensor:
    """[R, K, h, w] -> [R, h, w] of each row's class."""
    return logits[torch.arange(len(logits), device=logits.device), thing_indices]


def _grid_coords(num_points: int, num_rows: int, device: torch.device) -> Tensor:
    """The same regular grid of a square number of points for every row: [R, P, 2]."""
    return regular_grid(math.isqrt(num_points), device).expand(num_rows, -1, -1)


@torch.no_grad()
def point_mask_logits(
    coarse_head: CoarseMaskHead,
    point_head: PointHead,
    reader: PointReader,
    instances: Sequence[Instances],
    settings: PointSettings,
    *,
    whole_pixels: bool = False,
) -> list[Tensor]:
    """Refined mask logits per image, for the predicted class: [R, output_size, output_size].

    Only the predicted class is carried through the subdivision; the other classes' maps never
    influence it.
    """
    counts = [len(found) for found in instances]
    boxes = torch.cat([found.require_boxes() for found in instances])
    if whole_pixels:
        boxes = last_pixels(boxes)
    classes = torch.cat([found.thing_indices for found in instances]) + coarse_head.first_thing
    indices = image_indices(counts, boxes.device)
    coarse_logits = coarse_mask_logits(coarse_head, reader, boxes, indices)

    def predict(coords: Tensor) -> Tensor:
        fine, coarse = gather_point_features(reader, coarse_logits, coords, boxes, indices)
        logits = point_head(fine, coarse).unflatten(0, (len(boxes), coords.shape[1]))
        return logits.gather(2, classes[:, None, None].expand(-1, coords.shape[1], 1))

    start = settings.start_size
    if start:
        grid = regular_grid(start, boxes.device).expand(len(boxes), -1, -1)
        logits = predict(grid).view(len(boxes), 1, start, start)
    else:
        start = coarse_head.mask_size
        logits = _own_class(coarse_logits, classes)[:, None]
    steps = num_subdivision_steps(start, settings.output_size)
    refined = refine(
        logits,
        predict,
        lambda maps: mask_uncertainty(maps[:, 0]),
        settings.subdivision_points,
        steps,
    )
    return list(at_least_single(refined[:, 0]).split(counts))


class PointRendMasks(MaskPart):
    """Masks of PointRend: coarse ones, refined point by point.

    Args:
        coarse_head: sees a box whole.
        point_head: sees a point.
        settings: numbers of training and subdivision, and of levels that are read.
        whole_pixels: boxes are rows and columns of whole pixels, as in mmdetection 1.x.

    Raises:
        ValueError: the first map of points does not double into masks of `output_size`.
    """

    loss_names = ("mask_coarse", "mask_point")

    def __init__(
        self,
        coarse_head: CoarseMaskHead,
        point_head: PointHead,
        settings: PointSettings,
        *,
        whole_pixels: bool = False,
    ) -> None:
        super().__init__()
        self.coarse_head = coarse_head
        self.point_head = point_head
        self.settings = settings
        self.whole_pixels = whole_pixels
        # Now, not after a training.
        num_subdivision_steps(settings.start_size or coarse_head.mask_size, settings.output_size)

    def reader(self, features: Features) -> PointReader:
        """Of the levels that both heads see.

        Raises:
            ValueError: there are fewer levels.
        """
        num_levels = self.settings.num_levels
        if len(features.levels) < num_levels:
            raise ValueError(
                f"the mask heads read {num_levels} levels; got {len(features.levels)}; let the "
                "pyramid make more, or lower points.num_levels"
            )
        levels, strides = features.levels[:num_levels], features.strides[:num_levels]
        return PointReader.of_levels(levels, strides)

    def losses(self, sampled: SampledBatch) -> dict[str, LossSum]:
        positive = positive_rois(sampled.rois, sampled.targets)
        if self.settings.train_on_predicted_boxes:
            positive = on_predicted_boxes(positive, sampled)
        return point_mask_losses(
            self.coarse_head,
            self.point_head,
            self.reader(sampled.features),
            positive,
            sampled.targets,
            self.settings,
            sampled.generators,
            whole_pixels=self.whole_pixels,
        )

    def add_masks(
        self, features: Features, instances: Sequence[Instances], padded_size: tuple[int, int]
    ) -> list[Instances]:
        logits = point_mask_logits(
            self.coarse_head,
            self.point_head,
            self.reader(features),
            instances,
            self.settings,
            whole_pixels=self.whole_pixels,
        )
        with_masks = []
        for found, image_logits in zip(instances, logits, strict=True):
            boxes = found.require_boxes()
            masks: BoxMasks = BoxMasks(image_logits, boxes)
            if self.whole_pixels:
                masks = PixelBoxMasks(image_logits, last_pixels(boxes))
            with_masks.append(replace(found, masks=masks))
        return with_masks


def on_predicted_boxes(positive: PositiveRoIs, sampled: SampledBatch) -> PositiveRoIs:
    """The same objects on the boxes that the box branch regresses for them; no gradient."""
    sizes = [
        size
        for size, rois in zip(sampled.batch.image_sizes, sampled.rois, strict=True)
        for _ in range(rois.num_objects)
    ]
    deltas = sampled.box_output.box_deltas.detach()[sampled.objects]
    boxes = regressed_boxes(positive.boxes, deltas, positive.thing_indices, sizes, sampled.box)
    return replace(positive, boxes=boxes)
