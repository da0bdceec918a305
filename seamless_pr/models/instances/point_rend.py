"""PointRend: one refinement loop and one gathering of point features, and the mask branch on them.

Letters: N images, C channels of P2, K classes, R boxes, P points of a row, M all points of a call.
Sources: PointRend (CVPR 2020), sections 3, 4; where the released code differs, it is the default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.models.instances.mask_rcnn import PositiveRoIs
from seamless_pr.models.point_heads import CoarseMaskHead, PointHead
from seamless_pr.ops.masks import aligned_mask_targets
from seamless_pr.ops.points import (
    mask_uncertainty,
    points_to_image,
    regular_grid,
    sample_membership,
    sample_points,
    uncertain_coords,
)
from seamless_pr.structures.detections import Detections
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import PointSettings


def refine(
    logits: Tensor,
    predict: Callable[[Tensor], Tensor],
    uncertainty: Callable[[Tensor], Tensor],
    num_points: int,
    num_steps: int,
) -> Tensor:
    """Doubles the resolution, then recomputes the least certain points (PointRend, section 3.1).

    Args:
        logits: [R, K, h, w].
        predict: [R, P, 2] points, (x, y) in [0, 1] of the map -> [R, P, K] logits.
        uncertainty: [R, K, h, w] -> [R, h, w], larger = less sure.
        num_points: N, points recomputed in each step; all of them where the map has fewer.
        num_steps: doublings.

    Returns:
        [R, K, h * 2^steps, w * 2^steps].
    """
    for _ in range(num_steps):
        logits = F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
        logits = logits.contiguous()
        height, width = logits.shape[-2:]
        if len(logits) == 0:
            continue
        scores = uncertainty(logits).flatten(1)
        indices = scores.topk(min(num_points, scores.shape[1]), dim=1, sorted=False).indices
        column, row = indices % width, indices.div(width, rounding_mode="floor")
        coords = torch.stack([(column + 0.5) / width, (row + 0.5) / height], dim=-1)
        values = predict(coords).transpose(1, 2).to(logits.dtype)
        logits.flatten(2).scatter_(2, indices[:, None].expand_as(values), values)
    return logits


def gather_point_features(
    fine_map: Tensor,
    coarse_logits: Tensor,
    point_coords: Tensor,
    boxes: Tensor | None,
    image_indices: Tensor,
    padded_size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """What the point head sees, alike in training and inference, for boxes and whole images.

    Args:
        fine_map: [N, C, H, W] finest FPN level.
        coarse_logits: [R, K, h, w], one map per row.
        point_coords: [R, P, 2], (x, y) in [0, 1] of the row's box, or of the padded image without
            boxes.
        boxes: [R, 4] xyxy in pixels of the padded image; None: a row is a whole image.
        image_indices: [R] int64, the image of each row.
        padded_size: (height, width) of the network input.

    Returns:
        fine [R * P, C] and coarse [R * P, K].
    """
    num_rows, num_points, _ = point_coords.shape
    image_coords = point_coords
    if boxes is not None:
        size = boxes.new_tensor([padded_size[1], padded_size[0]])
        image_coords = points_to_image(point_coords, boxes) / size
    rows = torch.arange(num_rows, device=point_coords.device).repeat_interleave(num_points)
    fine = sample_points(
        fine_map, image_coords.flatten(0, 1), image_indices.repeat_interleave(num_points)
    )
    coarse = sample_points(coarse_logits, point_coords.flatten(0, 1), rows)
    return fine, coarse


# Instance masks


def coarse_mask_logits(
    head: CoarseMaskHead,
    fine_map: Tensor,
    boxes: Tensor,
    image_indices: Tensor,
    padded_size: tuple[int, int],
) -> Tensor:
    """The coarse head on a grid of P2 points per box: [R, K, mask_size, mask_size] logits."""
    grid = regular_grid(head.roi_size, boxes.device)
    size = boxes.new_tensor([padded_size[1], padded_size[0]])
    points = points_to_image(grid.expand(len(boxes), -1, -1), boxes) / size
    features = sample_points(
        fine_map, points.flatten(0, 1), image_indices.repeat_interleave(len(grid))
    )
    grid_features = features.unflatten(0, (len(boxes), head.roi_size, head.roi_size))
    return head(grid_features.permute(0, 3, 1, 2))


def point_mask_losses(
    coarse_head: CoarseMaskHead,
    point_head: PointHead,
    fine_map: Tensor,
    rois: PositiveRoIs,
    targets: Sequence[PanopticTarget],
    padded_size: tuple[int, int],
    settings: PointSettings,
    generators: Sequence[torch.Generator],
) -> dict[str, LossSum]:
    """Losses `mask_coarse` (mean over boxes, cells) and `mask_point` (mean over boxes, points).

    Binary cross-entropy on the object's class. Coarse logits are not detached: the point loss
    trains the coarse head as well (released code).
    """
    num_rois = len(rois)
    coarse_logits = coarse_mask_logits(
        coarse_head, fine_map, rois.boxes, rois.image_indices, padded_size
    ).float()
    own_coarse = _own_class(coarse_logits, rois.thing_indices)
    coarse_targets = _per_image_targets(rois, targets, coarse_head.mask_size)
    coarse_total = F.binary_cross_entropy_with_logits(own_coarse, coarse_targets, reduction="sum")

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
        fine_map, coarse_logits, coords, rois.boxes, rois.image_indices, padded_size
    )
    point_logits = point_head(fine, coarse).float().unflatten(0, tuple(coords.shape[:2]))
    own_points = point_logits.gather(
        2, rois.thing_indices[:, None, None].expand(-1, coords.shape[1], 1)
    ).squeeze(2)
    point_targets = sample_membership(
        [target.id_map for target in targets],
        rois.segment_ids,
        points_to_image(coords, rois.boxes),
        rois.image_indices,
    )
    point_total = F.binary_cross_entropy_with_logits(own_points, point_targets, reduction="sum")
    return {
        "mask_coarse": LossSum(coarse_total, own_coarse.numel()),
        "mask_point": LossSum(point_total, own_points.numel()),
    }


def _per_image_targets(rois: PositiveRoIs, targets: Sequence[PanopticTarget], size: int) -> Tensor:
    rows = rois.boxes.new_zeros(len(rois), size, size)
    for image_index, target in enumerate(targets):
        row = torch.nonzero(rois.image_indices == image_index).flatten()
        rows[row] = aligned_mask_targets(
            target.id_map, rois.segment_ids[row], rois.boxes[row], rois.segment_boxes[row], size
        )
    return rows


def _own_class(logits: Tensor, thing_indices: Tensor) -> Tensor:
    """[R, K, h, w] -> [R, h, w] of each row's class."""
    return logits[torch.arange(len(logits), device=logits.device), thing_indices]


