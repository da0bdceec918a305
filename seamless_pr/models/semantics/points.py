"""PointRend in the semantic branch: the loss of points, and subdivision to the network input.

Letters: N images, K classes, h, w size of the logits.
Sources: PointRend (CVPR 2020), sections 3, 5; where the released code differs, it is the default.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.layers.point_head import PointHead
from seamless_pr.models.semantics.branch import HeadSemantics
from seamless_pr.models.semantics.pixels import semantic_labels, semantic_loss
from seamless_pr.ops.points import (
    class_uncertainty,
    sample_labels,
    sample_points,
    sample_windows,
    uncertain_coords,
)
from seamless_pr.ops.precision import at_least_single
from seamless_pr.ops.refinement import refine, uniform_drawer
from seamless_pr.ops.vectors import vector
from seamless_pr.structures.features import Features
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import SemanticLossSettings, SemanticPointSettings


class PointSemantics(HeadSemantics):
    """A semantic head whose logits PointRend refines to the size of the network input.

    Args:
        head: levels, finest first -> coarse logits [N, K, h, w].
        point_head: reads the finest level.
        settings: numbers of the loss of pixels.
        points: numbers of the loss of points and of subdivision.
    """

    loss_names = ("semantic", "semantic_point")

    def __init__(
        self,
        head: nn.Module,
        point_head: PointHead,
        settings: SemanticLossSettings,
        points: SemanticPointSettings,
    ) -> None:
        super().__init__()
        self.head = head
        self.point_head = point_head
        self.settings = settings
        self.points = points
        self.merged_things = settings.things == "merged"

    def losses(
        self,
        features: Features,
        batch: ImageBatch,
        targets: Sequence[PanopticTarget],
        generators: Sequence[torch.Generator],
    ) -> dict[str, LossSum]:
        logits = self.coarse_logits(features)
        losses = semantic_loss(logits, targets, batch.image_sizes, batch.padded_size, self.settings)
        labels = [semantic_labels(target, self.merged_things) for target in targets]
        return losses | semantic_point_loss(
            self.point_head,
            features.finest,
            logits,
            labels,
            batch.padded_size,
            self.points,
            generators,
            features.images,
        )

    def logits(self, features: Features, padded_size: tuple[int, int]) -> Tensor:
        logits = self.coarse_logits(features)
        return refine_semantic_logits(
            self.point_head, features.finest, logits, padded_size, self.points, features.images
        )


def semantic_point_loss(
    point_head: PointHead,
    fine_map: Tensor,
    coarse_logits: Tensor,
    labels: Sequence[Tensor],
    padded_size: tuple[int, int],
    settings: SemanticPointSettings,
    generators: Sequence[torch.Generator],
    pixels: Tensor | None = None,
) -> dict[str, LossSum]:
    """Loss `semantic_point`: cross-entropy, mean over the points that are not void.

    With `hard_point_fraction` below 1 only over the hardest of them, image by image.

    Args:
        point_head: [points, C] and [points, K] -> [points, K].
        fine_map: [N, C, h, w], the finest level.
        coarse_logits: [N, K, h', w'] of the padded images.
        labels: [H_i, W_i] class of each pixel of each image, with the ignore value.
        padded_size: (height, width) of the batch.
        settings: numbers of points.
        generators: on the CPU, one per image.
        pixels: [N, 3, H, W] uint8, for points that read them.
    """
    num_images = len(labels)
    num_points = settings.num_train_points or stride_16_cells(padded_size)
    coarse_logits = at_least_single(coarse_logits)
    images = torch.arange(num_images, device=coarse_logits.device)

    def sample_uncertainty(coords: Tensor) -> Tensor:
        values = sample_points(
            coarse_logits, coords.flatten(0, 1), images.repeat_interleave(coords.shape[1])
        )
        return _uncertainty(values, settings).view(num_images, -1)

    coords = uncertain_coords(
        sample_uncertainty,
        num_images,
        num_points,
        settings.oversample_ratio,
        settings.importance_fraction,
        uniform_drawer([1] * num_images, generators, coarse_logits.device),
    )
    fine, coarse = _read(fine_map, coarse_logits, coords, settings, pixels)
    if not settings.shared_gradient:
        fine, coarse = fine.detach(), coarse.detach()
    logits = at_least_single(point_head(fine, coarse))
    point_labels = torch.stack(
        [
            _padded_labels(image_labels, points, padded_size)
            for image_labels, points in zip(labels, coords, strict=True)
        ]
    )
    losses = F.cross_entropy(
        logits, point_labels.flatten(), ignore_index=LabelSpace.IGNORE_TRAIN_ID, reduction="none"
    )
    num_valid = (point_labels != LabelSpace.IGNORE_TRAIN_ID).sum(dim=1, keepdim=True)
    num_hard = (num_valid * settings.hard_point_fraction).ceil()
    # Void points cost nothing, so they come last.
    hardest_first = losses.view_as(point_labels).sort(dim=1, descending=True).values
    is_hard = torch.arange(point_labels.shape[1], device=point_labels.device) < num_hard
    total = (hardest_first * is_hard).sum()
    return {"semantic_point": LossSum(total, int(num_hard.sum()))}


def stride_16_cells(size: tuple[int, int]) -> int:
    """The paper's number of points for an image of (height, width) pixels (section 5)."""
    return math.ceil(size[0] / 16) * math.ceil(size[1] / 16)


