"""Panoptic ground truth of a drawn scene, and the tables that its writers share."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from seamless_pr.files import write_json
from seamless_pr.id_maps.id_png_files import write_id_png
from seamless_pr.id_maps.segments import measure_segments
from seamless_pr.street_scenes.camera import Array
from seamless_pr.street_scenes.labelled import LabelledScene
from seamless_pr.structures.label_space import LabelSpace


def segment_map(
    scene: LabelledScene, space: LabelSpace
) -> tuple[Array, dict[int, tuple[int, bool]]]:
    """Panoptic segments: one for each object of a thing, one for each stuff class and crowd.

    Args:
        scene: its labels are names of the space's categories (or super-categories, for Vistas).
        space: evaluated classes; everything else is void.

    Returns:
        [H, W] int32 segment ids, and segment id -> (category id, is crowd).
    """
    by_name = {category.name: category for category in space.categories}
    by_name |= {c.supercategory: c for c in space.categories if "--" in c.supercategory}
    ids = np.zeros(len(scene.objects) + 1, np.int32)
    found: dict[int, tuple[int, bool]] = {}
    for index, drawn in enumerate(scene.objects):
        category = None if drawn.label is None else by_name.get(drawn.label)
        if category is None:
            continue
        is_crowd = category.is_thing and drawn.is_group
        single = category.is_thing and not is_crowd
        # Ids as colours: the number of the object, or that of the class, in the red channel.
        value = (index + 1) * 256 + 1 if single else category.category_id + 1 + 256**2 * 100
        ids[index + 1] = value
        found[value] = (category.category_id, is_crowd)
    return ids[scene.object_map], found


def segments_info(id_map: Array, found: dict[int, tuple[int, bool]]) -> list[dict[str, Any]]:
    """`segments_info` of a map."""
    measures = measure_segments(id_map)
    return [
        {
            "id": segment_id,
            "category_id": found[segment_id][0],
            "area": area,
            "bbox": bbox,
            "iscrowd": int(found[segment_id][1]),
        }
        for segment_id, area, bbox in zip(
            measures.segment_ids.tolist(), measures.areas.tolist(), measures.boxes_xywh.tolist()
        )
        if segment_id
    ]


def panoptic_entry(
    folder: Path, image_id: int | str, stem: str, id_map: Array, found: dict[int, tuple[int, bool]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Writes the PNG; returns the entries of `images` and `annotations`."""
    write_id_png(folder / f"{stem}.png", id_map)
    height, width = id_map.shape
    image = {"id": image_id, "file_name": f"{stem}.jpg", "height": height, "width": width}
    annotation = {
        "image_id": image_id,
        "file_name": f"{stem}.png",
        "segments_info": segments_info(id_map, found),
    }
    return image, annotation


def write_panoptic(path: Path, entries: Sequence[Any], categories: list[dict[str, Any]]) -> None:
    write_json(
        path,
        {
            "info": {"description": "drawn street scenes"},
            "images": [image for image, _ in entries],
            "annotations": [annotation for _, annotation in entries],
            "categories": categories,
        },
    )


@cache
def read_labels(name: str) -> tuple[dict[str, str], ...]:
    """The rows of a table of datasets/labels."""
    table = resources.files("seamless_pr").joinpath("datasets", "labels", name)
    with table.open(encoding="utf-8") as file:
        return tuple(csv.DictReader(file))
