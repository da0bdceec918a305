"""What a config says about images reaches those who change them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.networks import build_network
from seamless_pr.build.runs import build_images, build_label_space, build_trainer
from seamless_pr.datasets.detr_transform import DetrTransform
from seamless_pr.datasets.transforms import EvalTransform, TrainTransform
from seamless_pr.structures.label_space import LabelSpace
from tests.support.tiny_run import tiny_run_values, write_tiny_data

# Keys of `data` that are arguments of the training transform, each with a value of its own.
CHANGES: dict[str, Any] = {
    "shortest_side_pixels": 50,
    "longest_side_pixels": 170,
    "scale_range": (0.6, 1.3),
    "flip_probability": 0.25,
    "crop_size_pixels": (32, 64),
    "color_strength": 0.3,
    "scale_step_pixels": 3,
    "crop_max_class_fraction": 0.8,
    "ssd_colors": True,
    "rounded_sides": True,
}
# ... and those whose arguments have other names.
RENAMED = {
    "training_sides_pixels": ("sides_pixels", (40, 50)),
    "pad_crops": ("pads_crops", True),
}
DATA = {**CHANGES, **{key: value for key, (_, value) in RENAMED.items()}}


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("data")
    write_tiny_data(folder, num_train=1, num_val=1)
    return tiny_run_values(folder)


def test_every_number_of_the_training_transform_comes_from_the_config(
    values: dict[str, Any],
) -> None:
    config = config_from_dict({**values, "data": {**values["data"], **DATA}}, "test")
    images = build_images(config, build_label_space(config), is_training=True)
    assert isinstance(images.transform, TrainTransform)
    assert asdict(images.transform) == {**CHANGES, **dict(RENAMED.values())}


def test_training_images_may_have_a_cap_of_their_own(values: dict[str, Any]) -> None:
    data = {**values["data"], **DATA, "training_longest_side_pixels": 300}
    config = config_from_dict({**values, "data": data}, "test")
    images = build_images(config, build_label_space(config), is_training=True)
    assert isinstance(images.transform, TrainTransform)
    assert images.transform.longest_side_pixels == 300


def test_detr_crops_come_with_their_sides(values: dict[str, Any]) -> None:
    changes = {"training_sides_pixels": (40, 50), "detr_crops": True, "flip_probability": 0.25}
    config = config_from_dict({**values, "data": {**values["data"], **changes}}, "test")
    images = build_images(config, build_label_space(config), is_training=True)
    longest = config.data.longest_side_pixels
    assert images.transform == DetrTransform((40, 50), longest, 0.25)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pad_crops": True, "crop_size_pixels": None}, "pad_crops"),
        ({"detr_crops": True}, "needs 'training_sides_pixels'"),
        (
            {"detr_crops": True, "training_sides_pixels": (40,), "ssd_colors": True},
            "brings its own crop",
        ),
    ],
)
def test_changes_that_do_not_go_together_are_refused(
    values: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        config_from_dict({**values, "data": {**values["data"], **changes}}, "test")


def test_validation_images_have_the_size_of_the_network(values: dict[str, Any]) -> None:
    config = config_from_dict({**values, "data": {**values["data"], **DATA}}, "test")
    images = build_images(config, build_label_space(config), is_training=False)
    assert images.transform == EvalTransform(50, 170, rounded_sides=True)


def test_classes_without_a_thing_are_refused_with_the_network_for_them(
    values: dict[str, Any],
) -> None:
    config = config_from_dict(values, "test")
    space = build_label_space(config)
    stuff = LabelSpace("stuff", space.categories[: space.num_stuff])
    with pytest.raises(ValueError, match=r"'stuff' have no thing.* model.instances=null"):
        build_network(config.model, stuff)
    alone = {**values["model"], "instances": None}
    weights = {"semantic": 1.0, "semantic_point": 1.0}
    config = config_from_dict({**values, "model": alone, "loss_weights": weights}, "test")
    assert set(build_network(config.model, stuff).loss_names) == set(weights)


@pytest.mark.parametrize("left", ["everything", "crowds", "void"])
def test_training_on_void_or_crowds_alone_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], left: str
) -> None:
    write_tiny_data(tmp_path, num_train=2, num_val=1)
    values = tiny_run_values(tmp_path)
    path = Path(values["data"]["train"]["json"])
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        if left == "void":
            annotation["segments_info"] = []
        for segment in annotation["segments_info"]:
            segment["iscrowd"] = int(left == "crowds")
    path.write_text(json.dumps(content))
    config = config_from_dict(values, "test")
    build_images(config, build_label_space(config), is_training=True)
    said = capsys.readouterr().out
    assert (f"warning: {path}: all pixels are void or crowds" in said) == (left != "everything")


def test_a_run_knows_its_pictures_of_training_and_of_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_data(tmp_path, num_train=1, num_val=1)
    values = tiny_run_values(tmp_path)
    values["training"]["evaluation_interval_steps"] = 1
    config = config_from_dict(values, "test")
    monkeypatch.setattr(
        "seamless_pr.build.runs.Trainer", lambda *_, data_fingerprints, **__: data_fingerprints
    )
    monkeypatch.setattr("seamless_pr.build.runs.build_network", lambda *_: Mock())
    monkeypatch.setattr("seamless_pr.build.runs.check_loss_weights", lambda *_: None)
    before: Any = build_trainer(config, tmp_path / "run")
    (picture,) = (tmp_path / "val" / "images").iterdir()
    picture.write_bytes(bytes(picture.stat().st_size))
    after: Any = build_trainer(config, tmp_path / "run")
    assert before.keys() == {"data.train", "data.val"}
    assert before["data.train"] == after["data.train"]
    assert before["data.val"] != after["data.val"]
