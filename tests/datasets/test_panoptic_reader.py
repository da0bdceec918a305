from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seamless_pr.datasets.panoptic_reader import (
    ParsedPanoptic,
    StatedCategory,
    parse_panoptic_json,
)
from seamless_pr.datasets.panoptic_records import UNKNOWN_ID

ROAD = {"id": 7, "name": "road", "isthing": 0}


def _read(path: Path, content: Any, **options: bool) -> tuple[ParsedPanoptic, list[str]]:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    parsed = parse_panoptic_json(path, **options)
    return parsed, [str(fault).removeprefix(f"{path}: ") for fault in parsed.faults]


def _dataset(*segments: Any, **annotation: Any) -> dict[str, Any]:
    values = {"image_id": 5, "file_name": "5.png", "segments_info": list(segments), **annotation}
    return {"annotations": [values], "categories": [ROAD]}


def _segment(**changes: Any) -> dict[str, Any]:
    values = {"id": 1, "category_id": 7, "area": 10, "iscrowd": 0, "bbox": [0, 0, 1, 1], **changes}
    return {key: value for key, value in values.items() if value is not ...}


def test_segments_become_columns_in_their_order(tmp_path: Path) -> None:
    result, faults = _read(tmp_path / "a.json", _dataset(_segment(id=9), _segment(id=3, iscrowd=1)))
    assert faults == []
    assert result.annotations[0].segments.tolist() == [[9, 7, 10, 0], [3, 7, 10, 1]]


def test_an_empty_box_is_none(tmp_path: Path) -> None:
    content = _dataset(_segment(bbox=[]), _segment(id=2, bbox=[0.0, 0, 1, 1]))
    result, faults = _read(tmp_path / "a.json", content, keep_details=True)
    assert faults == []
    boxes = [segment.bbox for segment in result.annotations[0].record().segments]
    assert boxes == [None, (0, 0, 1, 1)]


def test_one_annotation_alone_is_no_dataset(tmp_path: Path) -> None:
    _, (fault,) = _read(tmp_path / "a.json", _dataset(_segment())["annotations"][0])
    assert fault.startswith("expected an object with 'annotations'; got one annotation")


def test_an_image_may_have_no_segment(tmp_path: Path) -> None:
    result, faults = _read(tmp_path / "a.json", _dataset())
    assert faults == []
    assert result.annotations[0].segments.shape == (0, 4)


NO_ID = "image 5: segments_info[0] needs an integer 'id' in 1..16777215; got "
NO_CATEGORY = "segment 1: image 5: 'category_id' must be an integer of at most 31 bits; "
NO_AREA = "segment 1: image 5: 'area' must be a whole number of pixels; "
NO_FLAG = "segment 1: image 5: 'iscrowd' must be 0 or 1; got "
FAULTY_SEGMENTS = [
    (_segment(id=...), NO_ID + "None"),
    (_segment(id=None), NO_ID + "None"),
    (_segment(id=0), NO_ID + "0"),
    (_segment(id=7.5), NO_ID + "7.5"),
    (_segment(id=True), NO_ID + "True"),
    (_segment(id=1 << 24), NO_ID + "16777216"),
    (_segment(id="1"), NO_ID + "'1'"),
    (_segment(id=10**30), NO_ID + str(10**30)),
    (_segment(id=[1]), NO_ID + "[1]"),
    ("road", NO_ID + "'road'"),
    (None, NO_ID + "None"),
    (_segment(category_id=...), NO_CATEGORY + "it is missing"),
    (_segment(category_id=7.5), NO_CATEGORY + "got 7.5"),
    (_segment(category_id=[7]), NO_CATEGORY + "got [7]"),
    (_segment(category_id=True), NO_CATEGORY + "got True"),
    (_segment(category_id=10**30), NO_CATEGORY + f"got {10**30}"),
    (_segment(category_id=9), "segment 1: image 5: category 9 is not in 'categories'"),
    (_segment(area=...), NO_AREA + "it is missing"),
    (_segment(area=None), NO_AREA + "got None"),
    (_segment(area=-4), NO_AREA + "got -4"),
    (_segment(area=1.5), NO_AREA + "got 1.5"),
    (_segment(area=float("nan")), NO_AREA + "got nan"),
    (_segment(area=10**30), NO_AREA + f"got {10**30}"),
    (_segment(area=1e300), NO_AREA + "got 1e+300"),
    (_segment(iscrowd=2), NO_FLAG + "2"),
    (_segment(iscrowd="0"), NO_FLAG + "'0'"),
    (_segment(iscrowd=[0]), NO_FLAG + "[0]"),
]


