"""Every key of MaskFormer and its baselines changes what the network is, learns or predicts."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from seamless_pr.config.networks import TwoBranchSettings
from seamless_pr.config.query_networks import MaskFormerSettings, PerPixelSettings
from tests.support.model_keys import fingerprint, keys_of_classes

BACKBONE = {"name": "resnet18", "options": {"channels": [8, 8, 16, 16]}}
PIXELS = {"channels": 16, "mask_channels": 16}
LAYERS: dict[str, Any] = {"num_layers": 2, "num_heads": 4, "hidden_channels": 16, "dropout": 0.0}
BASE: dict[str, Any] = {
    "kind": "maskformer",
    "backbone": BACKBONE,
    "pixel_decoder": PIXELS,
    "queries": {**LAYERS, "channels": 16, "num_queries": 12},
    # With random weights no class is likely.
    "fusion": {"object_threshold": 0.1, "overlap_threshold": 0.3},
}
ENCODER = {**BASE, "pixel_decoder": {**PIXELS, "kind": "transformer", "encoder": LAYERS}}
PLAIN = {"kind": "per_pixel", "backbone": BACKBONE, "pixel_decoder": PIXELS}

# `Class.key` -> (network, the change).
CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "PixelNetworkSettings.backbone": (BASE, "backbone.name=resnet34"),
    "PixelNetworkSettings.norm_act": (BASE, "norm_act.kind=bias"),
    "PixelNetworkSettings.pixel_decoder": (BASE, "pixel_decoder.kind=transformer"),
    "FPNPixelDecoderSettings.norm_act": (BASE, "pixel_decoder.norm_act.num_groups=4"),
    "FPNPixelDecoderSettings.channels": (BASE, "pixel_decoder.channels=32"),
    "FPNPixelDecoderSettings.mask_channels": (BASE, "pixel_decoder.mask_channels=8"),
    "PixelNetworkSettings.pixel_mean": (BASE, "pixel_mean=[0.1, 0.1, 0.1]"),
    "PixelNetworkSettings.pixel_std": (BASE, "pixel_std=[0.1, 0.1, 0.1]"),
    "PixelNetworkSettings.size_divisor": (BASE, "size_divisor=64"),
    "TransformerSettings.num_layers": (ENCODER, "pixel_decoder.encoder.num_layers=1"),
    "TransformerSettings.num_heads": (ENCODER, "pixel_decoder.encoder.num_heads=2"),
    "TransformerSettings.hidden_channels": (ENCODER, "pixel_decoder.encoder.hidden_channels=8"),
    "TransformerSettings.dropout": (ENCODER, "pixel_decoder.encoder.dropout=0.5"),
    "TransformerSettings.norm_first": (ENCODER, "pixel_decoder.encoder.norm_first=true"),
    "QueryDecoderSettings.num_layers": (BASE, "queries.num_layers=0"),
    "QueryDecoderSettings.channels": (BASE, "queries.channels=32"),
    "QueryDecoderSettings.self_attention": (BASE, "queries.self_attention=false"),
    "QueryDecoderSettings.num_encoder_layers": (BASE, "queries.num_encoder_layers=1"),
    "QuerySettings.num_queries": (BASE, "queries.num_queries=10"),
    "QueryLossSettings.class_cost": (BASE, "losses.class_cost=100.0"),
    "QueryLossSettings.mask_cost": (BASE, "losses.mask_cost=0.0"),
    "QueryLossSettings.dice_cost": (BASE, "losses.dice_cost=1000.0"),
    "QueryLossSettings.no_object_weight": (BASE, "losses.no_object_weight=0.5"),
    "QueryLossSettings.targets": (BASE, "losses.targets=classes"),
    "QueryFusionSettings.task": (BASE, "fusion.task=semantic"),
    "QueryFusionSettings.object_threshold": (BASE, "fusion.object_threshold=0.99"),
    "QueryFusionSettings.overlap_threshold": (BASE, "fusion.overlap_threshold=1.0"),
    "PerPixelSettings.queries": (PLAIN, "queries.num_layers=1"),
}


@cache
def seen(kind: str, change: str) -> str:
    model = {"base": BASE, "encoder": ENCODER, "plain": PLAIN}[kind]
    return fingerprint(model, [change] if change else [])


def test_every_key_is_tested() -> None:
    keys = {*keys_of_classes(MaskFormerSettings), *keys_of_classes(PerPixelSettings)}
    keys -= set(keys_of_classes(TwoBranchSettings))
    assert keys == set(CHANGES)


@pytest.mark.parametrize("key", CHANGES)
def test_a_key_changes_something(key: str) -> None:
    model, change = CHANGES[key]
    kind = {id(BASE): "base", id(ENCODER): "encoder", id(PLAIN): "plain"}[id(model)]
    assert seen(kind, change) != seen(kind, "")


@pytest.mark.parametrize("layers", ["num_layers=1", "num_heads=2", "hidden_channels=8"])
def test_layers_of_the_decoder_change_too(layers: str) -> None:
    assert seen("base", f"queries.{layers}") != seen("base", "")
