"""Groups in a list: the parts of a training set."""

from __future__ import annotations

from pathlib import Path

import pytest

from seamless_pr.build.configs import config_from_dict, load_config
from seamless_pr.build.runs import build_images, build_label_space
from seamless_pr.config.load import config_to_dict, save_config
from seamless_pr.config.schema import DatasetConfig
from tests.support.tiny_run import tiny_run_values, write_tiny_data


def values_with(train: object) -> dict:
    values = tiny_run_values(Path("data"))
    values["data"]["train"] = train
    return values


def test_one_part_and_a_list_of_parts_are_read_and_written_back(tmp_path: Path) -> None:
    parts = [{"json": "a.json", "images": "0012"}, {"json": "b.json", "images": "b"}]
    config = config_from_dict(values_with(parts), "two")
    assert config.data.train_parts == (
        DatasetConfig(json="a.json", images="0012"),
        DatasetConfig(json="b.json", images="b"),
    )
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config
    assert config_from_dict(config_to_dict(config), "again") == config
    assert len(config_from_dict(values_with(parts[0]), "one").data.train_parts) == 1


def test_an_override_may_give_a_list_and_a_list_replaces_what_was_there() -> None:
    override = "data.train=[{json: a.json, images: a}, {json: b.json, images: b}]"
    config = config_from_dict(tiny_run_values(Path("data")), "test", [override])
    assert [part.json for part in config.data.train_parts] == ["a.json", "b.json"]
    assert [part.segments for part in config.data.train_parts] == [None, None]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([{"json": "a", "images": "b"}, {"json": "a"}], r"data\.train\.1\.images must be given"),
        ([{"json": "a", "images": "b", "imges": "c"}], r"'data\.train\.0\.imges'.*images"),
        ([], r"'train' is an empty list"),
        (["a"], r"'data\.train\.0' is a group of settings"),
        ("a.json", r"'data\.train' is a group of settings or a list of such groups"),
    ],
)
def test_faults_in_a_list_name_the_part(train: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_from_dict(values_with(train), "test")


def test_parts_are_learned_from_one_after_the_other(tmp_path: Path) -> None:
    write_tiny_data(tmp_path, num_train=3, num_val=2)
    values = tiny_run_values(tmp_path)
    values["data"]["train"] = [values["data"]["train"], values["data"]["val"]]
    config = config_from_dict(values, "test")
    images = build_images(config, build_label_space(config), is_training=True)
    assert len(images) == 5