@pytest.mark.parametrize("keep_details", [False, True])
@pytest.mark.parametrize("segment, message", FAULTY_SEGMENTS)
def test_a_faulty_segment_has_one_fault_and_is_left_out(
    tmp_path: Path, segment: Any, message: str, keep_details: bool
) -> None:
    content = _dataset(segment, _segment(id=2))
    result, faults = _read(tmp_path / "a.json", content, keep_details=keep_details)
    assert faults == [message]
    (annotation,) = result.annotations
    assert annotation.segments.tolist() == [[2, 7, 10, 0]]
    assert annotation.refused_ids == {UNKNOWN_ID if message.startswith(NO_ID) else 1}


@pytest.mark.parametrize("keep_details", [False, True])
@pytest.mark.parametrize(
    "changes, columns",
    [
        ({"area": 10.0}, [1, 7, 10, 0]),
        ({"id": 1.0, "category_id": 7.0}, [1, 7, 10, 0]),
        ({"iscrowd": True}, [1, 7, 10, 1]),
        ({"iscrowd": 1.0}, [1, 7, 10, 1]),
        ({"iscrowd": ...}, [1, 7, 10, 0]),
        ({"iscrowd": None}, [1, 7, 10, 0]),
    ],
)
def test_what_exporters_write_for_whole_numbers_and_flags_is_taken(
    tmp_path: Path, changes: dict[str, Any], columns: list[int], keep_details: bool
) -> None:
    content = _dataset(_segment(**changes))
    result, faults = _read(tmp_path / "a.json", content, keep_details=keep_details)
    assert faults == []
    assert result.annotations[0].segments.tolist() == [columns]
    assert result.annotations[0].segments.dtype == np.int64


def test_a_prediction_may_use_the_id_of_void_and_the_ground_truth_not(tmp_path: Path) -> None:
    content = _dataset(_segment(id=0))
    result, faults = _read(tmp_path / "a.json", content, is_prediction=True)
    assert (faults, result.annotations[0].segments[0, 0]) == ([], 0)
    _, faults = _read(tmp_path / "a.json", content)
    assert faults == [NO_ID + "0"]


def test_faults_of_all_segments_are_collected(tmp_path: Path) -> None:
    segments = [_segment(), _segment(), _segment(id=2, area=None), _segment(id=3)]
    _, faults = _read(tmp_path / "a.json", _dataset(*segments))
    assert faults[0] == "segment 1: image 5: the id occurs more than once"
    assert "segment 2" in faults[1]
    assert len(faults) == 2


def test_predictions_need_neither_area_nor_categories(tmp_path: Path) -> None:
    content = _dataset({"id": 1, "category_id": 7}, {"id": 2, "category_id": 7, "area": None})
    del content["categories"]
    result, faults = _read(tmp_path / "a.json", content, is_prediction=True)
    assert faults == []
    assert result.annotations[0].segments.tolist() == [[1, 7, -1, 0], [2, 7, -1, 0]]


def test_an_image_with_two_annotations_is_a_fault(tmp_path: Path) -> None:
    content = _dataset()
    content["annotations"] *= 2
    _, faults = _read(tmp_path / "a.json", content)
    assert faults == ["image 5 has more than one annotation"]


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "not JSON, or only a part of the file"),
        ('{"annotations": [{"image_id": 5, "segm', "not JSON, or only a part of the file"),
        ("[" * 100_000, "not JSON, or only a part of the file"),
        ([{"image_id": 1, "score": 0.5}], "expected an object with 'annotations'; got a list"),
        ({"categories": [ROAD]}, "'annotations' is missing"),
        ({"annotations": {}, "categories": [ROAD]}, "'annotations' must be a list; got {}"),
        ({"annotations": []}, "'categories' is missing"),
        ({"annotations": [], "categories": []}, "'categories' is empty"),
        ({"annotations": [], "categories": [[1]]}, "categories[0] must be an object"),
        (
            {"annotations": [], "categories": [{**ROAD, "id": 10**30}]},
            f"the category id {10**30} has more than 31 bits",
        ),
        (
            {"annotations": [], "categories": [{**ROAD, "name": "\ud800"}]},
            "the category name '\\ud800' is no text of Unicode",
        ),
        (
            {"annotations": [{"bbox": [1]}], "categories": [ROAD]},
            "annotations[0]: 'segments_info' is missing; this looks like an instance annotation",
        ),
        ({"annotations": [7], "categories": [ROAD]}, "annotations[0]: it must be an object; got 7"),
        (_dataset(image_id=None), "annotations[0]: 'image_id' must be an integer or a text"),
        (
            _dataset(image_id=7.5),
            "annotations[0]: 'image_id' must be an integer or a text; got 7.5",
        ),
        (_dataset(image_id=[1]), "annotations[0]: 'image_id' must be an integer or a text"),
        (_dataset(file_name=7), "annotations[0] (image 5): 'file_name' must be the name of a PNG"),
        (_dataset(file_name="a\0.png"), "annotations[0] (image 5): 'file_name' must be the name"),
        (
            _dataset(segments_info="none"),
            "annotations[0] (image 5): 'segments_info' must be a list",
        ),
    ],
)
def test_a_file_of_another_shape_has_one_fault_that_says_what_was_expected(
    tmp_path: Path, content: Any, message: str
) -> None:
    result, faults = _read(tmp_path / "a.json", content)
    assert len(faults) == 1
    assert faults[0].startswith(message)
    assert result.annotations == ()


