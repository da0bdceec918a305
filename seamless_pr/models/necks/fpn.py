"""Feature pyramid network with norm and activation after every convolution.

Letters: N images, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.layers.abn import NormActFactory
from seamless_pr.layers.conv_norm_act import ConvNormAct

EXTRA_LEVEL_KINDS = ("conv", "pool")


class FPN(nn.Module):
    """Top-down pathway over backbone stages, plus coarser levels from strided convolutions.

    `forward`: stages finest first, [N, C_l, H_l, W_l] each -> p2, p3, ... of `out_channels` each,
    one per stage and one per extra level. Differs from the paper of FPN as Seamless Scene
    Segmentation's released code does: norm and activation after lateral and output convolutions,
    nearest upsampling to the exact size of the finer level, and extra levels from the raw coarsest
    stage instead of max-pooling. The paper's own form: `activation="identity"`, `extra="pool"` and
    a `norm_act` that is only a bias.

    Args:
        in_channels: channels of the stages, finest first.
        num_extra_levels: levels beyond the coarsest stage, each half the size of the one before.
        activation: "leaky_relu" or "identity", after lateral and output convolutions.
        extra: "conv": extra levels are strided convolutions with weights; "pool": every second
            cell of the level before, from the coarsest output on.

    Raises:
        ValueError: unknown `extra`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        norm_act: NormActFactory,
        num_extra_levels: int = 1,
        *,
        activation: str = "leaky_relu",
        extra: str = "conv",
    ) -> None:
        super().__init__()
        if extra not in EXTRA_LEVEL_KINDS:
            raise ValueError(f"extra must be one of {EXTRA_LEVEL_KINDS}; got '{extra}'")
        self.out_channels = out_channels
        self.lateral = nn.ModuleList(
            ConvNormAct(channels, out_channels, 1, norm_act, activation=activation)
            for channels in in_channels
        )
        self.output = nn.ModuleList(
            ConvNormAct(out_channels, out_channels, 3, norm_act, activation=activation)
            for _ in in_channels
        )
        extra_in = [in_channels[-1]] + [out_channels] * (num_extra_levels - 1)
        num_convs = num_extra_levels if extra == "conv" else 0
        self.num_pooled_levels = num_extra_levels - num_convs
        self.extra = nn.ModuleList(
            ConvNormAct(channels, out_channels, 3, norm_act, stride=2)
            for channels in extra_in[:num_convs]
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
        for _ in range(self.num_pooled_levels):
            levels.append(levels[-1][..., ::2, ::2])
        return tuple(levels)
