"""Draws a sheet of street scenes beside their ground truth: python tools/measure/contact_sheet.py.

With --weights a network's panoptic map stands between the image and the ground truth.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from seamless_pr.build.predictor import load_predictor
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.drawing.panoptic import draw_panoptic
from seamless_pr.files import write_picture
from seamless_pr.street_scenes.dataset import draw_street_scene, parse_size
from seamless_pr.street_scenes.painting import PaintedScene
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "docs" / "images" / "street_scenes.png"
FIRST_INSTANCE_ID = 1000
GAP_PIXELS = 6
BACKGROUND = 255
# Day and evening, sun and cloud, trams, buses, two-wheelers and crowded sidewalks.
DEFAULT_INDICES = [2, 11, 8, 9, 3, 22, 21, 12]


def ground_truth(scene: PaintedScene, label_space: LabelSpace) -> PanopticSegmentation:
    """The panoptic map of a scene; ignored labels are void, things below 1000 crowd."""
    segments = []
    for value, area in zip(*np.unique(scene.instance_ids, return_counts=True)):
        category_id = int(value) // 1000 if value >= FIRST_INSTANCE_ID else int(value)
        train_id = label_space.train_id_of.get(category_id)
        if train_id is not None:
            is_crowd = label_space.is_thing(train_id) and value < FIRST_INSTANCE_ID
            segments.append(Segment(int(value), train_id, int(area), is_crowd=is_crowd))
    kept = [segment.segment_id for segment in segments]
    ids = np.where(np.isin(scene.instance_ids, kept), scene.instance_ids, 0).astype(np.int32)
    return PanopticSegmentation(torch.from_numpy(ids), tuple(segments), label_space)


def draw_row(
    scene: PaintedScene,
    label_space: LabelSpace,
    width: int,
    predict: Callable[[np.ndarray], PanopticSegmentation] | None = None,
) -> np.ndarray:
    """Image, prediction if wanted, and ground truth beside each other, each `width` wide."""
    height, full_width = scene.label_ids.shape
    shape = (width, round(height * width / full_width))
    maps = [predict(scene.image)] if predict else []
    maps.append(ground_truth(scene, label_space))
    pictures = [draw_panoptic(scene.image, found, alpha=0.8, legend=False) for found in maps]
    gap = np.full((shape[1], GAP_PIXELS // 3, 3), BACKGROUND, np.uint8)
    panels = []
    for picture in (scene.image, *pictures):
        panels += [gap, cv2.resize(picture, shape, interpolation=cv2.INTER_AREA)]
    return np.concatenate(panels[1:], 1)


def draw_sheet(
    indices: list[int],
    *,
    split: str,
    seed: int,
    size: tuple[int, int],
    columns: int,
    width: int,
    predict: Callable[[np.ndarray], PanopticSegmentation] | None = None,
) -> np.ndarray:
    """Scenes and their maps in `columns` columns, [H, W, 3] uint8 RGB."""
    label_space = load_label_space("cityscapes")
    cells = [
        draw_row(draw_street_scene(seed, split, index, size), label_space, width, predict)
        for index in indices
    ]
    cell_height, cell_width = cells[0].shape[:2]
    rows = -(-len(cells) // columns)
    sheet = np.full(
        (
            rows * (cell_height + GAP_PIXELS) - GAP_PIXELS,
            columns * (cell_width + GAP_PIXELS) - GAP_PIXELS,
            3,
        ),
        BACKGROUND,
        np.uint8,
    )
    for position, cell in enumerate(cells):
        top = position // columns * (cell_height + GAP_PIXELS)
        left = position % columns * (cell_width + GAP_PIXELS)
        sheet[top : top + cell_height, left : left + cell_width] = cell
    return sheet


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--split", default="val")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--size", type=parse_size, default=(512, 1024), help="drawn at HEIGHTxWIDTH"
    )
    parser.add_argument("--width", type=int, default=330, help="pixels of one panel")
    parser.add_argument("--columns", type=int, default=2, help="scenes in a row")
    parser.add_argument("--weights", type=Path, help="checkpoint whose maps are drawn too")
    parser.add_argument("indices", type=int, nargs="*", default=DEFAULT_INDICES)
    options = parser.parse_args(arguments)
    sheet = draw_sheet(
        options.indices,
        split=options.split,
        seed=options.seed,
        size=options.size,
        columns=options.columns,
        width=options.width,
        predict=load_predictor(options.weights) if options.weights else None,
    )
    write_picture(options.output, sheet)
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
