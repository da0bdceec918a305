"""A training run of seconds: random rectangles of 48x96 and a network of a few thousand weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from tests.support.panoptic_files import CAR, ROAD, SKY, write_panoptic_dataset

# Losses of a network with PointRend in both branches.
POINT_REND_LOSSES = (
    "rpn_objectness",
    "rpn_box",
    "box_class",
    "box_delta",
    "mask_coarse",
    "mask_point",
    "semantic",
    "semantic_point",
)

SIZE = (48, 96)
# Segment id -> class; each picture has sky, road and some of three cars.
CATEGORY_OF = {
    1: SKY.category_id,
    2: ROAD.category_id,
    **dict.fromkeys((3, 4, 5), CAR.category_id),
}


def random_street(seed: int) -> NDArray[np.int32]:
    """Sky above road, up to three cars (in every fourth picture none), a void stripe."""
    rng = np.random.default_rng(seed)
    height, width = SIZE
    id_map = np.full(SIZE, 1, np.int32)
    id_map[height // 2 :] = 2
    for segment_id in range(3, 3 + seed % 4):
        top, left = rng.integers(8, height - 16), rng.integers(0, width - 24)
        id_map[top : top + rng.integers(6, 16), left : left + rng.integers(8, 24)] = segment_id
    id_map[-2:] = 0
    return id_map


def write_tiny_data(folder: Path, num_train: int = 6, num_val: int = 2) -> None:
    """Writes train/ and val/ in the COCO panoptic format."""
    first = 0
    for part, count in {"train": num_train, "val": num_val}.items():
        id_maps = {f"{part}_{index}": random_street(first + index) for index in range(count)}
        write_panoptic_dataset(folder / part, id_maps, CATEGORY_OF)
        first += count


def write_tiny_scenes(folder: Path) -> dict[str, Path]:
    """The same in Cityscapes' layout; returns part -> its folder, which has that part alone."""
    write_tiny_data(folder / "made")
    folders = {part: folder / part for part in ("train", "val")}
    for part, scenes in folders.items():
        (scenes / "leftImg8bit").mkdir(parents=True)
        (scenes / "gtFine").mkdir()
        made, truth = folder / "made" / part, scenes / "gtFine" / f"cityscapes_panoptic_{part}"
        (made / "images").rename(scenes / "leftImg8bit" / part)
        (made / "panoptic.json").rename(truth.with_suffix(".json"))
        (made / "panoptic").rename(truth)
    return folders


def tiny_run_values(data: Path) -> dict[str, Any]:
    """The config as plain values: 6 steps of 4 images."""
    parts = {
        part: {
            "json": str(data / part / "panoptic.json"),
            "images": str(data / part / "images"),
            "segments": str(data / part / "panoptic"),
        }
        for part in ("train", "val")
    }
    return {
        "model": {
            "kind": "two_branch",
            "backbone": {"name": "resnet18", "options": {"channels": [8, 8, 16, 16]}},
            "neck": {"channels": 8},
            "instances": {
                "kind": "point_rend",
                "rpn": {
                    "anchor_scale": 2.0,
                    "pre_nms_train": 100,
                    "post_nms_train": 40,
                    "pre_nms_test": 50,
                    "post_nms_test": 10,
                },
                "box": {"hidden_channels": 16, "num_samples": 16},
                "mask": {"hidden_channels": 16},
                "points": {"hidden_channels": 8, "output_size": 56, "num_train_points": 40},
            },
            "semantics": {
                "kind": "mini_dl",
                "hidden_channels": 8,
                "points": {"hidden_channels": 8},
            },
        },
        "data": {
            "label_space": "json",
            **parts,
            "shortest_side_pixels": SIZE[0],
            "longest_side_pixels": 2 * SIZE[1],
            "scale_range": [0.8, 1.2],
            "batch_size": 4,
            "num_workers": 0,
        },
        "loss_weights": dict.fromkeys(POINT_REND_LOSSES, 1.0),
        "optimizer": {"lr": 0.01, "clip_grad_norm": 10.0},
        "schedule": {"kind": "poly", "warmup_steps": 2},
        "training": {
            "steps": 6,
            "log_interval_steps": 1,
            "checkpoint_interval_steps": 2,
            "evaluation_interval_steps": 0,
        },
    }


def write_tiny_run(folder: Path) -> Path:
    """Writes the data and config.yaml; returns the path of the config."""
    write_tiny_data(folder / "data")
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tiny_run_values(folder / "data")))
    return path
