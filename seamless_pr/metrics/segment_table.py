"""The segments of one panoptic map as columns, the form in which metrics read them.

S segments.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SegmentTable:
    """Segments of one image in the order in which their source lists them.

    The order matters: of several crowd segments of a class, PQ's official rules know the last one
    only.

    Attributes:
        segment_ids: [S] int64, unique, at least 0. Pixels of id 0 are void in ground truth, which
            never lists it; a prediction may list it, as the official evaluators take it.
        train_ids: [S] int64, class of each segment.
        is_crowd: [S] bool.
        areas: [S] int64 pixels as the source states them (COCO JSON); None: count them in the map.
    """

    segment_ids: NDArray[np.int64]
    train_ids: NDArray[np.int64]
    is_crowd: NDArray[np.bool_]
    areas: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        num_segments = len(self.segment_ids)
        columns = [self.train_ids, self.is_crowd] + ([] if self.areas is None else [self.areas])
        if any(len(column) != num_segments for column in columns):
            raise ValueError(
                "segment_ids, train_ids, is_crowd and areas must have one length; got "
                f"{[num_segments] + [len(column) for column in columns]}"
            )
        if num_segments and int(self.segment_ids.min()) < 0:
            raise ValueError(f"segment ids must be at least 0; got {int(self.segment_ids.min())}")
        if num_segments and (np.diff(self.segment_ids[self._order]) == 0).any():
            raise ValueError("segment ids must be unique within an image")

    def __len__(self) -> int:
        return len(self.segment_ids)

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.argsort(self.segment_ids, kind="stable")

    def find(self, segment_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Position of each id in this table, -1 for ids that it does not list."""
        if not len(self):
            return np.full(len(segment_ids), -1, dtype=np.int64)
        sorted_ids = self.segment_ids[self._order]
        places = np.minimum(np.searchsorted(sorted_ids, segment_ids), len(self) - 1)
        found = sorted_ids[places] == segment_ids
        return np.where(found, self._order[places], -1)

    @classmethod
    def from_segments(cls, segments: Iterable[Any]) -> SegmentTable:
        """From records with `segment_id`, `train_id` and optionally `is_crowd`
        (`structures.Segment`).

        Areas are left to be counted in the map.
        """
        rows = [
            (segment.segment_id, segment.train_id, bool(getattr(segment, "is_crowd", False)))
            for segment in segments
        ]
        return cls(
            np.array([row[0] for row in rows], dtype=np.int64),
            np.array([row[1] for row in rows], dtype=np.int64),
            np.array([row[2] for row in rows], dtype=bool),
        )