def _padded_labels(labels: Tensor, points: Tensor, padded_size: tuple[int, int]) -> Tensor:
    """Classes of an [H, W] map at points of the padded image; padding is ignored."""
    height, width = labels.shape
    scale = vector([padded_size[1] / width, padded_size[0] / height], points)
    inside = (points * scale < 1).all(dim=1)
    found = sample_labels(labels, points * scale)
    return torch.where(inside, found, LabelSpace.IGNORE_TRAIN_ID)


def _uncertainty(logits: Tensor, settings: SemanticPointSettings) -> Tensor:
    """Of [N, K, ...], larger = less sure."""
    values = logits.softmax(1) if settings.uncertainty == "probabilities" else logits
    return class_uncertainty(values, dim=1)


def _read(
    fine_map: Tensor,
    coarse_logits: Tensor,
    coords: Tensor,
    settings: SemanticPointSettings,
    pixels: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """What the point head sees of points [N, P, 2], (x, y) in [0, 1] of both maps.

    Returns:
        fine [N * P, C] and coarse [N * P, K].
    """
    num_images, num_points, _ = coords.shape
    rows = torch.arange(num_images, device=coords.device).repeat_interleave(num_points)
    points = coords.flatten(0, 1)
    fine, coarse = (sample_points(maps, points, rows) for maps in (fine_map, coarse_logits))
    if settings.pixel_window:
        if pixels is None:
            raise ValueError("semantic points with a pixel_window need the pixels of the batch")
        colors = sample_windows(pixels, points, rows, settings.pixel_window)
        fine = torch.cat([fine, colors.to(fine.dtype)], dim=1)
    return fine, coarse


@torch.no_grad()
def refine_semantic_logits(
    point_head: PointHead,
    fine_map: Tensor,
    coarse_logits: Tensor,
    padded_size: tuple[int, int],
    settings: SemanticPointSettings,
    pixels: Tensor | None = None,
) -> Tensor:
    """Subdivides logits to the input: from stride 4, [N, K, h, w] -> [N, K, 4 h, 4 w] in two steps.

    Coarser logits take as many more steps as the resolution doubles more often.
    """
    num_images = len(coarse_logits)
    num_steps = round(math.log2(padded_size[1] / coarse_logits.shape[-1]))

    def predict(coords: Tensor) -> Tensor:
        fine, coarse = _read(fine_map, coarse_logits, coords, settings, pixels)
        logits = point_head(fine, coarse)
        if settings.only_where_surer:
            is_surer = logits.softmax(1).amax(1) >= coarse.softmax(1).amax(1)
            logits = torch.where(is_surer[:, None], logits, coarse)
        return logits.unflatten(0, (num_images, coords.shape[1]))

    return refine(
        coarse_logits,
        predict,
        lambda maps: _uncertainty(maps, settings),
        settings.subdivision_points or stride_16_cells(padded_size),
        num_steps,
    )
