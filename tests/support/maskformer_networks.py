"""The networks of the golden MaskFormer cases, out of parts, with the weights of the cases."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seamless_pr.layers.abn import make_norm_act
from seamless_pr.models.backbones.swin import SWIN_SHAPES, SwinTransformer
from seamless_pr.models.backbones.timm_backbone import TimmBackbone
from seamless_pr.models.fusion.by_query import QueryFusion
from seamless_pr.models.necks.pixel_decoder import PixelDecoder, TransformerPixelDecoder
from seamless_pr.models.networks.byte_normalization import BytePixelNormalization
from seamless_pr.models.networks.maskformer import MaskFormer
from seamless_pr.models.networks.per_pixel import ConvClassHead, PerPixelNet, QueryClassHead
from seamless_pr.models.networks.trunk import Trunk
from seamless_pr.models.queries.query_decoder import QueryDecoder
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.structures.query_settings import QueryFusionSettings, QueryLossSettings
from seamless_pr.weights.maskformer import fit_backbone_weights, fit_maskformer_weights
from tests.support.maskformer_golden import seeded_weights, shapes_of

MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)
PUBLISHED = {
    "dec_layers": 6,
    "enc_layers": 0,
    "hidden_dim": 256,
    "nheads": 8,
    "dim_feedforward": 2048,
    "queries": 100,
    "convs_dim": 256,
    "mask_dim": 256,
    "pre_norm": False,
}


def numbered_space(num_classes: int, things: range = range(0)) -> LabelSpace:
    """Classes whose category id is their place in the reference; stuff first, as everywhere."""
    order = sorted(range(num_classes), key=lambda place: place in things)
    return LabelSpace(
        f"{num_classes} classes",
        tuple(Category(place, f"class {place}", place in things, (0, 0, 0)) for place in order),
    )


def reference_order(space: LabelSpace) -> list[int]:
    return [category.category_id for category in space.categories]


def backbone(name: str, *, drop_path: float = 0.0) -> nn.Module:
    """R50, R101, R101c or a Swin, with random weights."""
    if name in SWIN_SHAPES:
        return SwinTransformer(SWIN_SHAPES[name], drop_path=drop_path)
    norm_act = make_norm_act("frozen_batch_norm", slope=0.0)
    if name == "r101c":
        options: dict[str, Any] = {"stem_type": "deep", "stem_width": 64}
        return TimmBackbone("resnet101", norm_act, multi_grid=(1, 2, 4), **options)
    return TimmBackbone({"r50": "resnet50", "r101": "resnet101"}[name], norm_act)


def trunk(name: str) -> Trunk:
    stages = backbone(name)
    return Trunk(BytePixelNormalization(MEAN, STD), stages, nn.Identity(), stages.strides)


def pixel_decoder(stages: Any, sizes: dict[str, Any], *, encoder: bool) -> PixelDecoder:
    norm_act = make_norm_act("group_norm", slope=0.0, num_groups=32)
    widths = (stages.out_channels, sizes["convs_dim"], sizes["mask_dim"], norm_act)
    if not encoder:
        return PixelDecoder(*widths)
    return TransformerPixelDecoder(
        *widths, num_layers=6, num_heads=8, hidden_channels=2048, dropout=0.0
    )


def query_decoder(memory_channels: int, sizes: dict[str, Any], num_queries: int) -> QueryDecoder:
    return QueryDecoder(
        memory_channels,
        sizes["hidden_dim"],
        num_queries,
        num_layers=sizes["dec_layers"],
        num_heads=sizes["nheads"],
        hidden_channels=sizes["dim_feedforward"],
        dropout=0.0,
        norm_first=sizes["pre_norm"],
        num_encoder_layers=sizes["enc_layers"],
    )


def maskformer(
    name: str,
    space: LabelSpace,
    fusion: QueryFusionSettings,
    *,
    encoder: bool = False,
    size_divisor: int = 32,
    sizes: dict[str, Any] | None = None,
) -> MaskFormer:
    """A MaskFormer with random weights; `sizes` differ from the published ones."""
    sizes = PUBLISHED | (sizes or {})
    base = trunk(name)
    pixels = pixel_decoder(base.backbone, sizes, encoder=encoder)
    targets = "segments" if fusion.task == "panoptic" else "classes"
    return MaskFormer(
        base,
        pixels,
        query_decoder(pixels.memory_channels, sizes, sizes["queries"]),
        sizes["mask_dim"],
        QueryFusion(space, fusion),
        QueryLossSettings(targets=targets),
        size_divisor=size_divisor,
    )


def per_pixel(name: str, space: LabelSpace, *, queries: bool) -> PerPixelNet:
    """A per-pixel baseline with random weights."""
    base = trunk(name)
    pixels = pixel_decoder(base.backbone, PUBLISHED, encoder=False)
    head: ConvClassHead | QueryClassHead = ConvClassHead(256, space.num_classes)
    if queries:
        decoder = query_decoder(pixels.memory_channels, PUBLISHED, space.num_classes)
        head = QueryClassHead(decoder, PUBLISHED["mask_dim"])
    return PerPixelNet(space, base, pixels, head)


def golden_network(meta: dict[str, Any]) -> MaskFormer | PerPixelNet:
    """The network of a golden case with its weights, in double precision, for evaluation."""
    listing = meta["state_dict"]
    name = "swin_tiny" if "swint" in listing else "r50"
    sizes = meta.get("config", {})
    things = meta.get("thing_classes") or []
    num_classes = sizes.get("classes") or (133 if "coco133" in listing else 150)
    space = numbered_space(num_classes, range(len(things)))
    network: MaskFormer | PerPixelNet
    if "ppb" in listing:
        network = per_pixel(name, space, queries="ppbplus" in listing)
    else:
        network = maskformer(
            name,
            space,
            QueryFusionSettings(
                task="panoptic" if things else "semantic",
                object_threshold=meta.get("object_mask_threshold", 0.3),
                overlap_threshold=meta.get("overlap_threshold", 0.8),
            ),
            encoder="enc6" in listing,
            size_divisor=meta["size_divisibility"] or 1,
            sizes=sizes,
        )
    weights = seeded_weights(meta["seed"], listing)
    state, report = fit_maskformer_weights(weights, network.state_dict(), reference_order(space))
    report.check(listing)
    network.load_state_dict(state)
    return network.double().eval()


def trunk_weights(name: str, seed: int, listing: str) -> Trunk:
    """A trunk with the weights of a case of the backbone alone, in double precision."""
    base = trunk(name)
    names = {f"trunk.{key}": tensor for key, tensor in base.state_dict().items()}
    state, report = fit_backbone_weights(seeded_weights(seed, listing), names)
    report.check(listing)
    base.load_state_dict({key.removeprefix("trunk."): tensor for key, tensor in state.items()})
    return base.double().eval()


def original_gradients(network: MaskFormer | PerPixelNet, listing: str) -> dict[str, Tensor]:
    """Gradients of the parameters under their original names, in the order of the reference."""
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    names = shapes_of(listing)
    # The map of names is that of the importer, followed backwards with a marker in each tensor.
    markers = {
        name: torch.full(shape, float(index)) for index, (name, shape) in enumerate(names.items())
    }
    order = reference_order(network.label_space)
    state, _ = fit_maskformer_weights(markers, network.state_dict(), order)
    listed = list(names)
    found = {}
    for ours, gradient in gradients.items():
        name = listed[int(state[ours].flatten()[0])]
        if name.endswith(("class_embed.weight", "class_embed.bias")):
            places = torch.tensor([*order, len(order)])
            gradient = torch.empty_like(gradient).index_copy_(0, places, gradient)
        elif ours.startswith(("head.predictor.", "head.query_decoder.query_embed.")):
            gradient = torch.empty_like(gradient).index_copy_(0, torch.tensor(order), gradient)
        found[name] = gradient
    return found
