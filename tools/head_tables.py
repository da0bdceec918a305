"""The tables of tools/compare_heads.py: arms, and differences between arms of one seed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.results_table import markdown_table

# Heading -> keys into evaluation.json; trimaps are listed by their width there.
METRICS: dict[str, tuple[str, ...]] = {
    "PQ": ("all", "pq"),
    "PQ things": ("things", "pq"),
    "PQ stuff": ("stuff", "pq"),
    "PQ†": ("pq_dagger", "all"),
    "AP": ("instances", "coco", "ap"),
    "mIoU": ("semantic", "mean_iou"),
    "trimap 8 px": ("trimap", "8", "mean_iou"),
    "trimap 20 px": ("trimap", "20", "mean_iou"),
    "Boundary PQ": ("boundary", "all", "pq"),
    "Boundary IoU": ("boundary", "mean_iou"),
}


@dataclass(frozen=True)
class Arm:
    """One pair of heads.

    Attributes:
        name: in tables.
        mask_kind, refinement: `model.mask_head.kind` and `model.semantic_head.refinement`.
    """

    name: str
    mask_kind: str
    refinement: str


ARMS = {
    "conv_bilinear": Arm("4-conv masks, bilinear semantics", "conv", "none"),
    "pointrend_bilinear": Arm("PointRend masks, bilinear semantics", "point_rend", "none"),
    "conv_pointrend": Arm("4-conv masks, PointRend semantics", "conv", "point_rend"),
    "pointrend_pointrend": Arm("PointRend in both", "point_rend", "point_rend"),
}
# Factor -> (arm without, arm with) pairs that differ in this factor only.
FACTORS = {
    "PointRend masks − 4-conv masks": (
        ("conv_bilinear", "pointrend_bilinear"),
        ("conv_pointrend", "pointrend_pointrend"),
    ),
    "PointRend semantics − bilinear": (
        ("conv_bilinear", "conv_pointrend"),
        ("pointrend_bilinear", "pointrend_pointrend"),
    ),
    "PointRend in both − in none": (("conv_bilinear", "pointrend_pointrend"),),
}

Scores = Mapping[str, float]


def read_scores(path: Path) -> dict[str, float]:
    """The values of `METRICS` in an evaluation.json, in [0, 1].

    Raises:
        ValueError: one of them is missing; the message names it.
    """
    evaluation = json.loads(path.read_text(encoding="utf-8"))
    widths = {str(band["width_pixels"]): band for band in evaluation.get("trimap", [])}
    evaluation["trimap"] = widths
    scores = {}
    for name, keys in METRICS.items():
        value = evaluation
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            raise ValueError(f"{path} has no '{'.'.join(keys)}' ({name}); remove it and run again")
        scores[name] = float(value)
    return scores


def complete_seeds(scores: Mapping[tuple[str, int], Scores]) -> list[int]:
    """Seeds of which all four arms are there."""
    seeds = sorted({seed for _, seed in scores})
    return [seed for seed in seeds if all((arm, seed) in scores for arm in ARMS)]


def arm_values(
    scores: Mapping[tuple[str, int], Scores], arm: str, seeds: Iterable[int]
) -> dict[str, list[float]]:
    """Metric -> one value per seed."""
    return {name: [scores[arm, seed][name] for seed in seeds] for name in METRICS}


def factor_values(
    scores: Mapping[tuple[str, int], Scores], factor: str, seeds: Iterable[int]
) -> dict[str, list[float]]:
    """Metric -> one difference per seed, the mean over the levels of the other factor."""
    pairs, seeds = FACTORS[factor], list(seeds)
    return {
        name: [
            statistics.fmean(scores[b, seed][name] - scores[a, seed][name] for a, b in pairs)
            for seed in seeds
        ]
        for name in METRICS
    }


def cell(values: Sequence[float], *, is_difference: bool = False) -> str:
    """Mean and standard deviation (n - 1) in percent; "*" where all differences agree in sign."""
    mean = 100 * statistics.fmean(values)
    text = f"{mean:+.1f}" if is_difference else f"{mean:.1f}"
    if len(values) > 1:
        text += f" ± {100 * statistics.stdev(values):.1f}"
    agrees = all(value > 0 for value in values) or all(value < 0 for value in values)
    return f"{text} *" if is_difference and agrees and len(values) > 1 else text


def tables(scores: Mapping[tuple[str, int], Scores], seeds: Sequence[int]) -> str:
    """The table of arms and the table of differences, as Markdown."""
    head = ["", *METRICS]
    arms = [
        [arm.name, *map(cell, arm_values(scores, key, seeds).values())] for key, arm in ARMS.items()
    ]
    factors = [
        [name, *(cell(v, is_difference=True) for v in factor_values(scores, name, seeds).values())]
        for name in FACTORS
    ]
    return f"{markdown_table([head, *arms])}\n\n{markdown_table([head, *factors])}"
