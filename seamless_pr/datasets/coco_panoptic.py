"""COCO panoptic JSON files as records, where their PNGs lie, and writing them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from seamless_pr.datasets import panoptic_reader
from seamless_pr.datasets.panoptic_records import (
    ImageId,
    ImageRecord,
    PanopticDataset,
    SegmentRecord,
)
from seamless_pr.files import safe_join, write_whole
from seamless_pr.structures.faults import Fault, FaultyDataError
from seamless_pr.structures.label_space import Category


def read_panoptic_json(
    path: str | os.PathLike[str], *, is_prediction: bool = False
) -> PanopticDataset:
    """Reads and checks a COCO panoptic JSON; `panoptic_reader` says what is taken.

    Args:
        path: the JSON file.
        is_prediction: `images`, `categories`, `area`, `bbox` and `iscrowd` may be missing.

    Raises:
        FileNotFoundError: no such file.
        FaultyDataError: (a ValueError) lists every missing key, wrong type, repeated or unknown id.
    """
    dataset, faults = parse_panoptic_json(path, is_prediction=is_prediction)
    if faults:
        raise FaultyDataError(f"{path} is not a valid COCO panoptic JSON", faults)
    return dataset


def parse_panoptic_json(
    path: str | os.PathLike[str], *, is_prediction: bool = False
) -> tuple[PanopticDataset, list[Fault]]:
    """As `read_panoptic_json`, but returns the usable part together with the faults."""
    parsed = panoptic_reader.parse_panoptic_json(
        Path(path), is_prediction=is_prediction, needs_images=not is_prediction, keep_details=True
    )
    return parsed.dataset(), list(parsed.faults)


def find_png_folder(json_path: Path, file_names: Iterable[str]) -> Path:
    """The folder of a JSON's PNGs: the one of its own name (the official rule), or its own folder.

    The first of both that holds any of the files that the JSON names; names may have sub-folders.
    Where neither does, the folder of its name, if there is one: all its PNGs are missing.

    Args:
        json_path: the JSON.
        file_names: of its annotations.

    Raises:
        FileNotFoundError: neither holds any, and there is no folder of the JSON's name.
    """
    file_names = list(file_names)
    folders = (json_path.with_suffix(""), json_path.parent)
    for folder in folders:
        # A PNG that is missing in the first must not send all others to the second.
        # os.path takes a name that no disk can hold for one that is missing.
        if folder.is_dir() and any(os.path.isfile(folder / name) for name in file_names):
            return folder
    if folders[0].is_dir():
        return folders[0]
    raise FileNotFoundError(
        f"no PNG that {json_path.name} names is in {folders[0]} or {folders[1]}; name the folder "
        "of its PNGs, or make them with pipelines/prepare.py (it goes on where it stopped)"
    )


class NamesPng(Protocol):
    """An annotation, as far as its PNG goes."""

    @property
    def image_id(self) -> ImageId: ...

    @property
    def file_name(self) -> str: ...


def find_pngs(
    annotations: Iterable[NamesPng], png_dir: Path, json_path: Path
) -> tuple[dict[ImageId, Path], list[Fault]]:
    """The id PNG of each annotation, below the folder of the PNGs; it need not exist.

    Args:
        annotations: of the JSON.
        png_dir: the folder.
        json_path: the JSON, for messages.

    Returns:
        image id -> PNG, and a fault for each name that leads out of the folder, by a link too.
    """
    paths: dict[ImageId, Path] = {}
    faults: list[Fault] = []
    for annotation in annotations:
        try:
            paths[annotation.image_id] = safe_join(png_dir, annotation.file_name, json_path)
        except ValueError as error:
            message = str(error).removeprefix(f"{json_path} ")
            faults.append(Fault(str(json_path), f"image {annotation.image_id!r}: {message}"))
    return paths, faults


def write_panoptic_json(
    path: str | os.PathLike[str], dataset: PanopticDataset, *, indent: int | None = None
) -> None:
    """Writes a COCO panoptic JSON, whole or not at all; keys are sorted.

    Args:
        path: the JSON file; its folder is made.
        dataset: optional values that are None are left out.
        indent: None writes one line, the smallest file.
    """
    text = json.dumps(panoptic_json(dataset), sort_keys=True, indent=indent, ensure_ascii=False)
    write_whole(Path(path), text.encode())


def panoptic_json(dataset: PanopticDataset) -> dict[str, Any]:
    """The dataset as plain containers."""
    return {
        "images": [image_json(image) for image in dataset.images],
        "annotations": [
            {
                "image_id": annotation.image_id,
                "file_name": annotation.file_name,
                "segments_info": [segment_json(segment) for segment in annotation.segments],
            }
            for annotation in dataset.annotations
        ],
        "categories": [category_json(category) for category in dataset.categories],
    }


def category_json(category: Category) -> dict[str, Any]:
    """One entry of `categories`."""
    return {
        "id": category.category_id,
        "name": category.name,
        "supercategory": category.supercategory,
        "isthing": int(category.is_thing),
        "color": list(category.color),
    }


def image_json(image: ImageRecord) -> dict[str, Any]:
    """One entry of `images`."""
    return {
        "id": image.image_id,
        "file_name": image.file_name,
        "height": image.height,
        "width": image.width,
    }


def segment_json(segment: SegmentRecord) -> dict[str, Any]:
    """One entry of `segments_info`."""
    values: dict[str, Any] = {
        "id": segment.segment_id,
        "category_id": segment.category_id,
        "iscrowd": int(segment.is_crowd),
    }
    if segment.area is not None:
        values["area"] = segment.area
    if segment.bbox is not None:
        values["bbox"] = list(segment.bbox)
    if segment.score is not None:
        values["score"] = segment.score
    return values
