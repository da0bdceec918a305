"""Backbone, FPN and semantic head against the numbers of the reference, end to end."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from seamless_pr.layers.abn import make_norm_act
from seamless_pr.models.backbones.timm_backbone import TimmBackbone
from seamless_pr.models.necks.fpn import FPN
from seamless_pr.models.semantics.mini_dl import MiniDLHead
from seamless_pr.weights.seamseg import our_name
from tests.support.golden import load_golden
from tests.support.seamseg_weights import normalized, seeded_state_dict

# Largest difference by the largest value; the reference differs from itself by 2e-6 to 7e-6.
RELATIVE_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Case:
    golden: str
    seed: int
    network: str
    num_extra_levels: int
    num_classes: int


CASES = {
    case.golden: case
    for case in (
        Case("city_s7_201x333", 7, "cityscapes", 1, 19),
        Case("vistas_s8_160x250", 8, "vistas", 2, 65),
    )
}


@cache
def trunk_outputs(case: Case) -> dict[str, Tensor]:
    norm_act = make_norm_act()
    backbone = TimmBackbone("resnet50", norm_act)
    fpn = FPN(backbone.out_channels, 256, norm_act, case.num_extra_levels)
    head = MiniDLHead(256, case.num_classes, norm_act)
    trunk = nn.ModuleDict(
        {
            "trunk": nn.ModuleDict({"backbone": backbone, "neck": fpn}),
            "semantics": nn.ModuleDict({"head": head}),
        }
    ).eval()
    state = {our_name(name): tensor for name, tensor in weights_of_the_trunk(case).items()}
    trunk.load_state_dict(state)
    with torch.no_grad():
        stages = backbone(normalized(load_golden(f"seamseg/{case.golden}")["img0"]))
        levels = fpn(stages)
        logits = head(levels)
    outputs = {f"backbone_mod{index}_ch64": stage[:, ::64] for index, stage in enumerate(stages, 2)}
    outputs |= {f"fpn{index}_ch32": level[:, ::32] for index, level in enumerate(levels)}
    return outputs | {"sem_logits_low": logits}


def weights_of_the_trunk(case: Case) -> dict[str, Tensor]:
    weights = seeded_state_dict(case.seed, case.network)
    return {name: weights[name] for name in weights if name.startswith(("body.", "sem_head."))}


@pytest.mark.slow
@pytest.mark.parametrize("golden", CASES)
def test_features_and_logits_of_the_reference(golden):
    arrays = load_golden(f"seamseg/{golden}")
    outputs = trunk_outputs(CASES[golden])
    assert len(outputs) == 4 + 4 + CASES[golden].num_extra_levels + 1
    for name, output in outputs.items():
        expected = arrays[name].reshape(output.shape)
        difference = (output - expected).abs().max() / expected.abs().max()
        assert difference < RELATIVE_TOLERANCE, f"{name}: {difference:.1e}"