def _grid_coords(num_points: int, num_rows: int, device: torch.device) -> Tensor:
    """The same regular grid for every row: [R, P, 2]."""
    side = math.isqrt(num_points)
    if side * side != num_points:
        raise ValueError(
            f"a regular grid needs a square number of points; got {num_points}; "
            f"use {side * side} or {(side + 1) ** 2}"
        )
    return regular_grid(side, device).expand(num_rows, -1, -1)


def uniform_drawer(
    rows_per_image: Sequence[int], generators: Sequence[torch.Generator], device: torch.device
) -> Callable[[int], Tensor]:
    """Uniform points for each row, drawn from the generator of the row's image."""

    def draw(num_points: int) -> Tensor:
        drawn = [
            torch.rand(num_rows, num_points, 2, generator=generator)
            for num_rows, generator in zip(rows_per_image, generators)
        ]
        return torch.cat(drawn).to(device)

    return draw


def num_subdivision_steps(start: int, end: int) -> int:
    """How often `start` must double to reach `end`.

    Raises:
        ValueError: `end` is not `start` times a power of two.
    """
    steps = round(math.log2(end / start))
    if steps < 0 or start * 2**steps != end:
        raise ValueError(
            f"a {start}-cell start cannot double into output_size {end}; "
            f"use {start} times a power of two"
        )
    return steps


@torch.no_grad()
def point_mask_logits(
    coarse_head: CoarseMaskHead,
    point_head: PointHead,
    fine_map: Tensor,
    detections: Sequence[Detections],
    padded_size: tuple[int, int],
    settings: PointSettings,
) -> list[Tensor]:
    """Refined mask logits per image, for the predicted class: [R, output_size, output_size].

    Only the predicted class is carried through the subdivision; the other classes' maps never
    influence it.
    """
    counts = [len(found) for found in detections]
    boxes = torch.cat([found.boxes for found in detections])
    thing_indices = torch.cat([found.thing_indices for found in detections])
    image_indices = torch.arange(len(counts), device=boxes.device).repeat_interleave(
        torch.tensor(counts, device=boxes.device)
    )
    coarse_logits = coarse_mask_logits(coarse_head, fine_map, boxes, image_indices, padded_size)

    def predict(coords: Tensor) -> Tensor:
        fine, coarse = gather_point_features(
            fine_map, coarse_logits, coords, boxes, image_indices, padded_size
        )
        logits = point_head(fine, coarse).unflatten(0, (len(boxes), coords.shape[1]))
        return logits.gather(2, thing_indices[:, None, None].expand(-1, coords.shape[1], 1))

    start = settings.start_size
    if start:
        grid = regular_grid(start, boxes.device).expand(len(boxes), -1, -1)
        logits = predict(grid).view(len(boxes), 1, start, start)
    else:
        start = coarse_head.mask_size
        logits = _own_class(coarse_logits, thing_indices)[:, None]
    steps = num_subdivision_steps(start, settings.output_size)
    refined = refine(
        logits,
        predict,
        lambda maps: mask_uncertainty(maps[:, 0]),
        settings.subdivision_points,
        steps,
    )
    return list(refined[:, 0].float().split(counts))
