"""Every fault of a panoptic dataset is found and named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from seamless_pr.datasets.coco_panoptic import read_panoptic_json, write_panoptic_json
from seamless_pr.datasets.images import whole_picture_size
from seamless_pr.datasets.verification import verify_dataset
from seamless_pr.id_maps.id_png_files import read_id_png, write_id_png
from tests.support.panoptic_files import write_panoptic_dataset, write_png

ID_MAP = np.array([[0, 1, 1], [2, 2, 1]], np.int32)
CATEGORY_OF = {1: 7, 2: 26}


@pytest.fixture
def json_path(tmp_path: Path) -> Path:
    return write_panoptic_dataset(tmp_path, {"a": ID_MAP, "b": ID_MAP.copy()}, CATEGORY_OF)


def faults_of(json_path: Path, *, images: bool = False, num_workers: int = 0) -> list[str]:
    folder = json_path.parent
    images_dir = folder / "images" if images else None
    faults = verify_dataset(json_path, images_dir=images_dir, num_workers=num_workers)
    return [str(fault).removeprefix(f"{folder}/") for fault in faults]


def test_sound_dataset_has_no_faults(json_path: Path) -> None:
    assert faults_of(json_path, images=True) == []


def test_processes_find_what_one_finds(json_path: Path) -> None:
    (json_path.parent / "panoptic" / "a.png").unlink()
    alone, together = faults_of(json_path, images=True), faults_of(json_path, num_workers=2)
    assert alone == together
    assert alone[0].startswith("panoptic/a.png: no id PNG at")


def test_segments_that_differ_are_named(json_path: Path) -> None:
    write_id_png(json_path.parent / "panoptic" / "a.png", np.array([[0, 1, 1], [9, 9, 0]]))
    assert faults_of(json_path) == [
        "panoptic/a.png: segment 1: area 2 pixels; the JSON says 3",
        "panoptic/a.png: segment 1: bbox [1, 0, 2, 1] (x, y, width, height); "
        "the JSON says [1, 0, 2, 2]",
        "panoptic/a.png: segment 9: 2 pixels, but the JSON does not list it",
        "panoptic/a.png: segment 2: the JSON lists it, but it has no pixel",
    ]


def test_segment_larger_than_its_record_is_named(json_path: Path) -> None:
    write_id_png(json_path.parent / "panoptic" / "b.png", np.array([[1, 1, 1], [2, 2, 1]]))
    area, _ = faults_of(json_path)
    assert area == "panoptic/b.png: segment 1: area 4 pixels; the JSON says 3"


def test_other_size_is_named(json_path: Path) -> None:
    write_id_png(json_path.parent / "panoptic" / "b.png", np.vstack([ID_MAP, [[0, 0, 0]]]))
    assert faults_of(json_path) == ["panoptic/b.png: size 3x3 (height x width); the JSON says 2x3"]


def test_truncated_and_stray_pngs_are_named(json_path: Path) -> None:
    folder = json_path.parent / "panoptic"
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:-16])
    write_id_png(folder / "c.png", ID_MAP)
    stray, truncated = faults_of(json_path)
    assert stray == "panoptic/c.png: no annotation in the JSON names this PNG"
    assert truncated.startswith("panoptic/a.png: truncated PNG")


def test_images_without_annotation_and_unknown_categories_are_named(json_path: Path) -> None:
    content = json.loads(json_path.read_text(encoding="utf-8"))
    content["annotations"][0]["segments_info"][1]["category_id"] = 33
    (json_path.parent / "panoptic" / "b.png").unlink()
    del content["annotations"][1]
    json_path.write_text(json.dumps(content), encoding="utf-8")
    assert faults_of(json_path) == [
        "panoptic.json: segment 2: image 'a': category 33 is not in 'categories'",
        "panoptic.json: image 'b' has no annotation",
    ]


def test_pairs_of_images_and_ground_truth_are_checked(json_path: Path) -> None:
    folder = json_path.parent / "images"
    (folder / "a.png").rename(folder / "other.png")
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:-16])
    missing, truncated, unused = faults_of(json_path, images=True)
    assert missing.startswith(
        "images: image 'a' has no file among these images; looked for 'a.png'"
    )
    assert truncated == "images/b.png: the end of the file is missing; copy it again"
    assert unused.startswith("images/other.png: image without ground truth")


def test_image_of_other_size_is_named(json_path: Path) -> None:
    write_png(json_path.parent / "images" / "a.png", np.zeros((3, 2, 3), np.uint8))
    assert faults_of(json_path, images=True) == [
        "images/a.png: size 3x2 (height x width); the JSON says 2x3"
    ]
    assert whole_picture_size(json_path.parent / "images" / "a.png") == (3, 2)


def test_half_converted_dataset_says_what_to_do(json_path: Path) -> None:
    png_dir = json_path.parent / "panoptic"
    png_dir.rename(json_path.parent / "away")
    (fault,) = faults_of(json_path)
    assert fault.startswith("panoptic.json: no PNG that panoptic.json names is in ")
    assert fault.endswith("make them with pipelines/prepare.py (it goes on where it stopped)")
    (fault,) = faults_of(json_path.with_name("absent.json"))
    assert "make it with pipelines/prepare.py" in fault


def test_json_without_bbox_is_checked_by_area(json_path: Path) -> None:
    dataset = read_panoptic_json(json_path)
    annotations = tuple(
        dataclasses.replace(
            annotation,
            segments=tuple(
                dataclasses.replace(segment, bbox=None, area=segment.area + 1)
                for segment in annotation.segments
            ),
        )
        for annotation in dataset.annotations[:1]
    )
    write_panoptic_json(
        json_path,
        dataclasses.replace(dataset, images=dataset.images[:1], annotations=annotations),
    )
    (json_path.parent / "panoptic" / "b.png").unlink()
    assert [fault.split(": ", 2)[1:] for fault in faults_of(json_path)] == [
        ["segment 1", "area 3 pixels; the JSON says 4"],
        ["segment 2", "area 2 pixels; the JSON says 3"],
    ]
    assert read_id_png(json_path.parent / "panoptic" / "a.png").tolist() == ID_MAP.tolist()


@pytest.mark.parametrize(
    "change",
    [
        {"area": 2.5},
        {"area": None},
        {"iscrowd": "no"},
        {"category_id": 33},
        {"id": None},
        {"id": 7.5},
    ],
)
def test_a_segment_with_a_fault_is_told_once(json_path: Path, change: dict[str, object]) -> None:
    content = json.loads(json_path.read_text(encoding="utf-8"))
    content["annotations"][0]["segments_info"][1].update(change)
    json_path.write_text(json.dumps(content), encoding="utf-8")
    (fault,) = faults_of(json_path, images=True)
    assert fault.startswith("panoptic.json: ")


@pytest.mark.parametrize("key", ["image_id", "file_name", "segments_info"])
def test_an_annotation_with_a_fault_is_told_once(json_path: Path, key: str) -> None:
    content = json.loads(json_path.read_text(encoding="utf-8"))
    content["annotations"][0][key] = None
    json_path.write_text(json.dumps(content), encoding="utf-8")
    (fault,) = faults_of(json_path, images=True)
    assert fault.startswith("panoptic.json: annotations[0]")


def test_an_image_entry_with_a_fault_is_told_once(json_path: Path) -> None:
    content = json.loads(json_path.read_text(encoding="utf-8"))
    content["images"][0]["height"] = "2"
    json_path.write_text(json.dumps(content), encoding="utf-8")
    assert faults_of(json_path, images=True) == [
        "panoptic.json: image 'a': 'height' must be a positive integer; got '2'"
    ]


def test_whole_numbers_as_floats_and_flags_as_booleans_are_sound(json_path: Path) -> None:
    content = json.loads(json_path.read_text(encoding="utf-8"))
    for segment in content["annotations"][0]["segments_info"]:
        segment.update(area=float(segment["area"]), iscrowd=False)
    del content["annotations"][1]["segments_info"][0]["iscrowd"]
    json_path.write_text(json.dumps(content), encoding="utf-8")
    assert faults_of(json_path, images=True) == []


def test_pngs_are_found_where_evaluation_finds_them(json_path: Path) -> None:
    for path in (json_path.parent / "panoptic").iterdir():
        path.rename(json_path.parent / path.name)
    (json_path.parent / "panoptic").rmdir()
    assert faults_of(json_path, images=True) == []


def test_exchanged_sizes_are_one_note_for_the_whole_file(json_path: Path) -> None:
    content = json.loads(json_path.read_text())
    for image in content["images"]:
        image["height"], image["width"] = image["width"], image["height"]
    json_path.write_text(json.dumps(content))
    notes: list[str] = []
    images_dir = json_path.parent / "images"
    assert verify_dataset(json_path, images_dir=images_dir, on_note=notes.append) == []
    (note,) = notes
    assert "height and width are exchanged for 2 of 2 images" in note
    assert str(json_path) in note
