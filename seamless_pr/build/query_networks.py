"""MaskFormer and its baselines from their settings and finished trunks and pixel decoders."""

from __future__ import annotations

from typing import Any

from seamless_pr.config.query_networks import (
    FPNPixelDecoderSettings,
    MaskFormerSettings,
    PerPixelSettings,
    SwinBackboneSettings,
    TransformerPixelDecoderSettings,
)
from seamless_pr.layers.abn import NormActFactory
from seamless_pr.models.backbones.swin import SWIN_SHAPES, SwinShape, SwinTransformer
from seamless_pr.models.fusion.by_query import QueryFusion
from seamless_pr.models.necks.pixel_decoder import PixelDecoder, TransformerPixelDecoder
from seamless_pr.models.networks.maskformer import MaskFormer
from seamless_pr.models.networks.per_pixel import ConvClassHead, PerPixelNet, QueryClassHead
from seamless_pr.models.networks.trunk import Trunk
from seamless_pr.models.queries.query_decoder import QueryDecoder
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.query_settings import QueryDecoderSettings, TransformerSettings


def swin_backbone(settings: SwinBackboneSettings, norm_act: NormActFactory) -> SwinTransformer:
    """Swin has norms of its own: `norm_act` is for the other backbones."""
    published = SWIN_SHAPES[settings.name]
    shape = SwinShape(
        settings.channels or published.channels,
        settings.depths or published.depths,
        settings.num_heads or published.num_heads,
        settings.window_size or published.window_size,
    )
    backbone = SwinTransformer(
        shape, drop_path=settings.drop_path, checkpointing=settings.checkpointing
    )
    backbone.freeze(settings.num_frozen)
    return backbone


def fpn_pixel_decoder(
    settings: FPNPixelDecoderSettings, backbone: Any, norm_act: NormActFactory
) -> PixelDecoder:
    """`norm_act` is that of its convolutions."""
    return PixelDecoder(backbone.out_channels, settings.channels, settings.mask_channels, norm_act)


def transformer_pixel_decoder(
    settings: TransformerPixelDecoderSettings, backbone: Any, norm_act: NormActFactory
) -> TransformerPixelDecoder:
    """As `fpn_pixel_decoder`, with an encoder."""
    return TransformerPixelDecoder(
        backbone.out_channels,
        settings.channels,
        settings.mask_channels,
        norm_act,
        **_layers(settings.encoder),
    )


def maskformer(
    settings: MaskFormerSettings, trunk: Trunk, pixel_decoder: PixelDecoder, label_space: LabelSpace
) -> MaskFormer:
    """The network around its trunk and pixel decoder."""
    return MaskFormer(
        trunk,
        pixel_decoder,
        _query_decoder(settings.queries, pixel_decoder, settings.queries.num_queries),
        settings.pixel_decoder.mask_channels,
        QueryFusion(label_space, settings.fusion),
        settings.losses,
        size_divisor=settings.size_divisor,
    )


def per_pixel(
    settings: PerPixelSettings, trunk: Trunk, pixel_decoder: PixelDecoder, label_space: LabelSpace
) -> PerPixelNet:
    """The network around its trunk and pixel decoder."""
    mask_channels, num_classes = settings.pixel_decoder.mask_channels, label_space.num_classes
    head: ConvClassHead | QueryClassHead = ConvClassHead(mask_channels, num_classes)
    if settings.queries is not None:
        decoder = _query_decoder(settings.queries, pixel_decoder, num_classes)
        head = QueryClassHead(decoder, mask_channels)
    return PerPixelNet(label_space, trunk, pixel_decoder, head, size_divisor=settings.size_divisor)


def _query_decoder(
    settings: QueryDecoderSettings, pixel_decoder: PixelDecoder, num_queries: int
) -> QueryDecoder:
    return QueryDecoder(
        pixel_decoder.memory_channels,
        settings.channels,
        num_queries,
        self_attention=settings.self_attention,
        num_encoder_layers=settings.num_encoder_layers,
        **_layers(settings),
    )


def _layers(settings: TransformerSettings) -> dict[str, Any]:
    return {
        "num_layers": settings.num_layers,
        "num_heads": settings.num_heads,
        "hidden_channels": settings.hidden_channels,
        "dropout": settings.dropout,
        "norm_first": settings.norm_first,
    }
