"""The tables of tools/measure/compare_heads.py: arms, and differences between arms of one seed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.measure.results_table import markdown_table

# Heading -> keys into evaluation.json; trimaps are listed by their width there.
METRICS: dict[str, tuple[str, ...]] = {
    "PQ": ("all", "pq"),
    "PQ things": ("things", "pq"),
    "SQ things": ("things", "sq"),
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
        mask_kind, refinement: masks ("conv" or "point_rend"), and refinement of semantics.
        point_weight, hard_points: `loss_weights.semantic_point` and
            `model.semantics.points.hard_point_fraction`.
    """

    name: str
    mask_kind: str
    refinement: str
    point_weight: float = 1.0
    hard_points: float = 1.0


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


@dataclass(frozen=True)
class Variant:
    """The network of `VARIED_ARM` with less refinement than it was trained with.

    Attributes:
        name: in tables.
        overrides: of the stored config.
    """

    name: str
    overrides: tuple[str, ...]


AS_TRAINED = ""
VARIED_ARM = "pointrend_pointrend"
# Masks stay on the first grid of points; one point per step leaves bilinear upsampling.
VARIANTS = {
    "_masks28": Variant("masks of 28x28", ("model.instances.points.output_size=28",)),
    "_bilinear": Variant("bilinear semantics", ("model.semantics.points.subdivision_points=1",)),
}

# `VARIED_ARM` with other losses of the semantic points, against the arm without such points.
PLAIN_ARM = "pointrend_bilinear"
LOSS_ARMS = {
    "pointrend_quarter": Arm("a quarter of it", "point_rend", "point_rend", 0.25),
    "pointrend_hard": Arm(
        "a quarter, of the hardest points", "point_rend", "point_rend", 0.25, 0.25
    ),
}
LOSS_ROWS = {VARIED_ARM: "point loss as published"} | {
    key: arm.name for key, arm in LOSS_ARMS.items()
}

Scores = Mapping[str, float]
# (arm, or arm + variant; seed) -> scores.
AllScores = Mapping[tuple[str, int], Scores]


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


def complete_seeds(scores: AllScores) -> list[int]:
    """Seeds of which all four arms are there."""
    seeds = sorted({seed for _, seed in scores})
    return [seed for seed in seeds if all((arm, seed) in scores for arm in ARMS)]


def arm_values(scores: AllScores, arm: str, seeds: Iterable[int]) -> dict[str, list[float]]:
    """Metric -> one value per seed."""
    return {name: [scores[arm, seed][name] for seed in seeds] for name in METRICS}


def factor_values(scores: AllScores, factor: str, seeds: Iterable[int]) -> dict[str, list[float]]:
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


def seeds_with(scores: AllScores, keys: Sequence[str], seeds: Iterable[int]) -> list[int]:
    """Those of the seeds in which all of the keys were scored."""
    return [seed for seed in seeds if all((key, seed) in scores for key in keys)]


def minus(scores: AllScores, key: str, other: str, seeds: Iterable[int]) -> dict[str, list[float]]:
    """Metric -> one difference per seed."""
    seeds = list(seeds)
    return {
        name: [scores[key, seed][name] - scores[other, seed][name] for seed in seeds]
        for name in METRICS
    }


def switched_off_values(
    scores: AllScores, seeds: Iterable[int]
) -> tuple[list[int], dict[str, dict[str, list[float]]]]:
    """Seeds, and variant -> metric -> the variant minus the same weights as trained."""
    keys = {VARIED_ARM + variant: variant for variant in VARIANTS}
    found = seeds_with(scores, [VARIED_ARM, *keys], seeds)
    values = {
        VARIANTS[variant].name: minus(scores, key, VARIED_ARM, found)
        for key, variant in keys.items()
    }
    return found, values if found else {}


def loss_values(
    scores: AllScores, seeds: Iterable[int]
) -> tuple[list[int], dict[str, dict[str, list[float]]]]:
    """Seeds, and point loss -> metric -> difference to the network without semantic points.

    Each with the refinement, and without it on the same weights.
    """
    keys = {
        key + variant: name + after
        for key, name in LOSS_ROWS.items()
        for variant, after in ((AS_TRAINED, ""), ("_bilinear", "; switched off"))
    }
    found = seeds_with(scores, [PLAIN_ARM, *keys], seeds)
    values = {name: minus(scores, key, PLAIN_ARM, found) for key, name in keys.items()}
    return found, values if found else {}


def tables(scores: AllScores, seeds: Sequence[int]) -> str:
    """Arms, their differences, what refinement and the loss of its points do; Markdown."""
    off_seeds, switched_off = switched_off_values(scores, seeds)
    loss_seeds, losses = loss_values(scores, seeds)
    parts = {
        "": {arm.name: arm_values(scores, key, seeds) for key, arm in ARMS.items()},
        "difference": {name: factor_values(scores, name, seeds) for name in FACTORS},
        f"PointRend in both, then switched off (seeds: {_listed(off_seeds)})": switched_off,
        f"PointRend in both − in masks only (seeds: {_listed(loss_seeds)})": losses,
    }
    return "\n\n".join(
        markdown_table([[title, *METRICS], *_rows(values, is_difference=title != "")])
        for title, values in parts.items()
        if values
    )


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))


def _rows(
    values: Mapping[str, Mapping[str, Sequence[float]]], is_difference: bool
) -> list[list[str]]:
    return [
        [name, *(cell(found, is_difference=is_difference) for found in by_metric.values())]
        for name, by_metric in values.items()
    ]
