"""Drawn street scenes with perfect ground truth, written in the Cityscapes folder layout.

    python -m seamless_pr.street_scenes.dataset --root R --train 400 --size 256x512 --seed 0

`--layout idd` (or vistas, ade20k ...) draws with the classes, and writes in the folders, of another
dataset. By default it makes `R/leftImg8bit/<split>/<city>/...` and `R/gtFine/<split>/<city>/...` as
the Cityscapes archives hold them, so that every tool for Cityscapes works on the result. Each image
is a function of (seed, split, index) alone: the number of workers, and an earlier run that was
stopped, change nothing. `--near` draws few and large objects.
"""

from __future__ import annotations

import argparse
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from seamless_pr.datasets.label_spaces import load_labels
from seamless_pr.files import write_whole
from seamless_pr.parallel import map_in_processes
from seamless_pr.street_scenes.camera import Array
from seamless_pr.street_scenes.cities import CITIES, city_style, near_style, scene_city
from seamless_pr.street_scenes.labelled import draw_labelled_scene
from seamless_pr.street_scenes.layout import lay_out_scene
from seamless_pr.street_scenes.layouts import LAYOUTS, Layout
from seamless_pr.street_scenes.painting import PaintedScene, PolygonObject, paint_scene

# Noisy images gain little from a search for repeats: run lengths take a fifth of the time.
PNG_OPTIONS = (
    cv2.IMWRITE_PNG_COMPRESSION,
    2,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_RLE,
    cv2.IMWRITE_PNG_FILTER,
    cv2.IMWRITE_PNG_FILTER_UP,
)
MIN_INSTANCES = 5
MIN_NEAR_INSTANCES = 2


@dataclass(frozen=True)
class ScenePaths:
    """The five files of one image."""

    image: Path
    label_ids: Path
    instance_ids: Path
    color: Path
    polygons: Path

    def are_complete(self) -> bool:
        # The polygons are written last, so they stand for the whole set.
        return all(
            path.is_file()
            for path in (self.polygons, self.image, self.label_ids, self.instance_ids, self.color)
        )


def scene_paths(root: str | os.PathLike[str], split: str, index: int) -> ScenePaths:
    """Where image `index` of a split lies, with Cityscapes' names."""
    city = scene_city(split, index)
    stem = f"{city}_{index // len(CITIES[split]):06d}_000019"
    image = Path(root) / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
    truth = Path(root) / "gtFine" / split / city
    return ScenePaths(
        image,
        truth / f"{stem}_gtFine_labelIds.png",
        truth / f"{stem}_gtFine_instanceIds.png",
        truth / f"{stem}_gtFine_color.png",
        truth / f"{stem}_gtFine_polygons.json",
    )


def draw_street_scene(
    seed: int,
    split: str,
    index: int,
    size: tuple[int, int] = (1024, 2048),
    *,
    near: bool = False,
) -> PaintedScene:
    """Draws one image with its ground truth.

    Args:
        seed: of the dataset.
        split: train, val or test; each has its own cities.
        index: number of the image, from 0.
        size: (height, width) in pixels.
        near: few and large objects, as seen through a longer lens.

    Returns:
        The painted scene; the same arguments give the same bytes.

    Raises:
        ValueError: unknown split or a size below 64 pixels.
    """
    if min(size) < 64:
        raise ValueError(f"size must be at least 64x64 pixels; got {size[0]}x{size[1]}")
    style = city_style(scene_city(split, index))
    style = near_style(style) if near else style
    least = MIN_NEAR_INSTANCES if near else MIN_INSTANCES
    sequence = np.random.SeedSequence([seed, zlib.crc32(split.encode()), index])
    while True:
        layout_rng, paint_rng = (np.random.default_rng(child) for child in sequence.spawn(2))
        scene = paint_scene(lay_out_scene(layout_rng, style, size), paint_rng)
        # About one street in a hundred is nearly empty; it is laid out anew.
        if scene.num_instances >= least:
            return scene


def write_street_scenes(
    root: str | os.PathLike[str],
    *,
    num_images: Mapping[str, int],
    size: tuple[int, int],
    seed: int,
    near: bool = False,
    workers: int = 1,
    progress: bool = True,
) -> int:
    """Writes a dataset in the Cityscapes layout; images that are complete already are skipped.

    Args:
        root: folder that receives leftImg8bit/ and gtFine/.
        num_images: split -> number of images.
        size: (height, width) in pixels.
        seed: of the dataset.
        near: see `draw_street_scene`.
        workers: processes.
        progress: show a progress bar.

    Returns:
        How many images were drawn now.

    Raises:
        ValueError: unknown split, negative number or too small a size.
    """
    for split, count in num_images.items():
        scene_city(split, 0)
        if count < 0:
            raise ValueError(f"number of images must not be negative; got {count} for '{split}'")
    jobs = [
        (str(root), split, index, size, seed, near)
        for split, count in num_images.items()
        for index in range(count)
        if not scene_paths(root, split, index).are_complete()
    ]
    drawn = map_in_processes(
        _write_one, jobs, num_workers=workers, title="street scenes", show_progress=progress
    )
    return sum(1 for _ in drawn)


