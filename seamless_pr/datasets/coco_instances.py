"""COCO instance annotations (objects as polygons or run lengths) as id maps.

Objects may overlap in this format and may not in a panoptic map: crowds are painted first, then
objects from the largest to the smallest, so that what lies in front of a large thing stays.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamless_pr.datasets import checked_values as checked
from seamless_pr.datasets.panoptic_records import ImageId
from seamless_pr.datasets.polygons import read_json_or_fault
from seamless_pr.datasets.run_lengths import RunLengths, read_run_lengths
from seamless_pr.structures.faults import Fault
from seamless_pr.structures.limits import MAX_PIXELS

MIN_POLYGON_NUMBERS = 6
# In pixels, of one object; pycocotools takes some 80 bytes for each.
MAX_OUTLINE = 4_000_000
# Of all objects of an image, and pixels from the first to the last of each: as many of both take
# ten seconds, and the most crowded pictures a hundredth of them.
MAX_OUTLINES, MAX_SPANS = 100_000_000, 10_000_000_000
# An object's own list, its polygons, and numbers in them.
MAX_DEPTH = 3
# Pixels of a run from which on painting it alone is faster.
LONG_RUN = 50


@dataclass(frozen=True)
class InstanceImage:
    """One image of an instance JSON; `objects` are its annotations, unread."""

    image_id: ImageId
    file_name: str
    height: int
    width: int
    objects: tuple[Mapping[str, Any], ...]

    def text(self) -> str:
        """Size and objects as JSON, the same for the same content."""
        content = {"size": [self.height, self.width], "objects": [*map(dict, self.objects)]}
        return json.dumps(content, sort_keys=True)


@dataclass(frozen=True)
class InstanceFile:
    """A COCO instance JSON: images in file order, and `categories` as they stand there."""

    images: tuple[InstanceImage, ...]
    categories: tuple[Any, ...]


def read_instance_json(path: Path) -> tuple[InstanceFile, list[Fault]]:
    """Reads the JSON; objects are looked at when their image is painted.

    Raises:
        FileNotFoundError: no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no instance JSON at {path}; check the path")
    content, fault = read_json_or_fault(path)
    if fault is not None:
        return InstanceFile((), ()), [fault]
    faults: list[Fault] = []
    lists: dict[str, list[Any]] = {}
    for key in ("images", "annotations", "categories"):
        value = content.get(key) if isinstance(content, Mapping) else None
        if value is None and key == "categories":
            value = []  # 3D-FUTURE's test set has none.
        if not isinstance(value, list):
            faults.append(Fault(str(path), f"'{key}' must be a list; is it another COCO file?"))
        lists[key] = value if isinstance(value, list) else []
    if any("segments_info" in entry for entry in lists["annotations"] if isinstance(entry, dict)):
        message = "holds panoptic annotations ('segments_info'); give it under 'panoptic'"
        return InstanceFile((), ()), [Fault(str(path), message)]
    objects_of: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for index, entry in enumerate(lists["annotations"]):
        values = entry if isinstance(entry, Mapping) else {}
        image_id = checked.image_id(values.get("image_id"))
        if image_id is None:
            found = checked.shown(values.get("image_id") if values else entry)
            message = f"annotations[{index}] needs the 'image_id' of an image; got {found}"
            faults.append(Fault(str(path), message))
        elif not checked.is_shallow(needed := _needed(values), MAX_DEPTH):
            message = f"annotations[{index}] holds lists in lists that no segmentation has"
            faults.append(Fault(str(path), message))
        else:
            objects_of[image_id].append(needed)
    images: dict[ImageId, InstanceImage] = {}
    refused: set[ImageId | None] = set()
    for index, entry in enumerate(lists["images"]):
        image = _parse_image(entry, objects_of)
        if image is None:
            expected = f"id, file_name, height and width (at most {MAX_PIXELS} pixels)"
            message = f"images[{index}] needs {expected}; got {checked.shown(entry)}"
            refused.add(checked.image_id(entry.get("id")) if isinstance(entry, Mapping) else None)
        elif image.image_id in images:
            message = f"images[{index}]: the id {image.image_id!r} occurs more than once"
        else:
            images[image.image_id] = image
            continue
        faults.append(Fault(str(path), message))
    # Annotations of an image that was refused are told with it.
    unknown = set() if None in refused else objects_of.keys() - images.keys() - refused
    faults += [
        Fault(str(path), f"annotations of image {image_id!r}, which is not in 'images'")
        for image_id in sorted(unknown, key=str)
    ]
    return InstanceFile(tuple(images.values()), tuple(lists["categories"])), faults


