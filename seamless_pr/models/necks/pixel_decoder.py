"""From the stages of a backbone to one embedding per pixel, as in MaskFormer.

Letters: N images, C channels; c2..c5 are the stages at strides 4 to 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.layers.abn import NormActFactory
from seamless_pr.layers.conv_norm_act import ConvNormAct
from seamless_pr.layers.transformer import TransformerEncoder
from seamless_pr.ops.position_code import sine_position_code


@dataclass(frozen=True)
class PixelEmbedding:
    """What a pixel decoder knows.

    Attributes:
        mask_features: [N, C_mask, H / 4, W / 4]; the product with a query's mask embedding is the
            logit of its mask.
        memory: [N, C, H / 32, W / 32]; what the queries attend to.
    """

    mask_features: Tensor
    memory: Tensor


class PixelDecoder(nn.Module):
    """A feature pyramid of which only the finest level is used.

    Laterals are normed but not activated; the levels above are added after nearest upsampling to
    the exact size, and each sum passes a 3 x 3 convolution.

    `forward`: stages c2..c5, finest first -> `PixelEmbedding` whose memory is c5 itself.

    Args:
        in_channels: channels of the stages, finest first.
        channels: width of the pyramid.
        mask_channels: width of the embedding.
        norm_act: of all convolutions but the last; group norm of 32 groups and ReLU in the paper.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        mask_channels: int,
        norm_act: NormActFactory,
    ) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            ConvNormAct(stage_channels, channels, 1, norm_act, activation="identity")
            for stage_channels in in_channels[:-1]
        )
        self.output = nn.ModuleList(
            ConvNormAct(stage_channels, channels, 3, norm_act)
            for stage_channels in (*[channels] * len(self.lateral), in_channels[-1])
        )
        self.mask_features = nn.Conv2d(channels, mask_channels, 3, padding=1)
        self.memory_channels = in_channels[-1]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_pixel_conv(module)

    def forward(self, stages: Sequence[Tensor]) -> PixelEmbedding:
        return PixelEmbedding(self.mask_features(self.levels(stages)[0]), stages[-1])

    def levels(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """The pyramid, finest first: [N, channels, H / 4, W / 4], ..., [.., H / 32, W / 32]."""
        levels = [self.output[-1](stages[-1])]
        for lateral, output, stage in reversed(
            list(zip(self.lateral, self.output[:-1], stages[:-1], strict=True))
        ):
            above = F.interpolate(levels[0], stage.shape[-2:], mode="nearest")
            levels.insert(0, output(lateral(stage) + above))
        return levels


class TransformerPixelDecoder(PixelDecoder):
    """`PixelDecoder` whose coarsest stage first passes the encoder of DETR ("+6 Enc").

    `forward`: stages c2..c5, finest first -> `PixelEmbedding` whose memory is the result of the
    encoder.

    Args:
        in_channels, channels, mask_channels, norm_act: as in `PixelDecoder`.
        num_layers, num_heads, hidden_channels, dropout, norm_first: of the encoder.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        mask_channels: int,
        norm_act: NormActFactory,
        *,
        num_layers: int,
        num_heads: int,
        hidden_channels: int,
        dropout: float,
        norm_first: bool = False,
    ) -> None:
        super().__init__((*in_channels[:-1], channels), channels, mask_channels, norm_act)
        self.input_proj = nn.Conv2d(in_channels[-1], channels, 1)
        init_pixel_conv(self.input_proj)
        self.encoder = TransformerEncoder(
            num_layers,
            channels,
            num_heads,
            hidden_channels,
            dropout=dropout,
            norm_first=norm_first,
        )

    def forward(self, stages: Sequence[Tensor]) -> PixelEmbedding:
        cells = self.input_proj(stages[-1])
        code = sine_position_code((cells.shape[2], cells.shape[3]), cells.shape[1], cells.device)
        return super().forward((*stages[:-1], self.encoder(cells, code)))


def init_pixel_conv(convolution: nn.Conv2d) -> None:
    """Uniform in +-sqrt(3 / fan in), bias 0 ("c2 Xavier" of detectron2)."""
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
