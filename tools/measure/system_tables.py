"""The table of tools/measure/compare_systems.py: scores, steps, time and memory of each system."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from seamless_pr.training.checkpoints import load_weights
from seamless_pr.training.run_log import read_log
from tools.measure.results_table import cell, markdown_table
from tools.measure.system_runs import Run, read_costs
from tools.measure.systems import Comparison

# Heading -> keys into evaluation.json; trimaps are listed by their width there.
METRICS: dict[str, tuple[str, ...]] = {
    "PQ": ("all", "pq"),
    "PQ things": ("things", "pq"),
    "PQ stuff": ("stuff", "pq"),
    "SQ": ("all", "sq"),
    "RQ": ("all", "rq"),
    "SQ things": ("things", "sq"),
    "RQ things": ("things", "rq"),
    "PQ†": ("pq_dagger", "all"),
    "AP": ("instances", "coco", "ap"),
    "AP small": ("instances", "coco", "ap_small"),
    "AP medium": ("instances", "coco", "ap_medium"),
    "AP large": ("instances", "coco", "ap_large"),
    "mIoU": ("semantic", "mean_iou"),
    "trimap 8 px": ("trimap", "8", "mean_iou"),
    "trimap 20 px": ("trimap", "20", "mean_iou"),
    "Boundary PQ": ("boundary", "all", "pq"),
    "Boundary IoU": ("boundary", "mean_iou"),
}
LAST_LOG_LINES = 3
MIB = 1 << 20

# (system, seed) -> "scores", "num_images", "steps", "costs", "final_losses".
Values = Mapping[tuple[str, int], Mapping[str, Any]]


def all_values(comparison: Comparison, runs: Sequence[Run]) -> dict[tuple[str, int], Any]:
    """What is known of every finished run."""
    return {
        (run.system, run.seed): {
            "scores": read_scores(run.evaluation, comparison.metrics),
            "num_images": json.loads(run.evaluation.read_text(encoding="utf-8"))["num_images"],
            "steps": load_weights(run.weights)[1]["step"],
            "costs": read_costs(run.trained) | read_costs(run),
            "final_losses": final_losses(run.trained.folder / "log.jsonl"),
        }
        for run in runs
        if run.evaluation.exists()
    }


def read_scores(path: Path, metrics: Iterable[str]) -> dict[str, float]:
    """These metrics of an evaluation.json, in [0, 1].

    Raises:
        ValueError: one of them is missing; the message names it.
    """
    evaluation = json.loads(path.read_text(encoding="utf-8"))
    evaluation["trimap"] = {str(b["width_pixels"]): b for b in evaluation.get("trimap", [])}
    scores = {}
    for name in metrics:
        value = evaluation
        for key in METRICS[name]:
            value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            raise ValueError(
                f"{path} has no '{'.'.join(METRICS[name])}' ({name}); remove it and run again"
            )
        scores[name] = float(value)
    return scores


def final_losses(log: Path) -> dict[str, float]:
    """Loss -> mean over the last lines of a run's log."""
    lines = [line["losses"] for line in read_log(log) if line["kind"] == "train"]
    last = lines[-LAST_LOG_LINES:]
    return {name: statistics.fmean(line[name] for line in last) for name in last[0]}


def complete_seeds(comparison: Comparison, values: Values) -> list[int]:
    """Seeds of which all systems are there."""
    seeds = sorted({seed for _, seed in values})
    return [seed for seed in seeds if all((key, seed) in values for key in comparison.systems)]


def system_table(comparison: Comparison, values: Values, seeds: Sequence[int]) -> str:
    """A row per system: mean and deviation of scores; means of steps, time and memory; Markdown."""
    rows = [
        [
            "",
            *comparison.metrics,
            "steps",
            "training, min",
            "prediction, s per image",
            "memory of training, MiB",
            "memory of prediction, MiB",
        ]
    ]
    for key, system in comparison.systems.items():
        found = [values[key, seed] for seed in seeds]
        row = [cell([run["scores"][name] for run in found]) for name in comparison.metrics]
        row.append(f"{statistics.fmean(run['steps'] for run in found):.0f}")
        row.append(f"{_mean(found, 'train', 'processor_seconds') / 60:.1f}")
        num_images = found[0]["num_images"]
        row.append(f"{_mean(found, 'predict', 'processor_seconds') / num_images:.2f}")
        row += [f"{_mean(found, s, 'peak_bytes') / MIB:.0f}" for s in ("train", "predict")]
        rows.append([system.name, *row])
    return markdown_table(rows)


def _mean(found: Sequence[Mapping[str, Any]], stage: str, key: str) -> float:
    return statistics.fmean(run["costs"][stage][key] for run in found)
