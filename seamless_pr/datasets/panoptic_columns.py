"""Annotations of COCO panoptic JSON as columns, each checked while the file is being parsed.

S segments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamless_pr.datasets import checked_values as checked
from seamless_pr.datasets.panoptic_records import (
    UNKNOWN_ID,
    AnnotationRecord,
    ImageId,
    SegmentRecord,
)
from seamless_pr.id_maps.segments import MAX_SEGMENT_ID
from seamless_pr.structures.faults import Fault

# A segment's stated area where the file states none.
NO_AREA = -1
# No picture has more pixels.
MAX_AREA = 2**40


@dataclass(frozen=True, slots=True)
class SegmentDetails:
    """What training and verification want to know of a segment besides its columns."""

    bbox: tuple[float, float, float, float] | None
    score: float | None


@dataclass(frozen=True, slots=True)
class Annotation:
    """Segments of one image as columns, in the order of the file.

    Attributes:
        image_id: int or text, matched by equality.
        file_name: the id PNG in the PNG folder, with forward slashes.
        segments: [S, 4] int64: segment id, category id, area (-1: not stated), crowd (0 or 1).
        details: S entries, or None if they were not asked for.
        refused_ids: as in `AnnotationRecord`.
    """

    image_id: ImageId
    file_name: str
    segments: NDArray[np.int64]
    details: tuple[SegmentDetails, ...] | None = None
    refused_ids: frozenset[int] = frozenset()

    def record(self) -> AnnotationRecord:
        """The same with an object for each segment."""
        details = self.details or (SegmentDetails(None, None),) * len(self.segments)
        return AnnotationRecord(
            self.image_id,
            self.file_name,
            tuple(
                SegmentRecord(
                    segment_id=segment_id,
                    category_id=category_id,
                    area=None if area == NO_AREA else area,
                    bbox=detail.bbox,
                    is_crowd=bool(is_crowd),
                    score=detail.score,
                )
                for (segment_id, category_id, area, is_crowd), detail in zip(
                    self.segments.tolist(), details, strict=True
                )
            ),
            self.refused_ids,
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """An annotation that is of no use; `image_id` None: not even that is."""

    image_id: ImageId | None
    message: str


class AnnotationReader:
    """Shrinks annotations as the parser hands them over, and collects what is wrong with them."""

    def __init__(self, file: str, *, is_prediction: bool, keep_details: bool) -> None:
        self.file = file
        self.is_prediction = is_prediction
        self.keep_details = keep_details
        self.lowest_id = 0 if is_prediction else 1
        self.faults: list[Fault] = []

    def fault(self, message: str, segment_id: int | None = None) -> None:
        self.faults.append(Fault(self.file, message, segment_id))

    def shrink(self, values: dict[str, Any]) -> Any:
        """Called for each finished JSON object, inner ones first."""
        if "segments_info" not in values:
            return values
        raw_id, raw_name = values.get("image_id"), values.get("file_name")
        image_id, file_name = checked.image_id(raw_id), checked.name_below(raw_name)
        if image_id is None:
            message = f"'image_id' must be an integer or a text; got {checked.shown(raw_id)}"
            return Refused(None, message)
        if file_name is None:
            expected = "the name of a PNG below its folder"
            message = f"'file_name' must be {expected}; got {checked.shown(raw_name)}"
            return Refused(image_id, message)
        segments = values["segments_info"]
        if not isinstance(segments, list):
            message = f"'segments_info' must be a list; got {checked.shown(segments)}"
            return Refused(image_id, message)
        columns = self._columns(segments)
        if columns is None or self.keep_details:
            return self._one_by_one(image_id, file_name, segments)
        return Annotation(image_id, file_name, columns)

    def _columns(self, segments: list[Any]) -> NDArray[np.int64] | None:
        """[S, 4] if every segment is sound, else None."""
        try:
            rows = [
                (s["id"], s["category_id"], s.get("area", NO_AREA), s.get("iscrowd", 0))
                for s in segments
            ]
            if any(type(value) is bool for row in rows for value in row[:3]):
                return None  # NumPy would take true for 1.
            columns = np.array(rows).reshape(-1, 4)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            return None
        if columns.dtype.kind not in "if" or not (columns == np.floor(columns)).all():
            return None
        ids, category_ids, areas, is_crowd = columns.T
        is_sound = (
            ((ids >= self.lowest_id) & (ids <= MAX_SEGMENT_ID)).all()
            and (np.abs(category_ids) <= checked.MAX_CATEGORY_ID).all()
            and ((areas >= (NO_AREA if self.is_prediction else 0)) & (areas < MAX_AREA)).all()
            and ((is_crowd == 0) | (is_crowd == 1)).all()
            and len(set(ids.tolist())) == len(ids)
        )
        return columns.astype(np.int64) if is_sound else None

    def _one_by_one(self, image_id: ImageId, file_name: str, segments: list[Any]) -> Annotation:
        """The same with a message for each fault; only sound segments are kept."""
        place = f"image {image_id!r}"
        rows: dict[int, tuple[int, int, int, int]] = {}
        details: list[SegmentDetails] = []
        seen: set[int] = set()
        refused: set[int] = set()
        for index, entry in enumerate(segments):
            segment = entry if isinstance(entry, dict) else {}
            segment_id = checked.whole(segment.get("id"), self.lowest_id, MAX_SEGMENT_ID)
            if segment_id is None:
                expected = f"an integer 'id' in {self.lowest_id}..{MAX_SEGMENT_ID}"
                found = checked.shown(segment.get("id") if segment else entry)
                self.fault(f"{place}: segments_info[{index}] needs {expected}; got {found}")
                refused.add(UNKNOWN_ID)
            elif segment_id in seen:
                self.fault(f"{place}: the id occurs more than once", segment_id)
            else:
                seen.add(segment_id)
                row, detail = self._segment(segment, segment_id, place)
                if row is None:
                    refused.add(segment_id)
                else:
                    rows[segment_id] = row
                    details.append(detail)
        return Annotation(
            image_id,
            file_name,
            np.array(list(rows.values()), dtype=np.int64).reshape(-1, 4),
            tuple(details) if self.keep_details else None,
            frozenset(refused),
        )

    def _segment(
        self, segment: dict[str, Any], segment_id: int, place: str
    ) -> tuple[tuple[int, int, int, int] | None, SegmentDetails]:
        """Columns, None if a value has a fault, and details of one segment."""
        if segment.get("bbox") == []:  # As annotation tools leave it out.
            segment = {**segment, "bbox": None}
        limit = checked.MAX_CATEGORY_ID
        category_id = checked.whole(segment.get("category_id"), -limit, limit)
        area = checked.whole(segment.get("area"), 0, MAX_AREA - 1)
        is_crowd = checked.flag(segment.get("iscrowd"))
        bbox = checked.numbers(segment.get("bbox"), 4)
        score = checked.number(segment.get("score"))
        checks: list[tuple[str, Any, str, bool]] = [  # key, what it is taken as, optional
            ("category_id", category_id, "an integer of at most 31 bits", False),
            ("area", area, "a whole number of pixels", self.is_prediction),
            ("iscrowd", is_crowd, "0 or 1", True),
        ]
        if self.keep_details:
            checks += [
                ("bbox", bbox, "[x, y, width, height] in pixels", True),
                ("score", score, "a number", True),
            ]
        is_sound = True
        for key, taken, expected, is_optional in checks:
            if taken is None and not (is_optional and segment.get(key) is None):
                found = f"got {checked.shown(segment[key])}" if key in segment else "it is missing"
                self.fault(f"{place}: '{key}' must be {expected}; {found}", segment_id)
                is_sound = False
        details = SegmentDetails(bbox, score)  # type: ignore[arg-type]
        if not is_sound or category_id is None:
            return None, details
        row = (segment_id, category_id, NO_AREA if area is None else area, int(bool(is_crowd)))
        return row, details
