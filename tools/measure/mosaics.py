"""What tiles change, and what large mosaics need.

  python tools/measure/mosaics.py seams              drawn panoramas: tiles beside the whole image
  python tools/measure/mosaics.py memory --side 20000    a drawn mosaic in tiles: memory and time

Both add what they measured to docs/results/mosaics.json, of which docs/benchmarks.md has the
section. The mosaic is made of drawn scenes, side
by side, as a GeoTIFF in a temporary folder; it is read in windows and labelled in strips.

exit codes: 0 measured; 1 the message says why not; 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import Tensor

from seamless_pr.build.predictor import load_predictor
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.files import write_json, write_whole
from seamless_pr.inference.folders import predict_folder
from seamless_pr.inference.image_list import list_images
from seamless_pr.inference.mosaic_folder import label_mosaics
from seamless_pr.inference.predictor import Predictor
from seamless_pr.inference.tile_grid import Tiling
from seamless_pr.inference.tiled_predictor import TiledPredictor
from seamless_pr.street_scenes.dataset import draw_street_scene
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation
from tools.measure.results_table import replace_between_marks

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "checkpoints" / "street_scenes_256x512.safetensors"
RESULTS = ROOT / "docs" / "results" / "mosaics.json"
PAGE = ROOT / "docs" / "benchmarks.md"
MARKS = ("<!-- mosaics -->", "<!-- /mosaics -->")
# Of the scenes; the shipped network was trained on such.
SCENE = (256, 512)
NUM_SCENES = 12
# What tests hold tiles to, in the terms of `agreement`: of each panorama, and of all together.
LEAST = {"pixels": 0.7, "things": 0.75}
MEAN = {"pixels": 0.85, "things": 0.8}
# By how much fewer pixels of a panorama may be right in tiles than whole.
LESS_RIGHT = 0.02
# Side of the blocks of the GeoTIFF.
BLOCK = 256


def agreement(first: PanopticSegmentation, second: PanopticSegmentation) -> dict[str, float]:
    """How far two maps of an image say the same.

    Returns:
        pixels: share with the same class; things: share of objects that have a partner (twice the
        pairs of one class with an IoU above 0.5, over the objects of both).
    """
    space = first.label_space
    same = float((first.semantic_map() == second.semantic_map()).float().mean())
    things = [
        {s.segment_id: s for s in each.segments if space.is_thing(s.train_id) and s.area}
        for each in (first, second)
    ]
    ids = torch.stack([first.id_map.flatten(), second.id_map.flatten()])
    pairs, counts = ids.unique(dim=1, return_counts=True)
    num_pairs = 0
    for (ours, theirs), common in zip(pairs.t().tolist(), counts.tolist(), strict=True):
        one, other = things[0].get(ours), things[1].get(theirs)
        if one is not None and other is not None and one.train_id == other.train_id:
            num_pairs += common > 0.5 * (one.area + other.area - common)
    total = len(things[0]) + len(things[1])
    return {"pixels": same, "things": 2 * num_pairs / total if total else 1.0}


def measure_seams(
    predictor: Predictor, size: tuple[int, int], tiling: Tiling, num_images: int
) -> dict[str, Any]:
    """Panoramas in tiles beside the same ones seen whole, and both beside the truth."""
    truth_space = load_label_space("cityscapes")
    by_category = {c.category_id: index for index, c in enumerate(truth_space.categories)}
    table = torch.full((256,), -1, dtype=torch.int64)
    for category_id, train_id in by_category.items():
        table[category_id] = train_id
    tiled_predictor = TiledPredictor(predictor, tiling)
    rows = []
    for index in range(num_images):
        scene = draw_street_scene(0, "val", index, size)
        whole, tiled = (each(scene.image) for each in (predictor, tiled_predictor))
        truth = table[torch.from_numpy(scene.label_ids.astype(np.int64)).clamp(0, 255)]
        rows.append(
            {
                **agreement(whole, tiled),
                "whole_right": _right(whole, truth),
                "tiled_right": _right(tiled, truth),
            }
        )
        print(f"panorama {index}: {rows[-1]}", flush=True)
    return {
        "image_size": list(size),
        "tile": tiling.size,
        "overlap": tiling.overlap,
        "num_images": num_images,
        "mean": {key: float(np.mean([row[key] for row in rows])) for key in rows[0]},
        "least": {key: float(np.min([row[key] for row in rows])) for key in rows[0]},
    }


def _right(segmentation: PanopticSegmentation, truth: Tensor) -> float:
    """Share of the pixels of known class that have it."""
    known = truth >= 0
    return float((segmentation.semantic_map() == truth)[known].float().mean())


def write_mosaic(path: Path, side: int) -> None:
    """Drawn scenes side by side, every row of them shifted, as a GeoTIFF of `side` x `side`."""
    import rasterio
    from rasterio.windows import Window

    scenes = [draw_street_scene(0, "val", i, SCENE).image for i in range(NUM_SCENES)]
    height, width = SCENE
    with rasterio.open(
        path, "w", driver="GTiff", height=side, width=side, count=3, dtype="uint8", tiled=True,
        blockxsize=BLOCK, blockysize=BLOCK, compress="deflate", zlevel=1, bigtiff="if_safer",
    ) as file:  # fmt: skip
        for row, top in enumerate(range(0, side, height)):
            line = [scenes[(row * 5 + i) % NUM_SCENES] for i in range(-(-side // width))]
            pixels = np.concatenate(line, axis=1)[: side - top, :side]
            window = Window(0, top, side, len(pixels))  # type: ignore[no-untyped-call]
            file.write(pixels.transpose(2, 0, 1), window=window)


def measure_memory(predictor: Predictor, side: int, tiling: Tiling) -> dict[str, Any]:
    """Labels a drawn mosaic into a temporary folder; memory is that of the whole process."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "mosaic.tif"
        write_mosaic(path, side)
        before = _peak_bytes()
        started, processor = time.perf_counter(), time.process_time()
        label = partial(label_mosaics, predictor, tiling=tiling)
        summary = predict_folder(predictor, list_images(str(path)), Path(name) / "out", label=label)
        if summary.failures:
            raise RuntimeError(f"the mosaic was not labelled: {summary.failures[0][1]}")
        seconds = time.perf_counter() - started
        (annotation,) = json.loads((Path(name) / "out" / "panoptic.json").read_text())[
            "annotations"
        ]
        return {
            "side": side,
            "tile": tiling.size,
            "overlap": tiling.overlap,
            "threads": torch.get_num_threads(),
            "amp": predictor.amp,
            "peak_bytes": _peak_bytes(),
            "peak_bytes_before": before,
            "seconds": seconds,
            "processor_seconds": time.process_time() - processor,
            "num_segments": len(annotation["segments_info"]),
        }


