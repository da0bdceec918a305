"""MiniDL: local, dilated and wide context of one pyramid level.

Seamless Scene Segmentation (CVPR 2019), figure 2.

Letters: N images, C channels, k side of a window.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seamless_pr.layers.abn import NormActFactory
from seamless_pr.layers.conv_norm_act import ConvNormAct, init_before_activation
from seamless_pr.ops.window_mean import window_mean


class MiniDL(nn.Module):
    """Three views of the features (3x3, dilated 3x3, wide average), normalised and mixed.

    `forward`: [N, in_channels, H, W] -> [N, out_channels, H, W]. The wide view is the mean over a
    window of `pooling_size` (at most the map) around each cell, then a 1x1 convolution. The
    convolution is applied first here: both are linear and the pooling then runs on fewer channels.
    The mixing convolution is 1x1, as in the released code (the paper's text says 3x3).

    Args:
        dilation: of the dilated view.
        pooling_size: side of the wide window in cells.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm_act: NormActFactory,
        *,
        dilation: int = 6,
        pooling_size: int = 64,
    ) -> None:
        super().__init__()
        self.pooling_size = pooling_size
        self.conv_local = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.conv_dilated = nn.Conv2d(
            in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.conv_pooled = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = norm_act(3 * out_channels)
        self.mix = ConvNormAct(3 * out_channels, out_channels, 1, norm_act)
        for conv in (self.conv_local, self.conv_dilated, self.conv_pooled):
            init_before_activation(conv)

    def forward(self, x: Tensor) -> Tensor:
        views = torch.cat(
            [
                self.conv_local(x),
                self.conv_dilated(x),
                window_mean(self.conv_pooled(x), self.pooling_size),
            ],
            dim=1,
        )
        result: Tensor = self.mix(self.norm(views))
        return result
