"""Measures parts of the evaluator against other tools and writes a table of docs/benchmarks.md.

    pip install ".[bench]"
    python tools/measure/benchmark_evaluation.py --pairs 12 --rounds 5

draws street scenes, deforms their ground truth into predictions, and times each tool on the same
files, one core each, in turns. Tools that are not installed are left out. Times are medians over
the rounds, of the processor time of one pair; the quotients are what carries over to other
machines. Then the report of 500 images is written on all cores (the drawn pairs under many
image ids, every one pictured) and timed by the clock, and a JSON of 500 MB is opened.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before anything starts its threads: the comparison is per core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seamless_pr.datasets.cityscapes import panoptic_from_instance_ids
from seamless_pr.datasets.images import read_label_image
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.evaluation.evaluate import evaluate
from seamless_pr.evaluation.report import write_report
from seamless_pr.evaluation.results import evaluation_json
from seamless_pr.evaluation.sources import open_ground_truth, open_predictions
from seamless_pr.files import write_json
from seamless_pr.id_maps.id_png import decode_id_png, decode_id_runs
from seamless_pr.id_maps.id_png_files import read_id_png, write_id_png
from seamless_pr.metrics.panoptic_meter import PanopticQuality
from seamless_pr.street_scenes.dataset import write_street_scenes

ROOT = Path(__file__).resolve().parents[2]
STORED_RESULT = ROOT / "docs" / "results" / "evaluation_benchmark.json"
PAGE = ROOT / "docs" / "benchmarks.md"
MARK = "evaluation benchmark"
LABEL_SPACE = load_label_space("cityscapes")
# Twelve pixels of a deformation that varies over some hundred pixels: about PQ 60.
WARP_PIXELS, WARP_CELL_PIXELS = 12.0, 128
DROPPED_SHARE = 0.1


@dataclass(frozen=True)
class Pair:
    """One image: files, maps in memory, and the entries of the two JSON files."""

    gt_png: Path
    pred_png: Path
    gt: dict[str, Any]
    pred: dict[str, Any]

    @property
    def maps(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        return read_id_png(self.gt_png), read_id_png(self.pred_png)


@dataclass(frozen=True)
class Contestant:
    """One way to do a part of the work.

    Attributes:
        task: "maps in memory" or "decoding only"; from files to scores, see
            evaluation_processes.py.
        name: as in the table.
        run: does the task for all pairs.
        num_pairs: how many pairs it gets; slow tools get fewer.
    """

    task: str
    name: str
    run: Callable[[Sequence[Pair]], object]
    num_pairs: int | None = None


def draw_pairs(folder: Path, num_pairs: int, size: tuple[int, int]) -> list[Pair]:
    """Draws scenes, converts them and deforms the maps into predictions; writes PNGs and JSON."""
    write_street_scenes(folder, num_images={"val": num_pairs}, size=size, seed=0, progress=False)
    pairs = []
    for index, path in enumerate(sorted(folder.rglob("*_gtFine_instanceIds.png"))):
        id_map, records, _ = panoptic_from_instance_ids(read_label_image(path), str(path))
        category_of = {record.segment_id: record.category_id for record in records}
        crowd = {record.segment_id for record in records if record.is_crowd}
        pred_map = deform(id_map, np.random.default_rng(index))
        sides = []
        for side, side_map in (("gt", id_map), ("pred", pred_map)):
            write_id_png(folder / side / f"{index}.png", side_map)
            segments = []
            for segment_id, area in zip(*np.unique(side_map, return_counts=True)):
                if segment_id:
                    is_crowd = int(side == "gt" and int(segment_id) in crowd)
                    segments.append(
                        {
                            "id": int(segment_id),
                            "category_id": category_of[int(segment_id)],
                            "area": int(area),
                            "iscrowd": is_crowd,
                            "bbox": [0, 0, 1, 1],
                        }
                    )
            sides.append(
                {"image_id": index, "file_name": f"{index}.png", "segments_info": segments}
            )
        pngs = [folder / side / f"{index}.png" for side in ("gt", "pred")]
        pairs.append(Pair(pngs[0], pngs[1], sides[0], sides[1]))
    write_json(
        folder / "gt.json", {"annotations": [p.gt for p in pairs], "categories": categories()}
    )
    write_json(folder / "pred.json", {"annotations": [pair.pred for pair in pairs]})
    return pairs


def deform(id_map: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.int32]:
    """Moves borders smoothly and drops some segments."""
    height, width = id_map.shape
    cells = (height // WARP_CELL_PIXELS + 2, width // WARP_CELL_PIXELS + 2)
    shift = [
        cv2.resize(rng.uniform(-1, 1, cells).astype(np.float32), (width, height)) * WARP_PIXELS
        for _ in range(2)
    ]
    rows, columns = np.indices(id_map.shape, dtype=np.float32)
    rows = np.clip(np.rint(rows + shift[0]), 0, height - 1).astype(int)
    columns = np.clip(np.rint(columns + shift[1]), 0, width - 1).astype(int)
    moved = id_map[rows, columns]
    ids = np.unique(moved)
    dropped = ids[rng.random(len(ids)) < DROPPED_SHARE]
    return np.where(np.isin(moved, dropped), 0, moved).astype(np.int32)


def categories() -> list[dict[str, Any]]:
    return [
        {"id": category.category_id, "name": category.name, "isthing": int(category.is_thing)}
        for category in LABEL_SPACE.categories
    ]


def contestants(folder: Path) -> list[Contestant]:
    """Everything that is installed."""
    found = [
        Contestant("decoding only", "seamless_pr", decode_with(decode_id_png)),
        Contestant("decoding only", "seamless_pr, as runs", decode_with(decode_id_runs)),
        Contestant("decoding only", "Pillow", decode_with(pillow_decode)),
        Contestant("decoding only", "OpenCV", decode_with(opencv_decode)),
        Contestant("maps in memory", "seamless_pr", InMemory(ours_in_memory)),
    ]
    if importlib.util.find_spec("kornia_rs"):
        found.append(Contestant("decoding only", "kornia_rs", kornia_decode))
    if importlib.util.find_spec("vernier"):
        found.append(Contestant("maps in memory", "vernier", InMemory(vernier_in_memory)))
    if importlib.util.find_spec("torchmetrics"):
        found.append(
            Contestant("maps in memory", "torchmetrics", InMemory(torchmetrics_update), num_pairs=1)
        )
    if importlib.util.find_spec("panopticapi") and importlib.util.find_spec("detectron2"):
        route = InMemory(detectron2_route(folder))
        found.append(Contestant("maps in memory", "detectron2 (by COCO files)", route))
    return found


def ours(folder: Path) -> float | None:
    gt, pred = open_ground_truth(folder / "gt.json"), open_predictions(folder / "pred.json")
    return evaluate(gt, pred).panoptic.all.pq


def cityscapes_scripts(pairs: Sequence[Pair]) -> float:
    from cityscapesscripts.evaluation import evalPanopticSemanticLabeling as official

    return _official(official, pairs)


def _official(official: Any, pairs: Sequence[Pair]) -> float:
    annotations = [(json.loads(json.dumps(p.gt)), json.loads(json.dumps(p.pred))) for p in pairs]
    folders = [str(pairs[0].gt_png.parent), str(pairs[0].pred_png.parent)]
    by_id = {category["id"]: category for category in categories()}
    with contextlib.redirect_stdout(io.StringIO()):
        stats = official.pq_compute_single_core(0, annotations, *folders, by_id)
        return stats.pq_average(by_id, isthing=None)[0]["pq"]


def detectron2_route(folder: Path) -> Callable[[Sequence[tuple[Pair, Any, Any]]], float]:
    """Predicted maps in, PQ out, by its evaluator: it writes them as PNGs and calls panopticapi."""
    import torch
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import COCOPanopticEvaluator

    ids = {
        is_thing: {c["id"]: i for i, c in enumerate(categories()) if c["isthing"] == is_thing}
        for is_thing in (0, 1)
    }
    MetadataCatalog.get("benchmark").set(
        panoptic_root=str(folder / "gt"),
        panoptic_json=str(folder / "gt.json"),
        stuff_dataset_id_to_contiguous_id=ids[0],
        thing_dataset_id_to_contiguous_id=ids[1],
    )
    contiguous = {
        category: (index, bool(is_thing))
        for is_thing, indices in ids.items()
        for category, index in indices.items()
    }

    def run(loaded: Sequence[tuple[Pair, Any, Any]]) -> float:
        evaluator = COCOPanopticEvaluator("benchmark")
        evaluator.reset()
        for pair, _, pred_map in loaded:
            segments = []
            for segment in pair.pred["segments_info"]:
                index, is_thing = contiguous[segment["category_id"]]
                segments.append({"id": segment["id"], "category_id": index, "isthing": is_thing})
            record = {"image_id": pair.pred["image_id"], "file_name": pair.pred["file_name"]}
            evaluator.process([record], [{"panoptic_seg": (torch.from_numpy(pred_map), segments)}])
        return evaluator.evaluate()["panoptic_seg"]["PQ"] / 100

    return run


def decode_with(decode: Callable[[bytes], object]) -> Callable[[Sequence[Pair]], None]:
    def run(pairs: Sequence[Pair]) -> None:
        for pair in pairs:
            for path in (pair.gt_png, pair.pred_png):
                decode(path.read_bytes())

    return run


def pillow_decode(data: bytes) -> object:
    return np.asarray(Image.open(io.BytesIO(data)))


def opencv_decode(data: bytes) -> object:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def kornia_decode(pairs: Sequence[Pair]) -> None:
    from kornia_rs.io import read_image_png_u8

    for pair in pairs:
        for path in (pair.gt_png, pair.pred_png):
            read_image_png_u8(str(path), "rgb")


class InMemory:
    """Runs a function on decoded maps; decoding is done once, outside the measurement."""

    def __init__(self, function: Callable[[Sequence[tuple[Pair, Any, Any]]], object]) -> None:
        self.function = function
        self.loaded: list[tuple[Pair, Any, Any]] = []

    def prepare(self, pairs: Sequence[Pair]) -> None:
        self.loaded = [(pair, *pair.maps) for pair in pairs]

    def __call__(self, pairs: Sequence[Pair]) -> object:
        return self.function(self.loaded)


def ours_in_memory(loaded: Sequence[tuple[Pair, Any, Any]]) -> float | None:
    meter = PanopticQuality(LABEL_SPACE)
    for pair, gt_map, pred_map in loaded:
        gt, pred = (
            {s["id"]: LABEL_SPACE.train_id_of[s["category_id"]] for s in side["segments_info"]}
            for side in (pair.gt, pair.pred)
        )
        meter.update(gt_map, gt, pred_map, pred)
    return meter.compute().all.pq


def vernier_in_memory(loaded: Sequence[tuple[Pair, Any, Any]]) -> float:
    from vernier import panoptic

    def segments(side: str) -> bytes:
        return json.dumps(
            {str(i): getattr(pair, side)["segments_info"] for i, (pair, _, _) in enumerate(loaded)}
        ).encode()

    gt = panoptic.Dataset.from_arrays(
        {i: gt_map.view(np.uint32) for i, (_, gt_map, _) in enumerate(loaded)},
        segments("gt"),
        json.dumps(categories()).encode(),
    )
    pred = panoptic.Predictions.from_arrays(
        {i: pred_map.view(np.uint32) for i, (_, _, pred_map) in enumerate(loaded)}, segments("pred")
    )
    return panoptic.Evaluator(parity_mode="strict").evaluate(gt, pred, num_threads=1).pq


def torchmetrics_update(loaded: Sequence[tuple[Pair, Any, Any]]) -> None:
    import torch
    from torchmetrics.detection import ModifiedPanopticQuality

    metric = ModifiedPanopticQuality(
        things={c.category_id for c in LABEL_SPACE.categories if c.is_thing},
        stuffs={0} | {c.category_id for c in LABEL_SPACE.categories if not c.is_thing},
    )
    for pair, *maps in loaded:
        coloured = []
        for side, id_map in zip((pair.pred, pair.gt), maps[::-1]):
            classes = np.zeros(int(id_map.max()) + 1, np.int64)
            for segment in side["segments_info"]:
                classes[segment["id"]] = segment["category_id"]
            both = np.stack([classes[id_map], id_map.astype(np.int64)], axis=-1)
            coloured.append(torch.from_numpy(both)[None])
        metric.update(*coloured)


def measure(
    entrants: Sequence[Contestant], pairs: Sequence[Pair], num_rounds: int
) -> dict[str, list[float]]:
    """Seconds of processor time per pair, by "task: name", one value a round; tools take turns."""
    seconds: dict[str, list[float]] = {f"{e.task}: {e.name}": [] for e in entrants}
    for round_index in range(num_rounds + 1):
        for entrant in entrants:
            some = pairs[: entrant.num_pairs]
            if isinstance(entrant.run, InMemory) and not entrant.run.loaded:
                entrant.run.prepare(some)
            start = processor_seconds()
            entrant.run(some)
            spent = (processor_seconds() - start) / len(some)
            if round_index:  # the first round compiles and warms the file cache
                seconds[f"{entrant.task}: {entrant.name}"].append(spent)
    return seconds


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def time_report(folder: Path, pairs: Sequence[Pair], num_images: int) -> dict[str, Any]:
    """Writes the report of `num_images` images, the pairs again and again under other ids.

    Returns:
        seconds_of_evaluation, seconds_of_report (on all cores, by the clock), and
        first_page_megabytes.
    """
    photographs = sorted(folder.rglob("*_leftImg8bit.png"))
    images = [
        {"id": number, "file_name": photographs[number % len(pairs)].name}
        for number in range(num_images)
    ]
    for side in ("gt", "pred"):
        annotations = [
            {**getattr(pairs[number % len(pairs)], side), "image_id": number}
            for number in range(num_images)
        ]
        content = {"images": images, "annotations": annotations, "categories": categories()}
        write_json(folder / f"{side}_many.json", content)
    gt, pred = (
        open_ground_truth(folder / "gt_many.json", folder / "gt"),
        open_predictions(folder / "pred_many.json", folder / "pred"),
    )
    start = time.perf_counter()
    values = evaluation_json(evaluate(gt, pred, num_workers=None))
    evaluated = time.perf_counter()
    page = write_report(
        values,
        gt,
        pred,
        folder / "report",
        images=folder / "leftImg8bit",
        num_workers=None,
        # The worst case: every image is pictured.
        images_per_gallery=num_images,
    )
    return {
        "seconds_of_evaluation": round(evaluated - start, 1),
        "seconds_of_report": round(time.perf_counter() - evaluated, 1),
        "num_images": num_images,
        "num_cores": os.cpu_count(),
        "num_pictured": len(list((folder / "report" / "pictures").glob("*.js"))),
        "first_page_megabytes": round(page.stat().st_size / 1e6, 2),
    }


# Runs alone, so that its peak memory is that of opening the file.
OPEN_JSON = """
import resource, sys, time
from pathlib import Path
from seamless_pr.evaluation.sources import open_predictions
start = time.perf_counter()
source = open_predictions(Path(sys.argv[1]), Path(sys.argv[2]))
seconds = time.perf_counter() - start
print(len(source.maps), seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def measure_large_json(folder: Path, pairs: Sequence[Pair], megabytes: int) -> dict[str, Any]:
    """Opens predictions whose JSON has at least so many megabytes, in a process of its own.

    Returns:
        megabytes, num_images, seconds and peak_resident_gibibytes (of the whole process).
    """
    path, size, number = folder / "large.json", 0, 0
    with path.open("w", encoding="utf-8") as file:
        file.write('{"annotations": [')
        while size < megabytes * 1_000_000:
            annotation = {**pairs[number % len(pairs)].pred, "image_id": number}
            size += file.write((", " if number else "") + json.dumps(annotation))
            number += 1
        file.write("]}")
    command = [sys.executable, "-c", OPEN_JSON, str(path), str(folder / "pred")]
    words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    path.unlink()
    if int(words[0]) != number:
        raise RuntimeError(f"{words[0]} images were read of {number}")
    return {
        "megabytes": megabytes,
        "num_images": number,
        "seconds": round(float(words[1]), 1),
        "peak_resident_gibibytes": round(int(words[2]) / 2**20, 2),
    }


def result_json(seconds: dict[str, list[float]], options: argparse.Namespace) -> dict[str, Any]:
    packages = ["numpy", "numba", "deflate", "pillow", "opencv-python-headless", "kornia-rs"]
    packages += ["cityscapesscripts", "vernier", "torchmetrics", "panopticapi"]
    versions = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "size": options.size,
        "num_pairs": options.pairs,
        "num_rounds": options.rounds,
        "machine": platform.processor() or platform.machine(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": versions,
        "milliseconds_per_pair": {
            name: [round(1000 * value, 3) for value in values] for name, values in seconds.items()
        },
    }


def table(result: dict[str, Any]) -> str:
    """Markdown: medians, and how many times the time of this package each tool takes."""
    medians = {
        name: statistics.median(values) for name, values in result["milliseconds_per_pair"].items()
    }
    lines = ["| task | tool | ms per pair | times ours |", "|---|---|---:|---:|"]
    for name in sorted(medians, key=lambda key: (key.partition(": ")[0], medians[key])):
        task, _, tool = name.partition(": ")
        own = medians[f"{task}: seamless_pr"]
        lines.append(f"| {task} | {tool} | {medians[name]:.1f} | {medians[name] / own:.1f} |")
    report, large = result["report"], result["large_json"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines += [
        "",
        f"{result['num_pairs']} pairs of {result['size']} PNGs, one core, median processor time of "
        f"{result['num_rounds']} rounds; Python {result['python']}, {versions}. "
        f"Load of the machine during the run: {result['load_average']:.1f} "
        "(above 1 per core the absolute times are too long; the quotients hold better).",
        "",
        f"The report of {report['num_images']} images took {report['seconds_of_report']:.0f} s on "
        f"{report['num_cores']} cores besides {report['seconds_of_evaluation']:.0f} s of "
        f"evaluation; it pictured {report['num_pictured']} of them (by default it takes 6 of the "
        "worst and best of each class), and its first page has "
        f"{report['first_page_megabytes']:.2f} MB. A prediction JSON of {large['megabytes']} MB "
        f"({large['num_images']} images) opens in {large['seconds']:.0f} s, in a process of at "
        f"most {large['peak_resident_gibibytes']:.2f} GiB.",
    ]
    return "\n".join(lines)


def update_section(text: str, page: Path, mark: str = MARK) -> None:
    """Puts a text between the marks of that name; the page is made if there is none."""
    begin_mark, end_mark = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    section = f"{begin_mark}\n{text}\n{end_mark}"
    if not page.is_file():
        page.write_text(f"# Benchmarks\n\n## Evaluation\n\n{section}\n", encoding="utf-8")
        return
    content = page.read_text(encoding="utf-8")
    before, begin, rest = content.partition(begin_mark)
    _, end, after = rest.partition(end_mark)
    if begin and end:
        content = f"{before}{section}{after}"
    else:
        content = f"{content.rstrip()}\n\n## Evaluation\n\n{section}\n"
    page.write_text(content, encoding="utf-8")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=12, help="images (default: 12)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements (default: 5)")
    parser.add_argument("--size", default="1024x2048", help="HxW (default: 1024x2048)")
    parser.add_argument(
        "--report-images", type=int, default=500, help="images of the report (default: 500)"
    )
    parser.add_argument(
        "--json-megabytes", type=int, default=500, help="size of the large JSON (default: 500)"
    )
    parser.add_argument("--output", type=Path, default=STORED_RESULT, help="JSON of the result")
    parser.add_argument("--page", type=Path, default=PAGE, help="Markdown page of the table")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    height, _, width = options.size.partition("x")
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        pairs = draw_pairs(Path(folder), options.pairs, (int(height), int(width)))
        ours_pq, official_pq = ours(Path(folder)), cityscapes_scripts(pairs)
        if ours_pq is None or abs(ours_pq - official_pq) > 1e-12:
            print(f"error: PQ {ours_pq} differs from the official {official_pq}", file=sys.stderr)
            return 1
        result = result_json(measure(contestants(Path(folder)), pairs, options.rounds), options)
        result["report"] = time_report(Path(folder), pairs, options.report_images)
        result["large_json"] = measure_large_json(Path(folder), pairs, options.json_megabytes)
    write_json(options.output, {**result, "pq": ours_pq})
    update_section(table(result), options.page)
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
