"""Instance JSONs: masks are those of pycocotools, damaged ones are faults, overlaps are settled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from seamless_pr.datasets import coco_instances
from seamless_pr.datasets.coco_instances import (
    decode_segmentation,
    paint_instances,
    read_instance_json,
)

SIZE = (9, 13)


def random_mask(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random(size) < rng.uniform(0, 1)


def encode(mask: np.ndarray) -> dict[str, Any]:
    runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(runs["size"]), "counts": runs["counts"].decode()}


@pytest.mark.parametrize("seed", range(20))
def test_compressed_run_lengths_are_decoded_as_by_pycocotools(seed: int) -> None:
    size = (1 + seed * 7, 1 + seed * 11)
    mask = random_mask(seed, size)
    np.testing.assert_array_equal(decode_segmentation(encode(mask), size), mask)


def test_large_masks_of_one_value_are_decoded() -> None:
    for value in (False, True):
        mask = np.full((700, 900), value)
        np.testing.assert_array_equal(decode_segmentation(encode(mask), (700, 900)), mask)


def test_plain_run_lengths_go_column_by_column() -> None:
    mask = decode_segmentation({"size": [2, 3], "counts": [1, 2, 3]}, (2, 3))
    assert isinstance(mask, np.ndarray)
    assert mask.tolist() == [[False, True, False], [True, False, False]]


def test_polygons_are_painted_as_by_pycocotools() -> None:
    polygons = [[1.0, 1.0, 9.5, 2.0, 4.0, 7.5], [10.0, 5.0, 12.0, 5.0, 12.0, 8.0]]
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *SIZE)))
    np.testing.assert_array_equal(decode_segmentation(polygons, SIZE), expected.astype(bool))


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        (None, "must be polygons or run lengths"),
        ([], "must be polygons or run lengths"),
        ([[1, 2, 3, 4]], "three corners at least"),
        ([[1, 2, 3, 4, 5, 1e9]], "far outside of the image"),
        ([[1, 2, 3, 4, 5, 10**400]], "must be [x, y, x, y, ...] in pixels"),
        ([[1, 2, 3, 4, 5, float("nan")]], "must be [x, y, x, y, ...] in pixels"),
        ([[1, 2, 3, 4, 5, True]], "must be [x, y, x, y, ...] in pixels"),
        ([[0, 0, 120, 80] * 20000], "the outline has"),
        ({"size": [9, 12], "counts": [108]}, "the image has [9, 13]"),
        ({"size": [9, 13], "counts": [116]}, "cover 116 pixels"),
        ({"size": [9, 13], "counts": [118, -1]}, "a run length is negative"),
        ({"size": [9, 13], "counts": "oooo"}, "ends inside a number"),
        ({"size": [9, 13], "counts": "é"}, "must be a list or a text"),
        ({"size": [9, 13], "counts": ""}, "is no text of run lengths"),
        ({"size": [9, 13], "counts": 7}, "'counts' must be a list or a text"),
    ],
)
def test_a_damaged_segmentation_is_said_and_never_decoded(segmentation: Any, expected: str) -> None:
    found = decode_segmentation(segmentation, SIZE)
    assert isinstance(found, str)
    assert expected in found


def test_small_objects_lie_over_large_ones_and_crowds_below_all() -> None:
    small, large = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    small[2:4, 2:4], large[1:6, 1:6] = True, True
    objects = [
        {"id": 5, "category_id": 1, "segmentation": encode(small)},
        {"id": 6, "category_id": 2, "segmentation": encode(large), "iscrowd": 0},
        {"id": 7, "category_id": 2, "segmentation": encode(np.ones(SIZE)), "iscrowd": 1},
    ]
    painted, faults = paint_instances(
        json.dumps({"size": SIZE, "objects": objects}), {1, 2}, "a.json"
    )
    assert faults == []
    expected = np.full(SIZE, 3)
    expected[large], expected[small] = 2, 1
    assert painted.id_map.tolist() == expected.tolist()
    assert (painted.category_of, painted.crowd_ids) == ({0: 0, 1: 1, 2: 2, 3: 2}, {3})


def painted_alone(objects: list[dict[str, Any]], size: tuple[int, int]) -> np.ndarray:
    painted, faults = paint_instances(json.dumps({"size": size, "objects": objects}), {1}, "a")
    assert faults == []
    return painted.id_map


@pytest.mark.parametrize("density", [0.5, 0.0001, 0.0, 1.0])
def test_masks_of_long_and_short_runs_are_painted_as_pycocotools_decodes_them(
    density: float,
) -> None:
    mask = np.random.default_rng(1).random((200, 300)) < density
    runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = {"size": [200, 300], "counts": runs["counts"].decode()}
    id_map = painted_alone([{"category_id": 1, "segmentation": counts}], (200, 300))
    assert np.array_equal(id_map, coco_mask.decode(runs).astype(np.int32))


def test_a_small_file_cannot_have_the_same_pixels_painted_for_hours() -> None:
    side = 300
    mask = {"size": [side, side], "counts": [0, side * side]}
    outline = [[0, 0, side, 0, side, side, 0, 1] * 100]
    limits = (mask, "MAX_SPANS", 10 * side**2), (outline, "MAX_OUTLINES", 1000 * side)
    for segmentation, name, limit in limits:
        objects = [{"id": n, "category_id": 1, "segmentation": segmentation} for n in range(20)]
        text = json.dumps({"size": [side, side], "objects": objects})
        with patch.object(coco_instances, name, limit):
            _, faults = paint_instances(text, {1}, "a.json")
        assert "more is to be painted than any picture has" in faults[-1].message


def test_lists_in_lists_and_names_of_folders_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    deep = "[" * 900 + "]" * 900
    names = ("/", ".", "..", "a/", "b")
    images = [{**IMAGE, "id": n, "file_name": name} for n, name in enumerate(names)]
    content = {"images": images, "annotations": [{"image_id": 4, "segmentation": 0}]}
    path.write_text(json.dumps(content).replace('"segmentation": 0', f'"segmentation": {deep}'))
    file, faults = read_instance_json(path)
    assert [image.file_name for image in file.images] == ["b"]
    assert "annotations[0] holds lists in lists" in faults[0].message
    assert [fault.message[:9] for fault in faults[1:]] == [f"images[{n}]" for n in range(4)]


def test_unknown_categories_and_damaged_masks_are_all_listed() -> None:
    objects = [{"id": 5, "category_id": 9, "segmentation": []}, {"category_id": 1}]
    _, faults = paint_instances(json.dumps({"size": SIZE, "objects": objects}), {1}, "a.json")
    assert [fault.message[:36] for fault in faults] == [
        "annotation 5: category 9 is not know",
        "annotation number 1: 'segmentation' ",
    ]


def test_wrong_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    with pytest.raises(FileNotFoundError, match="no instance JSON at"):
        read_instance_json(path)
    path.write_text('{"images": [], "annotations": [{"segments_info": []}], "categories": []}')
    _, (fault,) = read_instance_json(path)
    assert "holds panoptic annotations" in fault.message
    image = {"id": 1, "file_name": "a", "height": 3, "width": 4}
    content = {
        "images": [image, {"id": 2, "file_name": "b"}],
        "annotations": [{"image_id": 1, "category_id": 1}, {"id": 4}, {"image_id": 9}],
    }
    path.write_text(json.dumps(content))
    file, faults = read_instance_json(path)
    assert [len(found.objects) for found in file.images] == [1]
    assert len(faults) == 3


def test_whole_floats_and_names_of_windows_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    annotation = {"image_id": 7.0, "category_id": 1.0, "iscrowd": True, "segmentation": [SQUARE]}
    image = {"id": 7.0, "file_name": "a\\b.png", "height": 9.0, "width": 13.0}
    path.write_text(json.dumps({"images": [image], "annotations": [annotation], "categories": []}))
    file, faults = read_instance_json(path)
    assert faults == []
    (found,) = file.images
    assert (found.image_id, found.file_name, found.height, found.width) == (7, "a/b.png", 9, 13)
    painted, faults = paint_instances(found.text(), {1}, "a.json")
    assert faults == []
    assert (painted.category_of, painted.crowd_ids) == ({0: 0, 1: 1}, {1})


SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]
IMAGE = {"id": 1, "file_name": "a.png", "height": 9, "width": 13}


@pytest.mark.parametrize(
    ("images", "annotations", "messages"),
    [
        ([{**IMAGE, "id": None}], [{"image_id": 5}], ["images[0] needs id"]),
        ([{**IMAGE, "id": 1.5}], [], ["images[0] needs id"]),
        ([{**IMAGE, "height": True}], [{"image_id": 1}], ["images[0] needs id"]),
        ([{**IMAGE, "width": 10**30}], [], ["images[0] needs id"]),
        ([{**IMAGE, "file_name": "a\0"}], [], ["images[0] needs id"]),
        ([IMAGE, IMAGE], [], ["images[1]: the id 1 occurs more than once"]),
        ([IMAGE], [{"image_id": [1]}], ["annotations[0] needs the 'image_id' of an image"]),
        ([IMAGE], [{"image_id": True}], ["annotations[0] needs the 'image_id' of an image"]),
        ([IMAGE], [7], ["annotations[0] needs the 'image_id' of an image; got 7"]),
    ],
)
def test_each_wrong_value_is_one_fault(
    tmp_path: Path, images: list[Any], annotations: list[Any], messages: list[str]
) -> None:
    path = tmp_path / "instances.json"
    content = {"images": images, "annotations": annotations, "categories": []}
    path.write_text(json.dumps(content))
    _, faults = read_instance_json(path)
    assert len(faults) == len(messages)
    for fault, message in zip(faults, messages):
        assert fault.message.startswith(message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"category_id": [1]}, "annotation 4: category [1] is not known"),
        ({"category_id": True}, "annotation 4: category True is not known"),
        ({"iscrowd": "0"}, "annotation 4: 'iscrowd' must be 0 or 1; got '0'"),
        ({"iscrowd": 2}, "annotation 4: 'iscrowd' must be 0 or 1; got 2"),
    ],
)
def test_values_of_objects_are_checked(values: dict[str, Any], message: str) -> None:
    entry = {"id": 4, "category_id": 1, "segmentation": [SQUARE], **values}
    _, faults = paint_instances(json.dumps({"size": SIZE, "objects": [entry]}), {1}, "a.json")
    assert [fault.message for fault in faults] == [message]
