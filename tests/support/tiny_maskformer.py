"""MaskFormer and its baseline so small that a test can train them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from seamless_pr.layers.abn import make_norm_act
from seamless_pr.models.backbones.swin import SwinShape, SwinTransformer
from seamless_pr.models.fusion.by_query import QueryFusion
from seamless_pr.models.necks.pixel_decoder import PixelDecoder, TransformerPixelDecoder
from seamless_pr.models.networks.byte_normalization import BytePixelNormalization
from seamless_pr.models.networks.maskformer import MaskFormer
from seamless_pr.models.networks.per_pixel import ConvClassHead, PerPixelNet, QueryClassHead
from seamless_pr.models.networks.trunk import Trunk
from seamless_pr.models.queries.query_decoder import QueryDecoder
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.query_settings import QueryFusionSettings, QueryLossSettings
from tests.support.maskformer_networks import MEAN, STD, numbered_space

# Train ids 0 and 1 are stuff, 2 to 4 things.
SPACE = numbered_space(5, range(3))
_LAYERS: dict[str, Any] = {"num_heads": 4, "hidden_channels": 32}


def _parts(dropout: float, num_queries: int, *, encoder: bool = False):
    backbone = SwinTransformer(SwinShape(8, (1, 1, 2, 1), (1, 2, 2, 4), 4), drop_path=dropout)
    norm_act = make_norm_act("group_norm", slope=0.0, num_groups=8)
    pixels = PixelDecoder(backbone.out_channels, 16, 16, norm_act)
    if encoder:
        pixels = TransformerPixelDecoder(
            backbone.out_channels, 16, 16, norm_act, num_layers=1, dropout=dropout, **_LAYERS
        )
    queries = QueryDecoder(
        pixels.memory_channels, 16, num_queries, num_layers=2, dropout=dropout, **_LAYERS
    )
    normalization = BytePixelNormalization(MEAN, STD)
    return Trunk(normalization, backbone, nn.Identity(), backbone.strides), pixels, queries


def tiny_maskformer(
    *,
    dropout: float = 0.1,
    targets: Any = "segments",
    task: Any = "panoptic",
    encoder: bool = False,
) -> MaskFormer:
    torch.manual_seed(0)
    trunk, pixels, queries = _parts(dropout, 8, encoder=encoder)
    fusion = QueryFusion(SPACE, QueryFusionSettings(task=task))
    loss = QueryLossSettings(targets=targets)
    return MaskFormer(trunk, pixels, queries, 16, fusion, loss, size_divisor=32)


def tiny_per_pixel(*, queries: bool) -> PerPixelNet:
    torch.manual_seed(0)
    trunk, pixels, decoder = _parts(0.1, SPACE.num_classes)
    head = QueryClassHead(decoder, 16) if queries else ConvClassHead(16, SPACE.num_classes)
    return PerPixelNet(SPACE, trunk, pixels, head)


def scene(height: int, width: int, *, empty: bool = False) -> tuple[torch.Tensor, PanopticTarget]:
    """A picture of one kind of stuff with two objects, each of its own colour; or of pure void."""
    ids = torch.ones(height, width, dtype=torch.int32)
    ids[height // 8 : height // 2, width // 8 : width // 3] = 2
    ids[height // 2 : -height // 8, width // 2 : -width // 8] = 3
    ids = torch.zeros_like(ids) if empty else ids
    colors = torch.tensor([[0, 0, 0], [60, 90, 200], [220, 40, 40], [30, 200, 60]]).byte()
    train_ids = torch.tensor([] if empty else [1, 2, 4], dtype=torch.int64)
    target = PanopticTarget(ids, train_ids, torch.zeros(len(train_ids), dtype=torch.bool), SPACE)
    return colors[ids.long()].permute(2, 0, 1), target


def batch_of(*scenes: tuple[torch.Tensor, PanopticTarget]):
    """Batch, targets, and a generator for each image."""
    batch = ImageBatch.from_images([image for image, _ in scenes])
    generators = [torch.Generator().manual_seed(index) for index in range(len(scenes))]
    return batch, [target for _, target in scenes], generators
