"""Polygon files: read with every fault, painted as the official tools paint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from seamless_pr.datasets.polygons import paint_polygons, read_polygons

LABELS = {"road", "car", "polegroup"}


def write(path: Path, objects: list[object], size: tuple[object, object] = (8, 12)) -> Path:
    content = {"imgHeight": size[0], "imgWidth": size[1], "objects": objects}
    path.write_text(json.dumps(content))
    return path


def thing(label: str, *corners: tuple[float, float], **more: object) -> dict[str, object]:
    return {"label": label, "polygon": [list(corner) for corner in corners], **more}


TRIANGLE = ((1.5, 1.0), (9.0, 2.5), (4.0, 6.0))


def test_deleted_objects_are_left_out_and_groups_are_told_from_classes(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.json",
        [
            thing("road", *TRIANGLE, deleted=0, draw=True, user="a", verified=0),
            thing("car", *TRIANGLE, deleted=1),
            thing("cargroup", *TRIANGLE),
            thing("polegroup", *TRIANGLE),
            # A deleted object may be as wrong as it likes.
            thing("nonsense", (0, 0), deleted=1),
        ],
    )
    file, faults = read_polygons(path, LABELS)
    assert faults == []
    found = [(polygon.label, polygon.is_group) for polygon in file.objects]
    assert found == [("road", False), ("car", True), ("polegroup", False)]
    assert file.objects[0].corners == TRIANGLE


@pytest.mark.parametrize(
    ("corners", "size", "count"),
    [
        (((0, 0), (7000, 0), (7000, 7000), (0, 7000)), (7000, 7000), 250),
        (tuple((n % 50, n % 2 * 999_999) for n in range(500)), (1_000_000, 50), 1),
    ],
)
def test_a_small_file_cannot_keep_a_painter_for_hours(
    tmp_path: Path, corners: tuple[tuple[float, float], ...], size: tuple[int, int], count: int
) -> None:
    path = write(tmp_path / "a.json", [thing("road", *corners)] * count, size)
    _, (fault,) = read_polygons(path, LABELS)
    assert "billion steps to paint" in fault.message


def test_every_wrong_object_is_listed(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.json",
        [
            thing("bus", *TRIANGLE),
            thing("car", (1, 1), (4, 4)),
            thing("car", (20, 1), (30, 1), (20, 5)),
            thing("car", (-5, -1), (-1, -4), (-3, -2)),
            {"label": "car", "polygon": [[1, 2, 3], [1, 2], [3, 4]]},
            {"label": "car", "polygon": [[1, float("nan")], [1, 2], [3, 4]]},
            {"label": 7, "polygon": []},
            "car",
            thing("car", *TRIANGLE),
        ],
    )
    file, faults = read_polygons(path, LABELS)
    messages = [fault.message for fault in faults]
    assert len(messages) == 8
    assert "object 0 has the label 'bus', which no table knows" in messages[0]
    assert "object 1 ('car') has 2 corners" in messages[1]
    assert "object 2 ('car') lies outside of the image of 8x12" in messages[2]
    assert "object 3 ('car') lies outside" in messages[3]
    assert all("must be a list of [x, y]" in message for message in messages[4:6])
    assert len(file.objects) == 1
    _, faults = read_polygons(path, LABELS, accept_degenerate=True)
    assert [fault.message for fault in faults] == [messages[0], *messages[4:]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not JSON, or only a part of it"),
        ('{"imgHeight": 8, "imgWid', "not JSON, or only a part of it"),
        ("[]", "needs imgHeight and imgWidth"),
        ('{"imgHeight": 0, "imgWidth": 4, "objects": []}', "needs imgHeight and imgWidth"),
        ('{"imgHeight": 1000000, "imgWidth": 1000000, "objects": []}', "is beyond any camera"),
        ('{"imgHeight": 8, "imgWidth": 4}', "'objects' must be a list"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_broken_file_is_one_fault(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    file, (fault,) = read_polygons(path, LABELS)
    assert file.objects == ()
    assert expected in fault.message


def test_later_polygons_cover_earlier_ones() -> None:
    square = ((0, 0), (3, 0), (3, 3), (0, 3))
    hole = ((1, 1), (2, 1), (2, 2), (1, 2))
    painted = paint_polygons((4, 5), [(square, 7), (hole, 9000)], 255)
    assert painted.tolist() == [
        [7, 7, 7, 7, 255],
        [7, 9000, 9000, 7, 255],
        [7, 9000, 9000, 7, 255],
        [7, 7, 7, 7, 255],
    ]


def test_a_seam_cuts_a_hole_into_a_polygon() -> None:
    outer = ((0, 0), (8, 0), (8, 8), (0, 8), (0, 0))
    inner = ((3, 3), (3, 5), (5, 5), (5, 3), (3, 3))
    painted = paint_polygons((9, 9), [((*outer, *inner), 1)], 0)
    assert painted[4, 4] == 0
    assert painted[1, 4] == painted[7, 4] == painted[4, 1] == painted[4, 7] == 1


def test_corners_outside_are_cut_off_and_two_corners_are_a_line() -> None:
    far = ((-100.0, -50.0), (100.0, -50.0), (100.0, 1.2), (-100.0, 1.2))
    line = ((0.0, 3.0), (2.0, 3.0))
    painted = paint_polygons((4, 4), [(far, 1), (line, 2), (((1.0, 3.0),), 3), ((), 4)], 0)
    assert painted.tolist() == [[1] * 4, [1] * 4, [0] * 4, [2, 2, 2, 0]]


def test_every_pixel_is_that_of_pillows_polygon() -> None:
    rng = np.random.default_rng(0)
    polygons = [
        (tuple(map(tuple, rng.uniform(-20, 80, (rng.integers(3, 9), 2)).tolist())), index * 700)
        for index in range(40)
    ]
    picture = Image.new("I", (64, 48), 255)
    for corners, value in polygons:
        ImageDraw.Draw(picture).polygon(list(corners), fill=value)
    np.testing.assert_array_equal(paint_polygons((48, 64), polygons, 255), np.asarray(picture))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"deleted": "no"}, "object 0 has 'deleted' 'no'; it must be 0 or 1"),
        ({"polygon": [[True, 1], [4, 1], [4, 4]]}, "object 0 ('car'): 'polygon' must be a list"),
        ({"polygon": [[10**400, 1], [4, 1], [4, 4]]}, "object 0 ('car'): 'polygon' must be a list"),
        ({"polygon": [[10**30, 1], [4, 1], [4, 4]]}, "object 0 ('car') has a corner beyond any"),
    ],
)
def test_values_of_objects_are_checked(
    tmp_path: Path, values: dict[str, object], message: str
) -> None:
    path = write(tmp_path / "a.json", [{**thing("car", *TRIANGLE), **values}], (8.0, 12.0))
    file, (fault,) = read_polygons(path, LABELS)
    assert fault.message.startswith(message)
    assert (file.height, file.width) == (8, 12)
