"""Small datasets on disk, for tests of readers, converters and loaders."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from seamless_pr.datasets.coco_panoptic import write_panoptic_json
from seamless_pr.datasets.panoptic_records import (
    AnnotationRecord,
    ImageRecord,
    PanopticDataset,
    SegmentRecord,
)
from seamless_pr.id_maps.id_png_files import write_id_png
from seamless_pr.id_maps.segments import measure_segments
from seamless_pr.structures.label_space import Category

ROAD = Category(7, "road", False, (128, 64, 128), "flat")
SKY = Category(23, "sky", False, (70, 130, 180), "sky")
CAR = Category(26, "car", True, (0, 0, 142), "vehicle")
CATEGORIES = (ROAD, SKY, CAR)

# Evaluated and ignored labels, objects with gaps in their numbers, groups, and ignored objects.
INSTANCE_ID_VALUES = (
    0, 1, 3, 4, 7, 8, 9, 11, 17, 18, 21, 23, 24, 24000, 24001, 24007, 25000, 26, 26000, 26012,
    29, 29000, 30001, 31000, 32, 33000, 33999,
)  # fmt: skip


def random_instance_ids(seed: int, size: tuple[int, int] = (24, 48)) -> NDArray[np.uint16]:
    """A picture of overlapping rectangles with values as Cityscapes' `_instanceIds` has them."""
    rng = np.random.default_rng(seed)
    values = np.zeros(size, np.uint16)
    for _ in range(25):
        top, left = rng.integers(0, size[0]), rng.integers(0, size[1])
        height, width = rng.integers(1, size[0] // 2), rng.integers(1, size[1] // 2)
        values[top : top + height, left : left + width] = rng.choice(INSTANCE_ID_VALUES)
    return values


def write_cityscapes(root: Path, names: dict[str, tuple[str, ...]], *, images: bool = True) -> None:
    """Writes random annotations (and pictures) in the Cityscapes layout.

    Args:
        root: becomes the dataset's folder.
        names: split -> image ids `<city>_<sequence>_<frame>`.
        images: write leftImg8bit/ too.
    """
    seed = 0
    for split, image_ids in names.items():
        for image_id in image_ids:
            seed += 1
            city = image_id.split("_")[0]
            values = random_instance_ids(seed)
            write_png(root / "gtFine" / split / city / f"{image_id}_gtFine_instanceIds.png", values)
            if images:
                picture = np.random.default_rng(seed).integers(0, 256, (*values.shape, 3))
                write_png(
                    root / "leftImg8bit" / split / city / f"{image_id}_leftImg8bit.png",
                    picture.astype(np.uint8),
                )


def write_png(path: Path, pixels: NDArray[np.generic]) -> None:
    """Writes grey or BGR pixels, with their folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def panoptic_dataset(
    id_maps: dict[str, NDArray[np.int32]], category_of: dict[int, int]
) -> PanopticDataset:
    """Records that fit the given id maps exactly.

    Args:
        id_maps: image id -> [H, W].
        category_of: segment id -> category id of one of `CATEGORIES`.
    """
    images, annotations = [], []
    for image_id, id_map in id_maps.items():
        measures = measure_segments(id_map)
        segments = tuple(
            SegmentRecord(segment_id, category_of[segment_id], area, tuple(bbox))
            for segment_id, area, bbox in zip(
                measures.segment_ids.tolist(),
                measures.areas.tolist(),
                measures.boxes_xywh.tolist(),
            )
            if segment_id > 0
        )
        images.append(ImageRecord(image_id, f"{image_id}.png", *id_map.shape))
        annotations.append(AnnotationRecord(image_id, f"{image_id}.png", segments))
    return PanopticDataset(tuple(images), tuple(annotations), CATEGORIES)


def write_panoptic_dataset(
    folder: Path, id_maps: dict[str, NDArray[np.int32]], category_of: dict[int, int]
) -> Path:
    """Writes `panoptic.json`, `panoptic/` and random `images/`; returns the path of the JSON."""
    dataset = panoptic_dataset(id_maps, category_of)
    for seed, (image_id, id_map) in enumerate(id_maps.items()):
        write_id_png(folder / "panoptic" / f"{image_id}.png", id_map)
        picture = np.random.default_rng(seed).integers(0, 256, (*id_map.shape, 3))
        write_png(folder / "images" / f"{image_id}.png", picture.astype(np.uint8))
    write_panoptic_json(folder / "panoptic.json", dataset)
    return folder / "panoptic.json"
