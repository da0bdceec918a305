"""Polygon files of Cityscapes' kind: reading, checking, painting as the official tools do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from seamless_pr.datasets import checked_values as checked
from seamless_pr.input_files import read_json
from seamless_pr.structures.faults import Fault
from seamless_pr.structures.limits import MAX_PIXELS

GROUP_ENDING = "group"
MIN_CORNERS = 3
# Two corners are painted as a line; one cannot be painted at all.
MIN_PAINTED_CORNERS = 2
# In pixels; Pillow counts in 32 bits, and no corner of an object lies so far outside.
MAX_COORDINATE = 1_000_000
# Steps of Pillow for all polygons of an image, see `_steps`; as many take ten seconds, and the most
# crowded streets a hundredth of them.
MAX_STEPS = 10_000_000_000
# Of an edge in a row that it crosses.
STEPS_OF_CROSSING = 30


@dataclass(frozen=True)
class LabelledPolygon:
    """One object: its label without the ending "group", and [(x, y), ...] in pixels."""

    label: str
    is_group: bool
    corners: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class PolygonFile:
    """The objects of one image in painting order, deleted ones left out."""

    height: int
    width: int
    objects: tuple[LabelledPolygon, ...]


def read_polygons(
    path: Path, labels: Collection[str], *, accept_degenerate: bool = False
) -> tuple[PolygonFile, list[Fault]]:
    """Reads a `_polygons.json`.

    Args:
        path: the file.
        labels: all known labels; "<label>group" is a group of objects.
        accept_degenerate: polygons with fewer than three corners, and those that lie outside of the
            image, are no faults: the official tools paint a line, or nothing.

    Returns:
        The file, and everything that is wrong with it.
    """
    content, fault = read_json_or_fault(path)
    if fault is not None:
        return PolygonFile(0, 0, ()), [fault]
    size = [content.get(key) if isinstance(content, Mapping) else None for key in _SIZE_KEYS]
    height, width = (checked.whole(side, 1) for side in size)
    if height is None or width is None:
        sides = " and ".join(map(checked.shown, size))
        message = f"needs imgHeight and imgWidth in pixels; got {sides}: copy the file again"
        return PolygonFile(0, 0, ()), [Fault(str(path), message)]
    if height * width > MAX_PIXELS:
        message = f"size {height}x{width} is beyond any camera; copy the file again"
        return PolygonFile(0, 0, ()), [Fault(str(path), message)]
    entries = content.get("objects")
    if not isinstance(entries, list):
        shown = checked.shown(entries)
        fault = Fault(str(path), f"'objects' must be a list; got {shown}: copy the file again")
        return PolygonFile(height, width, ()), [fault]
    faults: list[Fault] = []
    objects = []
    for index, entry in enumerate(entries):
        found = _parse_object(entry, labels, (height, width), accept_degenerate)
        if isinstance(found, str):
            faults.append(Fault(str(path), f"object {index} {found}"))
        elif found is not None:
            objects.append(found)
    steps = sum(_steps(polygon.corners, (height, width)) for polygon in objects)
    if steps > MAX_STEPS:
        message = (
            f"{len(objects)} polygons would take {steps / 1e9:.0f} billion steps to paint; no "
            "picture is drawn like that: copy the file again"
        )
        return PolygonFile(height, width, ()), [*faults, Fault(str(path), message)]
    return PolygonFile(height, width, tuple(objects)), faults


_SIZE_KEYS = ("imgHeight", "imgWidth")


def _parse_object(
    entry: Any, labels: Collection[str], size: tuple[int, int], accept_degenerate: bool
) -> LabelledPolygon | str | None:
    """The object; None if it is deleted; or what is wrong with it."""
    if not isinstance(entry, Mapping):
        return f"must be an object with label and polygon; got {checked.shown(entry)}"
    is_deleted = checked.flag(entry.get("deleted", 0))
    if is_deleted is None:
        return f"has 'deleted' {checked.shown(entry['deleted'])}; it must be 0 or 1"
    if is_deleted:
        return None
    label = entry.get("label")
    if not isinstance(label, str):
        return f"has no label; got {checked.shown(label)}"
    is_group = label not in labels and label.removesuffix(GROUP_ENDING) in labels
    if is_group:
        label = label.removesuffix(GROUP_ENDING)
    if label not in labels:
        found = checked.shown(label)
        return f"has the label {found}, which no table knows; correct it or mark it deleted"
    corners = _parse_corners(entry.get("polygon"))
    if corners is None:
        return f"('{label}'): 'polygon' must be a list of [x, y] in pixels"
    if not all(-MAX_COORDINATE < value < MAX_COORDINATE for corner in corners for value in corner):
        return f"('{label}') has a corner beyond any image; correct it or mark it deleted"
    if len(corners) < MIN_CORNERS and not accept_degenerate:
        return (
            f"('{label}') has {len(corners)} corners, at least {MIN_CORNERS} make a polygon; "
            f"mark it deleted, or {ACCEPT_HINT}"
        )
    if not accept_degenerate and _is_outside(corners, size):
        return (
            f"('{label}') lies outside of the image of {size[0]}x{size[1]} (height x width); "
            f"mark it deleted, or {ACCEPT_HINT}"
        )
    return LabelledPolygon(label, is_group, corners)


ACCEPT_HINT = "take it as the official tool does with --accept-degenerate"


def _parse_corners(raw: Any) -> tuple[tuple[float, float], ...] | None:
    if not isinstance(raw, list):
        return None
    corners = []
    for corner in raw:
        numbers = checked.numbers(corner, 2)
        if numbers is None:
            return None
        corners.append((numbers[0], numbers[1]))
    return tuple(corners)


def _steps(corners: tuple[tuple[float, float], ...], size: tuple[int, int]) -> float:
    """What painting a polygon takes: the pixels of its box, every edge in every row, crossings."""
    if not corners:
        return 0
    points = np.array(corners).clip(0, size[::-1])
    columns, rows = np.ptp(points, axis=0) + 1
    crossings = np.abs(np.diff(points[:, 1], append=points[0, 1])).sum()
    return float(rows * (columns + len(corners)) + STEPS_OF_CROSSING * crossings)


def _is_outside(corners: tuple[tuple[float, float], ...], size: tuple[int, int]) -> bool:
    height, width = size
    xs, ys = zip(*corners) if corners else ((), ())
    return not corners or max(xs) < 0 or min(xs) >= width or max(ys) < 0 or min(ys) >= height


def paint_polygons(
    size: tuple[int, int],
    polygons: Iterable[tuple[tuple[tuple[float, float], ...], int]],
    background: int,
) -> NDArray[np.int32]:
    """Paints (corners, value) in order, later ones over earlier ones.

    Pillow paints, as in the official tools of Cityscapes and IDD: its rule for border pixels, and
    for outlines that cross themselves, belongs to the ground truth.

    Args:
        size: (height, width).
        polygons: corners as (x, y) in pixels; a single corner paints nothing.
        background: value where nothing is painted.

    Returns:
        [H, W] int32.
    """
    picture = Image.new("I", (size[1], size[0]), background)
    drawer = ImageDraw.Draw(picture)
    for corners, value in polygons:
        if len(corners) >= MIN_PAINTED_CORNERS:
            drawer.polygon(corners, fill=value)
    return np.array(picture, dtype=np.int32)


def read_json_or_fault(path: Path) -> tuple[Any, Fault | None]:
    """The content of a JSON file, or why there is none."""
    try:
        return read_json(path), None
    except OSError as error:
        return None, Fault(str(path), f"cannot be read ({error.strerror or error}); copy it again")
    except ValueError as error:
        message = str(error).removeprefix(f"{path} is ")
        return None, Fault(str(path), f"{message}; copy it again")
