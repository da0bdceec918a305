"""Backbones of the 3D-FUTURE winner against stage maps of mmdetection 3.3 and of its fork."""

from __future__ import annotations

import pytest
import torch

from seamless_pr.layers.abn import make_norm_act
from seamless_pr.models.backbones.stage_extras import StageExtras
from seamless_pr.models.backbones.timm_backbone import TimmBackbone
from seamless_pr.weights.mmdetection import our_backbone_name
from tests.support.golden import every_golden_case, load_golden
from tests.support.mmdet_recipe import normalized, recipe_image, recipe_tensors

RESNEXT, RES2NET = "resnext101_64x4d", "res2net101d"
DCN, DCN2 = {"deformable": "v1"}, {"deformable": "v2"}
GC16, GC4 = {"context_ratio": 1 / 16}, {"context_ratio": 1 / 4}
NO_POOL = {"pools_split_of_c2": False}
# Theirs -> (timm name, extras).
BACKBONES = {
    "mmdet3_resnet50_gc4": ("resnet50", GC4),
    "winner_res2net101_v1b_26w4s": (RES2NET, {}),
    "mmdet3_resnext101_64x4d_dcn2_gc16": (RESNEXT, DCN2 | GC16),
    "mmdet3_resnext101_64x4d": (RESNEXT, {}),
    "mmdet3_resnext101_64x4d_dcn": (RESNEXT, DCN),
    "mmdet3_res2net101_26w4s": (RES2NET, NO_POOL),
    "mmdet3_res2net101_26w4s_dcn_gc16": (RES2NET, NO_POOL | DCN | GC16),
    "winner_res2net101_v1b_26w4s_dcn_gc16": (RES2NET, DCN | GC16),
}
ALWAYS = list(BACKBONES)[:2]
# Rounding decides where their deformable layers read: from C4 on, float32 and float64 of the same
# code differ by as much as the maps' own size. Only statistics can be compared there.
CHAOTIC_FROM_C4 = {"mmdet3_res2net101_26w4s_dcn_gc16", "winner_res2net101_v1b_26w4s_dcn_gc16"}


def golden(name: str) -> dict[str, torch.Tensor]:
    arrays = load_golden(f"mmdet/backbones_{name.partition('_')[0]}")
    keys = {"image_hw", "seed", *(f"c{stage}_stat" for stage in range(2, 6))}
    return {
        key.removeprefix(f"{name}_"): value
        for key, value in arrays.items()
        if (key.startswith(f"{name}_c") and "_every" in key) or key.removeprefix(f"{name}_") in keys
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [*ALWAYS, *(pytest.param(name, marks=every_golden_case) for name in list(BACKBONES)[2:])],
)
def test_stages_are_those_of_mmdetection(name):
    timm_name, extras = BACKBONES[name]
    expected = golden(name)
    with torch.device("meta"):
        backbone = TimmBackbone(
            timm_name, make_norm_act("fixed_batch_norm", slope=0.0), extras=StageExtras(**extras)
        ).eval()
    weights = {
        our_backbone_name(key): tensor
        for key, tensor in recipe_tensors(f"backbone_{name}", int(expected["seed"])).items()
        if not key.endswith("num_batches_tracked")
    }
    backbone.load_state_dict(weights, assign=True)
    image = recipe_image(*expected["image_hw"].tolist(), int(expected["seed"]))
    with torch.no_grad():
        stages = backbone(normalized(image))
    for number, stage in enumerate(stages, start=2):
        numbers = stage.double()
        found = torch.stack([numbers.mean(), numbers.abs().mean(), numbers.square().mean()])
        is_chaotic = number >= 4 and name in CHAOTIC_FROM_C4
        statistics = expected[f"c{number}_stat"]
        torch.testing.assert_close(found, statistics, rtol=0.2 if is_chaotic else 1e-5, atol=0)
        step = stage.shape[1] // 8
        cells = expected[f"c{number}_every{step}"]
        if not is_chaotic:
            size = float(statistics[2]) ** 0.5
            torch.testing.assert_close(stage[0, ::step], cells, rtol=1e-4, atol=1e-5 * size)


def test_the_winners_resnext_is_that_of_mmdetection():
    winner, mmdet = golden("winner_resnext101_64x4d_dcn"), golden("mmdet3_resnext101_64x4d_dcn")
    for key, value in winner.items():
        torch.testing.assert_close(value, mmdet[key], rtol=0, atol=0)
