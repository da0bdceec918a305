"""Magnifies places of validation images: the image, the truth and the maps of several networks.

example, the places where switching semantic points off changes most classes, one an image (runs of
tools/measure/compare_systems.py):
  RUNS=runs/compare_systems/semantic_points
  python tools/measure/zoom_sheet.py --config $RUNS/pixels_seed0.yaml \\
      "bilinear=$RUNS/pixels_off_seed0" "points=$RUNS/pixels_seed0" \\
      --differing 4 --output docs/images/semantic_points.jpg
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from seamless_pr.build.configs import load_config
from seamless_pr.build.predictor import load_predictor
from seamless_pr.build.runs import build_images, build_label_space
from seamless_pr.datasets.loader import PanopticImages
from seamless_pr.drawing.panoptic import Picture, draw_grid, draw_panoptic
from seamless_pr.files import write_picture
from seamless_pr.inference.predictor import Predictor
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment
from seamless_pr.structures.panoptic_target import PanopticTarget

Place = tuple[str, int, int]
TRUTH = "truth"


def parse_weights(argument: str) -> tuple[str, Path]:
    name, separator, path = argument.partition("=")
    if not separator or not name or not path:
        raise argparse.ArgumentTypeError(f"expected NAME=weights or run folder, got '{argument}'")
    return name, Path(path)


def magnify(values: Tensor, zoom: int) -> Tensor:
    """[..., H, W] -> [..., zoom H, zoom W]; each pixel becomes a square, so that steps show."""
    return values.repeat_interleave(zoom, -2).repeat_interleave(zoom, -1)


def as_segmentation(target: PanopticTarget) -> PanopticSegmentation:
    """Ground truth in the form of a prediction."""
    areas = torch.bincount(target.id_map.flatten().long(), minlength=target.num_segments + 1)
    segments = tuple(
        Segment(index + 1, int(train_id), int(areas[index + 1]), is_crowd=bool(is_crowd))
        for index, (train_id, is_crowd) in enumerate(zip(target.train_ids, target.is_crowd))
    )
    return PanopticSegmentation(target.id_map, segments, target.label_space)


def draw_place(
    image: Tensor,
    maps: Mapping[str, PanopticSegmentation],
    corner: tuple[int, int],
    size: tuple[int, int],
    zoom: int,
) -> dict[str, Picture]:
    """Title -> magnified window.

    Args:
        image: [3, H, W] uint8.
        maps: title -> map of the whole image.
        corner, size: (top, left) and (height, width) of the window.
        zoom: side of a magnified pixel.
    """
    window = (
        slice(corner[0], corner[0] + size[0]),
        slice(corner[1], corner[1] + size[1]),
    )
    pixels = magnify(image[(slice(None), *window)], zoom)
    panels = {"image": np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())}
    for title, found in maps.items():
        shown = PanopticSegmentation(
            magnify(found.id_map[window], zoom), found.segments, found.label_space
        )
        panels[title] = draw_panoptic(pixels, shown, alpha=0.75, legend=False)
    return panels


def differing_places(
    images: PanopticImages, first: Predictor, second: Predictor, size: tuple[int, int], count: int
) -> list[Place]:
    """Where two networks differ in the classes of most pixels; the first place differs most.

    Args:
        images: each gives one place at most.
        first, second: of one label space.
        size: (height, width) of a place, on a grid of such; borders that fill none are left out.
        count: places at most.
    """
    found: list[tuple[float, Place]] = []
    for index, annotation in enumerate(images.annotations):
        image = images[index][0]
        maps = (predictor(image).semantic_map() for predictor in (first, second))
        differs = torch.ne(*maps).float()
        shares = avg_pool2d(differs[None], size)[0]
        place = int(shares.argmax())
        row, column = divmod(place, shares.shape[1])
        corner = (row * size[0], column * size[1])
        found.append((float(shares.flatten()[place]), (str(annotation.image_id), *corner)))
    return [place for share, place in sorted(found, reverse=True)[:count] if share]


def draw_sheet(
    images: PanopticImages,
    predictors: Mapping[str, Predictor],
    places: Sequence[Place],
    size: tuple[int, int],
    zoom: int,
) -> Picture:
    """A row of panels for each place, the first with titles.

    Raises:
        ValueError: an image id that is not there, or a window that leaves its image.
    """
    index_of = {str(annotation.image_id): i for i, annotation in enumerate(images.annotations)}
    rows = []
    for image_id, top, left in places:
        if image_id not in index_of:
            raise ValueError(f"no image '{image_id}'; there are {', '.join(list(index_of)[:3])}, …")
        image, target = images[index_of[image_id]]
        height, width = target.image_size
        if not (0 <= top <= height - size[0] and 0 <= left <= width - size[1]):
            raise ValueError(
                f"a window of {size} (height, width) at {top}, {left} leaves the image "
                f"'{image_id}' of {(height, width)}"
            )
        maps = {name: predictor(image) for name, predictor in predictors.items()}
        maps[TRUTH] = as_segmentation(target)
        rows.append(draw_grid(draw_place(image, maps, (top, left), size, zoom)))
    return np.concatenate(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    first, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("weights", nargs="+", type=parse_weights, metavar="NAME=W")
    add("--config", required=True, metavar="YAML", help="its validation images are shown")
    add("--place", nargs=3, action="append", default=[], metavar=("ID", "TOP", "LEFT"))
    add(
        "--differing",
        type=int,
        default=0,
        metavar="N",
        help="also so many places where the first two networks differ most",
    )
    add("--size", nargs=2, type=int, default=(64, 80), metavar=("HEIGHT", "WIDTH"))
    add("--zoom", type=int, default=3, help="side of a magnified pixel (default: 3)")
    add("--output", type=Path, required=True, metavar="PNG")
    options = parser.parse_args(arguments)
    if not options.place and not options.differing:
        parser.error("give places, by --place or --differing")
    if options.differing and len(options.weights) < 2:
        parser.error("--differing compares two networks")
    try:
        config = load_config(options.config)
        images = build_images(config, build_label_space(config), is_training=False)
        predictors = {name: load_predictor(path) for name, path in options.weights}
        places = [(image_id, int(top), int(left)) for image_id, top, left in options.place]
        height, width = options.size
        if options.differing:
            first, second, *_ = predictors.values()
            size = (height, width)
            places += differing_places(images, first, second, size, options.differing)
        for place in places:
            print(*place)
        sheet = draw_sheet(images, predictors, places, (height, width), options.zoom)
        write_picture(options.output, sheet)
    except (OSError, ValueError) as error:
        print(f"zoom_sheet: {error}", file=sys.stderr)
        return 1
    print(f"{options.output}: {options.output.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
