"""Configs of the released code."""

from __future__ import annotations

import pytest

from seamless_pr.weights.seamseg_config import config_values
from tests.support.snapshots import CONFIG_INI


def test_values_take_the_names_of_our_config():
    values = config_values(CONFIG_INI, "config.ini")
    model = values["model"]
    assert model["backbone"] == {"name": "resnet50"}
    assert model["norm_act"] == {"kind": "inplace_abn", "sync": True}
    assert model["neck"] == {"num_extra_levels": 2}
    assert model["instances"]["rpn"] == {
        "anchor_ratios": (0.2, 0.5, 1, 2, 5),
        "anchor_scale": 2,
        "post_nms_test": 300,
        "box_loss_beta": pytest.approx(1 / 9),
    }
    assert model["semantics"] == {"hard_pixel_fraction": 0.25, "pooling_size": 32}
    assert model["fusion"] == {"stuff_area_pixels": 2048}
    assert model["pixel_mean"] == (0.4, 0.5, 0.6)
    assert values["data"] == {"shortest_side_pixels": 1920, "longest_side_pixels": 2304}


@pytest.mark.parametrize(
    "line", ["[body]\nactivation = elu", "[rpn]\nmin_size = 16", "[body]\nnormalization_mode = off"]
)
def test_networks_that_cannot_be_built_are_refused(line):
    key = line.split("\n")[1].split(" ")[0]
    with pytest.raises(ValueError, match=rf"config\.ini: .*{key} .* is not supported"):
        config_values(line, "config.ini")


@pytest.mark.parametrize(
    "line",
    [
        "[rpn]\nsigma = much",
        "[rpn]\nsigma = 0",
        "[sem]\npooling_size = 7",
        "[sem]\npooling_size = ()",
    ],
)
def test_numbers_that_are_none_are_named(line):
    key = line.split("\n")[1].split(" ")[0]
    with pytest.raises(ValueError, match=rf"config\.ini: .*{key} must be"):
        config_values(line, "config.ini")


@pytest.mark.parametrize("text", ["{[]: 1}", "-" * 3000 + "1", "[" * 3000])
def test_a_value_that_is_no_literal_is_a_text(text):
    with pytest.raises(ValueError, match=r"config\.ini: \[roi\] sigma = .* is not supported"):
        config_values(f"[roi]\nsigma = {text}", "config.ini")


def test_quotes_around_the_kind_of_norm_change_nothing():
    values = config_values("[body]\nnormalization_mode = 'bn'", "config.ini")
    assert values["model"]["norm_act"] == {"kind": "inplace_abn", "sync": False}


def test_a_text_that_is_no_ini_is_named():
    with pytest.raises(ValueError, match=r"config\.ini is not an INI file"):
        config_values("body: resnet50", "config.ini")
