"""A second opinion on PQ: COCO's own evaluator on the same files, where it is installed."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seamless_pr.datasets.coco_panoptic import find_png_folder
from seamless_pr.datasets.panoptic_reader import parse_panoptic_json
from seamless_pr.evaluation.tables import TextTable

# Largest difference of a score in [0, 1] that adding in another order explains.
TOLERANCE = 1e-9
HOW_TO_INSTALL = (
    "panopticapi is not installed, and it is on no package index; install it by "
    "pip install git+https://github.com/cocodataset/panopticapi.git, or leave out --cross-check"
)
GROUPS = {"All": "all", "Things": "things", "Stuff": "stuff"}
SCORES = ("pq", "sq", "rq")


@dataclass(frozen=True)
class ScorePair:
    """One score by both evaluators.

    Attributes:
        name: of a group or class, then of the score, as "things sq".
        ours, theirs: in [0, 1]; counts of classes are whole numbers.
    """

    name: str
    ours: float
    theirs: float

    @property
    def difference(self) -> float:
        return abs(self.ours - self.theirs)


@dataclass(frozen=True)
class CrossCheck:
    """All scores by both evaluators."""

    pairs: tuple[ScorePair, ...]

    @property
    def largest_difference(self) -> float:
        return max(pair.difference for pair in self.pairs)

    def check(self) -> None:
        """Raises ValueError if a score differs by more than rounding; names the first ten."""
        faults = [pair for pair in self.pairs if not pair.difference <= TOLERANCE]
        if faults:
            listed = "; ".join(f"{p.name} {p.ours} here, {p.theirs} there" for p in faults[:10])
            raise ValueError(
                f"panopticapi differs in {len(faults)} of {len(self.pairs)} scores: {listed}"
            )


def check_installed(ground_truth: Path) -> None:
    """Finds out before an evaluation whether panopticapi can follow it.

    Raises:
        ValueError: it is not installed, or the ground truth is a folder without JSON.
    """
    _evaluation_module()
    if ground_truth.is_dir():
        raise ValueError(
            f"panopticapi reads JSON only, and {ground_truth} is a folder; convert it with "
            "pipelines/prepare.py and give the JSON, or leave out --cross-check"
        )


def _evaluation_module() -> Any:
    try:
        from panopticapi import evaluation
    except ImportError as error:
        raise ValueError(f"{HOW_TO_INSTALL} ({error})") from error
    return evaluation


def cross_check(
    values: Mapping[str, Any],
    gt_json: Path,
    pred_json: Path,
    gt_dir: Path | None = None,
    pred_dir: Path | None = None,
) -> CrossCheck:
    """Scores the files with panopticapi and puts its numbers beside ours.

    Args:
        values: content of our evaluation.json of the same files, by the official rules.
        gt_json, pred_json: COCO panoptic JSON files.
        gt_dir, pred_dir: folders of their PNGs; None: found beside the JSON.

    Raises:
        ValueError: panopticapi is missing or gives up on the files.
    """
    evaluation = _evaluation_module()
    folders = []
    for path, folder, is_prediction in ((gt_json, gt_dir, False), (pred_json, pred_dir, True)):
        if folder is None:
            annotations = parse_panoptic_json(path, is_prediction=is_prediction).annotations
            folder = find_png_folder(path, (annotation.file_name for annotation in annotations))
        folders.append(str(folder))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            theirs = evaluation.pq_compute(str(gt_json), str(pred_json), *folders)
    except ZeroDivisionError as error:
        raise ValueError(
            "panopticapi cannot average over no class: the files need a thing and a stuff segment"
        ) from error
    except Exception as error:  # It raises Exception itself, and KeyError for faulty segments.
        raise ValueError(f"panopticapi gave up on {pred_json}: {error}") from error
    return CrossCheck(_pairs(values, theirs))


def _pairs(values: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[ScorePair, ...]:
    pairs = []
    for their_name, name in GROUPS.items():
        group = theirs[their_name]
        pairs += [ScorePair(f"{name} {key}", values[name][key], group[key]) for key in SCORES]
        num_classes = values[name]["num_categories"]
        pairs.append(ScorePair(f"{name} classes", num_classes, group["n"]))
    for row in values["per_category"]:
        of_class = theirs["per_class"][row["category_id"]]
        # Of a class that does not occur theirs says 0.
        pairs += [
            ScorePair(f"{row['name']} {key}", row[key] or 0.0, of_class[key]) for key in SCORES
        ]
    return tuple(pairs)


def cross_check_table(checked: CrossCheck) -> TextTable:
    """Means of both evaluators in percent; the classes are compared, but not shown."""
    pair_of = {pair.name: pair for pair in checked.pairs}
    rows = []
    for group in GROUPS.values():
        pairs = [pair_of[f"{group} {key}"] for key in SCORES]
        for name, scores in (
            ("this package", [pair.ours for pair in pairs]),
            ("panopticapi", [pair.theirs for pair in pairs]),
        ):
            rows.append((f"{group}, {name}", *(f"{100 * score:.6f}" for score in scores)))
    return TextTable(("", *(key.upper() for key in SCORES)), tuple(rows))
