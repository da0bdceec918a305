"""Reading COCO panoptic JSON of any system and any size into columns, with every fault listed.

`data.coco_panoptic` keeps a record per segment, which is what training needs. An evaluator is also
given files of half a gigabyte; here each annotation shrinks to four columns of integers while the
file is still being parsed.
"""

from __future__ import annotations

import gc
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from seamless_pr.structures.faults import Fault

ImageId = int | str
MAX_SEGMENT_ID = (1 << 24) - 1
# A segment's stated area where the file states none.
NO_AREA = -1


@dataclass(frozen=True)
class Annotation:
    """Segments of one image as columns, in the order of the file.

    Attributes:
        image_id: as in the file, int or text.
        file_name: the id PNG in the PNG folder.
        segments: [S, 4] int64: segment id, category id, area (-1: not stated), crowd (0 or 1).
    """

    image_id: ImageId
    file_name: str
    segments: NDArray[np.int64]


@dataclass(frozen=True)
class PanopticJson:
    """What an evaluator needs of a COCO panoptic JSON.

    Attributes:
        annotations: in the order of the file; one per image id.
        categories: the raw list, or None if the file has none (predictions may leave it out).
        sizes: image id -> (height, width), where `images` states it.
        image_files: image id -> file name of the picture, where `images` states it.
    """

    annotations: tuple[Annotation, ...]
    categories: list[Any] | None
    sizes: dict[ImageId, tuple[int, int]]
    image_files: dict[ImageId, str]


def read_panoptic_json(
    path: Path, *, is_ground_truth: bool, faults: list[Fault]
) -> PanopticJson | None:
    """Reads a COCO panoptic JSON; None if nothing of it can be used.

    Args:
        path: the file.
        is_ground_truth: areas and crowd flags must be there; in predictions they are optional.
        faults: everything that is wrong is appended, by image and segment.
    """
    reader = _Reader(str(path), is_ground_truth, faults)
    try:
        # Parsing makes many short-lived containers; the cycle collector would walk them in vain.
        gc.disable()
        top = json.loads(path.read_bytes(), object_hook=reader.shrink)
    except OSError as error:
        reader.fault(f"cannot be read ({error.strerror}); check the path")
        return None
    except (ValueError, RecursionError) as error:
        reader.fault(f"not JSON, or only a part of the file ({error}); write or copy it again")
        return None
    finally:
        gc.enable()
    return reader.finish(top)


