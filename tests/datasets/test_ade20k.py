"""ADE20K from the challenge archives: stuff below things, areas, and what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from seamless_pr.datasets.ade20k import open_ade20k
from seamless_pr.datasets.coco_panoptic import read_panoptic_json
from seamless_pr.datasets.conversion import convert_split
from seamless_pr.datasets.label_spaces import load_labels
from seamless_pr.id_maps.id_png_files import read_id_png
from seamless_pr.structures.faults import FaultyDataError
from tests.support.panoptic_files import write_png

# Class 4 (1-based) is floor, 1 wall, 8 bed; bed is instance class 1, window (9) class 2.
CLASSES = np.array([[1, 1, 1, 0], [4, 8, 8, 8], [4, 4, 8, 8]], np.uint8)
INSTANCES = np.array([[0, 2, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0]], np.uint8)
NUMBERS = np.array([[0, 3, 0, 0], [0, 1, 2, 0], [1, 1, 0, 0]], np.uint8)
REAL_FOLDER = Path(__file__).parents[1] / "golden" / "real_files" / "ade20k"


def write(
    root: Path,
    name: str = "ADE_train_00000001",
    classes: NDArray[np.uint8] = CLASSES,
    instances: NDArray[np.uint8] = INSTANCES,
    numbers: NDArray[np.uint8] = NUMBERS,
) -> None:
    inner = root / "ADEChallengeData2016"
    write_png(inner / "annotations" / "training" / f"{name}.png", classes)
    blue = np.full_like(instances, 77)  # No converter reads it.
    picture = np.stack([blue, numbers, instances], axis=-1)
    write_png(root / "annotations_instance" / "training" / f"{name}.png", picture)
    pixels = np.full((*classes.shape, 3), 90, np.uint8)
    write_png(inner / "images" / "training" / f"{name}.jpg", pixels)


def convert(root: Path, **options: object) -> Path:
    split = open_ade20k(root, "train", **options)
    return convert_split(split, root / "out", num_workers=0, show_progress=False).json_path


def test_things_lie_over_stuff_and_the_rest_of_a_thing_class_is_void(tmp_path: Path) -> None:
    write(tmp_path)
    json_path = convert(tmp_path)
    dataset = read_panoptic_json(json_path)
    assert dataset.images[0].image_id == "ADE_train_00000001"
    assert dataset.images[0].file_name == "ADE_train_00000001.jpg"
    segments = dataset.annotations[0].segments
    found = {(s.segment_id, s.category_id, s.area, s.is_crowd) for s in segments}
    # wall 0 and floor 3 are what is left of them; bed 7 and window 8 are objects.
    assert found == {
        (1, 0, 2, False),
        (4, 3, 1, False),
        (8001, 7, 3, False),
        (8002, 7, 1, False),
        (9003, 8, 1, False),
    }
    id_map = read_id_png(json_path.with_suffix("") / "ADE_train_00000001.png")
    assert id_map.tolist() == [[1, 9003, 1, 0], [4, 8001, 8002, 0], [8001, 8001, 0, 0]]


def test_where_there_is_no_object_the_instance_class_says_nothing(tmp_path: Path) -> None:
    write(tmp_path)
    expected = convert(tmp_path).read_bytes()
    write(tmp_path, instances=np.where(NUMBERS > 0, INSTANCES, 255).astype(np.uint8))
    assert convert(tmp_path).read_bytes() == expected


def test_stated_areas_are_those_before_things_cover_stuff(tmp_path: Path) -> None:
    write(tmp_path)
    convert(tmp_path)
    segments = read_panoptic_json(convert(tmp_path, stated_areas=True)).annotations[0].segments
    assert {s.segment_id: s.area for s in segments} == {1: 3, 4: 3, 8001: 3, 8002: 1, 9003: 1}
    assert segments[1].bbox == (0, 1, 2, 2)


def test_the_hundred_instance_classes_are_the_hundred_things(tmp_path: Path) -> None:
    thing_ids = [label.label_id for label in load_labels("ade20k") if label.is_thing]
    assert len(thing_ids) == 100
    instances = np.arange(1, 101, dtype=np.uint8)[None]
    write(tmp_path, classes=np.zeros((1, 100), np.uint8), instances=instances, numbers=instances)
    segments = read_panoptic_json(convert(tmp_path)).annotations[0].segments
    assert sorted(segment.category_id for segment in segments) == sorted(thing_ids)


def test_everything_that_is_wrong_is_listed_at_once(tmp_path: Path) -> None:
    write(tmp_path, "a", classes=CLASSES + np.uint8(147))
    write(tmp_path, "b", numbers=np.where(NUMBERS > 0, 1, 0).astype(np.uint8))
    write(tmp_path, "c", instances=np.where(INSTANCES == 2, 101, INSTANCES).astype(np.uint8))
    write(tmp_path, "d", classes=CLASSES[:2])
    write(tmp_path, "e")
    (tmp_path / "annotations_instance" / "training" / "e.png").unlink()
    write(tmp_path, "f")
    grey = tmp_path / "annotations_instance" / "training" / "f.png"
    write_png(grey, NUMBERS)
    with pytest.raises(FaultyDataError) as error:
        convert(tmp_path)
    text = str(error.value)
    for part in (
        "training/a.png: labels [151, 155] are none of 0..150; the full ADE20K has others",
        "training/b.png: object 1 has several classes [1, 2]",
        "training/c.png: object 3 has the class 101, none of 1..100",
        "training/d.png: size 3x4, but",
        "annotations/training/e.png: no such picture in",
        "training/f.png: must be an RGB picture",
    ):
        assert part in text
    assert not list((tmp_path / "out").glob("*.json"))


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "ADEChallengeData2016" / "annotations").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"it comes from ADEChallengeData2016\.zip"):
        open_ade20k(tmp_path, "train")
    (tmp_path / "ADEChallengeData2016" / "annotations" / "training").mkdir()
    with pytest.raises(FileNotFoundError, match=r"comes from annotations_instance\.tar"):
        open_ade20k(tmp_path, "train")
    with pytest.raises(ValueError, match="has the splits train, val; got 'test'"):
        open_ade20k(tmp_path, "test")


def test_real_label_pictures_are_read(tmp_path: Path) -> None:
    inner = tmp_path / "ADEChallengeData2016"
    for path in sorted(REAL_FOLDER.glob("*.png")):
        folder = inner / "annotations" / "validation"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
        nothing = np.zeros((*_size(path), 3), np.uint8)
        write_png(inner / "annotations_instance" / "validation" / path.name, nothing)
    split = open_ade20k(tmp_path, "val")
    assert len(split.images) == 3
    names = {label.label_id: label.name for label in load_labels("ade20k")}
    raw = split.read_map(split.images[0])
    assert raw.faults == ()
    # The first picture of the validation set: a house behind a garden.
    assert {names[segment.category_id] for segment in raw.segments} >= {"sky", "tree", "grass"}


def _size(path: Path) -> tuple[int, int]:
    from PIL import Image

    with Image.open(path) as picture:
        return picture.size[::-1]
