"""Which form of semantic points pays? Many point heads on the frozen network of one checkpoint.

Features and coarse logits of the network are computed once. Every form of point head is then
trained on them alone, from new weights, on the same images in the same order, and judged on scenes
that no training saw: semantic maps out of logits that are upsampled bilinearly, against logits
refined at 1, 4 and 16 times as many points a step as the paper takes (the cells of a stride-16
map). Where the point loss also trains what the points read, tools/measure/compare_systems.py
semantic_points compares.

example, 18 processor minutes (docs/results.md has the outcome, and how the scenes are made):
  nice python tools/measure/semantic_point_forms.py --jobs 2 --write docs/results.md \\
      --json docs/results/semantic_point_forms.json

The same command goes on after an interruption: what is computed and judged is kept in OUTPUT,
1.2 GB. PQ and PQ† are those of stuff, as the fusion leaves it where it finds no object: classes
below its limit of area are void.

exit codes: 0 measured; 1 the message says why not; 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import Tensor

from seamless_pr.files import write_json
from seamless_pr.id_maps.overlap import count_overlap
from seamless_pr.layers.point_head import PointHead
from seamless_pr.metrics.boundary import (
    BoundaryIoUCounts,
    compute_boundary_iou,
    count_boundary_iou,
    count_trimaps,
)
from seamless_pr.metrics.panoptic_quality import PQCounts, compute_panoptic_scores
from seamless_pr.metrics.segment_table import SegmentTable
from seamless_pr.metrics.semantic_iou import (
    ConfusionCounts,
    compute_semantic_scores,
    count_confusion,
)
from seamless_pr.metrics.semantic_pq import count_as_stuff
from seamless_pr.models.semantics.points import (
    refine_semantic_logits,
    semantic_point_loss,
    stride_16_cells,
)
from seamless_pr.ops.resize import upsample_logits
from seamless_pr.parallel import map_in_processes
from seamless_pr.structures.settings import SemanticPointSettings
from tools.measure.frozen_network import BATCH_SIZE, Cache, make_cache
from tools.measure.results_table import cell, markdown_table, percent, replace_between_marks
from tools.measure.system_runs import BOUNDARY_RATIO, TRIMAP_PIXELS

BEGIN, END = "<!-- semantic point forms -->", "<!-- /semantic point forms -->"
CACHE = "seen.pt"
# As the small networks train.
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.05
# N is the paper's number of points.
POINT_FACTORS = (1, 4, 16)
OFF = "no points"
PIXELS = {"residual": True, "pixel_window": 5}
FORMS: dict[str, dict[str, Any]] = {
    "as published": {},
    "coarse logits at each layer": {"coarse_each_layer": True},
    "loss of the hardest quarter": {"hard_point_fraction": 0.25},
    "uncertainty in probabilities": {"uncertainty": "probabilities"},
    "corrections": {"residual": True},
    "corrections from 5x5 pixels": PIXELS,
    "these, coarse logits at each layer": {**PIXELS, "coarse_each_layer": True},
}
# Form -> what changes at prediction, with the same weights.
SURER = {"only_where_surer": True}
ALSO_JUDGED = {
    "as published": {"published where surer": SURER},
    "corrections from 5x5 pixels": {"these where surer": SURER},
}
METRICS = (
    "PQ stuff",
    "PQ† stuff",
    "mIoU",
    *(f"trimap {w} px" for w in TRIMAP_PIXELS),
    "Boundary IoU",
)

Scores = dict[str, float]


def train_head(cache: Cache, settings: SemanticPointSettings, seed: int, steps: int) -> PointHead:
    """A point head of this form, trained on what was cached."""
    torch.manual_seed(seed)
    head = PointHead(
        cache.train[0].fine.shape[1] + 3 * settings.pixel_window**2,
        cache.train[0].coarse.shape[1],
        hidden_channels=settings.hidden_channels,
        num_layers=settings.num_layers,
        coarse_each_layer=settings.coarse_each_layer,
        residual=settings.residual,
    )
    optimizer = torch.optim.AdamW(head.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generators = [torch.Generator().manual_seed(seed + i) for i in range(BATCH_SIZE)]
    for index in torch.randint(len(cache.train), (steps,)).tolist():
        seen = cache.train[index]
        loss = semantic_point_loss(
            head,
            seen.fine.float(),
            seen.coarse.float(),
            [target.semantic_map for target in seen.targets],
            seen.size,
            settings,
            generators,
            seen.images,
        )["semantic_point"]
        optimizer.zero_grad()
        (loss.total / max(loss.count, 1)).backward()
        optimizer.step()
        schedule.step()
    return head.eval()


def class_maps(
    cache: Cache, head: PointHead | None, settings: SemanticPointSettings, factor: int
) -> Iterator[Tensor]:
    """[H, W] classes of each held-out image; without a head, logits are upsampled bilinearly."""
    for seen in cache.val:
        if head is None:
            logits = upsample_logits(seen.coarse, seen.size)
        else:
            points = replace(settings, subdivision_points=factor * stride_16_cells(seen.size))
            logits = refine_semantic_logits(
                head, seen.fine, seen.coarse, seen.size, points, seen.images
            )
        yield logits[0].argmax(0)


def semantic_scores(cache: Cache, maps: Iterable[Tensor]) -> Scores:
    """Scores of class maps of the held-out images, in [0, 1]."""
    space = cache.val[0].targets[0].label_space
    num_classes = space.num_classes
    labels = torch.arange(1, num_classes + 1)
    pred = SegmentTable(labels.numpy(), labels.numpy() - 1, np.zeros(num_classes, dtype=bool))
    pq, bands = PQCounts.zeros(num_classes), BoundaryIoUCounts.zeros(num_classes)
    confusion = [ConfusionCounts.zeros(num_classes)] * (1 + len(TRIMAP_PIXELS))
    for seen, class_map in zip(cache.val, maps, strict=True):
        (target,) = seen.targets
        areas = torch.bincount(class_map.flatten(), minlength=num_classes)
        is_void = (labels <= space.num_stuff) & (areas < cache.min_stuff_area)
        pred_map = labels.masked_fill(is_void, 0)[class_map].numpy().astype(np.uint32)
        gt_map = target.id_map.numpy().astype(np.uint32)
        gt_ids = np.arange(1, target.num_segments + 1)
        gt = SegmentTable(gt_ids, target.train_ids.numpy(), target.is_crowd.numpy())
        overlap = count_overlap(gt_map, pred_map)
        pq += count_as_stuff(overlap, gt, pred, num_classes)
        bands += count_boundary_iou(gt_map, pred_map, gt, pred, num_classes, BOUNDARY_RATIO)
        counts = [count_confusion(overlap, gt, pred, num_classes)]
        counts += count_trimaps(gt_map, pred_map, gt, pred, num_classes, TRIMAP_PIXELS)
        confusion = [a + b for a, b in zip(confusion, counts, strict=True)]
    stuff = compute_panoptic_scores(pq, space.num_stuff).stuff
    found = [stuff.pq, stuff.pq_dagger]
    found += [compute_semantic_scores(counts).mean_iou for counts in confusion]
    found.append(statistics.fmean(iou for iou in compute_boundary_iou(bands) if iou is not None))
    return {name: float(value or 0.0) for name, value in zip(METRICS, found, strict=True)}


def judge(task: tuple[str, int], options: argparse.Namespace) -> None:
    """Trains one form from one seed and writes the scores of each number of points."""
    form, seed = task
    if result_file(form, seed, options).exists():
        return
    cache = torch.load(options.output / CACHE, mmap=True, weights_only=False)
    settings = SemanticPointSettings(hidden_channels=cache.hidden_channels, **FORMS.get(form, {}))
    if form == OFF:
        results = {OFF: semantic_scores(cache, class_maps(cache, None, settings, 0))}
    else:
        head = train_head(cache, settings, seed, options.steps)
        results = {}
        for name, changes in {form: {}, **ALSO_JUDGED.get(form, {})}.items():
            changed = replace(settings, **changes)
            for factor in POINT_FACTORS:
                maps = class_maps(cache, head, changed, factor)
                results[f"{name}, {factor} N"] = semantic_scores(cache, maps)
    write_json(result_file(form, seed, options), results)


def result_file(form: str, seed: int, options: argparse.Namespace) -> Path:
    return Path(options.output / f"{form}_seed{seed}.json")


def finish_all(options: argparse.Namespace) -> dict[str, list[Scores]]:
    """Computes what is left; name of a row -> scores of each seed."""
    options.output.mkdir(parents=True, exist_ok=True)
    if not (options.output / CACHE).exists():
        unfinished = options.output / f"{CACHE}.unfinished"
        parts = {"train": options.data, "val": options.held_out}
        torch.save(make_cache(options.weights, parts, options.batches), unfinished)
        unfinished.rename(options.output / CACHE)
    tasks = [(OFF, options.seeds[0]), *((form, s) for s in options.seeds for form in FORMS)]
    one = partial(judge, options=options)
    list(map_in_processes(one, tasks, num_workers=options.jobs, title="point heads"))
    rows: dict[str, list[Scores]] = {}
    for task in tasks:
        found = json.loads(result_file(*task, options).read_text(encoding="utf-8"))
        for name, scores in found.items():
            rows.setdefault(name, []).append(scores)
    return rows


def forms_table(rows: dict[str, list[Scores]]) -> str:
    """Scores without points, then of each form how far from these; Markdown."""
    (off,) = rows[OFF]
    table = [["", *METRICS], [OFF, *(percent(off[name]) for name in METRICS)]]
    for row, found in rows.items():
        if row != OFF:
            gains = ([scores[name] - off[name] for scores in found] for name in METRICS)
            table.append([row, *(cell(gain, is_difference=True) for gain in gains)])
    return markdown_table(table)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    first, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=Path, default=Path("runs/semantic_point_forms"), help="of all results")
    add("--weights", type=Path, default=Path("checkpoints/street_scenes_256x512.safetensors"))
    add("--data", type=Path, default=Path("data/street_scenes"), metavar="DIR", help="to learn")
    add("--held-out", type=Path, default=Path("data/street_scenes_val"), metavar="DIR")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    add("--batches", type=int, default=120, help="of 4 images, cached (default: 120)")
    add("--steps", type=int, default=1000, help="of each point head (default: 1000)")
    add("--jobs", type=int, default=1, help="point heads at a time (default: 1)")
    add("--write", type=Path, metavar="MD", help=f"put the table between {BEGIN} and {END} there")
    add("--json", type=Path, help="write every number there")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    # Processes that are forked cannot use the threads that this one has started.
    torch.set_num_threads(1)
    try:
        rows = finish_all(options)
        text = f"Seeds: {', '.join(map(str, options.seeds))}.\n\n{forms_table(rows)}"
        if options.write:
            page = options.write.read_text(encoding="utf-8")
            page = replace_between_marks(page, text, BEGIN, END)
            options.write.write_text(page, encoding="utf-8")
        if options.json:
            names = ("weights", "data", "held_out", "batches", "steps")
            settings = {name: str(getattr(options, name)) for name in names}
            write_json(options.json, {"settings": settings, "seeds": options.seeds, "rows": rows})
    except (OSError, ValueError) as error:
        print(f"semantic_point_forms: {error}", file=sys.stderr)
        return 1
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
