"""Implicit PointRend: each box gets a point network of its own, whose weights are predicted.

Letters: C channels that are read, K classes, R boxes, P points of a box, W weights of one point
network.
Source: Pointly-Supervised Instance Segmentation (CVPR 2022), section 4; details of the released
code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.models.instances.coarse_masks import BoxVectorHead, box_grid_features
from seamless_pr.models.instances.point_rend import on_predicted_boxes
from seamless_pr.models.instances.positive_rois import PositiveRoIs, positive_rois
from seamless_pr.models.instances.two_stage import MaskPart, SampledBatch
from seamless_pr.ops.masks import BoxMasks
from seamless_pr.ops.points import (
    PointReader,
    mask_uncertainty,
    points_to_image,
    regular_grid,
    sample_membership,
)
from seamless_pr.ops.precision import at_least_single, without_autocast
from seamless_pr.ops.refinement import num_subdivision_steps, refine, uniform_drawer
from seamless_pr.ops.vectors import image_indices as indices_of_images
from seamless_pr.structures.features import Features
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import ImplicitPointSettings

_HALF_POSITION_CHANNELS = 128


class ImplicitPointHead(nn.Module):
    """The form of the point networks; their weights come from outside.

    A point is described by random Fourier features of its place in the box, then by what the
    levels say there. It passes `num_layers` layers of `hidden_channels` with ReLU, and a last one
    to K logits.

    `forward`: fine [R, P, C], point_coords [R, P, 2] and weights [R, W] -> logits [R, P, K]; with
    `classes` [R] only those of one class per row, [R, P, 1]. A row of weights holds the matrices
    of all layers, [outputs, inputs] each, then all biases.

    Args:
        in_channels: C.
        num_classes: K.
    """

    frequencies: Tensor

    def __init__(
        self, in_channels: int, num_classes: int, *, hidden_channels: int = 256, num_layers: int = 3
    ) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(2, _HALF_POSITION_CHANNELS))
        inputs = [2 * _HALF_POSITION_CHANNELS + in_channels] + [hidden_channels] * num_layers
        outputs = [hidden_channels] * num_layers + [num_classes]
        self.layer_sizes = tuple(zip(outputs, inputs, strict=True))
        self.num_weights = sum(rows * columns + rows for rows, columns in self.layer_sizes)

    def forward(
        self, fine: Tensor, point_coords: Tensor, weights: Tensor, classes: Tensor | None = None
    ) -> Tensor:
        hidden = torch.cat([self.positions(point_coords).to(fine.dtype), fine], dim=-1)
        matrices, biases = self._layers(weights)
        if classes is not None:
            rows = torch.arange(len(classes), device=classes.device)
            matrices[-1] = matrices[-1][rows, classes][:, None]
            biases[-1] = biases[-1][rows, classes][:, None]
        for index, (matrix, bias) in enumerate(zip(matrices, biases, strict=True)):
            hidden = torch.baddbmm(bias[:, None].to(hidden.dtype), hidden, matrix.mT)
            if index < len(matrices) - 1:
                hidden = F.relu(hidden)
        return hidden

    def positions(self, point_coords: Tensor) -> Tensor:
        """Sines, then cosines, of random projections of (x, y) in [-1, 1]: [R, P, 256]."""
        frequencies = at_least_single(self.frequencies)
        places = (2 * point_coords - 1).to(frequencies)
        with without_autocast(point_coords.device):
            angles = 2 * math.pi * (places @ frequencies)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def _layers(self, weights: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        sizes = [rows * columns for rows, columns in self.layer_sizes]
        parts = weights.split(sizes + [rows for rows, _ in self.layer_sizes], dim=1)
        matrices = [part.unflatten(1, size) for part, size in zip(parts, self.layer_sizes)]
        return matrices, list(parts[len(sizes) :])


class ImplicitPointMasks(MaskPart):
    """Masks of Implicit PointRend.

    Args:
        weight_head: sees a box whole; predicts the W weights of its point network.
        point_head: the form of the point networks.
        settings: numbers of training and subdivision.

    Raises:
        ValueError: the first map of points does not double into masks of `output_size`.
    """

    loss_names = ("mask_point", "mask_weights")

    def __init__(
        self,
        weight_head: BoxVectorHead,
        point_head: ImplicitPointHead,
        settings: ImplicitPointSettings,
    ) -> None:
        super().__init__()
        self.weight_head = weight_head
        self.point_head = point_head
        self.settings = settings
        # Now, not after a training.
        num_subdivision_steps(settings.start_size, settings.output_size)

    def reader(self, features: Features) -> PointReader:
        """Of the levels that both heads see."""
        count = self.settings.num_levels
        return PointReader.of_levels(features.levels[:count], features.strides[:count])

    def point_weights(self, reader: PointReader, boxes: Tensor, image_indices: Tensor) -> Tensor:
        """[R, W] weights of the point network of each box."""
        size = self.weight_head.roi_size
        weights: Tensor = self.weight_head(box_grid_features(reader, boxes, image_indices, size))
        return weights

    def point_logits(
        self,
        reader: PointReader,
        weights: Tensor,
        point_coords: Tensor,
        boxes: Tensor,
        image_indices: Tensor,
        classes: Tensor,
    ) -> Tensor:
        """[R, P] logits of each box's class at points [R, P, 2] in [0, 1] of the boxes."""
        num_points = point_coords.shape[1]
        points = points_to_image(point_coords, boxes).flatten(0, 1)
        fine = reader.read(points, image_indices.repeat_interleave(num_points))
        fine = fine.unflatten(0, (len(boxes), num_points))
        logits: Tensor = self.point_head(fine, point_coords, weights, classes)
        return logits[..., 0]

    def losses(self, sampled: SampledBatch) -> dict[str, LossSum]:
        positive = positive_rois(sampled.rois, sampled.targets)
        if self.settings.train_on_predicted_boxes:
            positive = on_predicted_boxes(positive, sampled)
        reader = self.reader(sampled.features)
        draw = uniform_drawer(
            positive.rois_per_image(len(sampled.targets)),
            sampled.generators,
            positive.boxes.device,
        )
        coords = draw(self.settings.num_train_points)
        return self.losses_at(reader, positive, sampled.targets, coords)

    def losses_at(
        self,
        reader: PointReader,
        rois: PositiveRoIs,
        targets: Sequence[PanopticTarget],
        point_coords: Tensor,
    ) -> dict[str, LossSum]:
        """Losses `mask_point` (mean over boxes and points) and `mask_weights` (mean square).

        Args:
            reader: of the levels.
            rois: matched boxes.
            targets: one per image.
            point_coords: [R, P, 2] in [0, 1] of the boxes.
        """
        weights = self.point_weights(reader, rois.boxes, rois.image_indices)
        logits = at_least_single(
            self.point_logits(
                reader, weights, point_coords, rois.boxes, rois.image_indices, rois.thing_indices
            )
        )
        labels = sample_membership(
            [target.id_map for target in targets],
            rois.segment_ids,
            points_to_image(point_coords, rois.boxes),
            rois.image_indices,
        )
        total = F.binary_cross_entropy_with_logits(logits, labels.to(logits), reduction="sum")
        return {
            "mask_point": LossSum(total, logits.numel()),
            "mask_weights": LossSum(at_least_single(weights).square().sum(), weights.numel()),
        }

    @torch.no_grad()
    def add_masks(
        self, features: Features, instances: Sequence[Instances], padded_size: tuple[int, int]
    ) -> list[Instances]:
        reader, counts = self.reader(features), [len(found) for found in instances]
        boxes = torch.cat([found.require_boxes() for found in instances])
        classes = torch.cat([found.thing_indices for found in instances])
        images = indices_of_images(counts, boxes.device)
        weights = self.point_weights(reader, boxes, images)

        def predict(coords: Tensor) -> Tensor:
            return self.point_logits(reader, weights, coords, boxes, images, classes)[..., None]

        start, settings = self.settings.start_size, self.settings
        grid = regular_grid(start, boxes.device).expand(len(boxes), -1, -1)
        refined = refine(
            predict(grid).view(len(boxes), 1, start, start),
            predict,
            lambda maps: mask_uncertainty(maps[:, 0]),
            settings.subdivision_points,
            num_subdivision_steps(start, settings.output_size),
        )
        per_image = at_least_single(refined[:, 0]).split(counts)
        return [
            replace(found, masks=BoxMasks(logits, found.require_boxes()))
            for found, logits in zip(instances, per_image, strict=True)
        ]
