"""Tiny datasets in the layouts of Vistas and COCO, by hand, for tests of what finds and checks."""

from __future__ import annotations

import csv
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from seamless_pr.datasets.label_spaces import load_labels
from seamless_pr.id_maps.id_png_files import write_id_png
from tests.support.panoptic_files import write_png

SIZE = (4, 6)


def vistas_config(version: str) -> dict[str, Any]:
    """A config.json with the official labels of a release."""
    table = resources.files("seamless_pr").joinpath(
        "datasets", "labels", f"vistas_{version_key(version)}_config.csv"
    )
    readable = {
        label.supercategory: label.name for label in load_labels(f"vistas_{version_key(version)}")
    }
    with table.open(encoding="utf-8") as file:
        labels = [
            {
                "name": row["name"],
                "readable": readable.get(row["name"], row["name"]),
                "instances": row["has_instances"] == "1",
                "evaluate": row["evaluated"] == "1",
                "color": [0, 0, 0],
            }
            for row in csv.DictReader(file)
        ]
    return {"labels": labels, "version": 1.1, "mapping": "public", "folder_structure": ""}


def version_key(version: str) -> str:
    return "v" + version.replace(".", "_")


def write_vistas(
    root: Path,
    version: str = "1.2",
    *,
    nested: bool = False,
    exchanged: bool = False,
    keys: tuple[str, ...] = ("abc", "def"),
    split: str = "validation",
) -> Path:
    """Writes a split with two segments an image; returns the panoptic JSON.

    Args:
        root: of the dataset.
        version: 1.2 or 2.0.
        nested: the newer archive: `<split>/v1.2/panoptic`.
        exchanged: height and width are exchanged in the JSON.
        keys: image ids.
        split: folder of the split.
    """
    inner = root / split / f"v{version}" if nested else root / split
    config = root / (f"config_v{version}.json" if nested else "config.json")
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(json.dumps(vistas_config(version)))
    name = {"1.2": "panoptic_2018.json", "2.0": "panoptic_2020.json"}[version]
    categories = [
        {"id": label.label_id, "name": label.name, "supercategory": label.supercategory,
         "isthing": int(label.is_thing), "color": list(label.color or (0, 0, 0))}
        for label in load_labels(f"vistas_{version_key(version)}")
        if not label.is_ignored
    ]  # fmt: skip
    content = panoptic_content(inner / "panoptic", keys, categories, exchanged=exchanged)
    (inner / "panoptic" / name).write_text(json.dumps(content))
    for key in keys:
        write_png(root / split / "images" / f"{key}.jpg", np.full((*SIZE, 3), 90, np.uint8))
    return inner / "panoptic" / name


def write_coco(root: Path, split: str = "val") -> Path:
    """Writes a split as unpacked (inner zip too); returns the panoptic JSON."""
    categories = [
        {"id": label.label_id, "name": label.name, "supercategory": "",
         "isthing": int(label.is_thing)}
        for label in load_labels("coco_panoptic")
    ]  # fmt: skip
    folder = root / "annotations" / f"panoptic_{split}2017"
    content = panoptic_content(folder, (139, 285), categories)
    json_path = root / "annotations" / f"panoptic_{split}2017.json"
    json_path.write_text(json.dumps(content))
    for key in (139, 285):
        path = root / f"{split}2017" / f"{key:012d}.jpg"
        write_png(path, np.full((*SIZE, 3), 90, np.uint8))
    return json_path


def panoptic_content(
    folder: Path,
    keys: tuple[str | int, ...],
    categories: list[dict[str, Any]],
    *,
    exchanged: bool = False,
) -> dict[str, Any]:
    """Writes PNGs of the first category (upper half) and the second; returns the JSON."""
    id_map = np.full(SIZE, 1000, np.int32)
    id_map[SIZE[0] // 2 :] = 70000
    id_map[0, 0] = 0
    areas = [SIZE[1] * SIZE[0] // 2 - 1, SIZE[1] * SIZE[0] // 2]
    boxes = [[0, 0, SIZE[1], SIZE[0] // 2], [0, SIZE[0] // 2, SIZE[1], SIZE[0] // 2]]
    images, annotations = [], []
    for key in keys:
        stem = f"{key:012d}" if isinstance(key, int) else key
        write_id_png(folder / f"{stem}.png", id_map)
        height, width = SIZE[::-1] if exchanged else SIZE
        images.append({"id": key, "file_name": f"{stem}.jpg", "height": height, "width": width})
        segments = [
            {"id": segment_id, "category_id": categories[index]["id"], "area": areas[index],
             "bbox": boxes[index], "iscrowd": 0}
            for index, segment_id in enumerate((1000, 70000))
        ]  # fmt: skip
        annotations.append({"image_id": key, "file_name": f"{stem}.png", "segments_info": segments})
    return {"images": images, "annotations": annotations, "categories": categories}
