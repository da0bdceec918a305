"""IDD (Indian Driving Dataset), parts I and II: from `*_gtFine_polygons.json` to COCO panoptic.

IDD ships polygons only. They are painted as AutoNUE's official tool does: in list order, objects
of one level-3 class share a counter, groups and the rest of a thing class form one crowd segment.
That tool resizes its panoptic maps to 1280x720 and, with any Pillow since 7.0, invents ids on the
way; here sizes are native, or 1280x720 by the nearest pixel as the tool was meant to.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seamless_pr.datasets.folders import (
    files_with_suffix,
    image_files_by_key,
    listed,
    require_folder,
    subfolders,
    unpaired,
)
from seamless_pr.datasets.label_spaces import Label, load_labels
from seamless_pr.datasets.polygons import LabelledPolygon, paint_polygons, read_polygons
from seamless_pr.datasets.raw_splits import RawImage, RawMap, RawSplit, measured_segments
from seamless_pr.structures.faults import Fault
from seamless_pr.structures.label_space import Category

POLYGONS_SUFFIX = "_gtFine_polygons.json"
PANOPTIC_SUFFIX = "_gtFine_panopticlevel3Ids.png"
IMAGE_ENDING = "_leftImg8bit"
SPLITS = ("train", "val")
PARTS = ("IDD_Segmentation", "idd20kII")
OFFICIAL_SIZE = (720, 1280)
# As the command lines name them, width first like the official tool.
SIZES = {"native": None, "1280x720": OFFICIAL_SIZE}
# A painted value from here on is level-3 id * 1000 + object number; below it is a level-3 id.
FIRST_OBJECT_VALUE = 1000
VOID_VALUE = 255


@dataclass(frozen=True)
class RawLabel:
    """One of the 40 labels that annotators used."""

    label_id: int
    level3_id: int
    has_instances: bool


def open_idd(
    root: str | os.PathLike[str],
    split: str,
    *,
    size: tuple[int, int] | None = None,
    accept_degenerate: bool = False,
) -> RawSplit:
    """A split of one part of IDD.

    Args:
        root: folder that holds `gtFine/` and, for the pictures, `leftImg8bit/`: IDD_Segmentation
            (part I) or idd20kII (part II) as unpacked.
        split: train or val.
        size: (height, width) that every map is resized to by the nearest pixel; None: native.
            `OFFICIAL_SIZE` also takes the official image ids and file names.
        accept_degenerate: see `read_polygons`.

    Raises:
        FileNotFoundError: a folder or the annotations of the split are missing.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; --root must be the unpacked part of IDD")
    inside = [part for part in PARTS if (root / part / "gtFine").is_dir()]
    if inside and not (root / "gtFine").is_dir():
        raise FileNotFoundError(
            f"{root} holds the parts {listed(inside)}; give one of them as --root, one after the "
            "other, and both as a list under data.train"
        )
    ground_truth = require_folder(root / "gtFine", "idd-segmentation.tar.gz or idd-20k-II.tar.gz")
    images_dir = root / "leftImg8bit" / split
    return open_idd_folder(
        ground_truth / split,
        split,
        images_dir if images_dir.is_dir() else None,
        size=size,
        accept_degenerate=accept_degenerate,
    )


def open_idd_folder(
    folder: Path,
    split: str,
    images_dir: Path | None = None,
    *,
    size: tuple[int, int] | None = None,
    accept_degenerate: bool = False,
) -> RawSplit:
    """As `open_idd`, from the folder of the split's polygons alone."""
    faults: list[Fault] = []
    files = files_with_suffix(folder, POLYGONS_SUFFIX, faults) if folder.is_dir() else []
    if not files and not faults:
        raise FileNotFoundError(
            f"no */*{POLYGONS_SUFFIX} in {folder}; folders there: "
            f"{listed(subfolders(folder.parent))}; unpack the archive completely or choose other "
            "--splits (test has no annotations)"
        )
    keys = {f"{path.parent.name}/{path.name.removesuffix(POLYGONS_SUFFIX)}": path for path in files}
    pictures = {} if images_dir is None else image_files_by_key(images_dir, IMAGE_ENDING)
    if images_dir is not None:
        faults += unpaired(pictures, keys, fix="unpack the archive completely")
    is_official = size == OFFICIAL_SIZE
    return RawSplit(
        dataset="IDD",
        name=f"{split}_panoptic" if is_official else f"idd_panoptic_{split}",
        categories=idd_categories(),
        images=tuple(
            _raw_image(key, path, pictures.get(key), images_dir, size) for key, path in keys.items()
        ),
        read_map=partial(read_idd_map, size=size, accept_degenerate=accept_degenerate),
        images_dir=images_dir,
        settings="native size" if size is None else f"size {size[0]}x{size[1]} nearest",
        faults=tuple(faults),
    )


