"""The masks of PointRend: the coarse head, its losses, and subdivision of the masks of boxes.

Letters: C channels of P2, K classes, R boxes, P points of a box.
Source: PointRend (CVPR 2020), sections 3 and 4; where the released code differs, it is the default.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.layers.point_head import PointHead
from seamless_pr.models.instances.box_branch import regressed_boxes
from seamless_pr.models.instances.two_stage import (
    MaskPart,
    PositiveRoIs,
    SampledBatch,
    positive_rois,
)
from seamless_pr.ops.masks import BoxMasks, aligned_mask_targets
from seamless_pr.ops.points import (
    mask_uncertainty,
    points_to_image,
    regular_grid,
    sample_membership,
    sample_points,
    uncertain_coords,
)
from seamless_pr.ops.refinement import (
    gather_point_features,
    num_subdivision_steps,
    refine,
    uniform_drawer,
)
from seamless_pr.structures.features import Features
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import PointSettings


class CoarseMaskHead(nn.Module):
    """Class-specific 7x7 mask logits of a box, seen whole.

    forward: [R, C, roi_size, roi_size] features on a regular grid of P2 points -> logits
    [R, K, roi_size / 2, roi_size / 2].
    """

    def __init__(
        self, in_channels: int, num_things: int, *, hidden_channels: int = 1024, roi_size: int = 14
    ) -> None:
        super().__init__()
        if roi_size % 2:
            raise ValueError(f"roi_size must be even (it is halved once); got {roi_size}")
        self.roi_size = roi_size
        self.mask_size = roi_size // 2
        self.num_things = num_things
        self.reduce = nn.Conv2d(in_channels, in_channels, 2, stride=2)
        self.fc1 = nn.Linear(in_channels * self.mask_size**2, hidden_channels)
        self.fc2 = nn.Linear(hidden_channels, hidden_channels)
        self.prediction = nn.Linear(hidden_channels, num_things * self.mask_size**2)
        nn.init.kaiming_normal_(self.reduce.weight, mode="fan_out", nonlinearity="relu")
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.normal_(self.prediction.weight, std=0.001)
        for module in (self.reduce, self.fc1, self.fc2, self.prediction):
            assert module.bias is not None
            nn.init.zeros_(module.bias)

    def forward(self, roi_features: Tensor) -> Tensor:
        hidden = F.relu(self.reduce(roi_features)).flatten(1)
        hidden = F.relu(self.fc2(F.relu(self.fc1(hidden))))
        return self.prediction(hidden).unflatten(
            1, (self.num_things, self.mask_size, self.mask_size)
        )


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
    """The same regular grid of a square number of points for every row: [R, P, 2]."""
    return regular_grid(math.isqrt(num_points), device).expand(num_rows, -1, -1)


@torch.no_grad()
def point_mask_logits(
    coarse_head: CoarseMaskHead,
    point_head: PointHead,
    fine_map: Tensor,
    instances: Sequence[Instances],
    padded_size: tuple[int, int],
    settings: PointSettings,
) -> list[Tensor]:
    """Refined mask logits per image, for the predicted class: [R, output_size, output_size].

    Only the predicted class is carried through the subdivision; the other classes' maps never
    influence it.
    """
    counts = [len(found) for found in instances]
    boxes = torch.cat([found.require_boxes() for found in instances])
    thing_indices = torch.cat([found.thing_indices for found in instances])
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


class PointRendMasks(MaskPart):
    """Masks of PointRend: coarse ones, refined point by point.

    Args:
        coarse_head: sees a box whole.
        point_head: sees a point; reads the finest level.
        settings: numbers of training and subdivision.
    """

    loss_names = ("mask_coarse", "mask_point")

    def __init__(
        self, coarse_head: CoarseMaskHead, point_head: PointHead, settings: PointSettings
    ) -> None:
        super().__init__()
        self.coarse_head = coarse_head
        self.point_head = point_head
        self.settings = settings

    def losses(self, sampled: SampledBatch) -> dict[str, LossSum]:
        positive = positive_rois(sampled.rois, sampled.targets)
        if self.settings.train_on_predicted_boxes:
            positive = _on_predicted_boxes(positive, sampled)
        return point_mask_losses(
            self.coarse_head,
            self.point_head,
            sampled.features.finest,
            positive,
            sampled.targets,
            sampled.batch.padded_size,
            self.settings,
            sampled.generators,
        )

    def add_masks(
        self, features: Features, instances: Sequence[Instances], padded_size: tuple[int, int]
    ) -> list[Instances]:
        logits = point_mask_logits(
            self.coarse_head,
            self.point_head,
            features.finest,
            instances,
            padded_size,
            self.settings,
        )
        return [
            replace(found, masks=BoxMasks(image_logits, found.require_boxes()))
            for found, image_logits in zip(instances, logits, strict=True)
        ]


def _on_predicted_boxes(positive: PositiveRoIs, sampled: SampledBatch) -> PositiveRoIs:
    """The same objects on the boxes that the box branch regresses for them; no gradient."""
    sizes = [sampled.batch.image_sizes[index] for index in positive.image_indices.tolist()]
    deltas = sampled.box_output.box_deltas.detach()[sampled.is_object]
    boxes = regressed_boxes(positive.boxes, deltas, positive.thing_indices, sizes, sampled.box)
    return replace(positive, boxes=boxes)
