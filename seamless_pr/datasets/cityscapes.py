"""Cityscapes: from `*_gtFine_instanceIds.png` to the COCO panoptic format.

The result equals that of cityscapesscripts' createPanopticImgs: segment id = pixel value, ignored
labels become void, pixels of a thing class without an object number form one crowd segment.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seamless_pr.datasets.folders import (
    files_with_suffix,
    image_files_by_key,
    listed,
    subfolders,
    unpaired,
)
from seamless_pr.datasets.label_pngs import read_label_png
from seamless_pr.datasets.label_spaces import Label, load_labels
from seamless_pr.datasets.panoptic_records import SegmentRecord
from seamless_pr.datasets.raw_splits import RawImage, RawMap, RawSplit
from seamless_pr.id_maps.segments import measure_segments
from seamless_pr.structures.faults import MAX_OF_ONE_PICTURE, Fault
from seamless_pr.structures.label_space import Category

INSTANCE_IDS_SUFFIX = "_gtFine_instanceIds.png"
IMAGE_ENDING = "_leftImg8bit"
SPLITS = ("train", "val")
# A pixel value from here on is label id * 1000 + object number; below it is a label id.
FIRST_OBJECT_VALUE = 1000


def open_cityscapes(root: str | os.PathLike[str], split: str) -> RawSplit:
    """A split of the fine annotations.

    Args:
        root: folder that holds `gtFine/` and, for the pictures, `leftImg8bit/`.
        split: name of a folder under `gtFine/`.

    Raises:
        FileNotFoundError: a folder or the annotations of the split are missing.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"no folder {root}; --root must be the folder that holds Cityscapes' gtFine/ "
            "and leftImg8bit/"
        )
    ground_truth = root / "gtFine"
    if not ground_truth.is_dir():
        hint = f"give {root.parent} instead" if root.name == "gtFine" else "unpack it there"
        raise FileNotFoundError(
            f"no folder {ground_truth} (gtFine_trainvaltest.zip of Cityscapes holds it); {hint}"
        )
    images_dir = root / "leftImg8bit" / split
    return open_cityscapes_folder(
        ground_truth / split, split, images_dir if images_dir.is_dir() else None
    )


def open_cityscapes_folder(folder: Path, split: str, images_dir: Path | None = None) -> RawSplit:
    """As `open_cityscapes`, from the folder of the split's annotations alone."""
    faults: list[Fault] = []
    files = files_with_suffix(folder, INSTANCE_IDS_SUFFIX, faults) if folder.is_dir() else []
    if not files and not faults:
        raise FileNotFoundError(
            f"no */*{INSTANCE_IDS_SUFFIX} in {folder}; folders there: "
            f"{listed(subfolders(folder.parent))}; unpack gtFine_trainvaltest.zip completely or "
            "choose other --splits"
        )
    keys = {
        f"{path.parent.name}/{path.name.removesuffix(INSTANCE_IDS_SUFFIX)}": path for path in files
    }
    pictures = {} if images_dir is None else image_files_by_key(images_dir, IMAGE_ENDING)
    if images_dir is not None:
        fix = "unpack both archives of Cityscapes completely"
        faults += unpaired(pictures, keys, fix=fix)
    return RawSplit(
        dataset="Cityscapes",
        name=f"cityscapes_panoptic_{split}",
        categories=cityscapes_categories(),
        images=tuple(_raw_image(path, pictures.get(key)) for key, path in keys.items()),
        read_map=read_cityscapes_map,
        images_dir=images_dir,
        faults=tuple(faults),
        # As the official tool does, so that the files can be compared byte by byte.
        json_indent=4,
    )


def _raw_image(path: Path, picture: Path | None) -> RawImage:
    image_id = path.name.removesuffix(INSTANCE_IDS_SUFFIX)
    return RawImage(
        image_id,
        (path,),
        f"{image_id}_gtFine_panoptic.png",
        # The official tool's name for the RGB file, which no file has; readers go by the id.
        f"{image_id}_gtFine_leftImg8bit.png",
        picture,
    )


def read_cityscapes_map(image: RawImage) -> RawMap:
    """The id map of an `_instanceIds` picture."""
    path = image.annotation_files[0]
    try:
        values = read_label_png(path, 16)
    except (OSError, ValueError) as error:
        return RawMap.unreadable(Fault(str(path), str(error).removeprefix(f"{path} ")))
    id_map, segments, faults = panoptic_from_instance_ids(values, str(path))
    ignored_objects = (id_map == 0) & (values >= FIRST_OBJECT_VALUE)
    return RawMap(id_map, segments, tuple(faults), ignored_objects)


def panoptic_from_instance_ids(
    values: NDArray[np.int32], file: str
) -> tuple[NDArray[np.int32], tuple[SegmentRecord, ...], list[Fault]]:
    """Id map and segments of one `_instanceIds` picture.

    Args:
        values: [H, W]; label ids, or label id * 1000 + object number.
        file: names the picture in faults.

    Returns:
        id map [H, W] (void = 0), segments by ascending id, and a fault for each value whose label
        does not exist, or for the first ones and their number.
    """
    labels = _labels_by_id()
    measures = measure_segments(values)
    segments: list[SegmentRecord] = []
    faults: list[Fault] = []
    num_unknown = 0
    kept = np.zeros(int(values.max()) + 1, np.int32)
    for value, area, bbox in zip(
        measures.segment_ids.tolist(), measures.areas.tolist(), measures.boxes_xywh.tolist()
    ):
        has_number = value >= FIRST_OBJECT_VALUE
        label_id = value // FIRST_OBJECT_VALUE if has_number else value
        label = labels.get(label_id)
        if label is None:
            num_unknown += 1
            if num_unknown <= MAX_OF_ONE_PICTURE:
                message = f"label {label_id} is none of Cityscapes' ({area} pixels)"
                faults.append(Fault(file, message, value))
            continue
        if label.is_ignored:
            continue
        kept[value] = value
        segments.append(
            SegmentRecord(
                segment_id=value,
                category_id=label_id,
                area=area,
                bbox=(bbox[0], bbox[1], bbox[2], bbox[3]),
                is_crowd=label.is_thing and not has_number,
            )
        )
    if num_unknown > MAX_OF_ONE_PICTURE:
        faults.append(Fault(file, f"{num_unknown} of its values have no label; take the original"))
    return kept[values], tuple(segments), faults


def cityscapes_categories() -> tuple[Category, ...]:
    """The evaluated classes by label id, as the official JSON lists them."""
    return tuple(
        Category(label.label_id, label.name, label.is_thing, label.color, label.supercategory)
        for label in _labels_by_id().values()
        if not label.is_ignored and label.color is not None
    )


@cache
def _labels_by_id() -> dict[int, Label]:
    return {label.label_id: label for label in load_labels("cityscapes")}
