"""COCO panoptic JSON files are read with every fault named, and written whole."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from seamless_pr.datasets.coco_panoptic import (
    find_png_folder,
    read_panoptic_json,
    write_panoptic_json,
)
from seamless_pr.datasets.panoptic_records import SegmentRecord
from seamless_pr.structures.faults import FaultyDataError
from seamless_pr.structures.label_space import LabelSpace

VALID: dict[str, Any] = {
    "images": [{"id": "a", "file_name": "a.jpg", "height": 4, "width": 6}],
    "annotations": [
        {
            "image_id": "a",
            "file_name": "a.png",
            "segments_info": [
                {"id": 1, "category_id": 7, "area": 20, "bbox": [0, 0, 6, 4], "iscrowd": 0},
                {"id": 9, "category_id": 26, "area": 4, "bbox": [1, 1, 2, 2], "iscrowd": 1},
            ],
        }
    ],
    "categories": [
        {"id": 7, "name": "road", "isthing": 0, "color": [1, 2, 3], "supercategory": "flat"},
        {"id": 26, "name": "car", "isthing": 1, "color": [4, 5, 6], "supercategory": "vehicle"},
    ],
}


def write(folder: Path, content: Any) -> Path:
    path = folder / "panoptic.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def faults_of(folder: Path, content: Any, **options: bool) -> list[str]:
    with pytest.raises(FaultyDataError) as error:
        read_panoptic_json(write(folder, content), **options)
    assert all(fault.file == str(folder / "panoptic.json") for fault in error.value.faults)
    assert all(str(fault) in str(error.value) for fault in error.value.faults)
    prefix = f"{folder / 'panoptic.json'}: "
    return [str(fault).removeprefix(prefix) for fault in error.value.faults]


def test_valid_file_becomes_records(tmp_path: Path) -> None:
    dataset = read_panoptic_json(write(tmp_path, VALID))
    assert dataset.image_of["a"].height == 4
    assert dataset.annotations[0].segments[1] == SegmentRecord(9, 26, 4, (1, 1, 2, 2), True)
    assert dataset.label_space("mine").train_id_of == {7: 0, 26: 1}


def test_writing_gives_back_what_was_read(tmp_path: Path) -> None:
    dataset = read_panoptic_json(write(tmp_path, VALID))
    write_panoptic_json(tmp_path / "copy" / "panoptic.json", dataset)
    written = json.loads((tmp_path / "copy" / "panoptic.json").read_text(encoding="utf-8"))
    assert written == VALID


def test_predictions_may_leave_out_what_the_evaluators_do_not_need(tmp_path: Path) -> None:
    bare = {
        "annotations": [
            {
                "image_id": 12,
                "file_name": "12.png",
                "segments_info": [{"id": 3, "category_id": 7, "score": 0.5}],
            }
        ]
    }
    dataset = read_panoptic_json(write(tmp_path, bare), is_prediction=True)
    assert dataset.annotations[0].segments == (SegmentRecord(3, 7, score=0.5),)
    faults = faults_of(tmp_path, bare)
    assert "'images' is missing; a COCO panoptic JSON has it at the top level" in faults
    assert "segment 3: image 12: 'area' must be a whole number of pixels; it is missing" in faults


def test_every_fault_is_listed_with_its_segment(tmp_path: Path) -> None:
    content = copy.deepcopy(VALID)
    content["images"] += [
        {"id": "a", "file_name": "a.jpg", "height": 4, "width": 6},
        {"id": 1.5, "file_name": "b.jpg", "height": 4, "width": 6},
        {"id": "c", "file_name": "c.jpg", "height": 0, "width": "6"},
    ]
    first, second = content["annotations"][0]["segments_info"]
    first["category_id"] = 99
    second.update(area="4", bbox=[1, 1], iscrowd=2)
    content["annotations"][0]["segments_info"] += [
        {"id": 1, "category_id": 7, "area": 1, "bbox": [0, 0, 1, 1], "iscrowd": 0},
        {"id": 0, "category_id": 7, "area": 1, "bbox": [0, 0, 1, 1], "iscrowd": 0},
    ]
    content["annotations"] += [
        {"image_id": "a", "file_name": "a.png", "segments_info": []},
        {"image_id": "z", "file_name": "z.png", "segments_info": []},
        {"image_id": "c", "file_name": 3, "segments_info": []},
    ]
    listed = "\n".join(faults_of(tmp_path, content))
    for expected in (
        "image 'a' occurs more than once in 'images'",
        "images[2]: 'id' must be an integer or a text; got 1.5",
        "image 'c': 'height' must be a positive integer; got 0",
        "image 'c': 'width' must be a positive integer; got '6'",
        "segment 1: image 'a': category 99 is not in 'categories'",
        "segment 9: image 'a': 'area' must be a whole number of pixels; got '4'",
        "segment 9: image 'a': 'bbox' must be [x, y, width, height] in pixels",
        "segment 9: image 'a': 'iscrowd' must be 0 or 1; got 2",
        "segment 1: image 'a': the id occurs more than once",
        "segments_info[3] needs an integer 'id' in 1..16777215",
        "image 'a' has more than one annotation",
        "annotations[3] (image 'c'): 'file_name' must be the name of a PNG below its folder; got 3",
    ):
        assert expected in listed


def test_an_annotation_of_no_image_is_a_fault_where_all_images_could_be_read(
    tmp_path: Path,
) -> None:
    content = copy.deepcopy(VALID)
    content["annotations"].append({"image_id": "z", "file_name": "z.png", "segments_info": []})
    assert faults_of(tmp_path, content) == ["image 'z' of an annotation is not in 'images'"]
    content["images"][0]["id"] = None
    assert faults_of(tmp_path, content) == [
        "images[0]: 'id' must be an integer or a text; got None"
    ]


def test_file_without_annotations_is_named(tmp_path: Path) -> None:
    content = {key: VALID[key] for key in ("images", "categories")}
    assert faults_of(tmp_path, content) == [
        "'annotations' is missing; a COCO panoptic JSON has it at the top level"
    ]


def test_instance_annotations_are_recognised(tmp_path: Path) -> None:
    content = copy.deepcopy(VALID)
    content["annotations"] = [
        {"image_id": "a", "file_name": "a.png", "id": 3, "bbox": [0, 0, 1, 1]}
    ]
    assert faults_of(tmp_path, content) == [
        "annotations[0] (image 'a'): 'segments_info' is missing; "
        "this looks like an instance annotation"
    ]


def test_results_list_of_another_task_is_recognised(tmp_path: Path) -> None:
    (fault,) = faults_of(tmp_path, [{"image_id": 1, "score": 0.5}])
    assert "got a list: results of another COCO task?" in fault


def test_truncated_json_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, VALID)
    path.write_text(path.read_text(encoding="utf-8")[:-30], encoding="utf-8")
    with pytest.raises(FaultyDataError, match=r"panoptic\.json: not JSON, or only a part"):
        read_panoptic_json(path)


def test_missing_json_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.json; check the path, or make it with"):
        read_panoptic_json(tmp_path / "absent.json")


def test_ground_truth_without_categories_is_refused(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, {**VALID, "categories": []})
    assert faults == ["'categories' is empty; a ground truth must name its classes"]


def test_more_classes_than_pairs_of_them_can_be_counted_are_refused(tmp_path: Path) -> None:
    many = [
        {**VALID["categories"][1], "id": number, "name": f"c{number}"} for number in range(4097)
    ]
    faults = faults_of(tmp_path, {**VALID, "categories": many})
    assert any("'categories' names 4097 classes; at most 4096 are counted" in f for f in faults)
    read_panoptic_json(write(tmp_path, {**VALID, "categories": many[:4096]}))
    dataset = read_panoptic_json(write(tmp_path, VALID))
    with pytest.raises(ValueError, match="'x' has 4097 categories; at most 4096"):
        LabelSpace("x", dataset.categories[1:] * 4097)


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000, "\0", "\ud800", "a.png/b"])
def test_names_that_no_disk_can_hold_are_passed_over_in_search_of_the_pngs(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "val").mkdir()
    (tmp_path / "a.png").touch()
    assert find_png_folder(tmp_path / "val.json", [name, "a.png"]) == tmp_path
    assert find_png_folder(tmp_path / "val.json", [name]) == tmp_path / "val"
