"""The page of `prepare.py inspect`: what a dataset holds, and some of its images, in one file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from seamless_pr.datasets.image_files import find_image_files
from seamless_pr.datasets.images import read_image
from seamless_pr.datasets.panoptic_records import AnnotationRecord, ImageRecord, PanopticDataset
from seamless_pr.datasets.raw_splits import RawImage, RawMap, RawSplit, held_out_ids
from seamless_pr.datasets.statistics import DatasetStatistics, log_histogram, measure_dataset
from seamless_pr.drawing.pages import read_asset, render_page, shown_size
from seamless_pr.drawing.panoptic import draw_panoptic
from seamless_pr.files import write_whole
from seamless_pr.id_maps.id_png_files import read_id_png
from seamless_pr.parallel import ItemMap
from seamless_pr.structures.faults import FaultyDataError
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment

SHEET_WIDTH = 480
SHEET_QUALITY = 80
PLOT_WIDTH, PLOT_HEIGHT = 320, 125


@dataclass(frozen=True)
class InspectedSplit:
    """A split in memory but for its pixels.

    Attributes:
        title: of the page.
        source: where it lies.
        records: images, annotations and classes.
        maps: for each annotation, the raw image, or the path of its id PNG.
        read_map: of a raw split; None: the maps are id PNGs.
        images_dir: folder of the RGB images, or None.
        notes: what the reader said.
    """

    title: str
    source: str
    records: PanopticDataset
    maps: tuple[RawImage | Path, ...]
    read_map: Any = None
    images_dir: Path | None = None
    notes: tuple[str, ...] = ()


def read_raw_split(
    split: RawSplit, images_dir: Path | None, *, num_workers: int | None, map_items: ItemMap
) -> InspectedSplit:
    """Reads every map of a split as downloaded.

    Raises:
        FaultyDataError: everything that is wrong with it.
    """
    results = list(
        map_items(
            partial(_measure, read_map=split.read_map),
            split.images,
            num_workers=num_workers,
            title=split.name,
        )
    )
    faults = [*split.faults, *(fault for _, raw in results for fault in raw.faults)]
    if faults:
        raise FaultyDataError(f"{split.dataset} cannot be inspected as it is", faults)
    images, annotations = [], []
    for raw_image, (size, raw) in zip(split.images, results):
        images.append(ImageRecord(raw_image.image_id, raw_image.file_name, *size))
        annotations.append(AnnotationRecord(raw_image.image_id, raw_image.png_name, raw.segments))
    records = PanopticDataset(tuple(images), tuple(annotations), split.categories)
    return InspectedSplit(
        split.dataset, split.name, records, split.images, split.read_map,
        images_dir or split.images_dir,
    )  # fmt: skip


def _measure(image: RawImage, *, read_map: Any) -> tuple[tuple[int, int], RawMap]:
    """Size and segments; the pixels stay here."""
    raw = read_map(image)
    height, width = raw.id_map.shape
    return (height, width), RawMap(np.zeros((0, 0), np.int32), raw.segments, raw.faults)


def write_inspection(
    split: InspectedSplit, path: Path, *, num_pictures: int = 12, seed: int = 0
) -> DatasetStatistics:
    """Writes the page.

    Args:
        split: what to show.
        path: of the HTML file.
        num_pictures: images with their ground truth on the contact sheet.
        seed: which images these are.
    """
    statistics = measure_dataset(split.records)
    page = render_page(
        "inspection.html.j2",
        style=read_asset("report.css"),
        title=split.title,
        source=split.source,
        notes=[*split.notes, *_remarks(statistics)],
        cards=_cards(statistics),
        rows=_rows(statistics),
        plots=_plots(statistics),
        sheet=_sheet(split, num_pictures, seed),
    )
    write_whole(path, page.encode(errors="backslashreplace"))
    return statistics


def _cards(statistics: DatasetStatistics) -> list[tuple[str, str, str]]:
    seen = sum(entry.pixels > 0 for entry in statistics.classes)
    segments = sum(entry.num_segments for entry in statistics.classes)
    objects = sum(len(entry.areas) for entry in statistics.classes)
    per_image = objects / max(1, statistics.num_images)
    crowds = sum(entry.num_crowds for entry in statistics.classes)
    return [
        ("images", f"{statistics.num_images:,}", _of_sizes(len(statistics.sizes))),
        ("classes", f"{seen}", f"of {len(statistics.classes)} occur"),
        ("segments", f"{segments:,}", f"{per_image:.1f} objects an image"),
        ("void", f"{statistics.void_share:.1%}", "of all pixels"),
        ("crowds", f"{statistics.crowd_share:.1%}", f"of all pixels ({crowds:,} segments)"),
    ]


def _remarks(statistics: DatasetStatistics) -> list[str]:
    missing = [entry.category.name for entry in statistics.classes if not entry.pixels]
    if not missing:
        return []
    shown = ", ".join(missing[:20]) + (" ..." if len(missing) > 20 else "")
    return [f"classes that do not occur ({len(missing)}): {shown}"]


def _rows(statistics: DatasetStatistics) -> list[dict[str, Any]]:
    largest = max((entry.pixels for entry in statistics.classes), default=0) or 1
    return [
        {
            "name": entry.category.name,
            "kind": "thing" if entry.category.is_thing else "stuff",
            "color": ", ".join(map(str, entry.category.color)),
            "bar": round(100 * (entry.pixels / largest) ** 0.5, 1),
            "share": f"{entry.pixels / max(1, statistics.pixels):.2%}",
            "images": f"{entry.num_images:,}",
            "segments": f"{entry.num_segments:,}",
            "crowds": f"{entry.num_crowds:,}",
            "side": "" if entry.median_side is None else f"{entry.median_side:.0f} px",
        }
        for entry in sorted(statistics.classes, key=lambda entry: -entry.pixels)
    ]


def _plots(statistics: DatasetStatistics) -> list[dict[str, Any]]:
    sides = [area**0.5 for entry in statistics.classes for area in entry.areas]
    sizes = [(h * w) ** 0.5 for (h, w), count in statistics.sizes.items() for _ in range(count)]
    objects = [n + 0.0 for n, count in statistics.things_per_image.items() for _ in range(count)]
    return [
        _plot("Objects by size (side of an equal square, px)", log_histogram(sides)),
        _plot("Images by size (side of an equal square, px)", log_histogram(sizes, 2**0.25)),
        _plot("Images by number of objects", log_histogram(objects)),
    ]


def _plot(title: str, bins: Sequence[tuple[float, float, int]]) -> dict[str, Any]:
    highest = max((count for _, _, count in bins), default=0) or 1
    step = PLOT_WIDTH / max(1, len(bins))
    labelled = max(1, len(bins) // 6)
    bars = []
    for index, (low, high, count) in enumerate(bins):
        height = round((PLOT_HEIGHT - 5) * count / highest, 1)
        bars.append(
            {
                "x": round(index * step, 1),
                "y": round(PLOT_HEIGHT - height, 1),
                "width": round(0.9 * step, 1),
                "height": height,
                "count": count,
                "label": f"{low:.0f} to {high:.0f}",
                "text": f"{low:.0f}" if index % labelled == 0 else "",
            }
        )
    return {"title": title, "bars": bars}


def _sheet(split: InspectedSplit, num_pictures: int, seed: int) -> list[dict[str, str]]:
    """Some images under their ground truth, as JPEGs in base64."""
    if split.images_dir is None or num_pictures < 1:
        return []
    annotations = split.records.annotations
    chosen = {annotation.image_id for annotation in annotations}
    if num_pictures < len(annotations):
        chosen = held_out_ids([a.image_id for a in annotations], num_pictures, seed)
    # All of them are asked for: a file that is another image's serves none of these.
    files, faults = find_image_files(split.records.images, split.images_dir)
    if chosen - files.keys():
        raise FaultyDataError("images of the contact sheet are missing", faults)
    space = split.records.label_space(split.title)
    return [
        {
            "name": str(annotation.image_id),
            "data": _picture(split, place, annotation, files[annotation.image_id], space),
        }
        for annotation, place in zip(annotations, split.maps)
        if annotation.image_id in chosen
    ]


def _picture(
    split: InspectedSplit,
    place: RawImage | Path,
    annotation: AnnotationRecord,
    file: Path,
    space: LabelSpace,
) -> str:
    id_map = read_id_png(place) if isinstance(place, Path) else split.read_map(place).id_map
    image = read_image(file).permute(1, 2, 0).numpy()
    if image.shape[:2] != id_map.shape:
        raise ValueError(
            f"{file} has {image.shape[0]}x{image.shape[1]} pixels (height x width), its ground "
            f"truth {id_map.shape[0]}x{id_map.shape[1]}; give the pictures that were annotated"
        )
    height, width = shown_size((image.shape[0], image.shape[1]), SHEET_WIDTH)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    id_map = cv2.resize(id_map, (width, height), interpolation=cv2.INTER_NEAREST)
    areas = dict(zip(*np.unique(id_map, return_counts=True)))
    segments = tuple(
        Segment(
            segment.segment_id,
            space.train_id_of[segment.category_id],
            int(areas[segment.segment_id]),
            is_crowd=segment.is_crowd,
        )
        for segment in annotation.segments
        if segment.segment_id in areas
    )
    segmentation = PanopticSegmentation(torch.from_numpy(id_map), segments, space)
    drawn = draw_panoptic(torch.from_numpy(image).permute(2, 0, 1), segmentation)
    options = [cv2.IMWRITE_JPEG_QUALITY, SHEET_QUALITY]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), options)
    return base64.b64encode(data.tobytes()).decode()


def _of_sizes(count: int) -> str:
    return "all of one size" if count == 1 else f"of {count} different sizes"
