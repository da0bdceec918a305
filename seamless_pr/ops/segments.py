"""Measures of all segments of an id map at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
    """Ids, areas and boxes without a mask per segment.

    Args:
        id_map: [H, W] of any integer dtype, values in 0..2**24 - 1; H and W may be 0.
    """
    height, width = id_map.shape
    if id_map.size == 0:
        nothing = np.zeros(0, np.int64)
        return SegmentMeasures(nothing, nothing, np.zeros((0, 4), np.int64))
    # A table over all ids instead of sorting the pixels; its untouched pages cost nothing.
    occurs = np.zeros(int(id_map.max()) + 1, bool)
    occurs[id_map] = True
    segment_ids = np.flatnonzero(occurs)
    position = np.zeros(len(occurs), np.int32)
    position[segment_ids] = np.arange(len(segment_ids))
    compact = position[id_map]
    in_row = np.zeros((height, len(segment_ids)), bool)
    in_row[np.arange(height)[:, None], compact] = True
    in_column = np.zeros((width, len(segment_ids)), bool)
    in_column[np.arange(width)[None, :], compact] = True
    y0, x0 = in_row.argmax(axis=0), in_column.argmax(axis=0)
    y1, x1 = height - in_row[::-1].argmax(axis=0), width - in_column[::-1].argmax(axis=0)
    return SegmentMeasures(
        segment_ids=segment_ids.astype(np.int64),
        areas=np.bincount(compact.ravel(), minlength=len(segment_ids)).astype(np.int64),
        boxes_xywh=np.stack([x0, y0, x1 - x0, y1 - y0], axis=1).astype(np.int64),
    )
