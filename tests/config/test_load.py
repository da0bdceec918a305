"""From files, overrides and plain values to a config, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from seamless_pr.build.configs import config_from_dict, load_config
from seamless_pr.config.load import config_differences, config_to_dict, save_config
from seamless_pr.config.schema import Config
from tests.support.small_config import PATHS, model, smallest


def write(path: Path, values: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


def test_values_reach_their_place_with_the_type_of_the_schema(tmp_path: Path) -> None:
    network = model(
        instances={"rpn": {"anchor_ratios": [1, 2]}},
        backbone={"options": {"channels": [8, 16]}},
    )
    path = write(tmp_path / "a.yaml", smallest(model=network, optimizer={"lr": 1}))
    config = load_config(
        path, ["training.steps=7", "schedule.warmup_factor=1e-1", "training.amp=bf16"]
    )
    assert config.model.instances.rpn.anchor_ratios == (1.0, 2.0)
    assert config.model.backbone.options == {"channels": [8, 16]}
    assert isinstance(config.optimizer.lr, float)
    assert (config.training.steps, config.schedule.warmup_factor) == (7, 0.1)
    assert config.training.amp == "bf16"


def test_a_saved_config_is_read_back_as_it_was(tmp_path: Path) -> None:
    options = {"channels": [8, 16], "a": "1e3", "b": "0012", "c": "null", "d": 1e-30, "e": None}
    backbone = {"options": options, "weights": "straße #1.pth"}
    data = {**PATHS, "train": {"json": "0012", "images": "yes", "segments": "null"}}
    config = config_from_dict(smallest(model=model(backbone=backbone), data=data), "test")
    assert config.model.backbone.options == options
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert config_from_dict(config_to_dict(config), "test") == config


def test_text_keys_take_words_as_typed(tmp_path: Path) -> None:
    text = yaml.safe_dump(smallest()).replace("images: t", "images: 0012")
    (tmp_path / "a.yaml").write_text(text)
    assert load_config(tmp_path / "a.yaml").data.train.images == "0012"
    for words in ("0012", "yes", "1e3", "x #y: z", "2024-01-01", "[a", "a=b"):
        config = load_config(tmp_path / "a.yaml", [f"data.train.images={words}"])
        assert config.data.train.images == words
    quoted = load_config(tmp_path / "a.yaml", ["model.backbone.weights='null'"])
    assert quoted.model.backbone.weights == "null"
    assert load_config(tmp_path / "a.yaml", ["model.backbone.weights=null"]) == load_config(
        tmp_path / "a.yaml"
    )


@pytest.mark.parametrize(
    "values, message",
    [
        ({"optimiser": {"lr": 1}}, r"unknown key 'optimiser'; did you mean 'optimizer'\?"),
        (
            {"model": model(instances={"rpn": {"num_sample": 1}})},
            r"'model\.instances\.rpn\.num_sample'; did you mean "
            r"'model\.instances\.rpn\.num_samples'",
        ),
        ({"lr": 1}, r"unknown key 'lr'; did you mean 'optimizer\.lr'"),
        ({"optimizer": {"zzz": 1}}, r"unknown key 'optimizer\.zzz'; valid: kind, lr"),
        ({"model": model(fusion=3)}, r"'model\.fusion' is a group of settings; got 3; give its"),
        ({"model": model(fusion=None)}, r"'model\.fusion' is a group of settings; got null; give"),
        ({"optimizer": {"lr": "fast"}}, r"'optimizer\.lr' must be a number; got 'fast'"),
        (
            {"data": {**PATHS, "batch_size": 2.5}},
            r"'data\.batch_size' must be a whole number; got 2\.5",
        ),
        (
            {"model": model(instances={"box": {"delta_weights": [1, 2]}})},
            r"'model\.instances\.box\.delta_weights' must be a list of 4; got \[1, 2\]",
        ),
        ({"optimizer": {"nesterov": [1]}}, r"'optimizer\.nesterov' must be true or false; got"),
        ({"optimizer": {"lr": None}}, r"'optimizer\.lr' must be a number; got null"),
        ({"data": {**PATHS, "scale_range": {}}}, r"'data\.scale_range' must be a list .* got \{\}"),
        ({"loss_weights": [1]}, r"'loss_weights' must be a mapping such as .* got \[1\]"),
        (
            {"optimizer": {"lr": "${speed}"}},
            r"'optimizer\.lr' cannot be '\$\{speed\}': values are taken as written",
        ),
        ({"data": {"train": PATHS["train"]}}, r"data\.val\.images, data\.val\.json must be given"),
        ({"training": {"steps": "???"}}, r"training\.steps must be given"),
        ({"model": {}}, r"'model\.kind' must be given; one of 'two_branch', 'separate'"),
        (
            {"data": {**PATHS, "train": {"json": "0" * 10**5, "images": "a"}}},
            r"'data\.train\.json' is too long for a file name; got '0{199}\.\.\.$",
        ),
        (
            {"data": {**PATHS, "label_space": "a\0"}},
            r"'data\.label_space' holds a NUL; got 'a\\x00'$",
        ),
        ({"initial_weights": {"file": "ß" * 128}}, r"'initial_weights\.file' is too long"),
        ({"optimizer": {"lr": "x" * 10**5}}, r"'optimizer\.lr' must be a number; got 'x{199}"),
        ({"y" * 10**5: 1}, r"unknown key 'y{200}\.\.\.'; valid: "),
        ({"base": "z" * 300}, r"'base' must be the name of a file, or a list of them; got z{200}"),
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
            r"override 'training\.steps=many': 'training\.steps' must be a whole number; "
            "got 'many'",
        ),
        ("training.steps", "must read key=value"),
        ("=1", "must read key=value"),
        (
            "data.scale_range=[1, 2",
            r"'data\.scale_range' cannot be '\[1, 2': while parsing .*line 1, column 6",
        ),
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


def test_of_several_fragments_the_later_win(tmp_path: Path) -> None:
    (tmp_path / "networks").mkdir()
    write(tmp_path / "networks/net.yaml", {"model": model(size_divisor=32), "loss_weights": {}})
    write(tmp_path / "city.yaml", {"data": PATHS, "model": {"size_divisor": 64}})
    write(tmp_path / "long.yaml", {"training": {"steps": 9}, "data": {"batch_size": 2}})
    (tmp_path / "runs").mkdir()
    bases = ["../networks/net.yaml", "../city.yaml", "../long.yaml"]
    config = load_config(
        write(tmp_path / "runs/a.yaml", {"base": bases, "data": {"batch_size": 4}})
    )
    assert (config.model.size_divisor, config.training.steps, config.data.batch_size) == (64, 9, 4)
    backwards = write(tmp_path / "runs/b.yaml", {"base": [bases[1], bases[0], bases[2]]})
    with pytest.raises(ValueError, match=r"city\.yaml: 'model\.kind' must be given"):
        load_config(backwards)


@pytest.mark.parametrize("base", [{"a": "b.yaml"}, [["b.yaml"]]])
def test_a_base_is_a_name_or_a_list_of_names(tmp_path: Path, base: Any) -> None:
    with pytest.raises(ValueError, match=r"a\.yaml: 'base' must be the name of a file, or a list"):
        load_config(write(tmp_path / "a.yaml", {"base": base}))


def test_loss_weights_and_backbone_options_replace_those_of_the_base(tmp_path: Path) -> None:
    backbone = {"options": {"channels": [1, 2], "layers": [1, 1]}}
    write(tmp_path / "base.yaml", smallest(model=model(backbone=backbone)))
    changed = {"backbone": {"options": {"layers": [2, 2]}}}
    values = {"base": "base.yaml", "model": changed, "loss_weights": {"mask": 2.0, "semantic": 1}}
    config = load_config(
        write(tmp_path / "a.yaml", values),
        ["loss_weights.mask=3", "model.backbone.options.stem_width=8"],
    )
    assert config.loss_weights == {"mask": 3.0, "semantic": 1.0}
    assert config.model.backbone.options == {"layers": [2, 2], "stem_width": 8}


def test_lr_multipliers_replace_those_of_the_base_and_may_name_inner_parts(tmp_path: Path) -> None:
    multipliers = {"trunk.neck": 2, "instances": 3}
    write(tmp_path / "base.yaml", smallest(optimizer={"lr_multipliers": multipliers}))
    changed = {"base": "base.yaml", "optimizer": {"lr_multipliers": {"semantics.head": 10}}}
    path = write(tmp_path / "a.yaml", changed)
    assert load_config(path).optimizer.lr_multipliers == {"semantics.head": 10.0}
    more = load_config(path, ["optimizer.lr_multipliers.trunk.neck=2"])
    assert more.optimizer.lr_multipliers == {"semantics.head": 10.0, "trunk.neck": 2.0}
    others = load_config(path, ["optimizer.lr_multipliers={trunk: 4}"])
    assert others.optimizer.lr_multipliers == {"trunk": 4.0}


def test_a_backbone_is_filled_from_one_file_only(tmp_path: Path) -> None:
    overrides = ["initial_weights.file=a.safetensors", "model.backbone.weights=b.pth"]
    with pytest.raises(ValueError, match=r"a\.safetensors.* and .*b\.pth.* both fill the backbone"):
        load_config(write(tmp_path / "a.yaml", smallest()), overrides)


def test_a_base_with_a_base_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "c.yaml", smallest())
    write(tmp_path / "b.yaml", {"base": "c.yaml"})
    with pytest.raises(ValueError, match=r"b\.yaml is a base of .*a\.yaml and names a base itself"):
        load_config(write(tmp_path / "a.yaml", {"base": "b.yaml"}))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.yaml does not exist"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(FileNotFoundError, match=r"gone\.yaml does not exist"):
        load_config(write(tmp_path / "a.yaml", {"base": "gone.yaml"}))


@pytest.mark.parametrize(
    "override, message",
    [
        (
            "model.instances.kind=deconv",
            "'mask_rcnn', 'point_rend', 'implicit_point_rend', 'htc', 'solov2'; got 'deconv'",
        ),
        ("optimizer.lr=0", "'optimizer.lr' must be greater than 0; got 0"),
        ("optimizer.lr=1e999", "'optimizer.lr' must be a finite number; got inf"),
        ("optimizer.lr=.nan", "'optimizer.lr' must be a finite number; got nan"),
        ("model.backbone.options.x=.inf", "'model.backbone.options' must be made of finite"),
        ("optimizer.lr_multipliers.fpn=0", "lr_multipliers.fpn' must be greater than 0; got 0"),
        ("data.scale_range=[2,1]", "'scale_range' must be two numbers, 0 < first <= second"),
        ("schedule.milestones=[5,3]", "in 'schedule': 'milestones' must be ascending steps"),
        ("schedule.milestones=[0]", "'schedule.milestones[0]' must be 1 or more; got 0"),
        ("model.instances.rpn.negative_iou=0.9", "in 'model.instances.rpn': 'negative_iou' must"),
        ("model.instances.rpn.anchor_ratios=[]", "must have at least 1 item; got []"),
        ("model.pixel_std=[1, 0, 1]", "'model.pixel_std[1]' must be greater than 0; got 0"),
        ("data.longest_side_pixels=10", "in 'data': 'longest_side_pixels' must be at least"),
        ("data.crop_size_pixels=[0,5]", "'data.crop_size_pixels[0]' must be 1 or more; got 0"),
        ("data.crop_max_class_fraction=0", "must be greater than 0; got 0"),
        ("data.crop_max_class_fraction=0.75", "but 'crop_size_pixels' is null; give a size"),
        ("data.scale_step_pixels=-1", "'data.scale_step_pixels' must be 0 or more; got -1"),
        ("optimizer.accumulation_steps=3", "must be a multiple of 'optimizer.accumulation_steps'"),
        ("cluster.num_workers=0", "'cluster.num_workers' must be 1 or more; got 0"),
        ("cluster.min_workers=2", "'min_workers' must be 1 to 'num_workers' (1) or null; got 2"),
        ("optimizer.momentum=0", "in 'optimizer': 'nesterov' needs 'momentum' above 0"),
        ("optimizer.momentum=1", "'optimizer.momentum' must be less than 1; got 1"),
        ("initial_weights.random_parts=[semantics]", "but there is no file; got ['semantics']"),
        ("model.backbone.output_stride=4", "must be 8, 16 or 32; got 4"),
        ("model.backbone.output_stride=16", "'backbone.output_stride' must be 32 under a neck"),
        ("model.backbone.multi_grid=[1,0]", "'model.backbone.multi_grid[1]' must be 1 or more"),
        ("model.semantics.kind=deeplab", "'semantics.kind: deeplab' reads the stages"),
        ("model.norm_act.slope=0", "'model.norm_act.slope' must be greater than 0; got 0"),
        ("loss_weights.semantic=-1", "'loss_weights.semantic' must be 0 or more; got -1"),
        ("model.neck.num_extra_levels=1001", "'model.neck.num_extra_levels' must be at most 1000"),
        ("model.instances.roi.size=65", "'model.instances.roi.size' must be at most 64; got 65"),
        ("model.instances.mask.roi_size=66", "'model.instances.mask.roi_size' must be at most 64"),
        ("model.instances.points.output_size=2048", "output_size' must be at most 1024; got 2048"),
        ("model.instances.points.start_size=1025", "points.start_size' must be at most 1024"),
        ("model.size_divisor=1025", "'model.size_divisor' must be at most 1024; got 1025"),
        (
            "data.view_sides_pixels=[" + "9," * 33 + "]",
            "'data.view_sides_pixels' must have at most",
        ),
        ("data.batch_size=16385", "'data.batch_size' must be at most 16384; got 16385"),
        ("data.num_workers=1001", "'data.num_workers' must be at most 1000; got 1001"),
        ("training.max_network_gigabytes=0", "gigabytes' must be greater than 0; got 0"),
        ("training.steps=true", "'training.steps' must be a whole number; got True"),
        ("training.steps=1e3", "'training.steps' must be a whole number; got 1000.0"),
        ("training.amp=fp8", "'training.amp' must be 'none', 'bf16' or 'fp16'; got 'fp8'"),
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
    adamw = config_from_dict(smallest(optimizer={"kind": "adamw"}), "new")
    assert config_differences(old, adamw) == {
        "optimizer.kind": ("sgd", "adamw"),
        "optimizer.momentum": (0.9, None),
        "optimizer.nesterov": (True, None),
    }
