"""Converting a split to the COCO panoptic format: resumable, over several processes.

A conversion writes, in this order: an id PNG and a small record for each image, then
`<name>.manifest.json` (counts and checksums), then `<name>.json`. The JSON stands for the whole:
where it lies, everything is finished; while anything is wrong, it does not.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from seamless_pr.datasets import checked_values as checked
from seamless_pr.datasets.coco_panoptic import segment_json, write_panoptic_json
from seamless_pr.datasets.images import whole_picture_size
from seamless_pr.datasets.manifest import file_sha256, make_manifest, manifest_of
from seamless_pr.datasets.panoptic_records import (
    AnnotationRecord,
    ImageId,
    ImageRecord,
    PanopticDataset,
    SegmentRecord,
)
from seamless_pr.datasets.raw_splits import RawImage, RawMap, RawSplit
from seamless_pr.datasets.remote_files import file_state
from seamless_pr.files import check_written, write_json
from seamless_pr.id_maps.id_png_files import write_id_png
from seamless_pr.input_files import read_json
from seamless_pr.parallel import ItemMap, map_in_processes
from seamless_pr.structures.faults import Fault, FaultyDataError
from seamless_pr.structures.seals import sealed, unsealed

# Raise it when the same input and settings give another result than before.
CONVERSION_VERSION = 2


@dataclass(frozen=True)
class PreparedSplit:
    """Where a split in COCO panoptic form lies.

    Attributes:
        json_path: the COCO panoptic JSON.
        png_dir: folder of the id PNGs.
        images_dir: folder of the RGB images, or None if the dataset was given without them.
        num_images: annotated images.
        num_kept: how many of them an earlier run had converted.
    """

    json_path: Path
    png_dir: Path
    images_dir: Path | None
    num_images: int = 0
    num_kept: int = 0


@dataclass(frozen=True)
class _Converted:
    """One image after conversion; `faults` is empty or the rest is None."""

    image: ImageRecord | None = None
    annotation: AnnotationRecord | None = None
    png_sha256: str = ""
    source_sha256: tuple[str, ...] = ()
    was_kept: bool = False
    faults: tuple[Fault, ...] = ()


def convert_split(
    split: RawSplit,
    output: Path,
    *,
    num_workers: int | None = None,
    show_progress: bool = True,
    map_items: ItemMap = map_in_processes,
) -> PreparedSplit:
    """Writes `<output>/<name>.json`, the PNG folder of that name, and a manifest.

    A run that was cut off goes on where it stopped. An image is converted again when the content of
    its annotation changed, when its PNG is not the one that was written, or when the settings
    differ.

    Args:
        split: what to convert.
        output: folder of the results; made if it is missing.
        num_workers: processes; None: one per core.
        show_progress: draw a progress bar.
        map_items: what spreads the images; by default over processes of this machine.

    Raises:
        FaultyDataError: everything that is wrong with the folder and with any annotation, in one
            list. Images that are right are kept for the next run.
        ValueError: a folder of the results is a link out of `output`.
        WriteError: the disk is full, or somebody removed PNGs meanwhile.
    """
    png_dir, records_dir = output / split.name, output / f".{split.name}.records"
    for folder in (png_dir, records_dir):
        if not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(output)):
            raise ValueError(
                f"{folder} is a link out of {output}, to {os.path.realpath(folder)}; remove it, or "
                "give another --output"
            )
    json_path, manifest_path = output / f"{split.name}.json", manifest_of(output, split.name)
    for path in (json_path, manifest_path):
        # From here on the folder is not finished; an older JSON would say that it is.
        path.unlink(missing_ok=True)
    convert = partial(
        _convert_resumable, split=_without_images(split), png_dir=png_dir, records_dir=records_dir
    )
    shared = _shared_names(split)
    if shared:
        raise FaultyDataError(f"{split.name}: results of {split.dataset} would be lost", shared)
    unnamed = [image for image in split.images if not _is_text(image)]
    results = list(
        map_items(
            convert,
            [image for image in split.images if _is_text(image)],
            num_workers=num_workers,
            title=split.name,
            show_progress=show_progress,
        )
    )
    faults = [
        *split.faults,
        *map(_rename, unnamed),
        *(fault for result in results for fault in result.faults),
    ]
    if faults:
        raise FaultyDataError(
            f"{split.name}: {split.dataset} cannot be converted as it is; repair what is listed "
            "and run again, what is right is kept",
            faults,
        )
    dataset = PanopticDataset(
        images=tuple(result.image for result in results if result.image is not None),
        annotations=tuple(result.annotation for result in results if result.annotation is not None),
        categories=split.categories,
    )
    checksums = {
        result.annotation.file_name: (result.png_sha256, *result.source_sha256)
        for result in results
        if result.annotation is not None
    }
    check_written(png_dir / annotation.file_name for annotation in dataset.annotations)
    write_json(manifest_path, make_manifest(split, CONVERSION_VERSION, dataset, checksums))
    write_panoptic_json(json_path, dataset, indent=split.json_indent)
    num_kept = sum(result.was_kept for result in results)
    return PreparedSplit(json_path, png_dir, split.images_dir, len(results), num_kept)


def convert_splits(
    splits: Sequence[RawSplit],
    output: Path,
    *,
    num_workers: int | None = None,
    show_progress: bool = True,
    map_items: ItemMap = map_in_processes,
) -> list[PreparedSplit]:
    """Converts several splits into one folder; arguments as `convert_split`.

    Raises:
        FaultyDataError: the faults of all splits; those without faults are finished.
    """
    prepared: list[PreparedSplit] = []
    faults: list[Fault] = []
    for split in splits:
        try:
            prepared.append(
                convert_split(
                    split,
                    output,
                    num_workers=num_workers,
                    show_progress=show_progress,
                    map_items=map_items,
                )
            )
        except FaultyDataError as error:
            summary = error.summary
            faults += error.faults
    if faults:
        raise FaultyDataError(summary, faults)
    return prepared


def _is_text(image: RawImage) -> bool:
    """Whether a JSON can hold the names; Linux allows names of files that are no UTF-8."""
    names = (str(image.image_id), image.png_name, image.file_name)
    return all(checked.text(name) is not None for name in names)


def _rename(image: RawImage) -> Fault:
    file = str((*image.annotation_files, image.image_file, image.file_name)[0])
    return Fault(file, f"{file!a} is a name that is no UTF-8; rename the file")


def _shared_names(split: RawSplit) -> list[Fault]:
    """A fault for each image whose id or whose PNG another image has as well."""
    faults: list[Fault] = []
    first: dict[tuple[str, ImageId], RawImage] = {}
    for image in split.images:
        # Case is folded because the PNGs may lie on a file system that ignores it.
        names = {"id": image.image_id, "name": image.png_name.casefold()}
        for kind, name in names.items():
            other = first.setdefault((kind, name), image)
            if other is not image:
                file = str((*image.annotation_files, image.file_name)[0])
                earlier = (*other.annotation_files, other.file_name)[0]
                message = f"its result would have the {kind} {name!r}, as that of {earlier}"
                faults.append(Fault(file, f"{message}; rename one of both"))
                break
    return faults


def _without_images(split: RawSplit) -> RawSplit:
    """What a worker needs of the split; the list of all images would travel with every message."""
    return RawSplit(split.dataset, split.name, (), (), split.read_map, settings=split.settings)


def _convert_resumable(
    image: RawImage, *, split: RawSplit, png_dir: Path, records_dir: Path
) -> _Converted:
    """Converts one image unless a record of the same input and its PNG are there already."""
    png_path = png_dir / image.png_name
    record_path = records_dir / f"{image.png_name}.json"
    try:
        sources = _contents(image.annotation_files)
    except OSError as error:
        file = str(error.filename or image.annotation_files[0])
        return _Converted(faults=(Fault(file, f"cannot be read ({error})"),))
    record = _read_record(record_path)
    if record is not None and _is_current(record, sources, split, image, png_path):
        if record["picture"] == _picture_state(image.image_file):
            return _from_record(record)
        was_kept = True
        faults = _picture_faults(image.image_file, (record["image"][2], record["image"][3]))
    else:
        was_kept = False
        raw = split.read_map(image)
        faults = list(raw.faults)
        if not faults:
            height, width = raw.id_map.shape
            faults = _picture_faults(image.image_file, (height, width))
            write_id_png(png_path, raw.id_map)
            record = _make_record(image, raw, sources, split, png_path)
    if faults or record is None:
        return _Converted(faults=tuple(faults))
    # Written last: a record vouches for its PNG, and for the picture.
    write_json(record_path, sealed({**record, "picture": _picture_state(image.image_file)}))
    return _from_record(record, was_kept=was_kept)


def _picture_state(path: Path | None) -> list[Any] | None:
    """Which RGB image it is: what tells that it was checked."""
    return None if path is None or not path.is_file() else [*file_state(path)]


def _picture_faults(path: Path | None, size: tuple[int, int]) -> list[Fault]:
    """Whether the RGB image is whole and of the annotation's size; decodes no pixel."""
    if path is None:
        return []
    fault = check_picture(path, size)
    return [] if fault is None else [fault]


