"""ADE20K panoptic, from the archives of the scene parsing challenge.

`annotations/` gives a class to every pixel, `annotations_instance/` an object number and one of
100 classes. As in the conversion that published results rest on: stuff comes from the former,
things from the latter and lie over it, and pixels of a thing class without an object are void.
"""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from functools import cache, partial
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seamless_pr.datasets.folders import image_files_by_key, require_folder, unpaired
from seamless_pr.datasets.images import read_stored_pixels
from seamless_pr.datasets.label_pngs import read_palette_indices
from seamless_pr.datasets.label_spaces import load_label_space, load_labels
from seamless_pr.datasets.raw_splits import RawImage, RawMap, RawSplit, measured_segments
from seamless_pr.structures.faults import Fault
from seamless_pr.structures.label_space import Category

ROOT_NAME = "ADEChallengeData2016"
SPLITS = ("train", "val")
FOLDERS = {"train": "training", "val": "validation"}
NUM_CLASSES = 150
# Segment id of a thing: (class + 1) * this + object number, which is 1..255 in the file.
FIRST_OBJECT_ID = 1000
INSTANCE_SOURCE = "annotations_instance.tar of sceneparsing.csail.mit.edu/data/ChallengeData2017"


def open_ade20k(
    root: str | os.PathLike[str], split: str, *, stated_areas: bool = False
) -> RawSplit:
    """A split of the challenge's archives.

    Args:
        root: `ADEChallengeData2016`, or the folder that holds it; `annotations_instance` may lie in
            either.
        split: train or val.
        stated_areas: areas and boxes of stuff are those before things cover it, as in the JSON of
            the usual conversion; otherwise they are counted in the map.

    Raises:
        FileNotFoundError: a folder is missing.
    """
    root = Path(root)
    outer = root
    if not (root / "annotations").is_dir() and (root / ROOT_NAME).is_dir():
        root = root / ROOT_NAME
    if split not in FOLDERS:
        raise ValueError(f"ADE20K has the splits {', '.join(FOLDERS)}; got '{split}'")
    folder = FOLDERS[split]
    classes_dir = require_folder(root / "annotations" / folder, f"{ROOT_NAME}.zip")
    for candidate in (root, outer, root.parent):
        if (candidate / "annotations_instance").is_dir():
            instances_dir = candidate / "annotations_instance" / folder
            break
    else:
        instances_dir = root / "annotations_instance" / folder
    require_folder(instances_dir.parent, INSTANCE_SOURCE)
    require_folder(instances_dir, INSTANCE_SOURCE)
    images_dir = root / "images" / folder
    return open_ade20k_folders(
        classes_dir,
        instances_dir,
        split,
        images_dir if images_dir.is_dir() else None,
        stated_areas=stated_areas,
    )


def open_ade20k_folders(
    classes_dir: Path,
    instances_dir: Path,
    split: str,
    images_dir: Path | None = None,
    *,
    stated_areas: bool = False,
) -> RawSplit:
    """As `open_ade20k`, from the folders of one split's label pictures."""
    classes, instances = image_files_by_key(classes_dir), image_files_by_key(instances_dir)
    if not classes:
        raise FileNotFoundError(f"no label pictures in {classes_dir}; unpack {ROOT_NAME}.zip")
    faults = [
        Fault(str(classes[key]), f"no such picture in {instances_dir}; unpack {INSTANCE_SOURCE}")
        for key in sorted(classes.keys() - instances.keys())
    ]
    faults += [
        Fault(str(instances[key]), f"no such picture in {classes_dir}; unpack {ROOT_NAME}.zip")
        for key in sorted(instances.keys() - classes.keys())
    ]
    pictures = {} if images_dir is None else image_files_by_key(images_dir)
    if images_dir is not None:
        faults += unpaired(pictures, classes, fix=f"unpack {ROOT_NAME}.zip completely")
    return RawSplit(
        dataset="ADE20K",
        name=f"ade20k_panoptic_{split}",
        categories=ade20k_categories(),
        images=tuple(
            RawImage(
                key,
                (classes[key], instances[key]),
                f"{key}.png",
                pictures[key].name if key in pictures else f"{key}.jpg",
                pictures.get(key),
            )
            for key in sorted(classes.keys() & instances.keys())
        ),
        read_map=partial(read_ade20k_map, stated_areas=stated_areas),
        images_dir=images_dir,
        settings="stated areas" if stated_areas else "counted areas",
        faults=tuple(faults),
    )


