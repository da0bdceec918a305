from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from seamless_pr.config.load import (
    config_differences,
    config_from_dict,
    config_to_dict,
    load_config,
    save_config,
)
from seamless_pr.config.schema import Config, ModelConfig, loss_names

PATHS = {"train": {"json": "t.json", "images": "t"}, "val": {"json": "v.json", "images": "v"}}


def smallest(**sections: Any) -> dict[str, Any]:
    """The keys that every config must give, and others."""
    weights = dict.fromkeys(loss_names(ModelConfig()), 1.0)
    return {"data": PATHS, "loss_weights": weights, **sections}


def write(path: Path, values: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


def test_values_reach_their_place_with_the_type_of_the_schema(tmp_path: Path) -> None:
    model = {"rpn": {"anchor_ratios": [1, 2]}, "backbone": {"options": {"channels": [8, 16]}}}
    path = write(tmp_path / "a.yaml", smallest(model=model, optimizer={"lr": 1}))
    config = load_config(
        path, ["training.steps=7", "schedule.warmup_factor=1e-1", "training.amp=bf16"]
    )
    assert config.model.rpn.anchor_ratios == (1.0, 2.0)
    assert config.model.backbone.options == {"channels": [8, 16]}
    assert isinstance(config.optimizer.lr, float)
    assert (config.training.steps, config.schedule.warmup_factor) == (7, 0.1)
    assert config.training.amp == "bf16"


def test_a_saved_config_is_read_back_as_it_was(tmp_path: Path) -> None:
    model = {"backbone": {"options": {"channels": [8, 16]}, "weights": "straße.pth"}}
    config = config_from_dict(smallest(model=model), "test")
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert config_from_dict(config_to_dict(config), "test") == config


@pytest.mark.parametrize(
    "values, message",
    [
        ({"optimiser": {"lr": 1}}, r"unknown key 'optimiser'; did you mean 'optimizer'\?"),
        (
            {"model": {"rpn": {"num_sample": 1}}},
            r"'model\.rpn\.num_sample'; did you mean 'model\.rpn\.num_samples'",
        ),
        ({"lr": 1}, r"unknown key 'lr'; did you mean 'optimizer\.lr'"),
        ({"optimizer": {"zzz": 1}}, r"unknown key 'optimizer\.zzz'; valid: kind, lr"),
        ({"model": {"rpn": 3}}, r"'model\.rpn' is a group of settings; got 3"),
        ({"optimizer": {"lr": "fast"}}, r"'optimizer\.lr' cannot be 'fast'"),
        ({"data": {**PATHS, "batch_size": 2.5}}, r"'data\.batch_size' cannot be 2\.5"),
        (
            {"model": {"box": {"delta_weights": [1, 2]}}},
            r"'model\.box\.delta_weights' cannot be \[1, 2\]",
        ),
        ({"optimizer": {"nesterov": [1]}}, r"'optimizer\.nesterov' cannot be \[1\]"),
        ({"optimizer": {"lr": None}}, r"'optimizer\.lr' cannot be None"),
        ({"data": {**PATHS, "scale_range": {}}}, r"'data\.scale_range' cannot be \{\}"),
        ({"optimizer": {"lr": "${speed}"}}, r"'optimizer\.lr' cannot be read: .*'speed'"),
        ({"data": {"train": PATHS["train"]}}, r"data\.val\.images, data\.val\.json must be given"),
    ],
)
def test_a_wrong_key_or_type_is_named_with_its_file(tmp_path: Path, values, message: str) -> None:
    path = write(tmp_path / "wrong.yaml", smallest(**values))
    with pytest.raises(ValueError, match=r"wrong\.yaml: .*" + message):
        load_config(path)


@pytest.mark.parametrize(
    "override, message",
    [
        (
            "optimizer.lrr=1",
            r"'optimizer\.lrr=1': unknown key 'optimizer\.lrr'; did you mean 'optimizer\.lr'",
        ),
        (
            "training.steps=many",
            r"override 'training\.steps=many': 'training\.steps' cannot be 'many'",
        ),
        ("training.steps", "must read key=value"),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_config(write(tmp_path / "a.yaml", smallest()), [override])


def test_a_config_changes_its_base_and_overrides_change_both(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", smallest(optimizer={"lr": 0.5, "momentum": 0.8}))
    path = write(tmp_path / "a.yaml", {"base": "base.yaml", "optimizer": {"momentum": 0.7}})
    optimizer = load_config(path, ["optimizer.weight_decay=0"]).optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (0.5, 0.7, 0.0)


def test_loss_weights_and_backbone_options_replace_those_of_the_base(tmp_path: Path) -> None:
    backbone = {"options": {"channels": [1, 2], "layers": [1, 1]}}
    write(tmp_path / "base.yaml", smallest(model={"backbone": backbone}))
    conv = {"backbone": {"options": {"layers": [2, 2]}}, "mask_head": {"kind": "conv"}}
    names = (
        "rpn_objectness",
        "rpn_box",
        "box_class",
        "box_delta",
        "mask",
        "semantic",
        "semantic_point",
    )
    weights = dict.fromkeys(names, 2.0)
    path = write(tmp_path / "a.yaml", {"base": "base.yaml", "model": conv, "loss_weights": weights})
    config = load_config(path, ["loss_weights.mask=3", "model.backbone.options.stem_width=8"])
    assert config.loss_weights == {**weights, "mask": 3.0}
    assert config.model.backbone.options == {"layers": [2, 2], "stem_width": 8}


def test_lr_multipliers_replace_those_of_the_base(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", smallest(optimizer={"lr_multipliers": {"fpn": 2, "rpn_head": 3}}))
    changed = {"base": "base.yaml", "optimizer": {"lr_multipliers": {"semantic_head": 10}}}
    config = load_config(write(tmp_path / "a.yaml", changed))
    assert config.optimizer.lr_multipliers == {"semantic_head": 10.0}


def test_a_backbone_is_filled_from_one_file_only(tmp_path: Path) -> None:
    overrides = ["initial_weights.file=a.safetensors", "model.backbone.weights=b.pth"]
    with pytest.raises(ValueError, match=r"a\.safetensors.* and .*b\.pth.* both fill the backbone"):
        load_config(write(tmp_path / "a.yaml", smallest()), overrides)


def test_a_base_with_a_base_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "c.yaml", smallest())
    write(tmp_path / "b.yaml", {"base": "c.yaml"})
    with pytest.raises(
        ValueError, match=r"b\.yaml is the base of .*a\.yaml and names a base itself"
    ):
        load_config(write(tmp_path / "a.yaml", {"base": "b.yaml"}))


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.yaml does not exist"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(FileNotFoundError, match=r"gone\.yaml does not exist"):
        load_config(write(tmp_path / "a.yaml", {"base": "gone.yaml"}))
    (tmp_path / "broken.yaml").write_text("a: [1, 2\nb: 3")
    with pytest.raises(ValueError, match=r"broken\.yaml is not valid YAML"):
        load_config(tmp_path / "broken.yaml")
    (tmp_path / "twice.yaml").write_text("data: 1\ndata: 2")
    with pytest.raises(ValueError, match=r"twice\.yaml is not valid YAML"):
        load_config(tmp_path / "twice.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n- 2")
    with pytest.raises(ValueError, match=r"list\.yaml must hold 'key: value' lines"):
        load_config(tmp_path / "list.yaml")


@pytest.mark.parametrize(
    "override, message",
    [
        ("model.mask_head.kind=deconv", "must be one of 'conv', 'point_rend'; got 'deconv'"),
        ("optimizer.lr=0", "'optimizer.lr' must be greater than 0; got 0.0"),
        ("optimizer.lr_multipliers.fpn=0", "must be greater than 0 for every part; got {'fpn': 0"),
        ("data.scale_range=[2,1]", "'data.scale_range' must be two numbers, 0 < first <= second"),
        ("schedule.milestones=[5,3]", "'schedule.milestones' must be ascending steps"),
        ("model.rpn.negative_iou=0.9", "'model.rpn.negative_iou' must be at most"),
        ("data.longest_side_pixels=10", "'data.longest_side_pixels' must be at least"),
        ("data.crop_size_pixels=[0,5]", "'data.crop_size_pixels' must be two positive numbers"),
        ("data.crop_max_class_fraction=0", "must be above 0 and at most 1; got 0"),
        ("data.crop_max_class_fraction=0.75", "but 'data.crop_size_pixels' is null; give a size"),
        ("data.scale_step_pixels=-1", "'data.scale_step_pixels' must be 0 or more; got -1"),
        ("optimizer.accumulation_steps=3", "must be a multiple of 'optimizer.accumulation_steps'"),
        ("cluster.num_workers=0", "'cluster.num_workers' must be 1 or more; got 0"),
        ("cluster.min_workers=2", "'cluster.min_workers' must be 1 to 'cluster.num_workers' (1)"),
        ("optimizer.momentum=0", "'optimizer.nesterov' needs 'optimizer.momentum' above 0"),
        ("loss_weights.rpn_objectnes=1", "missing: none; extra: rpn_objectnes"),
        ("initial_weights.random_parts=[mask_head]", "but there is no file; got ['mask_head']"),
        ("model.backbone.output_stride=4", "must be 8, 16 or 32; got 4"),
        ("model.backbone.output_stride=16", "must be 32 for a pyramid; got 16"),
        ("model.backbone.multi_grid=[1,0]", "must be positive numbers or empty; got (1, 0)"),
        ("model.semantic_head.kind=deeplab_v3", "'model.branches' must be 'semantic'; got 'both'"),
        ("loss_weights.semantic=-1", "'loss_weights' must be 0 or more"),
        ("model.semantic_head.refinement=none", "missing: none; extra: semantic_point"),
        ("model.mask_head.kind=conv", "missing: mask; extra: mask_coarse, mask_point"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_is_allowed(
    tmp_path: Path, override, message
) -> None:
    path = write(tmp_path / "a.yaml", smallest())
    with pytest.raises(ValueError) as error:
        load_config(path, [override])
    assert message in str(error.value)


def test_differences_are_named_by_dotted_keys() -> None:
    old: Config = config_from_dict(smallest(), "old")
    new = config_from_dict(smallest(optimizer={"lr": 0.5}, data={**PATHS, "batch_size": 4}), "new")
    assert config_differences(old, new) == {"data.batch_size": (8, 4), "optimizer.lr": (0.01, 0.5)}
    assert config_differences(old, old) == {}