def check_picture(path: Path, size: tuple[int, int]) -> Fault | None:
    """What is wrong with an RGB image for an annotation of this (height, width), or None."""
    try:
        found = whole_picture_size(path)
    except (OSError, ValueError) as error:
        return Fault(str(path), str(error).removeprefix(f"{path}").lstrip(": "))
    if found == size:
        return None
    return Fault(
        str(path),
        f"size {found[0]}x{found[1]} (height x width); its annotation has {size[0]}x{size[1]}: "
        "one of both was resized, take the original files",
    )


def _contents(paths: Sequence[Path]) -> list[list[str]]:
    """Name and checksum of each file of an annotation: copies may share size and time."""
    return [[path.name, file_sha256(path)] for path in paths]


def _make_record(
    image: RawImage, raw: RawMap, sources: list[list[str]], split: RawSplit, png_path: Path
) -> dict[str, Any]:
    height, width = raw.id_map.shape
    return {
        "version": CONVERSION_VERSION,
        "settings": split.settings,
        "sources": sources,
        "text_sha256": _text_sha256(image),
        "png_sha256": file_sha256(png_path),
        "image": [image.image_id, image.file_name, height, width],
        "png_name": image.png_name,
        "segments": [segment_json(segment) for segment in raw.segments],
    }


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = unsealed(read_json(path))
        return record if record is not None and _is_record(record) else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _is_record(record: dict[str, Any]) -> bool:
    """Whether it holds what `_make_record` writes: it may have come with somebody's dataset."""
    _, _, *size = record["image"]
    numbers = [
        number
        for entry in record["segments"]
        for number in (entry["id"], entry["category_id"], entry["area"], *entry["bbox"])
    ]
    texts = [
        *(record[key] for key in ("png_name", "png_sha256", "text_sha256")),
        *(text for name, checksum in record["sources"] for text in (name, checksum)),
    ]
    return (
        len(size) == 2
        and all(type(number) is int for number in (*size, *numbers))
        and all(len(entry["bbox"]) == 4 and "iscrowd" in entry for entry in record["segments"])
        and all(isinstance(text, str) for text in texts)
        and "picture" in record
    )


def _is_current(
    record: dict[str, Any],
    sources: list[list[str]],
    split: RawSplit,
    image: RawImage,
    png_path: Path,
) -> bool:
    if (record.get("version"), record.get("settings")) != (CONVERSION_VERSION, split.settings):
        return False
    if record["image"][:2] != [image.image_id, image.file_name]:
        return False
    if record["text_sha256"] != _text_sha256(image):
        return False
    if not png_path.is_file() or record["sources"] != sources:
        return False
    return bool(file_sha256(png_path) == record["png_sha256"])


def _from_record(record: dict[str, Any], *, was_kept: bool = True) -> _Converted:
    image = ImageRecord(*record["image"])
    segments = tuple(
        SegmentRecord(
            entry["id"],
            entry["category_id"],
            entry["area"],
            tuple(entry["bbox"]),
            bool(entry["iscrowd"]),
        )
        for entry in record["segments"]
    )
    return _Converted(
        image,
        AnnotationRecord(image.image_id, record["png_name"], segments),
        record["png_sha256"],
        (*(source[1] for source in record["sources"]), record["text_sha256"]),
        was_kept,
    )


def _text_sha256(image: RawImage) -> str:
    return hashlib.sha256(image.annotation_text.encode()).hexdigest()