class _Reader:
    """Shrinks annotations as the parser hands them over, and collects what is wrong."""

    def __init__(self, file: str, is_ground_truth: bool, faults: list[Fault]) -> None:
        self.file = file
        self.is_ground_truth = is_ground_truth
        self.faults = faults

    def fault(self, message: str, segment_id: int | None = None) -> None:
        self.faults.append(Fault(self.file, message, segment_id))

    def shrink(self, values: dict[str, Any]) -> Any:
        """Called for each finished JSON object, inner ones first."""
        if "segments_info" not in values:
            return values
        image_id, file_name = values.get("image_id"), values.get("file_name")
        place = f"image {image_id!r}"
        if not _is_image_id(image_id):
            self.fault(f"annotation with 'image_id' {image_id!r}; expected an integer or a text")
            return None
        if not isinstance(file_name, str) or not file_name:
            self.fault(f"{place}: 'file_name' must be the name of a PNG; got {file_name!r}")
            return None
        segments = values["segments_info"]
        if not isinstance(segments, list):
            self.fault(f"{place}: 'segments_info' must be a list; got {segments!r:.80}")
            return None
        columns = self._columns(segments, place)
        return Annotation(image_id, file_name, columns)

    def _columns(self, segments: list[Any], place: str) -> NDArray[np.int64]:
        try:
            columns = np.array(
                [
                    (s["id"], s["category_id"], s.get("area", NO_AREA), s.get("iscrowd", 0))
                    for s in segments
                ]
            ).reshape(-1, 4)
            is_sound = (
                (not segments or columns.dtype.kind == "i")
                and not (self.is_ground_truth and (columns[:, 2] < 0).any())
                and ((columns[:, 0] > 0) & (columns[:, 0] <= MAX_SEGMENT_ID)).all()
                and len(np.unique(columns[:, 0])) == len(columns)
                and ((columns[:, 3] == 0) | (columns[:, 3] == 1)).all()
            )
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            is_sound = False
        if is_sound:
            return columns.astype(np.int64, copy=False)
        return self._columns_one_by_one(segments, place)

    def _columns_one_by_one(self, segments: list[Any], place: str) -> NDArray[np.int64]:
        """The same with a message for each fault; only sound segments are kept."""
        rows: dict[int, tuple[int, int, int, int]] = {}
        for index, segment in enumerate(segments):
            segment_id = segment.get("id") if isinstance(segment, dict) else None
            if not _is_int(segment_id) or not 0 < segment_id <= MAX_SEGMENT_ID:
                self.fault(
                    f"{place}: segments_info[{index}] needs an integer 'id' in "
                    f"1..{MAX_SEGMENT_ID}; got {segment!r:.80}"
                )
                continue
            if segment_id in rows:
                self.fault(f"{place}: the id occurs more than once", segment_id)
                continue
            category_id, is_crowd = segment.get("category_id"), segment.get("iscrowd", 0)
            area = segment.get("area", NO_AREA)
            if isinstance(area, float) and area.is_integer():
                area = int(area)
            if area is None and not self.is_ground_truth:
                area = NO_AREA
            rows[segment_id] = (segment_id, 0, NO_AREA, 0)
            if not _is_int(category_id):
                self.fault(
                    f"{place}: 'category_id' must be an integer; got {category_id!r}", segment_id
                )
            elif not _is_int(area) or (self.is_ground_truth and area < 0):
                found = "it is missing" if "area" not in segment else f"got {area!r}"
                self.fault(f"{place}: 'area' must be a number of pixels; {found}", segment_id)
            elif is_crowd not in (0, 1):
                self.fault(f"{place}: 'iscrowd' must be 0 or 1; got {is_crowd!r}", segment_id)
            else:
                rows[segment_id] = (segment_id, category_id, area, int(is_crowd))
        return np.array(list(rows.values()), dtype=np.int64).reshape(-1, 4)

    def finish(self, top: Any) -> PanopticJson | None:
        if not isinstance(top, dict):
            self.fault(
                f"expected an object with 'annotations'; got a {type(top).__name__}: "
                "results of another task?"
            )
            return None
        entries = top.get("annotations")
        if not isinstance(entries, list):
            self.fault("'annotations' is missing; a COCO panoptic JSON has it at the top level")
            return None
        annotations: dict[ImageId, Annotation] = {}
        for index, entry in enumerate(entries):
            if isinstance(entry, Annotation):
                if entry.image_id in annotations:
                    self.fault(f"image {entry.image_id!r} has more than one annotation")
                annotations[entry.image_id] = entry
            elif isinstance(entry, dict):
                hint = "; this looks like an instance annotation" if "bbox" in entry else ""
                self.fault(f"annotations[{index}] has no 'segments_info'{hint}")
        categories = top.get("categories")
        if self.is_ground_truth and not isinstance(categories, list):
            self.fault("'categories' is missing; the ground truth names the classes")
        images = self._images(top.get("images"))
        return PanopticJson(
            tuple(annotations.values()),
            categories if isinstance(categories, list) else None,
            {key: size for key, (size, _) in images.items() if size is not None},
            {key: name for key, (_, name) in images.items() if name},
        )

    def _images(self, entries: Any) -> dict[ImageId, tuple[tuple[int, int] | None, str]]:
        """`images` is informative only, so what is odd there is passed over."""
        images: dict[ImageId, tuple[tuple[int, int] | None, str]] = {}
        for entry in entries if isinstance(entries, list) else []:
            if not isinstance(entry, dict) or not _is_image_id(entry.get("id")):
                continue
            height, width = entry.get("height"), entry.get("width")
            size = (height, width) if _is_int(height) and _is_int(width) else None
            name = entry.get("file_name")
            images[entry["id"]] = (size, name if isinstance(name, str) else "")
        return images


def find_png_folder(json_path: Path) -> Path:
    """The folder of a JSON's PNGs: the one of its own name (the official rule), or its own folder.

    Raises:
        FileNotFoundError: neither holds a PNG.
    """
    named = json_path.with_suffix("")
    for folder in (named, json_path.parent):
        if folder.is_dir() and any(folder.glob("*.png")):
            return folder
    raise FileNotFoundError(
        f"no PNG in {named} or {json_path.parent}; name the folder of the PNGs of {json_path.name}"
    )


def _is_int(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_image_id(value: Any) -> TypeGuard[ImageId]:
    return _is_int(value) or (isinstance(value, str) and value != "")
