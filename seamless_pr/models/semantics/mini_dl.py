"""The semantic head of Seamless: one MiniDL module per pyramid level.

Letters: N images, C channels, K classes, h, w size of the finest level.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seamless_pr.layers.abn import NormActFactory
from seamless_pr.layers.conv_norm_act import init_predictor
from seamless_pr.layers.mini_dl import MiniDL
from seamless_pr.ops.resize import upsample_logits

PREDICTOR_GAIN = 0.1


class MiniDLHead(nn.Module):
    """Class logits from the pyramid levels.

    `forward`: levels finest first, [N, in_channels, h_l, w_l] each (more than `num_levels` are
    ignored) -> logits [N, K, h, w] at the size of the finest level. Coarser MiniDL outputs are
    upsampled bilinearly and concatenated; the predictor has a bias and neither norm nor activation.
    `hidden` and `predictor` are its two halves.

    Args:
        hidden_channels: outputs of each MiniDL.
        pooling_size: side of MiniDL's wide window in cells.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        norm_act: NormActFactory,
        *,
        hidden_channels: int = 128,
        num_levels: int = 4,
        pooling_size: int = 64,
    ) -> None:
        super().__init__()
        self.mini_dls = nn.ModuleList(
            MiniDL(in_channels, hidden_channels, norm_act, pooling_size=pooling_size)
            for _ in range(num_levels)
        )
        self.predictor = nn.Conv2d(num_levels * hidden_channels, num_classes, 1)
        init_predictor(self.predictor, PREDICTOR_GAIN)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.predictor(self.hidden(features))
        return logits

    def hidden(self, features: Sequence[Tensor]) -> Tensor:
        """[N, num_levels * hidden_channels, h, w] before the predictor."""
        if len(features) < len(self.mini_dls):
            raise ValueError(
                f"expected at least {len(self.mini_dls)} levels, finest first; got {len(features)}"
            )
        views = [mini_dl(level) for mini_dl, level in zip(self.mini_dls, features)]
        size = views[0].shape[-2:]
        upsampled = [upsample_logits(view, size) for view in views[1:]]
        return torch.cat([views[0], *upsampled], dim=1)
