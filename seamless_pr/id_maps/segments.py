"""Measures of all segments of an id map at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamless_pr.id_maps.jit import kernel

MAX_SEGMENT_ID = 2**24 - 1


@dataclass(frozen=True)
class SegmentMeasures:
    """Segments of one map, void (id 0) among them where it occurs.

    Attributes:
        segment_ids: [S] int64, ascending.
        areas: [S] int64, pixels.
        boxes_xywh: [S, 4] int64, (x, y, width, height) of the smallest box, in pixels.
    """

    segment_ids: NDArray[np.int64]
    areas: NDArray[np.int64]
    boxes_xywh: NDArray[np.int64]


def measure_segments(id_map: NDArray[Any]) -> SegmentMeasures:
    """Ids, areas and boxes in one pass over the pixels.

    Args:
        id_map: [H, W] of any integer dtype, values in 0..2**24 - 1; H and W may be 0.

    Raises:
        ValueError: a negative id, or one that 24 bits cannot hold.
    """
    if id_map.size == 0:
        nothing = np.zeros(0, np.int64)
        return SegmentMeasures(nothing, nothing, np.zeros((0, 4), np.int64))
    if id_map.min() < 0 or id_map.max() > MAX_SEGMENT_ID:
        raise ValueError(
            f"segment ids must be in 0..{MAX_SEGMENT_ID}; got {id_map.min()}..{id_map.max()}"
        )
    # Tables over all possible ids instead of sorting the pixels; untouched pages cost nothing.
    table_size = int(id_map.max()) + 1
    found = np.empty(min(table_size, id_map.size), np.int64)
    areas = np.zeros(table_size, np.int64)
    boxes = np.empty((table_size, 4), np.int32)
    num_found = _measure_runs(np.ascontiguousarray(id_map, dtype=np.int32), found, areas, boxes)
    segment_ids = np.sort(found[:num_found])
    x0, y0, x1, y1 = boxes[segment_ids].astype(np.int64).T
    return SegmentMeasures(
        segment_ids=segment_ids,
        areas=areas[segment_ids],
        boxes_xywh=np.stack([x0, y0, x1 - x0, y1 - y0], axis=1),
    )


@kernel("int32[:, :]", "int64[:]", "int64[:]", "int32[:, :]", returns="int64")
def _measure_runs(id_map, found, areas, boxes):  # type: ignore[no-untyped-def]
    """Goes through the map once, by runs of equal ids; returns the number of different ids.

    found: [at least that number] written; areas: [largest id + 1], 0 on entry; boxes: [same, 4]
    xyxy, written where the area is not 0.
    """
    height, width = id_map.shape
    num_found = 0
    for row in range(height):
        column = 0
        while column < width:
            value = id_map[row, column]
            start = column
            while column < width and id_map[row, column] == value:
                column += 1
            box = boxes[value]
            if areas[value] == 0:
                found[num_found] = value
                num_found += 1
                box[0], box[1], box[2] = start, row, column
            box[0] = min(box[0], start)
            box[2] = max(box[2], column)
            box[3] = row + 1
            areas[value] += column - start
    return num_found
