"""Feature pyramid network with norm and activation after every convolution.

Letters: N images, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.layers.abn import NormActFactory
from seamless_pr.layers.conv_norm_act import ConvNormAct


class FPN(nn.Module):
    """Top-down pathway over backbone stages, plus coarser levels from strided convolutions.

    `forward`: stages finest first, [N, C_l, H_l, W_l] each -> p2, p3, ... of `out_channels` each,
    one per stage and one per extra level. Differs from the paper of FPN as Seamless Scene
    Segmentation's released code does: norm and activation after lateral and output convolutions,
    nearest upsampling to the exact size of the finer level, and extra levels from the raw coarsest
    stage instead of max-pooling.

    Args:
        in_channels: channels of the stages, finest first.
        num_extra_levels: levels beyond the coarsest stage, each half the size of the one before.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        norm_act: NormActFactory,
        num_extra_levels: int = 1,
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.lateral = nn.ModuleList(
            ConvNormAct(channels, out_channels, 1, norm_act) for channels in in_channels
        )
        self.output = nn.ModuleList(
            ConvNormAct(out_channels, out_channels, 3, norm_act) for _ in in_channels
        )
        extra_in = [in_channels[-1]] + [out_channels] * (num_extra_levels - 1)
        self.extra = nn.ModuleList(
            ConvNormAct(channels, out_channels, 3, norm_act, stride=2)
            for channels in extra_in[:num_extra_levels]
        )

    def forward(self, stages: Sequence[Tensor]) -> tuple[Tensor, ...]:
        if len(stages) != len(self.lateral):
            expected = len(self.lateral)
            raise ValueError(f"expected {expected} stages, finest first; got {len(stages)}")
        merged = [lateral(stage) for lateral, stage in zip(self.lateral, stages)]
        for level in reversed(range(len(merged) - 1)):
            size = merged[level].shape[-2:]
            upsampled = F.interpolate(merged[level + 1], size=size, mode="nearest")
            merged[level] = merged[level] + upsampled
        levels = [output(features) for output, features in zip(self.output, merged)]
        coarsest = stages[-1]
        for extra in self.extra:
            coarsest = extra(coarsest)
            levels.append(coarsest)
        return tuple(levels)