def write_layout(
    layout: Layout,
    root: Path,
    *,
    num_images: Mapping[str, int],
    size: tuple[int, int],
    seed: int,
    workers: int = 1,
    show_progress: bool = True,
) -> None:
    """Writes a dataset in the folders of another one than Cityscapes; draws everything anew.

    Args:
        layout: one of `LAYOUTS`.
        root: folder of the dataset.
        num_images: split -> number of images.
        size: (height, width) in pixels.
        seed: of the dataset.
        workers: processes.
        show_progress: show a progress bar.
    """
    for split, count in num_images.items():
        entries = map_in_processes(
            partial(_write_labelled, layout=layout, root=root, split=split, size=size, seed=seed),
            range(count),
            num_workers=workers,
            title=f"street scenes, {split}",
            show_progress=show_progress,
        )
        layout.write_split(root, split, list(entries))


def _write_labelled(
    index: int, *, layout: Layout, root: Path, split: str, size: tuple[int, int], seed: int
) -> Any:
    scene = draw_labelled_scene(layout.vocabulary, seed, split, index, size)
    return layout.write_image(root, split, index, scene)


def _write_one(job: tuple[str, str, int, tuple[int, int], int, bool]) -> None:
    root, split, index, size, seed, near = job
    scene = draw_street_scene(seed, split, index, size, near=near)
    paths = scene_paths(root, split, index)
    _write_png(paths.image, cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR))
    _write_png(paths.label_ids, scene.label_ids)
    _write_png(paths.instance_ids, scene.instance_ids)
    _write_png(paths.color, _color_view(scene.label_ids))
    write_whole(paths.polygons, _polygons_json(scene.objects, size).encode())


def _write_png(path: Path, image: Array) -> None:
    encoded, data = cv2.imencode(".png", image, PNG_OPTIONS)
    if not encoded:
        raise OSError(f"cannot encode {path}: {image.dtype} of shape {image.shape}")
    write_whole(path, data.tobytes())


def _color_view(label_ids: Array) -> Array:
    """Class colours [H, W, 4], BGRA, as in gtFine's _color.png."""
    table = np.zeros((256, 4), np.uint8)
    table[:, 3] = 255
    for label in load_labels("cityscapes"):
        if label.label_id >= 0 and label.color is not None:
            table[label.label_id, :3] = label.color[::-1]
    # One 32-bit word a pixel: four times as fast as indexing rows of four bytes.
    return table.view(np.uint32)[:, 0][label_ids].view(np.uint8).reshape(*label_ids.shape, 4)


def _polygons_json(objects: Sequence[PolygonObject], size: tuple[int, int]) -> str:
    return json.dumps(
        {
            "imgHeight": size[0],
            "imgWidth": size[1],
            "objects": [
                {"label": item.label, "polygon": item.polygon.tolist()} for item in objects
            ],
        }
    )


def parse_size(text: str) -> tuple[int, int]:
    """'256x512' as (height, width)."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"size must be HEIGHTxWIDTH, as in 256x512; got '{text}'")
    return int(parts[0]), int(parts[1])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m seamless_pr.street_scenes.dataset",
        description="Draw street scenes with ground truth in the Cityscapes layout.",
    )
    parser.add_argument("--root", required=True, help="folder to write to")
    for split in CITIES:
        parser.add_argument(f"--{split}", type=int, default=0, help=f"images of split {split}")
    parser.add_argument(
        "--layout", choices=("cityscapes", *LAYOUTS), default="cityscapes", help="whose folders"
    )
    parser.add_argument("--size", type=parse_size, default=(256, 512), help="HEIGHTxWIDTH")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--near", action="store_true", help="few and large objects; for --layout cityscapes"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    num_images = {split: getattr(options, split) for split in CITIES if getattr(options, split)}
    if options.near and options.layout != "cityscapes":
        parser.error("--near is for --layout cityscapes; leave one of them out")
    if options.layout != "cityscapes":
        write_layout(
            LAYOUTS[options.layout],
            Path(options.root),
            num_images=num_images,
            size=options.size,
            seed=options.seed,
            workers=options.workers,
        )
        print(f"{sum(num_images.values())} images drawn in {options.root}")
        return
    drawn = write_street_scenes(
        options.root,
        num_images=num_images,
        size=options.size,
        seed=options.seed,
        near=options.near,
        workers=options.workers,
    )
    print(f"{drawn} images drawn, {sum(num_images.values()) - drawn} were there; in {options.root}")


if __name__ == "__main__":
    main()
