"""Mask branch: boxes that get a mask loss, the 4-convolution head, its loss and its inference.

Letters: R boxes, C channels, T thing classes, M mask side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.layers.abn import NormActFactory
from seamless_pr.layers.conv_norm_act import (
    ConvNormAct,
    init_before_activation,
    init_predictor,
)
from seamless_pr.models.instances.box_branch import SampledRoIs
from seamless_pr.ops.masks import nearest_mask_targets
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget

_PREDICTOR_GAIN = 0.01


@dataclass(frozen=True)
class PositiveRoIs:
    """Boxes of a batch that were matched to an object.

    Attributes:
        boxes: [R, 4] xyxy in pixels of the network input, in image order.
        image_indices: [R] int64.
        thing_indices: [R] int64 class of the matched object.
        segment_ids: [R] int32, its id in the image's id map.
        segment_boxes: [R, 4] its extent.
    """

    boxes: Tensor
    image_indices: Tensor
    thing_indices: Tensor
    segment_ids: Tensor
    segment_boxes: Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    def rois_per_image(self, num_images: int) -> list[int]:
        return torch.bincount(self.image_indices, minlength=num_images).tolist()


def positive_rois(
    sampled: Sequence[SampledRoIs], targets: Sequence[PanopticTarget]
) -> PositiveRoIs:
    """Collects the matched RoIs of all images."""
    boxes, images, things, ids, extents = [], [], [], [], []
    for image_index, (rois, target) in enumerate(zip(sampled, targets, strict=True)):
        positive = rois.matched_segment >= 0
        segment = rois.matched_segment[positive]
        boxes.append(rois.boxes[positive])
        images.append(torch.full_like(segment, image_index))
        things.append(target.label_space.thing_index(target.train_ids[segment]))
        ids.append((segment + 1).int())
        extents.append(target.boxes[segment])
    return PositiveRoIs(
        torch.cat(boxes), torch.cat(images), torch.cat(things), torch.cat(ids), torch.cat(extents)
    )


class MaskHead(nn.Module):
    """Four 3x3 convolutions, one upsampling, one mask per thing class (Seamless, figure 2).

    forward: [R, C, roi_size, roi_size] -> [R, T, 2 * roi_size, 2 * roi_size] logits; with `kept`
    [R] bool those of the kept boxes only.

    Args:
        in_channels: C.
        num_things: T.
        norm_act: makes norm and activation.
        hidden_channels: width of all layers.
        norm_rois: whose features it gets in training, "sampled" (all sampled RoIs count in its
            batch statistics, as in the released Seamless code) or "positive" (only those that get a
            mask loss: a quarter of the work).
    """

    def __init__(
        self,
        in_channels: int,
        num_things: int,
        norm_act: NormActFactory,
        *,
        hidden_channels: int = 256,
        norm_rois: str = "positive",
    ) -> None:
        super().__init__()
        self.norm_rois = norm_rois
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
    logits: Tensor, rois: PositiveRoIs, targets: Sequence[PanopticTarget]
) -> dict[str, LossSum]:
    """Loss `mask`: binary cross-entropy on the object's class, mean over cells that are not void.

    Args:
        logits: [R, T, M, M] for `rois`, in their order.
        rois: matched boxes.
        targets: one per image.
    """
    logits = logits.float()
    own = logits[torch.arange(len(logits), device=logits.device), rois.thing_indices]
    labels, valid = torch.zeros_like(own), torch.zeros_like(own, dtype=torch.bool)
    for image_index, target in enumerate(targets):
        row = torch.nonzero(rois.image_indices == image_index).flatten()
        labels[row], valid[row] = nearest_mask_targets(
            target.id_map, rois.segment_ids[row], rois.boxes[row], own.shape[-1]
        )
    total = F.binary_cross_entropy_with_logits(own, labels, weight=valid.float(), reduction="sum")
    return {"mask": LossSum(total, int(valid.sum()))}
