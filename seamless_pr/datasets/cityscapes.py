"""Cityscapes: from `*_gtFine_instanceIds.png` to the COCO panoptic format.

The result equals that of cityscapesscripts' createPanopticImgs: segment id = pixel value, ignored
labels become void, pixels of a thing class without an object number form one crowd segment.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seamless_pr.datasets.coco_panoptic import read_panoptic_json, write_panoptic_json
from seamless_pr.datasets.images import read_label_image
from seamless_pr.datasets.label_spaces import Label, load_labels
from seamless_pr.datasets.panoptic_records import (
    AnnotationRecord,
    ImageRecord,
    PanopticDataset,
    SegmentRecord,
)
from seamless_pr.id_maps.id_png_files import write_id_png
from seamless_pr.id_maps.segments import measure_segments
from seamless_pr.parallel import ItemMap, map_in_processes
from seamless_pr.structures.faults import Fault, FaultyDataError
from seamless_pr.structures.label_space import Category

INSTANCE_IDS_SUFFIX = "_gtFine_instanceIds.png"
# A pixel value from here on is label id * 1000 + object number; below it is a label id.
FIRST_OBJECT_VALUE = 1000
FINGERPRINT_LENGTH = 16


@dataclass(frozen=True)
class PreparedSplit:
    """Where a converted split lies.

    Attributes:
        json_path: the COCO panoptic JSON.
        png_dir: folder of the id PNGs.
        images_dir: folder of the RGB images, or None if the dataset was given without them.
    """

    json_path: Path
    png_dir: Path
    images_dir: Path | None


@dataclass(frozen=True)
class _Converted:
    """One image after conversion; `faults` is empty or the rest is None."""

    image: ImageRecord | None
    annotation: AnnotationRecord | None
    faults: tuple[Fault, ...] = ()


def convert_cityscapes(
    root: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    splits: Sequence[str] = ("train", "val"),
    num_workers: int | None = None,
    show_progress: bool = True,
    map_items: ItemMap = map_in_processes,
) -> dict[str, PreparedSplit]:
    """Converts the fine annotations of Cityscapes to the COCO panoptic format.

    Writes `cityscapes_panoptic_<split>.json` and a folder of id PNGs with the same stem. A run that
    was cut off goes on where it stopped; files whose input did not change are kept.

    Args:
        root: folder that holds `gtFine/` and, for the pictures, `leftImg8bit/`.
        output: folder of the results; None: `<root>/gtFine`, where the official tool writes.
        splits: names of folders under `gtFine/`.
        num_workers: processes; None: one per core.
        show_progress: draw a progress bar per split.
        map_items: what spreads the files; by default over processes of this machine.

    Returns:
        split -> where its files lie.

    Raises:
        FileNotFoundError: a folder or the annotations of a split are missing.
        FaultyDataError: annotation files that cannot be converted; all of them are listed, and the
            other images are kept for the next run.
    """
    root = Path(root)
    inputs = {split: find_instance_id_files(root, split) for split in splits}
    output = root / "gtFine" if output is None else Path(output)
    prepared: dict[str, PreparedSplit] = {}
    for split, files in inputs.items():
        name = f"cityscapes_panoptic_{split}"
        dataset = _convert_files(files, output, name, num_workers, show_progress, map_items)
        json_path = output / f"{name}.json"
        # Indented as the official tool does, so that the files can be compared byte by byte.
        write_panoptic_json(json_path, dataset, indent=4)
        images_dir = root / "leftImg8bit" / split
        prepared[split] = PreparedSplit(
            json_path, output / name, images_dir if images_dir.is_dir() else None
        )
    return prepared


def find_instance_id_files(root: Path, split: str) -> list[Path]:
    """The annotation pictures of a split, sorted by path; errors say how to get them."""
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
    files = sorted((ground_truth / split).glob(f"*/*{INSTANCE_IDS_SUFFIX}"))
    if not files:
        present = sorted(folder.name for folder in ground_truth.iterdir() if folder.is_dir())
        raise FileNotFoundError(
            f"no */*{INSTANCE_IDS_SUFFIX} in {ground_truth / split}; folders there: "
            f"{', '.join(present) or 'none'}; unpack gtFine_trainvaltest.zip completely or "
            "choose other --splits"
        )
    return files


def _convert_files(
    files: Sequence[Path],
    output: Path,
    name: str,
    num_workers: int | None,
    show_progress: bool,
    map_items: ItemMap,
) -> PanopticDataset:
    png_dir, records_dir = output / name, output / f".{name}.records"
    png_dir.mkdir(parents=True, exist_ok=True)
    records_dir.mkdir(parents=True, exist_ok=True)
    results = list(
        map_items(
            partial(_convert_resumable, png_dir=png_dir, records_dir=records_dir),
            files,
            num_workers=num_workers,
            title=name,
            show_progress=show_progress,
        )
    )
    faults = [fault for result in results for fault in result.faults]
    if faults:
        raise FaultyDataError(
            f"{name}: some annotation files cannot be converted; repair them and run again, "
            "the others are kept",
            faults,
        )
    return PanopticDataset(
        images=tuple(result.image for result in results if result.image is not None),
        annotations=tuple(result.annotation for result in results if result.annotation is not None),
        categories=cityscapes_categories(),
    )


def _convert_resumable(path: Path, *, png_dir: Path, records_dir: Path) -> _Converted:
    """Converts one file unless a record of the same input and its PNG are there already."""
    fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()[:FINGERPRINT_LENGTH]
    image_id = path.name.removesuffix(INSTANCE_IDS_SUFFIX)
    record_path = records_dir / f"{image_id}.{fingerprint}.json"
    if record_path.is_file():
        record = read_panoptic_json(record_path)
        if (png_dir / record.annotations[0].file_name).is_file():
            return _Converted(record.images[0], record.annotations[0])
    try:
        values = read_label_image(path)
    except ValueError as error:
        return _Converted(None, None, (Fault(str(path), str(error).removeprefix(f"{path} ")),))
    id_map, segments, faults = panoptic_from_instance_ids(values, str(path))
    if faults:
        return _Converted(None, None, tuple(faults))
    height, width = id_map.shape
    # The official tool's name for the RGB file, which no file has; readers go by the image id.
    image = ImageRecord(image_id, f"{image_id}_gtFine_leftImg8bit.png", height, width)
    annotation = AnnotationRecord(image_id, f"{image_id}_gtFine_panoptic.png", segments)
    write_id_png(png_dir / annotation.file_name, id_map)
    # Written last: a record vouches for its PNG.
    write_panoptic_json(
        record_path, PanopticDataset((image,), (annotation,), cityscapes_categories())
    )
    return _Converted(image, annotation)


def panoptic_from_instance_ids(
    values: NDArray[np.int32], file: str
) -> tuple[NDArray[np.int32], tuple[SegmentRecord, ...], list[Fault]]:
    """Id map and segments of one `_instanceIds` picture.

    Args:
        values: [H, W]; label ids, or label id * 1000 + object number.
        file: names the picture in faults.

    Returns:
        id map [H, W] (void = 0), segments by ascending id, and a fault for each value whose label
        does not exist.
    """
    labels = _labels_by_id()
    measures = measure_segments(values)
    segments: list[SegmentRecord] = []
    faults: list[Fault] = []
    kept = np.zeros(int(values.max()) + 1, np.int32)
    for value, area, bbox in zip(
        measures.segment_ids.tolist(), measures.areas.tolist(), measures.boxes_xywh.tolist()
    ):
        has_number = value >= FIRST_OBJECT_VALUE
        label_id = value // FIRST_OBJECT_VALUE if has_number else value
        label = labels.get(label_id)
        if label is None:
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
