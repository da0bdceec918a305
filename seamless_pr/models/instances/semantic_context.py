"""Semantic context of a cascade: one map that box and mask features are added from (HTC).

Letters: N images, C channels, K classes.
Source: Hybrid Task Cascade (CVPR 2019), section 3.2; details of mmdetection.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.layers.abn import NormActFactory
from seamless_pr.layers.conv_norm_act import ConvNormAct
from seamless_pr.ops.precision import at_least_single
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget


class SemanticContext(nn.Module):
    """All levels at the size of one, summed, and convolved into an embedding and logits.

    `forward`: levels [N, C, h_l, w_l], finest first -> logits [N, K, h, w] and embedding
    [N, hidden_channels, h, w] at the size of level `level`. Levels are resized with aligned corners
    before their 1x1 convolution.

    Args:
        in_channels: C.
        num_classes: K.
        norm_act: such as bias and ReLU.
        num_levels: levels read.
        level: index of the level whose size is taken.
        hidden_channels: width.
        num_convs: 3x3 convolutions of the sum.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        norm_act: NormActFactory,
        *,
        num_levels: int = 5,
        level: int = 1,
        hidden_channels: int = 256,
        num_convs: int = 4,
    ) -> None:
        super().__init__()
        self.level = level
        self.lateral = nn.ModuleList(
            ConvNormAct(in_channels, hidden_channels, 1, norm_act) for _ in range(num_levels)
        )
        self.convs = nn.Sequential(
            *(ConvNormAct(hidden_channels, hidden_channels, 3, norm_act) for _ in range(num_convs))
        )
        self.embedding = ConvNormAct(hidden_channels, hidden_channels, 1, norm_act)
        self.predictor = nn.Conv2d(hidden_channels, num_classes, 1)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        size = levels[self.level].shape[-2:]
        summed: Tensor | None = None
        for index, (lateral, features) in enumerate(zip(self.lateral, levels)):
            if index != self.level:
                features = F.interpolate(features, size, mode="bilinear", align_corners=True)
            summed = lateral(features) if summed is None else summed + lateral(features)
        hidden = self.convs(summed)
        return self.predictor(hidden), self.embedding(hidden)


def context_loss(
    logits: Tensor, targets: Sequence[PanopticTarget], padded_size: tuple[int, int]
) -> dict[str, LossSum]:
    """Loss `context`: cross-entropy at the cells of the logits, mean over all of them.

    A cell has the class of its first pixel. Void cells and those of the padding cost nothing, but
    count, as in mmdetection.
    """
    stride = padded_size[0] // logits.shape[-2]
    ignored = LabelSpace.IGNORE_TRAIN_ID
    labels = torch.full(
        (len(targets), *logits.shape[-2:]), ignored, dtype=torch.int64, device=logits.device
    )
    for row, target in zip(labels, targets, strict=True):
        classes = target.semantic_map[::stride, ::stride]
        row[: classes.shape[0], : classes.shape[1]] = classes
    total = F.cross_entropy(at_least_single(logits), labels, ignore_index=ignored, reduction="sum")
    return {"context": LossSum(total, labels.numel())}