def test_image_ids_are_whole_numbers_or_texts_and_stay_what_they_are(tmp_path: Path) -> None:
    for written, taken in ((5, 5), (5.0, 5), ("5", "5")):
        result, faults = _read(tmp_path / "a.json", _dataset(image_id=written))
        assert (faults, result.annotations[0].image_id) == ([], taken)
        assert type(result.annotations[0].image_id) is type(taken)


@pytest.mark.parametrize(
    "name",
    ["/etc/5.png", "../5.png", "a/../../5.png", "C:\\5.png", "\\\\server\\5.png", "..\\5.png"],
)
def test_names_that_lead_out_of_their_folder_are_refused(tmp_path: Path, name: str) -> None:
    _, faults = _read(tmp_path / "a.json", _dataset(file_name=name))
    assert faults == [
        f"annotations[0] (image 5): 'file_name' must be the name of a PNG below its folder; "
        f"got {name!r}"
    ]


def test_names_written_on_windows_are_turned_round(tmp_path: Path) -> None:
    content = _dataset(file_name="aachen\\5.png")
    result, faults = _read(tmp_path / "a.json", content)
    assert (faults, result.annotations[0].file_name) == ([], "aachen/5.png")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_with_a_mark_of_their_encoding_are_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(_dataset(_segment())), encoding=encoding)
    assert parse_panoptic_json(path).faults == ()


def test_images_are_needed_whole_or_taken_where_they_are_sound(tmp_path: Path) -> None:
    content = _dataset()
    content["images"] = [
        {"id": 5, "file_name": "5.jpg", "height": 3, "width": 4.0},
        {"id": 6, "file_name": "6.jpg", "height": "3", "width": 4},
        "seven",
    ]
    result, faults = _read(tmp_path / "a.json", content)
    assert faults == []
    assert [(image.image_id, image.height, image.width) for image in result.images] == [(5, 3, 4)]
    assert result.image_files == {5: "5.jpg", 6: "6.jpg"}
    result, faults = _read(tmp_path / "a.json", content, needs_images=True)
    assert faults == [
        "image 6: 'height' must be a positive integer; got '3'",
        "images[2]: 'id' must be an integer or a text; got 'seven'",
    ]
    assert result.refused_images == {6, None}


def test_what_predictions_say_of_classes_is_checked_where_it_is_said(tmp_path: Path) -> None:
    content = _dataset()
    content["categories"] = [
        {"id": 7},
        {"id": 8.0, "name": "car", "isthing": True},
        {"id": None, "name": "sky"},
        [1],
        {"id": 9, "name": 3, "isthing": "no"},
    ]
    result, faults = _read(tmp_path / "a.json", content, is_prediction=True)
    assert faults == [
        "categories[2] needs an integer 'id'; got {'id': None, 'name': 'sky'}",
        "categories[3] needs an integer 'id'; got [1]",
        "categories[4]: 'name' must be a text; got 3",
        "categories[4]: 'isthing' must be 0 or 1; got 'no'",
    ]
    stated = [StatedCategory(7, None, None), StatedCategory(8, "car", True)]
    assert [*result.stated_categories[:2]] == stated


@pytest.mark.parametrize("is_enabled", [False, True])
def test_the_garbage_collector_is_left_as_it_was(tmp_path: Path, is_enabled: bool) -> None:
    was_enabled = gc.isenabled()
    try:
        (gc.enable if is_enabled else gc.disable)()
        for content in (_dataset(), "["):
            _read(tmp_path / "a.json", content)
            assert gc.isenabled() == is_enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()
