"""Configs of version 0.1 are refused with the command that converts them, and converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from seamless_pr.build.configs import config_from_dict, load_config
from seamless_pr.config.legacy import converted, is_old, kinds_of_new
from tests.support.small_config import PATHS, smallest

SLOPE = {"slope": 0.0, "eps": 1e-3, "momentum": 0.2, "sync": False, "num_groups": 8}
# Every key that version 0.1 had under `model`.
OLD_MODEL: dict[str, Any] = {
    "branches": "both",
    "backbone": {"name": "resnet18", "output_stride": 32, "options": {"channels": [8, 8]}},
    "norm_act": {"kind": "batch_norm", **SLOPE},
    "head_norm_act": {"kind": "same", **SLOPE},
    "fpn": {"channels": 8, "num_extra_levels": 2},
    "rpn_head": {"hidden_channels": 4},
    "box_head": {"hidden_channels": 16, "pooling": 1},
    "mask_head": {
        "kind": "point_rend",
        "hidden_channels": 9,
        "norm_rois": "sampled",
        "coarse_hidden_channels": 10,
        "coarse_roi_size": 12,
        "point_channels": 11,
        "num_point_layers": 2,
        "coarse_each_layer": False,
    },
    "semantic_head": {
        "kind": "fpn",
        "norm_act": {"kind": "group_norm", **SLOPE},
        "hidden_channels": 12,
        "pooling_size": 13,
        "first_level": 1,
        "refinement": "point_rend",
        "point_channels": 14,
        "num_point_layers": 4,
        "coarse_each_layer": True,
    },
    "rpn": {"anchor_scale": 2.0},
    "roi": {"sampler": "aligned", "mask_size": 28},
    "box": {"num_samples": 15},
    "points": {"output_size": 56},
    "semantic": {
        "loss": "valid_mean",
        "things": "classes",
        "hard_pixel_fraction": 0.5,
        "upsample_to_input": True,
        "hard_point_fraction": 0.25,
        "num_train_points": 16,
        "subdivision_points": 17,
    },
    "fusion": {"size": "network"},
    "pixel_mean": [0.1, 0.2, 0.3],
    "size_divisor": 32,
    "global_loss_counts": False,
}


def changed(**groups: dict[str, Any] | str) -> dict[str, Any]:
    """The old model with some keys of its groups changed."""
    model = dict(OLD_MODEL)
    for name, keys in groups.items():
        model[name] = {**model[name], **keys} if isinstance(keys, dict) else keys
    return {"model": model}


def test_every_key_of_a_point_rend_network_finds_its_place() -> None:
    new = converted({"model": OLD_MODEL, "training": {"steps": 3}})
    assert new["training"] == {"steps": 3, "global_loss_counts": False}
    assert new["model"] == {
        "kind": "two_branch",
        "backbone": {"kind": "timm", **OLD_MODEL["backbone"]},
        "norm_act": {
            "kind": "batch_norm",
            "slope": 0.0,
            "eps": 1e-3,
            "momentum": 0.2,
            "sync": False,
        },
        "head_norm_act": None,
        "neck": {"kind": "fpn", "channels": 8, "num_extra_levels": 2},
        "instances": {
            "kind": "point_rend",
            "rpn": {"hidden_channels": 4, "anchor_scale": 2.0},
            "roi": {"sampler": "aligned"},
            "box": {"hidden_channels": 16, "pooling": 1, "num_samples": 15},
            "mask": {"hidden_channels": 10, "roi_size": 12},
            "points": {
                "hidden_channels": 11,
                "num_layers": 2,
                "coarse_each_layer": False,
                "output_size": 56,
            },
        },
        "semantics": {
            "kind": "panoptic_fpn",
            "norm_act": {"kind": "group_norm", "slope": 0.0, "eps": 1e-3, "num_groups": 8},
            "hidden_channels": 12,
            "first_level": 1,
            "loss": "valid_mean",
            "things": "classes",
            "hard_pixel_fraction": 0.5,
            "points": {
                "hidden_channels": 14,
                "num_layers": 4,
                "coarse_each_layer": True,
                "hard_point_fraction": 0.25,
                "num_train_points": 16,
                "subdivision_points": 17,
            },
        },
        "fusion": {"size": "network"},
        "pixel_mean": [0.1, 0.2, 0.3],
        "size_divisor": 32,
    }


def test_the_other_kinds_keep_their_own_keys() -> None:
    conv = converted(changed(mask_head={"kind": "conv"}))["model"]["instances"]
    assert conv["kind"] == "mask_rcnn"
    assert conv["mask"] == {"hidden_channels": 9, "norm_rois": "sampled", "roi_size": 28}
    shared = converted(changed(mask_head={"kind": "conv"}, roi={"mask_size": 0}))
    assert shared["model"]["instances"]["mask"]["roi_size"] is None
    mini_dl = converted(changed(semantic_head={"kind": "mini_dl", "refinement": "none"}))
    assert mini_dl["model"]["semantics"]["pooling_size"] == 13
    assert mini_dl["model"]["semantics"]["points"] is None
    assert mini_dl["model"]["semantics"]["upsample_to_input"] is True
    deeplab = converted(changed(branches="semantic", semantic_head={"kind": "deeplab_v3"}))["model"]
    assert (deeplab["neck"], deeplab["instances"]) == (None, None)
    assert deeplab["semantics"]["kind"] == "deeplab"
    assert converted(changed(branches="instance"))["model"]["semantics"] is None
    assert converted(changed(branches="separate"))["model"]["kind"] == "separate"


def test_values_beside_the_model_follow() -> None:
    old = {
        "model": {"branches": "both", "mask_head": {"kind": "conv"}},
        "optimizer": {"lr_multipliers": {"semantic_head": 2.0, "fpn": 3.0, "mask_head": 4.0}},
        "schedule": {"kind": "poly", "milestones": [], "gamma": 0.1, "power": 0.9},
        "initial_weights": {"file": "a", "random_parts": ["semantic_head", "rpn_head"]},
    }
    new = converted(old)
    assert new["optimizer"]["lr_multipliers"] == {
        "semantics.head": 2.0,
        "trunk.neck": 3.0,
        "instances.masks.head": 4.0,
    }
    assert new["schedule"] == {"kind": "poly", "power": 0.9}
    assert new["initial_weights"]["random_parts"] == ["semantics.head", "instances.rpn_head"]
    adamw = converted({"optimizer": {"kind": "adamw", "momentum": 0.9, "nesterov": True}})
    assert adamw["optimizer"] == {"kind": "adamw"}


def test_a_converted_config_is_one_of_ours() -> None:
    losses = ("rpn_objectness", "rpn_box", "box_class", "box_delta", "mask_coarse", "mask_point")
    rest = {"data": PATHS, "loss_weights": dict.fromkeys((*losses, "semantic"), 1.0)}
    config = config_from_dict(converted({"model": OLD_MODEL, **rest}), "test")
    assert config.model.semantics.points.num_train_points == 16
    # What the old layout would have refused, ours refuses.
    wrong = converted({**changed(mask_head={"knid": 3}), **rest})
    with pytest.raises(ValueError, match=r"unknown key 'model\.instances\.mask\.knid'"):
        config_from_dict(wrong, "test")


def test_what_an_old_config_leaves_open_is_taken_from_its_base() -> None:
    base = {
        "model": {
            "kind": "two_branch",
            "instances": {"kind": "mask_rcnn"},
            "semantics": {"kind": "deeplab", "norm_act": {"kind": "bias"}},
            "norm_act": {"kind": "group_norm"},
        },
        "optimizer": {"kind": "adamw"},
    }
    old = {"model": {"box": {"num_samples": 3}, "norm_act": {"eps": 1.0, "sync": True}}}
    new = converted(old, kinds_of_new(base))["model"]
    assert new["instances"]["kind"] == "mask_rcnn"
    assert new["semantics"] == {"kind": "deeplab", "points": None}
    assert new["norm_act"] == {"kind": "group_norm", "eps": 1.0}


@pytest.mark.parametrize(
    "model",
    [{"branches": "both"}, {"fpn": {}}, {"head_norm_act": {"kind": "same"}}, OLD_MODEL],
    ids=str,
)
def test_an_old_config_is_refused_with_the_command_that_converts_it(
    tmp_path: Path, model: dict[str, Any]
) -> None:
    (tmp_path / "old.yaml").write_text(yaml.safe_dump({"model": model, "data": PATHS}))
    with pytest.raises(
        ValueError, match=r"old\.yaml has the layout of .*convert_weights.py update"
    ):
        load_config(tmp_path / "old.yaml")
    with pytest.raises(ValueError, match=r"the config in x has the layout of version 0\.1"):
        config_from_dict({"model": model}, "the config in x")


def test_an_old_key_in_an_override_is_an_unknown_key() -> None:
    with pytest.raises(ValueError, match=r"^override 'model\.fpn\.channels=1': unknown key"):
        config_from_dict(smallest(), "test", ["model.fpn.channels=1"])


def test_a_config_of_today_is_not_old() -> None:
    assert not is_old({"model": {"kind": "two_branch", "backbone": {}}})
    assert not is_old({"model": {"backbone": {"name": "resnet18"}}})
    assert not is_old({"data": {}})
