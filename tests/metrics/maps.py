"""Maps for tests of metrics: drawn as text, or random with all that evaluators stumble over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seamless_pr.metrics.segment_table import SegmentTable
from seamless_pr.structures.label_space import Category, LabelSpace

STUFF_AND_THINGS = LabelSpace(
    "tiny",
    (
        Category(7, "road", False, (128, 64, 128)),
        Category(23, "sky", False, (70, 130, 180)),
        Category(8, "sidewalk", False, (244, 35, 232)),
        Category(24, "person", True, (220, 20, 60)),
        Category(0, "car", True, (0, 0, 142)),
        Category(33, "bicycle", True, (119, 11, 32)),
    ),
)


def draw(text: str) -> NDArray[np.int32]:
    """One letter per pixel; '.' is void, a..z are ids 1..26."""
    rows = [row.strip() for row in text.strip().splitlines()]
    return np.array(
        [[0 if pixel == "." else ord(pixel) - ord("a") + 1 for pixel in row] for row in rows],
        dtype=np.int32,
    )


def table(
    classes: dict[str, int], crowd: str = "", areas: dict[str, int] | None = None
) -> SegmentTable:
    """Segments by letter: letter -> train id; letters in `crowd` are crowd."""
    return SegmentTable(
        np.array([ord(letter) - ord("a") + 1 for letter in classes], dtype=np.int64),
        np.array(list(classes.values()), dtype=np.int64),
        np.array([letter in crowd for letter in classes], dtype=bool),
        None if areas is None else np.array([areas[letter] for letter in classes], dtype=np.int64),
    )


@dataclass(frozen=True)
class FuzzedImage:
    """One image in COCO panoptic form."""

    gt_map: NDArray[np.int32]
    pred_map: NDArray[np.int32]
    gt_segments: list[dict[str, Any]]
    pred_segments: list[dict[str, Any]]


def fuzz_image(rng: np.random.Generator, label_space: LabelSpace = STUFF_AND_THINGS) -> FuzzedImage:
    """A truth of random rectangles with void and crowd, and a prediction that resembles it."""
    size = (int(rng.integers(1, 40)), int(rng.integers(1, 40)))
    gt_map = np.zeros(size, dtype=np.int32)
    gt_segments: list[dict[str, Any]] = []
    if rng.random() < 0.95:
        _paint(gt_map, gt_segments, rng, label_space, int(rng.integers(1, 14)), crowd_share=0.3)
    pred_map, pred_segments = gt_map.copy(), [dict(s, iscrowd=0) for s in gt_segments]
    kind = rng.random()
    if kind < 0.1:
        pred_map, pred_segments = np.zeros(size, dtype=np.int32), []
    elif kind < 0.9:
        shift = tuple(int(step) for step in rng.integers(-2, 3, 2))
        pred_map = np.roll(pred_map, shift, (0, 1))
        _paint(pred_map, pred_segments, rng, label_space, int(rng.integers(0, 6)), crowd_share=0.0)
        pred_map[rng.random(size) < 0.05] = 0
    category_ids = [category.category_id for category in label_space.categories]
    for segment in pred_segments:
        if rng.random() < 0.15:
            segment["category_id"] = int(rng.choice(category_ids))
    return FuzzedImage(
        gt_map,
        pred_map,
        measured(gt_map, gt_segments),
        measured(pred_map, pred_segments),
    )


def _paint(
    id_map: NDArray[np.int32],
    segments: list[dict[str, Any]],
    rng: np.random.Generator,
    label_space: LabelSpace,
    count: int,
    crowd_share: float,
) -> None:
    height, width = id_map.shape
    for _ in range(count):
        top, left = int(rng.integers(0, height)), int(rng.integers(0, width))
        bottom, right = top + int(rng.integers(1, 16)), left + int(rng.integers(1, 16))
        segment_id = int(rng.choice([rng.integers(1, 300), rng.integers(1, 1 << 24)]))
        if rng.random() < 0.1:
            segment_id = (1 << 24) - 1
        if rng.random() < 0.15:
            id_map[top:bottom, left:right] = 0
            continue
        if rng.random() < 0.1:
            bottom, right = top + 1, left + 1
        id_map[top:bottom, left:right] = segment_id
        if segment_id in {segment["id"] for segment in segments}:
            continue
        category = label_space.categories[int(rng.integers(0, label_space.num_classes))]
        is_crowd = category.is_thing and rng.random() < crowd_share
        segments.append(
            {"id": segment_id, "category_id": category.category_id, "iscrowd": int(is_crowd)}
        )


def measured(id_map: NDArray[np.int32], segments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keeps the segments that have pixels, with their areas."""
    ids, counts = np.unique(id_map, return_counts=True)
    areas = dict(zip(ids.tolist(), counts.tolist()))
    return [dict(s, area=areas[s["id"]]) for s in segments if s["id"] in areas]


def to_table(segments: list[dict[str, Any]], label_space: LabelSpace) -> SegmentTable:
    return SegmentTable(
        np.array([s["id"] for s in segments], dtype=np.int64),
        np.array([label_space.train_id_of[s["category_id"]] for s in segments], dtype=np.int64),
        np.array([s["iscrowd"] == 1 for s in segments], dtype=bool),
        np.array([s["area"] for s in segments], dtype=np.int64),
    )


def write_id_png(id_map: NDArray[np.int32], path: Path) -> None:
    channels = [id_map & 255, id_map >> 8 & 255, id_map >> 16]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).save(path)


def categories_json(label_space: LabelSpace) -> list[dict[str, Any]]:
    return [
        {
            "id": category.category_id,
            "name": category.name,
            "isthing": int(category.is_thing),
            "color": list(category.color),
            "supercategory": "",
        }
        for category in label_space.categories
    ]