def read_ade20k_map(image: RawImage, *, stated_areas: bool = False) -> RawMap:
    """The id map of a pair of label pictures."""
    classes_path, instances_path = image.annotation_files
    try:
        class_map = read_palette_indices(classes_path)
    except (OSError, ValueError) as error:
        return RawMap.unreadable(_fault(classes_path, error))
    try:
        instance_classes, numbers = _read_instances(instances_path)
    except (OSError, ValueError) as error:
        return RawMap.unreadable(_fault(instances_path, error))
    if class_map.shape != instance_classes.shape:
        message = f"size {_size(instance_classes)}, but {classes_path} has {_size(class_map)}"
        return RawMap.unreadable(Fault(str(instances_path), f"{message}: copy both again"))
    if class_map.max() > NUM_CLASSES:
        unknown = np.unique(class_map[class_map > NUM_CLASSES]).tolist()
        return RawMap.unreadable(
            Fault(
                str(classes_path),
                f"labels {unknown[:10]} are none of 0..{NUM_CLASSES}; the full ADE20K has others: "
                f"take {ROOT_NAME}.zip",
            )
        )
    faults = _instance_faults(instance_classes, numbers, str(instances_path))
    if faults:
        return RawMap.unreadable(*faults)
    return panoptic_from_pictures(class_map, instance_classes, numbers, stated_areas=stated_areas)


def panoptic_from_pictures(
    class_map: NDArray[np.int32],
    instance_classes: NDArray[np.int32],
    numbers: NDArray[np.int32],
    *,
    stated_areas: bool = False,
) -> RawMap:
    """Segments of a pair of pictures.

    Args:
        class_map: [H, W]; 0 is void, 1..150 a class.
        instance_classes: [H, W]; 1..100 where there is an object.
        numbers: [H, W]; object number, 0 where there is none.
        stated_areas: see `open_ade20k`.
    """
    is_thing = np.array([False, *(label.is_thing for label in load_labels("ade20k"))])
    stuff_map = np.where(is_thing[class_map], 0, class_map).astype(np.int32)
    category_of = {value: value - 1 for value in range(NUM_CLASSES + 1)}
    is_object = numbers > 0
    # Of every byte: where there is no object, the picture may say anything.
    class_of = np.zeros(256, np.int32)
    class_of[list(_instance_class_ids())] = list(_instance_class_ids().values())
    thing_ids = (class_of[instance_classes] + 1) * FIRST_OBJECT_ID + numbers
    id_map = np.where(is_object, thing_ids, stuff_map).astype(np.int32)
    for segment_id in np.unique(thing_ids[is_object]).tolist():
        category_of[segment_id] = segment_id // FIRST_OBJECT_ID - 1
    segments = measured_segments(id_map, category_of)
    if stated_areas:
        before = {
            segment.segment_id: segment for segment in measured_segments(stuff_map, category_of)
        }
        segments = tuple(
            replace(segment, area=before[segment.segment_id].area,
                    bbox=before[segment.segment_id].bbox)
            if segment.segment_id in before
            else segment
            for segment in segments
        )  # fmt: skip
    return RawMap(id_map, segments)


def _read_instances(path: Path) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Instance class (red) and object number (green)."""
    pixels = read_stored_pixels(path)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(
            f"{path} must be an RGB picture (red: class, green: object number); got "
            f"{pixels.dtype} with shape {pixels.shape}: take the original file"
        )
    return pixels[..., 0].astype(np.int32), pixels[..., 1].astype(np.int32)


def _instance_faults(
    instance_classes: NDArray[np.int32], numbers: NDArray[np.int32], file: str
) -> list[Fault]:
    """Each object number must have one known class."""
    pairs = np.unique((numbers << 8) + instance_classes)
    pairs = pairs[pairs >> 8 > 0]
    faults = []
    for number in np.unique(pairs >> 8).tolist():
        classes = (pairs[pairs >> 8 == number] & 255).tolist()
        unknown = [value for value in classes if value not in _instance_class_ids()]
        if unknown:
            faults.append(
                Fault(file, f"object {number} has the class {unknown[0]}, none of 1..100")
            )
        elif len(classes) > 1:
            faults.append(
                Fault(file, f"object {number} has several classes {classes}; copy it again")
            )
    return faults


def _fault(path: Path, error: Exception) -> Fault:
    return Fault(str(path), str(error).removeprefix(f"{path} "))


def _size(pixels: NDArray[np.int32]) -> str:
    return f"{pixels.shape[0]}x{pixels.shape[1]}"


def ade20k_categories() -> tuple[Category, ...]:
    """The 150 classes by id."""
    space = load_label_space("ade20k")
    return tuple(sorted(space.categories, key=lambda category: category.category_id))


@cache
def _instance_class_ids() -> dict[int, int]:
    """Instance class 1..100 -> class id 0..149."""
    table = resources.files("seamless_pr").joinpath("datasets", "labels", "ade20k_instances.csv")
    with table.open(encoding="utf-8") as file:
        return {int(row["instance_class"]): int(row["id"]) for row in csv.DictReader(file)}
