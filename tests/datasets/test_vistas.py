"""Vistas in both shapes of its archive: found, joined by name, checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seamless_pr.datasets.vistas import open_vistas, read_config, vistas_categories
from tests.support.raw_datasets import SIZE, vistas_config, write_vistas

SHARED = Path(__file__).parents[3] / "shared/real-files/vistas"


def messages(root: Path, version: str | None = None) -> list[str]:
    files = open_vistas(root, "validation", version)
    return [str(fault) for fault in files.check(num_workers=0, show_progress=False)]


@pytest.mark.parametrize("version", ["1.2", "2.0"])
@pytest.mark.parametrize("nested", [False, True])
def test_each_release_is_found_in_each_shape(tmp_path: Path, version: str, nested: bool) -> None:
    json_path = write_vistas(tmp_path, version, nested=nested)
    files = open_vistas(tmp_path, "val")
    assert files.json_path == json_path
    assert files.png_dir == json_path.parent
    assert files.images_dir == tmp_path / "validation" / "images"
    assert files.check(num_workers=0, show_progress=False) == []
    assert files.notes == ()
    assert len(files.records.categories) == {"1.2": 65, "2.0": 116}[version]


def test_both_releases_side_by_side_ask_for_a_choice(tmp_path: Path) -> None:
    write_vistas(tmp_path, "1.2", nested=True)
    write_vistas(tmp_path, "2.0", nested=True)
    with pytest.raises(ValueError, match=r"holds Vistas v1\.2 and v2\.0, .*choose with"):
        open_vistas(tmp_path, "validation")
    assert messages(tmp_path, "1.2") == messages(tmp_path, "2.0") == []


def test_exchanged_sizes_are_one_note_for_the_whole_file(tmp_path: Path) -> None:
    write_vistas(tmp_path, exchanged=True)
    files = open_vistas(tmp_path, "validation")
    (note,) = files.notes
    assert "height and width are exchanged for 2 of 2 images" in note
    assert {(image.height, image.width) for image in files.records.images} == {SIZE}
    assert files.check(num_workers=0, show_progress=False) == []


def test_a_mixture_of_releases_is_named(tmp_path: Path) -> None:
    write_vistas(tmp_path, "1.2")
    (tmp_path / "config.json").write_text(json.dumps(vistas_config("2.0")))
    (message,) = messages(tmp_path)
    assert "is the config of v2.0, but the panoptic JSON is of v1.2: a mixture" in message


def test_categories_of_another_release_are_listed(tmp_path: Path) -> None:
    json_path = write_vistas(tmp_path, "1.2")
    other = json.loads(write_vistas(tmp_path / "other", "2.0").read_text())
    content = json.loads(json_path.read_text())
    json_path.write_text(json.dumps({**content, "categories": other["categories"]}))
    found = messages(tmp_path)
    assert any("116 categories, v1.2 has 65" in message for message in found)
    assert any("('Temporary Barrier') is no evaluated label of the config" in m for m in found)


def test_a_thing_that_became_stuff_is_a_fault(tmp_path: Path) -> None:
    json_path = write_vistas(tmp_path, "1.2")
    content = json.loads(json_path.read_text())
    content["categories"][0]["isthing"] = 0
    json_path.write_text(json.dumps(content))
    (message,) = messages(tmp_path)
    assert "category 1 ('Bird') is stuff here and a thing in the config" in message


def test_a_half_unpacked_archive_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="it comes from mapillary-vistas-dataset"):
        open_vistas(tmp_path, "training")
    json_path = write_vistas(tmp_path, "1.2")
    (tmp_path / "config.json").unlink()
    (json_path.parent / "abc.png").unlink()
    (tmp_path / "validation" / "images" / "def.jpg").unlink()
    found = messages(tmp_path)
    assert any("no config*.json here" in message for message in found)
    assert any("abc.png" in message for message in found)
    assert any("image 'def' has no file" in message for message in found)
    assert len(found) == 3
    json_path.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no panoptic/panoptic_2018\.json or panoptic_2020"
    ):
        open_vistas(tmp_path, "validation")


def test_wrong_words_are_answered_with_the_right_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has the splits training, validation; got 'testing'"):
        open_vistas(tmp_path, "testing")
    with pytest.raises(ValueError, match=r"has the versions 1\.2, 2\.0; got '1\.0'"):
        open_vistas(tmp_path, "training", "1.0")


def test_a_holdout_uses_the_same_pngs(tmp_path: Path) -> None:
    write_vistas(tmp_path, keys=("a", "b", "c", "d"))
    files = open_vistas(tmp_path, "validation")
    rest, holdout = files.write_holdout(tmp_path, 1, seed=0)
    contents = [json.loads(path.read_text()) for path in (rest, holdout)]
    ids = [[image["id"] for image in content["images"]] for content in contents]
    assert sorted(ids[0] + ids[1]) == ["a", "b", "c", "d"]
    assert len(ids[1]) == 1
    assert rest.name == "vistas_v1_2_validation_rest.json"


@pytest.mark.skipif(not SHARED.is_dir(), reason="Vistas' terms keep its files out of here")
@pytest.mark.parametrize(
    ("name", "version"), [("mapillary-config-v1p2", "1.2"), ("mapillary-config-v2p0", "2.0")]
)
def test_real_configs_agree_with_the_package_tables(name: str, version: str) -> None:
    labels, faults = read_config(SHARED / f"{name}.json")
    assert faults == []
    evaluated = [label for label in labels if label.is_evaluated]
    categories = vistas_categories(version)
    assert [label.name for label in evaluated] == [c.supercategory for c in categories]
    assert [label.has_instances for label in evaluated] == [c.is_thing for c in categories]
    assert [label.readable for label in evaluated] == [c.name for c in categories]
