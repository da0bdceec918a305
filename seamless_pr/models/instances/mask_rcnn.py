"""The masks of Mask R-CNN: the 4-convolution head, its loss and its inference.

Letters: R boxes, C channels, T thing classes, M mask side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.layers.abn import NormActFactory
from seamless_pr.layers.conv_norm_act import (
    ConvNormAct,
    init_before_activation,
    init_predictor,
)
from seamless_pr.models.instances.positive_rois import (
    PositiveRoIs,
    positive_rois,
    targets_of_masks,
)
from seamless_pr.models.instances.two_stage import MaskPart, SampledBatch
from seamless_pr.ops.mask_targets import nearest_mask_targets
from seamless_pr.ops.masks import BoxMasks
from seamless_pr.ops.precision import at_least_single
from seamless_pr.ops.roi_sampling import pool_rois
from seamless_pr.structures.features import Features
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import RoISettings

_PREDICTOR_GAIN = 0.01


class MaskHead(nn.Module):
    """Four 3x3 convolutions, one upsampling, one mask per thing class (Seamless, figure 2).

    forward: [R, C, roi_size, roi_size] -> [R, T, 2 * roi_size, 2 * roi_size] logits; with `kept`,
    rows or [R] bool, those of the kept boxes only.

    Args:
        in_channels: C.
        num_things: T.
        norm_act: makes norm and activation.
        hidden_channels: width of all layers.
    """

    def __init__(
        self,
        in_channels: int,
        num_things: int,
        norm_act: NormActFactory,
        *,
        hidden_channels: int = 256,
    ) -> None:
        super().__init__()
        inputs = [in_channels] + [hidden_channels] * 3
        self.convs = nn.Sequential(
            *(ConvNormAct(channels, hidden_channels, 3, norm_act) for channels in inputs)
        )
        self.upsample = nn.ConvTranspose2d(
            hidden_channels, hidden_channels, 2, stride=2, bias=False
        )
        self.upsample_norm = norm_act(hidden_channels)
        self.predictor = nn.Conv2d(hidden_channels, num_things, 1)
        init_before_activation(self.upsample)
        init_predictor(self.predictor, _PREDICTOR_GAIN)

    def forward(self, roi_features: Tensor, kept: Tensor | None = None) -> Tensor:
        upsampled = self.upsample_norm(self.upsample(self.convs(roi_features)))
        logits: Tensor = self.predictor(upsampled if kept is None else upsampled[kept])
        return logits


def mask_loss(
    logits: Tensor,
    rois: PositiveRoIs,
    targets: Sequence[PanopticTarget],
    *,
    aligned: bool = False,
) -> dict[str, LossSum]:
    """Loss `mask`: binary cross-entropy on the object's class, mean over cells that are not void.

    Of "aligned" cells (see `ConvMaskSettings.targets`) none is void.

    Args:
        logits: [R, T, M, M] for `rois`, in their order.
        rois: matched boxes.
        targets: one per image.
    """
    logits = at_least_single(logits)
    own = logits[torch.arange(len(logits), device=logits.device), rois.thing_indices]
    if aligned:
        labels = targets_of_masks(rois, targets, own.shape[-1], whole_pixels=False)
        total = F.binary_cross_entropy_with_logits(own, labels.to(own), reduction="sum")
        return {"mask": LossSum(total, own.numel())}
    labels, valid = torch.zeros_like(own), torch.zeros_like(own, dtype=torch.bool)
    for image_index, target in enumerate(targets):
        row = torch.nonzero(rois.image_indices == image_index).flatten()
        found, valid[row] = nearest_mask_targets(
            target.id_map, rois.segment_ids[row], rois.boxes[row], own.shape[-1]
        )
        labels[row] = found.to(own)
    total = F.binary_cross_entropy_with_logits(own, labels, weight=valid.to(own), reduction="sum")
    return {"mask": LossSum(total, int(valid.sum()))}


class ConvMasks(MaskPart):
    """Masks of the 4-convolution head.

    Args:
        head: makes the logits.
        roi: how its features are pooled; where this is how the box head's were, they are shared.
        norm_rois: whose features pass the convolutions in training and count in their batch
            statistics: "sampled" (all sampled RoIs, as in the released Seamless code) or "positive"
            (only those that get a mask loss: a quarter of the work).
        aligned_targets: see `mask_loss`.
    """

    loss_names = ("mask",)

    def __init__(
        self,
        head: MaskHead,
        *,
        roi: RoISettings,
        norm_rois: str = "positive",
        aligned_targets: bool = False,
    ) -> None:
        super().__init__()
        self.head = head
        self.roi = roi
        self.norm_rois = norm_rois
        self.aligned_targets = aligned_targets

    def losses(self, sampled: SampledBatch) -> dict[str, LossSum]:
        positive = positive_rois(sampled.rois, sampled.targets)
        boxes: Sequence[Tensor] = [rois.boxes for rois in sampled.rois]
        kept: Tensor | None = sampled.objects
        roi_features = sampled.roi_features
        if self.norm_rois == "positive":
            boxes = positive.boxes.split(positive.rois_per_image(len(sampled.targets)))
            roi_features, kept = roi_features[kept], None
        if self.roi != sampled.roi:
            levels, padded_size = sampled.features.levels, sampled.batch.padded_size
            roi_features = pool_rois(levels, boxes, padded_size, self.roi)
        logits = self.head(roi_features, kept)
        return mask_loss(logits, positive, sampled.targets, aligned=self.aligned_targets)

    def add_masks(
        self, features: Features, instances: Sequence[Instances], padded_size: tuple[int, int]
    ) -> list[Instances]:
        boxes = [found.require_boxes() for found in instances]
        logits = at_least_single(
            self.head(pool_rois(features.levels, boxes, padded_size, self.roi))
        )
        things = torch.cat([found.thing_indices for found in instances])
        own = logits[torch.arange(len(logits), device=logits.device), things]
        per_image = own.split([len(found) for found in instances])
        return [
            replace(found, masks=BoxMasks(image_logits, image_boxes))
            for found, image_logits, image_boxes in zip(instances, per_image, boxes, strict=True)
        ]
