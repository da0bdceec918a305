"""Shapes of everyday things as boxes and bars, and of road marks as flat outlines.

`tables/solids.csv` holds solids in a box of length x width x height; its numbers are shares of it:
forward and right from -0.5 to 0.5, up from 0 to 1, radii of the width. A shade of 1 is the thing's
colour, of 0.5 half as bright. `tables/marks.csv` holds strokes as corners x:z, x (right) from -0.5
to 0.5 and z (ahead) from 0 to 1.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from importlib import resources

from seamless_pr.street_scenes.solids import Color, Model

Corner = tuple[float, float]
Point = tuple[float, float, float]

SQUARE: tuple[Corner, ...] = ((-0.5, 0.0), (0.5, 0.0), (0.5, 1.0), (-0.5, 1.0))
BRIGHTEST = 250.0


@dataclass(frozen=True)
class Part:
    """A box between two corners, or a round bar between two points.

    Attributes:
        shade: factor of the thing's colour.
        start, end: forward, right, up as shares.
        radii: of a bar at its ends, as shares of the width; None: a box.
    """

    shade: float
    start: Point
    end: Point
    radii: tuple[float, float] | None


@cache
def load_solids() -> dict[str, tuple[Part, ...]]:
    """Shape -> its parts."""
    parts: dict[str, list[Part]] = defaultdict(list)
    for row in read_table("solids.csv"):
        ends = [
            (float(row[f"forward{end}"]), float(row[f"right{end}"]), float(row[f"up{end}"]))
            for end in (0, 1)
        ]
        radii = None
        if row["part"] == "bar":
            radii = (float(row["radius0"]), float(row["radius1"]))
        parts[row["shape"]].append(Part(float(row["shade"]), ends[0], ends[1], radii))
    return {shape: tuple(found) for shape, found in parts.items()}


@cache
def load_marks() -> dict[str, tuple[tuple[Corner, ...], ...]]:
    """Mark -> its strokes, each a list of corners."""
    strokes: dict[str, list[tuple[Corner, ...]]] = defaultdict(list)
    for row in read_table("marks.csv"):
        corners = [corner.split(":") for corner in row["corners"].split()]
        strokes[row["mark"]].append(tuple((float(x), float(z)) for x, z in corners))
    return {mark: tuple(found) for mark, found in strokes.items()}


@cache
def read_table(name: str) -> tuple[dict[str, str], ...]:
    """The rows of a file of `tables/`."""
    table = resources.files("seamless_pr").joinpath("street_scenes", "tables", name)
    with table.open(encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def build_solid(
    shape: str, size: tuple[float, float, float], color: Color, *, up: float = 0.0
) -> Model:
    """A shape as a model.

    Args:
        shape: one of `load_solids`.
        size: length (forward), width (right), height (up) in metres.
        color: of shade 1.
        up: metres from the ground to its foot.
    """
    length, width, height = size
    model = Model(center=(0.0, 0.0, up + height / 2))

    def at(point: Point) -> Point:
        return point[0] * length, point[1] * width, up + point[2] * height

    for part in load_solids()[shape]:
        red, green, blue = (min(BRIGHTEST, part.shade * channel) for channel in color)
        if part.radii is None:
            model.box(at(part.start), at(part.end), (red, green, blue))
        else:
            start_radius, end_radius = (width * radius for radius in part.radii)
            model.capsule(
                at(part.start), at(part.end), start_radius, end_radius, (red, green, blue)
            )
    return model