def _needed(entry: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("id", "category_id", "segmentation", "iscrowd")
    return {key: entry[key] for key in keys if key in entry}


def _parse_image(
    entry: Any, objects_of: Mapping[Any, list[Mapping[str, Any]]]
) -> InstanceImage | None:
    if not isinstance(entry, Mapping):
        return None
    image_id, file_name = checked.image_id(entry.get("id")), entry.get("file_name")
    name = checked.file_name(file_name)
    height, width = (checked.whole(entry.get(key), 1) for key in ("height", "width"))
    if image_id is None or name is None or height is None or width is None:
        return None
    if height * width > MAX_PIXELS:
        return None
    return InstanceImage(image_id, name, height, width, tuple(objects_of.get(image_id, ())))


@dataclass(frozen=True)
class PaintedObjects:
    """Objects of one image as an id map.

    Attributes:
        id_map: [H, W] int32; 1 + place of the object in the annotations, 0 where there is none.
        category_of: id -> category id.
        crowd_ids: ids of crowds.
    """

    id_map: NDArray[np.int32]
    category_of: dict[int, int]
    crowd_ids: set[int]


def paint_instances(
    text: str, category_ids: Collection[int], file: str
) -> tuple[PaintedObjects, list[Fault]]:
    """Paints the objects of one image.

    Args:
        text: `InstanceImage.text`.
        category_ids: all that may occur.
        file: names the JSON in faults.
    """
    from pycocotools import mask as coco_mask

    content = json.loads(text)
    height, width = content["size"]
    faults: list[Fault] = []
    # Masks wait as run lengths: a small file may hold any number of large ones.
    masks: list[tuple[bool, int, int, dict[str, Any]]] = []
    category_of: dict[int, int] = {0: 0}
    outlines = 0.0
    for index, entry in enumerate(content["objects"]):
        name = checked.shown(entry["id"]) if "id" in entry else f"number {index}"
        place = f"annotation {name}"
        category_id = checked.whole(entry.get("category_id"))
        is_crowd = checked.flag(entry.get("iscrowd") or 0)
        if category_id is None or category_id not in category_ids:
            found = checked.shown(entry.get("category_id"))
            faults.append(Fault(file, f"{place}: category {found} is not known"))
            continue
        if is_crowd is None:
            found = checked.shown(entry["iscrowd"])
            faults.append(Fault(file, f"{place}: 'iscrowd' must be 0 or 1; got {found}"))
            continue
        segmentation = entry.get("segmentation")
        if isinstance(segmentation, list):
            length = _outline(segmentation, (height, width))
            outlines += 0.0 if isinstance(length, str) else length
            if outlines > MAX_OUTLINES:
                faults.append(Fault(file, f"{place}: {_TOO_MUCH}"))
                break
            mask = _paint_polygons(segmentation, length, (height, width))
        else:
            mask = encode_segmentation(segmentation, (height, width))
        if isinstance(mask, str):
            faults.append(Fault(file, f"{place}: {mask}"))
            continue
        category_of[index + 1] = category_id
        masks.append((not is_crowd, -int(coco_mask.area(mask)), index + 1, mask))
    # Column after column, as the masks are, until all are painted.
    pixels = np.zeros(height * width, np.int32)
    crowd_ids = {segment_id for is_object, _, segment_id, _ in masks if not is_object}
    spans = 0
    for _, _, segment_id, mask in sorted(masks, key=lambda entry: entry[:3]):
        spans += _paint(pixels, mask, segment_id)
        if spans > MAX_SPANS:
            faults.append(Fault(file, f"annotation number {segment_id - 1}: {_TOO_MUCH}"))
            break
    id_map = np.ascontiguousarray(pixels.reshape(width, height).T)
    return PaintedObjects(id_map, category_of, crowd_ids), faults


_TOO_MUCH = "with those before it more is to be painted than any picture has; is the file damaged?"


def _paint(pixels: NDArray[np.int32], mask: dict[str, Any], segment_id: int) -> int:
    """Paints a mask onto the pixels, column after column; returns from where to where it goes."""
    read = read_run_lengths({"size": mask["size"], "counts": mask["counts"].decode()})
    ends = np.cumsum(read.runs)
    starts, ends = ends[:-1:2], ends[1::2]
    if not len(ends):
        return 0
    first, last = int(starts[0]), int(ends[-1])
    if LONG_RUN * len(ends) < last - first:
        for start, end in zip(starts.tolist(), ends.tolist()):
            pixels[start:end] = segment_id
    else:
        runs = read.runs[1 : 2 * len(ends)]
        is_inside = np.repeat(np.arange(len(runs)) % 2 == 0, runs)
        np.putmask(pixels[first:last], is_inside, segment_id)
    return last - first


def decode_segmentation(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_] | str:
    """The mask [H, W] of a COCO segmentation, or what is wrong with it.

    Run lengths are checked against the size. Polygons are painted by pycocotools, whose rule for
    border pixels is COCO's.
    """
    if isinstance(segmentation, Mapping):
        read = _checked_run_lengths(segmentation, size)
        return read if isinstance(read, str) else read.mask()
    runs = _paint_polygons(segmentation, _outline(segmentation, size), size)
    if isinstance(runs, str):
        return runs
    from pycocotools import mask as coco_mask

    decoded: NDArray[np.bool_] = coco_mask.decode(runs).astype(bool)
    return decoded


def encode_segmentation(segmentation: Any, size: tuple[int, int]) -> dict[str, Any] | str:
    """As `decode_segmentation`, and the mask stays run lengths as pycocotools takes them."""
    if not isinstance(segmentation, Mapping):
        return _paint_polygons(segmentation, _outline(segmentation, size), size)
    read = _checked_run_lengths(segmentation, size)
    if isinstance(read, str):
        return read
    from pycocotools import mask as coco_mask

    counts = {"size": [*size], "counts": read.runs.tolist()}
    return dict(coco_mask.frPyObjects(counts, *size))


def _checked_run_lengths(segmentation: Any, size: tuple[int, int]) -> RunLengths | str:
    try:
        read = read_run_lengths(segmentation)
    except ValueError as error:
        return str(error)
    if read.size != size:
        return f"run lengths of size {[*read.size]}; the image has {[*size]}"
    return read


def _paint_polygons(
    segmentation: Any, length: float | str, size: tuple[int, int]
) -> dict[str, Any] | str:
    """Run lengths of all polygons of an object, or what is wrong with one; see `_outline`."""
    if isinstance(length, str):
        return length
    if length > MAX_OUTLINE:
        return f"the outline has {length:.0f} pixels; no object of an image has so many"
    from pycocotools import mask as coco_mask

    return dict(coco_mask.merge(coco_mask.frPyObjects(segmentation, *size)))


def _outline(segmentation: Any, size: tuple[int, int]) -> float | str:
    """Length of all polygons of an object in pixels, or what is wrong with one."""
    if not isinstance(segmentation, list) or not segmentation:
        return f"'segmentation' must be polygons or run lengths; got {checked.shown(segmentation)}"
    length = 0.0
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < MIN_POLYGON_NUMBERS or len(polygon) % 2:
            return "a polygon must be [x, y, x, y, ...] with three corners at least"
        limit = 10 * max(size)
        numbers = checked.numbers(polygon, len(polygon))
        if numbers is None:
            return f"a polygon must be [x, y, x, y, ...] in pixels; got {checked.shown(polygon)}"
        if any(abs(value) >= limit for value in numbers):
            return f"a corner lies far outside of the image of {size[0]}x{size[1]}"
        corners = np.array(numbers).reshape(-1, 2)
        length += float(np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum())
    return length