def _raw_image(
    key: str,
    path: Path,
    picture: Path | None,
    images_dir: Path | None,
    size: tuple[int, int] | None,
) -> RawImage:
    # Names of frames repeat across drives: an id needs both.
    stem = key.replace("/", "_")
    png_name = f"{stem}{PANOPTIC_SUFFIX}"
    if size == OFFICIAL_SIZE:
        # The official JSON names its PNG in every place; a resized map fits no picture.
        return RawImage(png_name, (path,), png_name, png_name)
    if picture is None or images_dir is None:
        return RawImage(stem, (path,), png_name, f"{key}{IMAGE_ENDING}.png")
    file_name = picture.relative_to(images_dir).as_posix()
    return RawImage(stem, (path,), png_name, file_name, picture if size is None else None)


def read_idd_map(
    image: RawImage, *, size: tuple[int, int] | None = None, accept_degenerate: bool = False
) -> RawMap:
    """The id map of a polygons file; segment id = painted value + 1, since road has the value 0."""
    path = image.annotation_files[0]
    file, faults = read_polygons(path, _raw_labels(), accept_degenerate=accept_degenerate)
    if not faults:
        faults = _crowding_faults(path, file.objects)
    if faults:
        return RawMap.unreadable(*faults)
    values = paint_level3(file.objects, (file.height, file.width))
    if size is not None:
        resized = Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.NEAREST)
        values = np.asarray(resized)
    return panoptic_from_level3(values)


def paint_level3(objects: tuple[LabelledPolygon, ...], size: tuple[int, int]) -> NDArray[np.int32]:
    """The official `_instancelevel3Ids` picture.

    Returns:
        [H, W]: a level-3 id, level-3 id * 1000 + object number, or 255 (void). Numbers count the
        objects of all labels that share a level-3 id, hidden ones too.
    """
    labels = _raw_labels()
    numbers: Counter[int] = Counter()
    painted = []
    for polygon in objects:
        label = labels[polygon.label]
        value = label.level3_id
        if label.has_instances and not polygon.is_group:
            value = value * FIRST_OBJECT_VALUE + numbers[label.level3_id]
            numbers[label.level3_id] += 1
        painted.append((polygon.corners, value))
    return paint_polygons(size, painted, VOID_VALUE)


def panoptic_from_level3(values: NDArray[np.int32]) -> RawMap:
    """Segments of an `_instancelevel3Ids` picture [H, W]."""
    things = {label.label_id: label.is_thing for label in _labels() if not label.is_ignored}
    found = np.flatnonzero(np.bincount(values.ravel())).tolist()
    new_ids = np.zeros(int(values.max(initial=0)) + 1, np.int32)
    category_of, crowd_ids = {0: 0}, set()
    for value in found:
        has_number = value >= FIRST_OBJECT_VALUE
        level3_id = value // FIRST_OBJECT_VALUE if has_number else value
        if level3_id not in things:
            continue
        new_ids[value] = value + 1
        category_of[value + 1] = level3_id
        if things[level3_id] and not has_number:
            crowd_ids.add(value + 1)
    id_map = new_ids[values]
    return RawMap(id_map, measured_segments(id_map, category_of, crowd_ids))


def _crowding_faults(path: Path, objects: tuple[LabelledPolygon, ...]) -> list[Fault]:
    labels = _raw_labels()
    numbers = Counter(
        labels[polygon.label].level3_id
        for polygon in objects
        if labels[polygon.label].has_instances and not polygon.is_group
    )
    return [
        Fault(
            str(path),
            f"{number} objects of level-3 class {level3_id}; a 16-bit picture numbers "
            f"{FIRST_OBJECT_VALUE} at most: mark some deleted or label them as a group",
        )
        for level3_id, number in numbers.items()
        if number > FIRST_OBJECT_VALUE
    ]


def idd_categories() -> tuple[Category, ...]:
    """The 26 level-3 classes, as the official JSON lists them."""
    return tuple(
        Category(label.label_id, label.name, label.is_thing, label.color, label.supercategory)
        for label in _labels()
        if not label.is_ignored and label.color is not None
    )


@cache
def _labels() -> tuple[Label, ...]:
    return load_labels("idd")


@cache
def _raw_labels() -> dict[str, RawLabel]:
    table = resources.files("seamless_pr").joinpath("datasets", "labels", "idd_raw.csv")
    with table.open(encoding="utf-8") as file:
        return {
            row["name"]: RawLabel(
                int(row["id"]), int(row["level3_id"]), row["has_instances"] == "1"
            )
            for row in csv.DictReader(file)
        }
