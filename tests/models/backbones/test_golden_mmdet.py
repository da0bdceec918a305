"""Backbones of the 3D-FUTURE winner against stage maps of mmdetection 3.3 and of its fork."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from seamless_pr.layers.abn import make_norm_act
from seamless_pr.models.backbones.stage_extras import StageExtras
from seamless_pr.models.backbones.timm_backbone import TimmBackbone
from seamless_pr.weights.mmdetection import our_backbone_name
from tests.oracles.res2net import res2net_stages
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
ALWAYS = {"mmdet3_resnet50_gc4", "winner_res2net101_v1b_26w4s_dcn_gc16"}
# Rounding decides where their deformable layers read: what float32 leaves of C3 changes C4 by a
# tenth of its size. Beyond C3 these two are compared in float64 with a plain reading of the same
# weights, and with the golden maps as far as rounding lets anyone.
CHAOTIC_FROM_C4 = {"mmdet3_res2net101_26w4s_dcn_gc16", "winner_res2net101_v1b_26w4s_dcn_gc16"}


def golden(name: str) -> dict[str, torch.Tensor]:
    arrays = load_golden(f"mmdet/backbones_{name.partition('_')[0]}")
    keys = {"image_hw", "seed", *(f"c{stage}_stat" for stage in range(2, 6))}
    return {
        key.removeprefix(f"{name}_"): value
        for key, value in arrays.items()
        if (key.startswith(f"{name}_c") and "_every" in key) or key.removeprefix(f"{name}_") in keys
    }


def weights_of(name: str) -> dict[str, Tensor]:
    weights = recipe_tensors(f"backbone_{name}", int(golden(name)["seed"]))
    return {key: x for key, x in weights.items() if not key.endswith("num_batches_tracked")}


def built(name: str, weights: Mapping[str, Tensor]) -> TimmBackbone:
    timm_name, extras = BACKBONES[name]
    with torch.device("meta"):
        backbone = TimmBackbone(
            timm_name, make_norm_act("fixed_batch_norm", slope=0.0), extras=StageExtras(**extras)
        ).eval()
    ours = {our_backbone_name(key): tensor for key, tensor in weights.items()}
    backbone.load_state_dict(ours, assign=True)
    return backbone


def golden_image(expected: Mapping[str, Tensor]) -> Tensor:
    return normalized(recipe_image(*expected["image_hw"].tolist(), int(expected["seed"])))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ALWAYS else (every_golden_case,))
        for name in BACKBONES
    ],
)
def test_stages_are_those_of_mmdetection(name):
    expected = golden(name)
    with torch.no_grad():
        stages = built(name, weights_of(name))(golden_image(expected))
    last = 3 if name in CHAOTIC_FROM_C4 else 5
    for number, stage in enumerate(stages[: last - 1], start=2):
        numbers = stage.double()
        found = torch.stack([numbers.mean(), numbers.abs().mean(), numbers.square().mean()])
        statistics = expected[f"c{number}_stat"]
        torch.testing.assert_close(found, statistics, rtol=1e-5, atol=0)
        step = stage.shape[1] // 8
        cells = expected[f"c{number}_every{step}"]
        size = float(statistics[2]) ** 0.5
        torch.testing.assert_close(stage[0, ::step], cells, rtol=1e-4, atol=1e-5 * size)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "winner_res2net101_v1b_26w4s_dcn_gc16",
        pytest.param("mmdet3_res2net101_26w4s_dcn_gc16", marks=every_golden_case),
    ],
)
def test_deformable_res2nets_are_those_of_a_plain_reading_of_their_weights(name):
    weights = {key: tensor.double() for key, tensor in weights_of(name).items()}
    image = normalized(recipe_image(61, 90, 31)).double()
    with torch.no_grad():
        stages = built(name, weights)(image)
        expected = res2net_stages(image, weights, pools_c2=name.startswith("winner"))
    for found, stage in zip(stages, expected, strict=True):
        size = float(stage.square().mean()) ** 0.5
        torch.testing.assert_close(found, stage, rtol=0, atol=1e-6 * size)


@every_golden_case
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CHAOTIC_FROM_C4))
def test_golden_maps_beyond_c3_are_as_far_from_float64_as_our_float32(name):
    expected = golden(name)
    weights, image = weights_of(name), golden_image(expected)
    with torch.no_grad():
        rounded = built(name, weights)(image)
        doubled = {key: tensor.double() for key, tensor in weights.items()}
        exact = built(name, doubled)(image.double())
    for number in (3, 4, 5):
        step = exact[number - 2].shape[1] // 8
        cells = expected[f"c{number}_every{step}"].double()
        found, other = exact[number - 2][0, ::step], rounded[number - 2][0, ::step]
        size, by_rounding, golden_distance = (
            float(x.square().mean()) ** 0.5 for x in (cells, other - found, cells - found)
        )
        assert golden_distance < 2 * by_rounding
        assert (by_rounding > 0.05 * size) == (number > 3)


def test_the_winners_resnext_is_that_of_mmdetection():
    winner, mmdet = golden("winner_resnext101_64x4d_dcn"), golden("mmdet3_resnext101_64x4d_dcn")
    for key, value in winner.items():
        torch.testing.assert_close(value, mmdet[key], rtol=0, atol=0)
