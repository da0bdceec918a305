"""Reading, checking and writing COCO panoptic JSON files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from seamless_pr.datasets.label_spaces import parse_categories
from seamless_pr.datasets.panoptic_records import (
    AnnotationRecord,
    ImageId,
    ImageRecord,
    PanopticDataset,
    SegmentRecord,
)
from seamless_pr.files import write_whole
from seamless_pr.id_maps.segments import MAX_SEGMENT_ID
from seamless_pr.structures.faults import Fault, FaultyDataError


def read_panoptic_json(
    path: str | os.PathLike[str], *, is_prediction: bool = False
) -> PanopticDataset:
    """Reads and checks a COCO panoptic JSON.

    Args:
        path: the JSON file.
        is_prediction: `images`, `categories`, `area`, `bbox` and `iscrowd` may be missing.

    Raises:
        FileNotFoundError: no such file.
        FaultyDataError: (a ValueError) lists every missing key, wrong type, repeated or unknown id.
    """
    dataset, faults = parse_panoptic_json(path, is_prediction=is_prediction)
    if faults:
        raise FaultyDataError(f"{path} is not a valid COCO panoptic JSON", faults)
    return dataset


def parse_panoptic_json(
    path: str | os.PathLike[str], *, is_prediction: bool = False
) -> tuple[PanopticDataset, list[Fault]]:
    """As `read_panoptic_json`, but returns the usable part together with the faults."""
    parser = _Parser(str(path), is_prediction)
    dataset = parser.parse(_load_json(Path(path), parser))
    return dataset, parser.faults


def write_panoptic_json(
    path: str | os.PathLike[str], dataset: PanopticDataset, *, indent: int | None = None
) -> None:
    """Writes a COCO panoptic JSON, whole or not at all; keys are sorted.

    Args:
        path: the JSON file; its folder is made.
        dataset: optional values that are None are left out.
        indent: None writes one line, the smallest file.
    """
    text = json.dumps(panoptic_json(dataset), sort_keys=True, indent=indent, ensure_ascii=False)
    write_whole(Path(path), text.encode())


def panoptic_json(dataset: PanopticDataset) -> dict[str, Any]:
    """The dataset as plain containers."""
    return {
        "images": [
            {
                "id": image.image_id,
                "file_name": image.file_name,
                "height": image.height,
                "width": image.width,
            }
            for image in dataset.images
        ],
        "annotations": [
            {
                "image_id": annotation.image_id,
                "file_name": annotation.file_name,
                "segments_info": [segment_json(segment) for segment in annotation.segments],
            }
            for annotation in dataset.annotations
        ],
        "categories": [
            {
                "id": category.category_id,
                "name": category.name,
                "supercategory": category.supercategory,
                "isthing": int(category.is_thing),
                "color": list(category.color),
            }
            for category in dataset.categories
        ],
    }


def segment_json(segment: SegmentRecord) -> dict[str, Any]:
    """One entry of `segments_info`."""
    values: dict[str, Any] = {
        "id": segment.segment_id,
        "category_id": segment.category_id,
        "iscrowd": int(segment.is_crowd),
    }
    if segment.area is not None:
        values["area"] = segment.area
    if segment.bbox is not None:
        values["bbox"] = list(segment.bbox)
    if segment.score is not None:
        values["score"] = segment.score
    return values


def _load_json(path: Path, parser: _Parser) -> Any:
    if not path.is_file():
        raise FileNotFoundError(
            f"no panoptic JSON at {path}; check the path, or make it with pipelines/prepare.py "
            "(a conversion that was cut off goes on where it stopped)"
        )
    try:
        return json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        parser.fault(f"not JSON, or only a part of the file ({error}); write or copy it again")
        return {}


class _Parser:
    """Turns plain containers into records and collects what is wrong on the way."""

    def __init__(self, file: str, is_prediction: bool) -> None:
        self.file = file
        self.is_prediction = is_prediction
        self.faults: list[Fault] = []

    def fault(self, message: str, segment_id: int | None = None) -> None:
        self.faults.append(Fault(self.file, message, segment_id))

    def parse(self, raw: Any) -> PanopticDataset:
        if self.faults:
            return PanopticDataset((), (), ())
        if not isinstance(raw, Mapping):
            self.fault(
                "expected an object with images, annotations and categories; "
                f"got a {type(raw).__name__}: a results list of another COCO task?"
            )
            return PanopticDataset((), (), ())
        images = self._images(self._entries(raw, "images", self.is_prediction))
        category_faults: list[str] = []
        raw_categories = self._entries(raw, "categories", self.is_prediction)
        categories = parse_categories(raw_categories, category_faults)
        for message in category_faults:
            self.fault(message)
        if not self.is_prediction and "categories" in raw and not raw_categories:
            self.fault("'categories' is empty; a ground truth must name its classes")
        annotations = self._annotations(
            self._entries(raw, "annotations", False),
            {image.image_id for image in images} or None,
            {category.category_id for category in categories} or None,
        )
        return PanopticDataset(images, annotations, categories)

    def _entries(self, raw: Mapping[str, Any], key: str, is_optional: bool) -> list[Any]:
        if key not in raw:
            if not is_optional:
                self.fault(f"'{key}' is missing; a COCO panoptic JSON has it at the top level")
            return []
        if not isinstance(raw[key], list):
            self.fault(f"'{key}' must be a list; got {type(raw[key]).__name__}")
            return []
        return raw[key]

    def _images(self, entries: list[Any]) -> tuple[ImageRecord, ...]:
        images: list[ImageRecord] = []
        seen: set[ImageId] = set()
        for index, entry in enumerate(entries):
            place = f"images[{index}]"
            image_id = self._image_id(entry, "id", place)
            if image_id is None:
                continue
            place = f"image {image_id!r}"
            if image_id in seen:
                self.fault(f"{place} occurs more than once in 'images'")
            seen.add(image_id)
            height, width = (self._positive(entry, key, place) for key in ("height", "width"))
            file_name = self._text(entry, "file_name", place)
            if height is not None and width is not None and file_name is not None:
                images.append(ImageRecord(image_id, file_name, height, width))
        return tuple(images)

    def _annotations(
        self, entries: list[Any], image_ids: set[ImageId] | None, category_ids: set[int] | None
    ) -> tuple[AnnotationRecord, ...]:
        annotations: list[AnnotationRecord] = []
        seen: set[ImageId] = set()
        for index, entry in enumerate(entries):
            place = f"annotations[{index}]"
            image_id = self._image_id(entry, "image_id", place)
            if image_id is None:
                continue
            place = f"annotation of image {image_id!r}"
            if image_id in seen:
                self.fault(f"{place} occurs more than once")
            elif image_ids is not None and image_id not in image_ids:
                self.fault(f"{place}: the image is not in 'images'")
            seen.add(image_id)
            file_name = self._text(entry, "file_name", place)
            raw_segments = entry.get("segments_info")
            if not isinstance(raw_segments, list):
                found = "is missing" if raw_segments is None else f"is {raw_segments!r}, no list"
                hint = "; this looks like an instance annotation" if "bbox" in entry else ""
                self.fault(f"{place}: 'segments_info' {found}{hint}")
                continue
            segments = self._segments(raw_segments, place, category_ids)
            if file_name is not None:
                annotations.append(AnnotationRecord(image_id, file_name, segments))
        return tuple(annotations)

    def _segments(
        self, entries: list[Any], place: str, category_ids: set[int] | None
    ) -> tuple[SegmentRecord, ...]:
        segments: list[SegmentRecord] = []
        seen: set[int] = set()
        for index, entry in enumerate(entries):
            segment_id = entry.get("id") if isinstance(entry, Mapping) else None
            if not _is_int(segment_id) or not 0 < segment_id <= MAX_SEGMENT_ID:
                self.fault(
                    f"{place}: segments_info[{index}] needs an integer 'id' "
                    f"in 1..{MAX_SEGMENT_ID}; got {entry!r}"
                )
                continue
            if segment_id in seen:
                self.fault(f"{place}: the id occurs more than once", segment_id)
            seen.add(segment_id)
            segment = self._segment(entry, segment_id, place)
            if segment is None:
                continue
            if category_ids is not None and segment.category_id not in category_ids:
                self.fault(
                    f"{place}: category {segment.category_id} is not in 'categories'", segment_id
                )
            segments.append(segment)
        return tuple(segments)

    def _segment(
        self, entry: Mapping[str, Any], segment_id: int, place: str
    ) -> SegmentRecord | None:
        category_id, area, bbox = (entry.get(key) for key in ("category_id", "area", "bbox"))
        is_crowd, score = entry.get("iscrowd"), entry.get("score")
        optional = self.is_prediction
        checks = (
            ("category_id", _is_int(category_id), "an integer"),
            ("area", (optional and area is None) or (_is_int(area) and area >= 0), "pixels"),
            ("bbox", bbox is None or _is_bbox(bbox), "[x, y, width, height] in pixels"),
            ("iscrowd", (optional and is_crowd is None) or is_crowd in (0, 1), "0 or 1"),
            ("score", score is None or _is_number(score), "a number"),
        )
        is_valid = True
        for key, is_right, expected in checks:
            if not is_right:
                found = f"got {entry[key]!r}" if key in entry else "it is missing"
                self.fault(f"{place}: '{key}' must be {expected}; {found}", segment_id)
                is_valid = False
        if not is_valid:
            return None
        return SegmentRecord(
            segment_id=segment_id,
            category_id=category_id,  # type: ignore[arg-type]
            area=area,
            bbox=None if bbox is None else (bbox[0], bbox[1], bbox[2], bbox[3]),
            is_crowd=bool(is_crowd),
            score=score,
        )

    def _image_id(self, entry: Any, key: str, place: str) -> ImageId | None:
        if not isinstance(entry, Mapping):
            self.fault(f"{place} must be an object; got {entry!r}")
            return None
        image_id = entry.get(key)
        if _is_int(image_id) or (isinstance(image_id, str) and image_id):
            return image_id
        self.fault(f"{place}: '{key}' must be an integer or a text; got {image_id!r}")
        return None

    def _text(self, entry: Mapping[str, Any], key: str, place: str) -> str | None:
        value = entry.get(key)
        if isinstance(value, str) and value:
            return value
        self.fault(f"{place}: '{key}' must be a text; got {value!r}")
        return None

    def _positive(self, entry: Mapping[str, Any], key: str, place: str) -> int | None:
        value = entry.get(key)
        if _is_int(value) and value > 0:
            return value
        self.fault(f"{place}: '{key}' must be a positive integer; got {value!r}")
        return None


def _is_int(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_bbox(value: Any) -> TypeGuard[list[float]]:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))
