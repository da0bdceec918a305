"""Mask scoring: how well a predicted mask will match its object.

Letters: R boxes, C channels, T thing classes, S side of the mask RoI; masks have side 2 S.
Source: Mask Scoring R-CNN (CVPR 2019); details of mmdetection.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.models.instances.positive_rois import PositiveRoIs
from seamless_pr.ops.precision import at_least_single
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget

# The published code holds logits, not probabilities, against the threshold of probabilities.
BINARY_LOGIT = 0.5
_EPSILON = 1e-7


class MaskIoUHead(nn.Module):
    """IoU of a mask with its object, per class.

    forward: mask features [R, C, S, S] and logits [R, 2 S, 2 S] of one mask per box -> [R, T].

    Args:
        in_channels: C.
        num_things: T.
        roi_size: S.
        num_convs, conv_channels: 3x3 convolutions, the last of stride 2.
        num_layers, hidden_channels: fully connected layers.
    """

    def __init__(
        self,
        in_channels: int,
        num_things: int,
        roi_size: int,
        *,
        num_convs: int = 4,
        conv_channels: int = 256,
        num_layers: int = 2,
        hidden_channels: int = 1024,
    ) -> None:
        super().__init__()
        inputs = [in_channels + 1] + [conv_channels] * (num_convs - 1)
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, conv_channels, 3, stride=1 + (index == num_convs - 1), padding=1)
            for index, channels in enumerate(inputs)
        )
        side = (roi_size + 1) // 2
        widths = [conv_channels * side**2] + [hidden_channels] * (num_layers - 1)
        self.fcs = nn.ModuleList(nn.Linear(width, hidden_channels) for width in widths)
        self.predictor = nn.Linear(hidden_channels, num_things)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He's weights in convolutions, Xavier's in the layers; predictions start near 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_uniform_(module.weight, a=1)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.predictor.weight, std=0.01)

    def forward(self, roi_features: Tensor, mask_logits: Tensor) -> Tensor:
        pooled = F.max_pool2d(mask_logits.sigmoid()[:, None], 2)
        hidden = torch.cat([roi_features, pooled.to(roi_features.dtype)], dim=1)
        for conv in self.convs:
            hidden = F.relu(conv(hidden))
        hidden = hidden.flatten(1)
        for layer in self.fcs:
            hidden = F.relu(layer(hidden))
        result: Tensor = self.predictor(hidden)
        return result


def mask_iou_loss(
    predicted: Tensor,
    mask_logits: Tensor,
    mask_targets: Tensor,
    rois: PositiveRoIs,
    targets: Sequence[PanopticTarget],
    *,
    whole_pixels: bool = False,
) -> dict[str, LossSum]:
    """Loss `mask_iou`: squared error of the own class's IoU, mean over masks that have any.

    Args:
        predicted: [R, T] of `MaskIoUHead`.
        mask_logits: [R, 2 S, 2 S] of the own class.
        mask_targets: [R, 2 S, 2 S] in {0, 1}.
        rois: the boxes of the masks.
        targets: one per image.
        whole_pixels: boxes end at the index of their last pixel.
    """
    shares = visible_shares(rois, targets, whole_pixels=whole_pixels)
    wanted = mask_iou_targets(mask_logits.detach(), mask_targets, shares)
    rows = torch.arange(len(predicted), device=predicted.device)
    own = at_least_single(predicted[rows, rois.thing_indices])
    # Both empty: 0 / 0, which is not above 0 either.
    has_any = wanted > 0
    errors = (own[has_any] - wanted[has_any]).square().sum()
    return {"mask_iou": LossSum(errors + own.sum() * 0, int(has_any.sum()))}


def mask_iou_targets(mask_logits: Tensor, mask_targets: Tensor, shares: Tensor) -> Tensor:
    """[R] IoU of predicted masks with their whole objects, also outside of the box.

    Args:
        mask_logits: [R, M, M].
        mask_targets: [R, M, M] in {0, 1}, the objects inside the boxes.
        shares: [R], how much of each object is inside its box.
    """
    predicted = (mask_logits > BINARY_LOGIT).to(mask_targets)
    common = (predicted * mask_targets).sum((1, 2))
    whole = mask_targets.sum((1, 2)) / (shares + _EPSILON)
    return common / (predicted.sum((1, 2)) + whole - common)


def visible_shares(
    rois: PositiveRoIs, targets: Sequence[PanopticTarget], *, whole_pixels: bool = False
) -> Tensor:
    """[R] share of each object's pixels that are inside its box, cut off to integers."""
    shares = rois.boxes.new_zeros(len(rois))
    corners = rois.boxes.int().tolist()
    for row, (x0, y0, x1, y1) in enumerate(corners):
        id_map = targets[int(rois.image_indices[row])].id_map
        mask = id_map == rois.segment_ids[row]
        if whole_pixels:
            inside = mask[y0 : y1 + 1, x0 : x1 + 1]
        else:
            height, width = id_map.shape
            x0, x1 = (min(max(x, 0), width) for x in (x0, x1))
            y0, y1 = (min(max(y, 0), height) for y in (y0, y1))
            inside = mask[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
        shares[row] = inside.sum() / (mask.sum() + _EPSILON)
    return shares
