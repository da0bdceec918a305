from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seamless_pr.evaluation.panoptic_json import PanopticJson, read_panoptic_json
from seamless_pr.structures.faults import Fault


def _read(
    path: Path, content: Any, *, is_ground_truth: bool = True
) -> tuple[PanopticJson | None, list[str]]:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    faults: list[Fault] = []
    result = read_panoptic_json(path, is_ground_truth=is_ground_truth, faults=faults)
    return result, [str(fault).removeprefix(f"{path}: ") for fault in faults]


def _dataset(*segments: Any, **annotation: Any) -> dict[str, Any]:
    values = {"image_id": 5, "file_name": "5.png", "segments_info": list(segments), **annotation}
    return {"annotations": [values], "categories": []}


def _segment(**changes: Any) -> dict[str, Any]:
    values = {"id": 1, "category_id": 7, "area": 10, "iscrowd": 0, "bbox": [0, 0, 1, 1], **changes}
    return {key: value for key, value in values.items() if value is not ...}


def test_segments_become_columns_in_their_order(tmp_path: Path) -> None:
    result, faults = _read(tmp_path / "a.json", _dataset(_segment(id=9), _segment(id=3, iscrowd=1)))
    assert faults == []
    assert result is not None
    assert result.annotations[0].segments.tolist() == [[9, 7, 10, 0], [3, 7, 10, 1]]


def test_an_image_may_have_no_segment(tmp_path: Path) -> None:
    result, faults = _read(tmp_path / "a.json", _dataset())
    assert faults == []
    assert result is not None
    assert result.annotations[0].segments.shape == (0, 4)


@pytest.mark.parametrize(
    "segment, message",
    [
        (_segment(id=...), "segments_info[0] needs an integer 'id'"),
        (_segment(id=0), "segments_info[0] needs an integer 'id'"),
        (_segment(id=1 << 24), "segments_info[0] needs an integer 'id'"),
        (_segment(id="1"), "segments_info[0] needs an integer 'id'"),
        (_segment(id=10**30), "segments_info[0] needs an integer 'id'"),
        ("road", "segments_info[0] needs an integer 'id'"),
        (
            _segment(category_id=...),
            "segment 1: image 5: 'category_id' must be an integer; got None",
        ),
        (
            _segment(category_id=7.5),
            "segment 1: image 5: 'category_id' must be an integer; got 7.5",
        ),
        (
            _segment(area=...),
            "segment 1: image 5: 'area' must be a number of pixels; it is missing",
        ),
        (_segment(area=-4), "segment 1: image 5: 'area' must be a number of pixels; got -4"),
        (_segment(area=1.5), "segment 1: image 5: 'area' must be a number of pixels; got 1.5"),
        (_segment(iscrowd=2), "segment 1: image 5: 'iscrowd' must be 0 or 1; got 2"),
    ],
)
def test_a_faulty_segment_is_named(tmp_path: Path, segment: Any, message: str) -> None:
    _, faults = _read(tmp_path / "a.json", _dataset(segment))
    assert len(faults) == 1
    assert message in faults[0]


def test_faults_of_all_segments_are_collected(tmp_path: Path) -> None:
    segments = [_segment(), _segment(), _segment(id=2, area=None), _segment(id=3)]
    _, faults = _read(tmp_path / "a.json", _dataset(*segments))
    assert faults[0] == "segment 1: image 5: the id occurs more than once"
    assert "segment 2" in faults[1]
    assert len(faults) == 2


def test_whole_numbers_written_as_decimals_are_areas(tmp_path: Path) -> None:
    result, faults = _read(tmp_path / "a.json", _dataset(_segment(area=10.0), _segment(id=2)))
    assert faults == []
    assert result is not None
    assert result.annotations[0].segments[0].tolist() == [1, 7, 10, 0]


def test_predictions_need_neither_area_nor_categories(tmp_path: Path) -> None:
    content = _dataset({"id": 1, "category_id": 7}, {"id": 2, "category_id": 7, "area": None})
    del content["categories"]
    result, faults = _read(tmp_path / "a.json", content, is_ground_truth=False)
    assert faults == []
    assert result is not None
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
        ({"categories": []}, "'annotations' is missing"),
        ({"annotations": {}, "categories": []}, "'annotations' is missing"),
        ({"annotations": []}, "'categories' is missing"),
        ({"annotations": [{"bbox": [1]}], "categories": []}, "looks like an instance annotation"),
        (_dataset(image_id=None), "annotation with 'image_id' None"),
        (_dataset(image_id=[1]), "annotation with 'image_id' [1]"),
        (_dataset(file_name=7), "image 5: 'file_name' must be the name of a PNG; got 7"),
        (_dataset(segments_info="none"), "image 5: 'segments_info' must be a list"),
    ],
)
def test_a_file_of_another_shape_says_what_was_expected(
    tmp_path: Path, content: Any, message: str
) -> None:
    _, faults = _read(tmp_path / "a.json", content)
    assert message in "\n".join(faults)


def test_sizes_and_picture_names_are_read_where_they_are_sound(tmp_path: Path) -> None:
    content = _dataset()
    content["images"] = [
        {"id": 5, "file_name": "5.jpg", "height": 3, "width": 4},
        {"id": 6, "height": "3"},
        "seven",
    ]
    result, faults = _read(tmp_path / "a.json", content)
    assert faults == []
    assert result is not None
    assert result.sizes == {5: (3, 4)}
    assert result.image_files == {5: "5.jpg"}