def section(results: dict[str, Any]) -> str:
    """What was measured so far, in sentences."""
    seams, memory = results.get("seams"), results.get("memory")
    parts = []
    if seams:
        mean, least = seams["mean"], seams["least"]
        height, width = seams["image_size"]
        parts.append(
            f"The shipped checkpoint on {seams['num_images']} drawn panoramas of {height}x{width}, "
            f"whole and in tiles of {seams['tile']} that overlap by {seams['overlap']}: both say "
            f"the same class of {mean['pixels']:.0%} of the pixels (least {least['pixels']:.0%}), "
            f"and {mean['things']:.0%} of the objects have a partner in the other map (least "
            f"{least['things']:.0%}). In tiles {mean['tiled_right']:.0%} of the pixels are right, "
            f"whole {mean['whole_right']:.0%}: panoramas are wider than what it was trained on. "
            f"Tests allow as little as {LEAST['pixels']:.0%} of the pixels and "
            f"{LEAST['things']:.0%} of the objects of a panorama, {MEAN['pixels']:.0%} and "
            f"{MEAN['things']:.0%} of all together, and no more than {LESS_RIGHT:.0%} of the "
            "pixels less right in tiles."
        )
    if memory:
        side, peak = memory["side"], memory["peak_bytes"] / 2**30
        threads = "1 thread" if memory["threads"] == 1 else f"{memory['threads']} threads"
        parts.append(
            f"A drawn mosaic of {side:,} x {side:,} in tiles of {memory['tile']}: at most "
            f"{peak:.2f} GiB of memory, {memory['seconds'] / 60:.0f} minutes on {threads}"
            f"{' in bf16' if memory['amp'] == 'bf16' else ''}."
        )
    else:
        parts.append("Large mosaics: not measured yet, `python tools/measure/mosaics.py memory`.")
    return "\n\n".join(parts)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def write_page(results: dict[str, Any]) -> None:
    page = replace_between_marks(PAGE.read_text(encoding="utf-8"), section(results), *MARKS)
    write_whole(PAGE, page.encode())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("seams", "memory"))
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--side", type=int, default=20_000, help="of the mosaic, in pixels")
    parser.add_argument("--tile", type=int, help="(default: 256 for seams, 1024 for memory)")
    parser.add_argument("--overlap", type=int, help="(default: a quarter of the tile)")
    parser.add_argument("--images", type=int, default=10, help="panoramas (default: 10)")
    parser.add_argument("--threads", type=int, default=1, help="of the network (default: 1)")
    parser.add_argument("--amp", choices=("none", "bf16"), default="none", help="as of predict")
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    tile = options.tile or (256 if options.what == "seams" else 1024)
    try:
        tiling = Tiling.of(tile, options.overlap)
        predictor = load_predictor(options.weights, "cpu", amp=options.amp)
        if options.what == "seams":
            found = measure_seams(predictor, (256, 1024), tiling, options.images)
        else:
            found = measure_memory(predictor, options.side, tiling)
    except (OSError, ValueError, RuntimeError, ModuleNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    results = json.loads(options.json.read_text()) if options.json.exists() else {}
    results[options.what] = found
    write_json(options.json, results)
    if options.json == RESULTS:
        write_page(results)
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
