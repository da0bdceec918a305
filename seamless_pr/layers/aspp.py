"""Atrous spatial pyramid pooling: one map seen through windows of several sizes.

Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation (DeepLabV3), section 3.3.

Letters: N images, C channels, k side of a window.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.layers.abn import NormActFactory
from seamless_pr.layers.conv_norm_act import ConvNormAct


class ASPP(nn.Module):
    """A 1x1 view, dilated 3x3 views and a wide average of the features, and their 1x1 mixture.

    `forward`: [N, in_channels, H, W] -> [N, out_channels, H, W]. The average has no norm, as in
    detectron2: one value per channel, where the window covers the map, leaves nothing to normalise.
    It runs after its convolution here; both are linear.

    Args:
        dilations: of the 3x3 views, in cells.
        pooling_size: k, side of the averaged windows in cells, at most the map; the averages at all
            places of a window are stretched to the map. DeepLab takes the map of a training crop,
            so that larger images at inference are seen in windows of the same size.
        dropout: share of the result that training sets to 0.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm_act: NormActFactory,
        *,
        dilations: Sequence[int] = (6, 12, 18),
        pooling_size: int = 48,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.pooling_size = pooling_size
        self.views = nn.ModuleList([ConvNormAct(in_channels, out_channels, 1, norm_act)])
        for dilation in dilations:
            self.views.append(
                ConvNormAct(in_channels, out_channels, 3, norm_act, dilation=dilation)
            )
        self.conv_pooled = nn.Conv2d(in_channels, out_channels, 1)
        self.mix = ConvNormAct((len(self.views) + 1) * out_channels, out_channels, 1, norm_act)
        self.dropout = nn.Dropout(dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
        assert self.conv_pooled.bias is not None
        nn.init.zeros_(self.conv_pooled.bias)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        window = [min(self.pooling_size, side) for side in size]
        means = F.relu(F.avg_pool2d(self.conv_pooled(x), window, stride=1))
        stretched = F.interpolate(means, size=size, mode="bilinear", align_corners=False)
        mixed = self.mix(torch.cat([*(view(x) for view in self.views), stretched], dim=1))
        result: Tensor = self.dropout(mixed)
        return result
