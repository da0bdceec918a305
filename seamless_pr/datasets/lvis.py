"""LVIS annotations: objects, and per image the categories that were looked for.

LVIS has annotated images of COCO anew, with finer outlines; its categories are named otherwise.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from seamless_pr.datasets import checked_values as checked
from seamless_pr.datasets.panoptic_records import ImageId
from seamless_pr.datasets.polygons import MAX_PIXELS, read_json_or_fault
from seamless_pr.structures.faults import Fault, FaultyDataError

IMAGE_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")


@dataclass(frozen=True)
class LvisObject:
    """One annotated object; `segmentation` is unread, `area` in pixels, None if not stated."""

    category_id: int
    segmentation: Any
    area: float | None


@dataclass(frozen=True)
class LvisImage:
    """One image.

    Attributes:
        image_id: as in COCO.
        size: (height, width).
        negative: category ids that are known not to be there.
        not_exhaustive: category ids of which not every object is annotated.
        objects: in file order.
    """

    image_id: ImageId
    size: tuple[int, int]
    negative: frozenset[int]
    not_exhaustive: frozenset[int]
    objects: tuple[LvisObject, ...]


@dataclass(frozen=True)
class LvisFile:
    """Images in file order; category id -> the category as it stands in the file."""

    images: tuple[LvisImage, ...]
    categories: dict[int, Mapping[str, Any]]

    def partners(self, names: Iterable[str]) -> dict[str, int]:
        """Our name -> id of the category that means the same.

        The names of COCO have a synset of WordNet in the official mapping of LVIS, by which a
        category is found; where the file states none, and for other names, the name itself or one
        of the listed synonyms decides, spaces and underscores alike. Names without a partner are
        left out.
        """
        of_synset = {entry.get("synset"): key for key, entry in self.categories.items()}
        of_name: dict[str, int] = {}
        for key, entry in self.categories.items():
            for synonym in entry.get("synonyms") or ():
                of_name.setdefault(_plain(synonym), key)
        of_name |= {_plain(entry["name"]): key for key, entry in self.categories.items()}
        found = {
            name: of_synset.get(coco_synsets().get(name, ""), of_name.get(_plain(name)))
            for name in names
        }
        return {name: key for name, key in found.items() if key is not None}


@cache
def coco_synsets() -> dict[str, str]:
    """Name of a thing of COCO -> synset, as LVIS maps them (datasets/labels/coco_lvis.csv)."""
    table = resources.files("seamless_pr").joinpath("datasets", "labels", "coco_lvis.csv")
    with table.open(encoding="utf-8") as file:
        return {row["name"]: row["synset"] for row in csv.DictReader(file)}


def _plain(name: Any) -> str:
    return str(name).lower().replace("_", " ")


def read_lvis(path: Path) -> LvisFile:
    """Reads an LVIS JSON of any version; the outlines are looked at when they are needed.

    Raises:
        FileNotFoundError: no such file.
        FaultyDataError: lists every fault.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; give an LVIS JSON, such as lvis_v1_val.json")
    content, fault = read_json_or_fault(path)
    if fault is not None:
        raise FaultyDataError(f"{path} is not JSON", [fault])
    faults: list[Fault] = []
    lists: dict[str, list[Any]] = {}
    for key in ("images", "annotations", "categories"):
        value = content.get(key) if isinstance(content, dict) else None
        if not isinstance(value, list):
            faults.append(Fault(str(path), f"'{key}' must be a list; is it an LVIS file?"))
        lists[key] = value if isinstance(value, list) else []
    categories: dict[int, Mapping[str, Any]] = {}
    for index, entry in enumerate(lists["categories"]):
        number = _whole(entry, "id")
        if number is None or not checked.text(entry.get("name")):
            faults.append(Fault(str(path), f"categories[{index}] needs 'id' and 'name'"))
        else:
            categories[number] = entry
    objects: dict[ImageId, list[LvisObject]] = defaultdict(list)
    for index, entry in enumerate(lists["annotations"]):
        image_id, category_id = _image_id(entry, "image_id"), _whole(entry, "category_id")
        if image_id is None or category_id is None or category_id not in categories:
            message = f"annotations[{index}] needs 'image_id' and a 'category_id' of the file"
            faults.append(Fault(str(path), message))
        else:
            area = checked.number(entry.get("area"))
            objects[image_id].append(LvisObject(category_id, entry.get("segmentation"), area))
    images = []
    for index, entry in enumerate(lists["images"]):
        image = _image(entry, objects)
        if isinstance(image, str):
            faults.append(Fault(str(path), f"images[{index}] {image}"))
        else:
            images.append(image)
    known = {image.image_id for image in images}
    if len(known) < len(images):
        faults.append(Fault(str(path), "two images have the same id"))
    if unknown := objects.keys() - known:
        message = f"annotations of images that it does not list: {sorted(map(str, unknown))[:5]}"
        faults.append(Fault(str(path), message))
    if faults:
        raise FaultyDataError(f"{path} is not a valid LVIS file", faults)
    return LvisFile(tuple(images), categories)


def _image(entry: Any, objects: Mapping[ImageId, list[LvisObject]]) -> LvisImage | str:
    image_id = _image_id(entry, "id")
    sides = [_whole(entry, key, 1, MAX_PIXELS) for key in ("height", "width")]
    height, width = sides
    if image_id is None or height is None or width is None or height * width > MAX_PIXELS:
        return "needs id, height and width"
    listed = [entry.get(key) for key in IMAGE_LISTS]
    for key, value in zip(IMAGE_LISTS, listed):
        if not isinstance(value, list) or any(checked.whole(number) is None for number in value):
            return f"needs '{key}', a list of category ids; is it a COCO file?"
    negative, not_exhaustive = (frozenset(map(int, value)) for value in listed)
    of_image = tuple(objects.get(image_id, ()))
    return LvisImage(image_id, (height, width), negative, not_exhaustive, of_image)


def _whole(entry: Any, key: str, low: int = 0, high: int = checked.MAX_CATEGORY_ID) -> int | None:
    return checked.whole(entry.get(key), low, high) if isinstance(entry, dict) else None


def _image_id(entry: Any, key: str) -> ImageId | None:
    return checked.image_id(entry.get(key)) if isinstance(entry, dict) else None
