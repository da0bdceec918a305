"""Checking a dataset in the COCO panoptic format: every fault, not the first one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from seamless_pr.datasets.coco_panoptic import (
    find_png_folder,
    find_pngs,
    parse_panoptic_json,
)
from seamless_pr.datasets.image_files import find_image_files, is_hidden, list_image_files
from seamless_pr.datasets.images import whole_picture_size
from seamless_pr.datasets.label_pngs import png_size
from seamless_pr.datasets.panoptic_records import (
    UNKNOWN_ID,
    AnnotationRecord,
    ImageRecord,
    PanopticDataset,
    SegmentRecord,
)
from seamless_pr.id_maps.id_png_files import read_id_png
from seamless_pr.id_maps.segments import SegmentMeasures, measure_segments
from seamless_pr.parallel import ItemMap, map_in_processes
from seamless_pr.structures.faults import MAX_OF_ONE_PICTURE, Fault
from seamless_pr.structures.label_space import LabelSpace

READING_THREADS = 16


@dataclass(frozen=True)
class _PngTask:
    path: Path
    annotation: AnnotationRecord
    image: ImageRecord | None


def verify_dataset(
    json_path: str | os.PathLike[str],
    png_dir: str | os.PathLike[str] | None = None,
    images_dir: str | os.PathLike[str] | None = None,
    *,
    num_workers: int | None = None,
    show_progress: bool = False,
    map_items: ItemMap = map_in_processes,
    on_note: Callable[[str], None] | None = None,
) -> list[Fault]:
    """Checks the JSON, every id PNG against it, and the pairing with the RGB images.

    Args:
        json_path: the COCO panoptic JSON.
        png_dir: folder of the id PNGs; None: see `find_png_folder`.
        images_dir: folder of the RGB images of this split; None: they are not checked.
        num_workers: processes; None: one per core.
        show_progress: draw a progress bar.
        map_items: what spreads the files; by default over processes of this machine.
        on_note: called with what is unusual and needs no repair.

    Returns:
        All faults; empty means that every file can be trained and evaluated on.
    """
    json_path = Path(json_path)
    faults: list[Fault] = []
    try:
        dataset, faults = parse_panoptic_json(json_path)
        names = (annotation.file_name for annotation in dataset.annotations)
        png_dir = find_png_folder(json_path, names) if png_dir is None else Path(png_dir)
    except FileNotFoundError as error:
        return [*faults, Fault(str(json_path), str(error))]
    images, note = with_sizes_put_right(dataset, png_dir)
    if note and on_note is not None:
        on_note(f"{json_path}: {note}")
    dataset = replace(dataset, images=images)
    faults += verify_records(
        dataset,
        json_path,
        png_dir,
        None if images_dir is None else Path(images_dir),
        num_workers=num_workers,
        show_progress=show_progress,
        map_items=map_items,
    )
    return faults


def verify_records(
    dataset: PanopticDataset,
    json_path: Path,
    png_dir: Path,
    images_dir: Path | None,
    *,
    num_workers: int | None = None,
    show_progress: bool = False,
    map_items: ItemMap = map_in_processes,
) -> list[Fault]:
    """As `verify_dataset`, for a JSON that was read, and corrected perhaps; None: no images."""
    faults = list(_pairing_faults(dataset, json_path))
    if not png_dir.is_dir():
        return [
            *faults,
            Fault(str(png_dir), "no such folder; it must hold the id PNGs: convert again"),
        ]
    if png_dir != json_path.parent:  # where other files lie as well
        faults += _stray_pngs(dataset, png_dir)
    paths, name_faults = find_pngs(dataset.annotations, png_dir, json_path)
    faults += name_faults
    tasks = [
        _PngTask(paths[annotation.image_id], annotation, dataset.image_of.get(annotation.image_id))
        for annotation in dataset.annotations
        if annotation.image_id in paths
    ]
    results = map_items(
        _png_faults, tasks, num_workers=num_workers, title="verify", show_progress=show_progress
    )
    faults += [fault for png_faults in results for fault in png_faults]
    if images_dir is not None:
        faults += _images_faults(dataset, images_dir, num_workers, show_progress, map_items)
    return faults


def with_sizes_put_right(
    records: PanopticDataset, png_dir: Path
) -> tuple[tuple[ImageRecord, ...], str]:
    """Images whose height and width the JSON exchanges get the size of their PNG.

    Copies of Vistas' `panoptic_2018.json` are known for it.

    Returns:
        the images, and one note for all of them; empty if there is nothing to say.
    """
    png_of = {
        annotation.image_id: png_dir / annotation.file_name for annotation in records.annotations
    }
    with ThreadPoolExecutor(READING_THREADS) as pool:  # Storage may be far away.
        sizes = pool.map(png_size, png_of.values(), chunksize=64)
        size_of = dict(zip(png_of, sizes))
    images = []
    num_exchanged = 0
    for image in records.images:
        exchanged = (image.width, image.height)
        if image.height != image.width and size_of.get(image.image_id) == exchanged:
            image = replace(image, height=exchanged[0], width=exchanged[1])
            num_exchanged += 1
        images.append(image)
    if not num_exchanged:
        return tuple(images), ""
    note = (
        f"height and width are exchanged for {num_exchanged} of {len(images)} images; the sizes of "
        "the PNGs are taken, nothing has to be done"
    )
    return tuple(images), note


def _pairing_faults(dataset: PanopticDataset, json_path: Path) -> Iterator[Fault]:
    if None in dataset.refused_images:
        return  # Any of them may be the one.
    accounted = {annotation.image_id for annotation in dataset.annotations} | dataset.refused_images
    for image in dataset.images:
        if image.image_id not in accounted:
            yield Fault(str(json_path), f"image {image.image_id!r} has no annotation")


def _stray_pngs(dataset: PanopticDataset, png_dir: Path) -> Iterator[Fault]:
    if dataset.refused_images:
        return  # An annotation that could not be read may name it.
    expected = {png_dir / annotation.file_name for annotation in dataset.annotations}
    for path in sorted(png_dir.rglob("*.png")):
        if path not in expected and not is_hidden(path.relative_to(png_dir)):
            yield Fault(str(path), "no annotation in the JSON names this PNG")


def _png_faults(task: _PngTask) -> list[Fault]:
    file = str(task.path)
    try:
        id_map = read_id_png(task.path)
    except (OSError, ValueError) as error:
        return [Fault(file, str(error).removeprefix(f"{file}: "))]
    faults: list[Fault] = []
    if task.image is not None and id_map.shape != (task.image.height, task.image.width):
        expected = f"{task.image.height}x{task.image.width}"
        found = f"{id_map.shape[0]}x{id_map.shape[1]}"
        faults.append(Fault(file, f"size {found} (height x width); the JSON says {expected}"))
    faults += _segment_faults(measure_segments(id_map), task.annotation, file)
    return faults


def _segment_faults(
    measures: SegmentMeasures, annotation: AnnotationRecord, file: str
) -> Iterator[Fault]:
    records = {segment.segment_id: segment for segment in annotation.segments}
    found: set[int] = set()
    num_unlisted = 0
    for segment_id, area, bbox in zip(
        measures.segment_ids.tolist(), measures.areas.tolist(), measures.boxes_xywh.tolist()
    ):
        if segment_id == LabelSpace.VOID_SEGMENT_ID:
            continue
        found.add(segment_id)
        record = records.get(segment_id)
        if record is None and annotation.refused_ids & {segment_id, UNKNOWN_ID}:
            continue  # The JSON lists it, with a fault that was told.
        if record is None:
            num_unlisted += 1
            if num_unlisted <= MAX_OF_ONE_PICTURE:
                yield Fault(file, f"{area} pixels, but the JSON does not list it", segment_id)
        else:
            yield from _measure_faults(record, area, bbox, file)
    if num_unlisted > MAX_OF_ONE_PICTURE:
        yield Fault(file, f"{num_unlisted} ids of the PNG are not listed by the JSON")
    for segment_id in records:
        if segment_id not in found:
            yield Fault(file, "the JSON lists it, but it has no pixel", segment_id)


def _measure_faults(
    record: SegmentRecord, area: int, bbox: list[int], file: str
) -> Iterator[Fault]:
    if record.area is not None and record.area != area:
        yield Fault(file, f"area {area} pixels; the JSON says {record.area}", record.segment_id)
    if record.bbox is not None and list(record.bbox) != bbox:
        message = f"bbox {bbox} (x, y, width, height); the JSON says {list(record.bbox)}"
        yield Fault(file, message, record.segment_id)


def _images_faults(
    dataset: PanopticDataset,
    images_dir: Path,
    num_workers: int | None,
    show_progress: bool,
    map_items: ItemMap,
) -> Iterator[Fault]:
    try:
        files, faults = find_image_files(dataset.images, images_dir)
    except FileNotFoundError as error:
        yield Fault(str(images_dir), str(error))
        return
    yield from faults
    tasks = [(files[image.image_id], image) for image in dataset.images if image.image_id in files]
    for fault in map_items(
        _image_fault,
        tasks,
        num_workers=num_workers,
        title="verify images",
        show_progress=show_progress,
    ):
        if fault is not None:
            yield fault
    if dataset.refused_images:
        return  # An entry that could not be read may name it.
    for path in sorted(set(list_image_files(images_dir)) - set(files.values())):
        yield Fault(str(path), "image without ground truth: no entry of the JSON is this file")


def _image_fault(task: tuple[Path, ImageRecord]) -> Fault | None:
    file, image = task
    try:
        size = whole_picture_size(file)
    except (OSError, ValueError) as error:
        return Fault(str(file), str(error).removeprefix(f"{file}").lstrip(": "))
    if size == (image.height, image.width):
        return None
    found, expected = f"{size[0]}x{size[1]}", f"{image.height}x{image.width}"
    return Fault(str(file), f"size {found} (height x width); the JSON says {expected}")
