"""Settings of MaskFormer and its per-pixel baselines: what a config says under `model`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Interval

from seamless_pr.config.networks import (
    BackboneGroup,
    Color,
    FrozenBatchNormSettings,
    GroupNormSettings,
    NormActGroup,
    PositiveColor,
    TimmBackboneSettings,
)
from seamless_pr.structures.kinds import Kinded, OneOf
from seamless_pr.structures.query_settings import (
    QueryDecoderSettings,
    QueryFusionSettings,
    QueryLossSettings,
    QuerySettings,
    TransformerSettings,
)
from seamless_pr.structures.settings import Count, Fraction, Layers, SizeDivisor

PixelDecoderGroup = Annotated[Any, OneOf("pixel_decoders")]

# Of ImageNet: 123.675, 116.28, 103.53 and 58.395, 57.12, 57.375 of 255.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class SwinBackboneSettings(Kinded):
    """Swin Transformer as MaskFormer uses it; needs no `norm_act`.

    Attributes:
        name: which published network.
        channels: of the first stage; null: as the published network.
        depths: blocks of each stage; []: as the published network.
        num_heads: of each stage; []: as the published network.
        window_size: cells along a window's side; null: as the published network.
        drop_path: share of images that skip a step of the last block in training.
        checkpointing: training keeps only what blocks pass on and computes the rest again in the
            backward pass: less memory, a third more time, the same gradients.
        weights: file with ImageNet weights (of the authors, timm or torchvision); null: random
            weights.
        num_frozen: first parts that do not train (1: patches, 2: patches and first stage, ..., 5:
            all).
    """

    kind: str = "swin"
    name: Literal["swin_tiny", "swin_small", "swin_base", "swin_large"] = "swin_tiny"
    channels: Count | None = None
    depths: tuple[Layers, ...] = ()
    num_heads: tuple[Count, ...] = ()
    window_size: Count | None = None
    drop_path: Fraction = 0.3
    checkpointing: bool = False
    weights: str | None = None
    num_frozen: Annotated[int, Interval(ge=0, le=5)] = 0


@dataclass(frozen=True, kw_only=True)
class FPNPixelDecoderSettings(Kinded):
    """A feature pyramid whose finest level becomes the embedding of pixels.

    Attributes:
        channels: width of the pyramid.
        mask_channels: width of the embedding.
        norm_act: of its convolutions.
    """

    kind: str = "fpn"
    channels: Count = 256
    mask_channels: Count = 256
    norm_act: NormActGroup = field(
        default_factory=lambda: GroupNormSettings(kind="group_norm", slope=0.0, num_groups=32)
    )


@dataclass(frozen=True, kw_only=True)
class TransformerPixelDecoderSettings(FPNPixelDecoderSettings):
    """The same behind a transformer encoder on the coarsest stage ("+6 Enc").

    Attributes:
        encoder: its layers.
    """

    kind: str = "transformer"
    encoder: TransformerSettings = field(default_factory=TransformerSettings)


@dataclass(frozen=True, kw_only=True)
class PixelNetworkSettings(Kinded):
    """What MaskFormer and its baselines share.

    Attributes:
        backbone: images to stages.
        norm_act: norm and activation of the backbone.
        pixel_decoder: stages to embeddings of pixels.
        pixel_mean: of RGB values in [0, 1].
        pixel_std: of RGB values in [0, 1].
        size_divisor: batches are padded to multiples of this height and width.
    """

    backbone: BackboneGroup = field(default_factory=TimmBackboneSettings)
    norm_act: NormActGroup = field(default_factory=lambda: FrozenBatchNormSettings(slope=0.0))
    pixel_decoder: PixelDecoderGroup = field(default_factory=FPNPixelDecoderSettings)
    pixel_mean: Color = _MEAN
    pixel_std: PositiveColor = _STD
    size_divisor: SizeDivisor = 1


@dataclass(frozen=True, kw_only=True)
class MaskFormerSettings(PixelNetworkSettings):
    """A set of queries, each with a class and a mask.

    Attributes:
        queries: and their decoder.
        losses: matching and losses; their weights are `loss_weights`.
        fusion: queries to maps.
    """

    kind: str = "maskformer"
    queries: QuerySettings = field(default_factory=QuerySettings)
    losses: QueryLossSettings = field(default_factory=QueryLossSettings)
    fusion: QueryFusionSettings = field(default_factory=QueryFusionSettings)


@dataclass(frozen=True, kw_only=True)
class PerPixelSettings(PixelNetworkSettings):
    """A class for every pixel: the baselines of MaskFormer.

    Attributes:
        queries: decoder of one query per class ("PerPixelBaseline+"); null: a linear classifier.
    """

    kind: str = "per_pixel"
    queries: QueryDecoderSettings | None = None
