"""Deformable convolutions and global context in the stages of small networks."""

from __future__ import annotations

import pytest
import torch

from seamless_pr.layers.abn import make_norm_act
from seamless_pr.layers.deformable import DeformableConv2d
from seamless_pr.layers.global_context import GlobalContext
from seamless_pr.models.backbones.stage_extras import StageExtras
from seamless_pr.models.backbones.timm_backbone import TimmBackbone

SMALL = {"channels": (16, 16, 24, 32), "stem_width": 8, "layers": (1, 2, 1, 1)}
ALL = StageExtras(deformable="v2", context_ratio=0.25)


def backbone(name: str = "resnet50", extras: StageExtras | None = None, **options) -> TimmBackbone:
    torch.manual_seed(0)
    return TimmBackbone(name, make_norm_act(**options), extras=extras, **SMALL)


def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name, per_block", [("resnet50", 1), ("res2net50d", 3), ("resnet18", 2)])
def test_every_block_of_the_named_stages_and_no_other_has_them(name, per_block):
    extras = StageExtras("v1", ("c3", "c5"), 0.25, ("c2",))
    network = backbone(name, extras)
    counts = {
        stage: [
            sum(isinstance(part, kind) for part in network.get_submodule(stage).modules())
            for kind in (DeformableConv2d, GlobalContext)
        ]
        for stage in ("layer1", "layer2", "layer3", "layer4")
    }
    assert counts == {
        "layer1": [0, 1],
        "layer2": [2 * per_block, 0],
        "layer3": [0, 0],
        "layer4": [per_block, 0],
    }


def test_at_first_a_network_with_extras_gives_the_plain_maps():
    plain, extended = backbone().eval(), backbone(extras=StageExtras("v1", context_ratio=0.25))
    extended.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(extended.eval()(images()), plain(images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet50", "res2net50d"])
def test_in_place_norms_train_like_plain_ones_beside_extras(name):
    plain, in_place = backbone(name, ALL, kind="abn").double(), backbone(name, ALL).double()
    for parameter in plain.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(torch.linspace(-0.2, 0.3, len(parameter)))
    in_place.load_state_dict(plain.state_dict())
    for network in (plain, in_place):
        sum(stage.square().mean() for stage in network(images().double())).backward()
    for expected, parameter in zip(plain.parameters(), in_place.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-6, atol=1e-9)


def test_frozen_stages_include_their_extras():
    network = backbone(extras=StageExtras("v2", ("c2", "c5"), 0.25, ("c2",)))
    network.freeze(2)
    frozen = {name for name, weight in network.named_parameters() if not weight.requires_grad}
    assert {name for name, _ in network.named_parameters() if "layer1" in name} <= frozen
    assert not any("layer4" in name for name in frozen)


def test_the_pool_of_a_res2nets_first_split_is_a_switch_without_weights():
    pooled, plain = (
        backbone("res2net50d", StageExtras(pools_split_of_c2=pools)).eval()
        for pools in (True, False)
    )
    plain.load_state_dict(pooled.state_dict())
    for layer in (pooled, plain):
        torch.nn.init.ones_(layer.get_submodule("layer1.0.bn3").weight)
    difference = (pooled(images())[0] - plain(images())[0]).abs().max().detach()
    assert float(difference) > 1e-3


def test_places_that_a_network_lacks_are_named():
    with pytest.raises(ValueError, match="c2, c3, c4, c5; got 'c6'"):
        StageExtras(deformable_stages=("c6",))
    with pytest.raises(ValueError, match="pools no split in its first block"):
        backbone(extras=StageExtras(pools_split_of_c2=False))
    with pytest.raises(ValueError, match="an attention of their own"):
        backbone("seresnet50", StageExtras(context_ratio=0.25))
    with pytest.raises(ValueError, match="no place for a global context"):
        TimmBackbone("regnetx_002", make_norm_act(), extras=StageExtras(context_ratio=0.25))
