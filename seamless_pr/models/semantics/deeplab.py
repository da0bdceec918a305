"""The semantic branch of DeepLabV3, which needs no feature pyramid.

Letters: N images, C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from seamless_pr.layers.abn import NormActFactory
from seamless_pr.layers.aspp import ASPP

_PREDICTOR_STD = 0.001
# The paper's numbers are for maps of this stride; finer maps are seen through the same windows.
_PUBLISHED_STRIDE = 16


class DeepLabV3Head(nn.Module):
    """Class logits from the last stage of a dilated backbone: ASPP and a 1x1 predictor.

    `forward`: stage maps finest first, of which the last is read, [N, in_channels, h, w] -> logits
    [N, K, h, w]. As in detectron2; torchvision's head has one more 3x3 convolution.

    Args:
        hidden_channels: outputs of the ASPP.
        dilations, pooling_size: of the ASPP, in cells of 16 input pixels.
        stride: input pixels per cell of the last stage; 32, 16 or 8. No weight depends on it.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        norm_act: NormActFactory,
        *,
        hidden_channels: int = 256,
        dilations: Sequence[int] = (6, 12, 18),
        pooling_size: int = 48,
        stride: int = _PUBLISHED_STRIDE,
    ) -> None:
        super().__init__()
        self.aspp = ASPP(
            in_channels,
            hidden_channels,
            norm_act,
            dilations=[dilation * _PUBLISHED_STRIDE // stride for dilation in dilations],
            pooling_size=max(1, pooling_size * _PUBLISHED_STRIDE // stride),
        )
        self.predictor = nn.Conv2d(hidden_channels, num_classes, 1)
        nn.init.normal_(self.predictor.weight, std=_PREDICTOR_STD)
        assert self.predictor.bias is not None
        nn.init.zeros_(self.predictor.bias)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.predictor(self.aspp(stages[-1]))
        return logits
