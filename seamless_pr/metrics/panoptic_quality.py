"""Panoptic quality (PQ) and PQ†: counts per class that add up, and the scores computed from them.

K classes, stuff first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamless_pr.metrics.segment_matching import PQ_RULES, PQRules, SegmentMatches
from seamless_pr.metrics.segment_table import SegmentTable

# IoUs are summed as whole multiples of 2^-128. An IoU of maps below 2^40 pixels has at most
# 40 + 53 binary places, so the sum is exact and its order cannot matter.
IOU_BINARY_PLACES = 128
# The numbers of a class that scores are made of; attributes of `PQCounts`.
COUNT_NAMES = ("tp", "fp", "fn", "num_gt", "iou_sum", "all_iou_sum")


@dataclass(frozen=True)
class PQCounts:
    """Sums over any set of images; `a + b` is the sum over both sets, exactly, in any order.

    Attributes:
        tp, fp, fn: [K] int64.
        num_gt: [K] int64 true segments, crowd excluded (|S_c| of PQ†).
        iou_units: K integers, sum of the IoU of matches in units of 2^-128.
        all_iou_units: K integers, the same over all pairs of one class that share pixels.
    """

    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]
    num_gt: NDArray[np.int64]
    iou_units: tuple[int, ...]
    all_iou_units: tuple[int, ...]

    @property
    def num_classes(self) -> int:
        return len(self.tp)

    @property
    def iou_sum(self) -> NDArray[np.float64]:
        """[K] sum of the IoU of matches, correctly rounded."""
        return _from_units(self.iou_units)

    @property
    def all_iou_sum(self) -> NDArray[np.float64]:
        """[K] sum of the IoU of all pairs of one class, correctly rounded."""
        return _from_units(self.all_iou_units)

    @property
    def columns(self) -> NDArray[np.float64]:
        """[K, 6] the numbers of `COUNT_NAMES`."""
        return np.stack([np.asarray(getattr(self, name), float) for name in COUNT_NAMES], axis=-1)

    def __add__(self, other: PQCounts) -> PQCounts:
        if self.num_classes != other.num_classes:
            raise ValueError(
                f"counts of {self.num_classes} and {other.num_classes} classes do not add up; "
                "evaluate both parts with the same label space"
            )
        return PQCounts(
            self.tp + other.tp,
            self.fp + other.fp,
            self.fn + other.fn,
            self.num_gt + other.num_gt,
            tuple(a + b for a, b in zip(self.iou_units, other.iou_units)),
            tuple(a + b for a, b in zip(self.all_iou_units, other.all_iou_units)),
        )

    @classmethod
    def zeros(cls, num_classes: int) -> PQCounts:
        """The sum over no image."""
        none = np.zeros(num_classes, dtype=np.int64)
        return cls(none, none, none, none, (0,) * num_classes, (0,) * num_classes)


def count_matches(
    matches: SegmentMatches, gt: SegmentTable, pred: SegmentTable, num_classes: int
) -> PQCounts:
    """Counts one image by class."""
    pair_class = gt.train_ids[matches.pair_gt]
    iou_units, all_iou_units = [0] * num_classes, [0] * num_classes
    for train_id, iou, is_match in zip(
        pair_class.tolist(), matches.pair_iou.tolist(), matches.pair_is_match.tolist()
    ):
        units = int(math.ldexp(iou, IOU_BINARY_PLACES))
        all_iou_units[train_id] += units
        if is_match:
            iou_units[train_id] += units

    def by_class(train_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(train_ids, minlength=num_classes).astype(np.int64)

    return PQCounts(
        tp=by_class(pair_class[matches.pair_is_match]),
        fp=by_class(pred.train_ids[matches.invented_pred]),
        fn=by_class(gt.train_ids[matches.missed_gt]),
        num_gt=by_class(gt.train_ids[matches.counted_gt]),
        iou_units=tuple(iou_units),
        all_iou_units=tuple(all_iou_units),
    )


@dataclass(frozen=True)
class ScoreColumns:
    """Scores of the classes of any number of sets of images; all fields are [..., K].

    Attributes:
        pq, sq, rq: in [0, 1]; 0 for a class without any count.
        pq_dagger: in [0, 1]; NaN for a class that PQ† does not know.
        is_counted: whether the class is part of the means of PQ, SQ and RQ.
    """

    pq: NDArray[np.float64]
    sq: NDArray[np.float64]
    rq: NDArray[np.float64]
    pq_dagger: NDArray[np.float64]
    is_counted: NDArray[np.bool_]


def score_classes(
    counts: NDArray[np.float64], is_thing: NDArray[np.bool_], rules: PQRules = PQ_RULES["official"]
) -> ScoreColumns:
    """PQ, SQ, RQ and PQ† of each class: the only place where counts become scores.

    PQ† (Seamless Scene Segmentation, section 3.5): a stuff class scores the sum of the IoU of all
    its pairs, matched or not, over the number of its true segments, so a false region of stuff
    costs only what it takes from others; a thing class keeps its PQ. So a thing class that is
    predicted and has no ground truth at all scores 0 in both, while a stuff class without ground
    truth has no PQ† (0 / 0) and a PQ of 0, under all rules alike.

    Args:
        counts: [..., K, 6], the numbers of `COUNT_NAMES` of each class.
        is_thing: [K].
        rules: only how absent classes count matters here.
    """
    tp, fp, fn, num_gt, iou_sum, all_iou_sum = np.moveaxis(counts, -1, 0)
    occurs = tp + fp + fn > 0
    # In the official order of operations, so that results agree to the last digits. A division by
    # 1 stands for one by 0: the sum above it is 0 as well.
    weight = np.where(occurs, tp + 0.5 * fp + 0.5 * fn, 1.0)
    pq = iou_sum / weight
    stuff_dagger = np.where(num_gt > 0, all_iou_sum / np.maximum(num_gt, 1), np.nan)
    return ScoreColumns(
        pq=pq,
        sq=iou_sum / np.maximum(tp, 1),
        rq=tp / weight,
        pq_dagger=np.where(is_thing, np.where(occurs, pq, np.nan), stuff_dagger),
        is_counted=occurs | rules.absent_classes_count,
    )


def mean_over(values: NDArray[np.float64], is_counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[..., K] -> [...] mean over the classes that count; NaN where none does."""
    number = is_counted.sum(-1)
    total = np.where(is_counted, values, 0.0).sum(-1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def class_groups(is_thing: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """The classes [K] of each mean: all, things, stuff."""
    return {"all": np.ones_like(is_thing), "things": is_thing, "stuff": ~is_thing}


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class, each in [0, 1].

    Attributes:
        pq, sq, rq: 0 for a class without any count.
        pq_dagger: None for a stuff class without ground truth, and for a thing class that neither
            truth nor prediction has.
        is_counted: whether the class is part of the means of PQ, SQ and RQ.
    """

    pq: float
    sq: float
    rq: float
    pq_dagger: float | None
    is_counted: bool


@dataclass(frozen=True)
class MeanScores:
    """Means over a group of classes; None when no class of the group counts.

    Attributes:
        num_categories: classes in the means of PQ, SQ and RQ.
        num_dagger_categories: classes in the mean of PQ†.
    """

    pq: float | None
    sq: float | None
    rq: float | None
    pq_dagger: float | None
    num_categories: int
    num_dagger_categories: int


@dataclass(frozen=True)
class PanopticScores:
    """What the counts of a set of images come to.

    Attributes:
        all, things, stuff: means over the classes.
        per_class: K entries in the order of the label space.
    """

    all: MeanScores
    things: MeanScores
    stuff: MeanScores
    per_class: tuple[ClassScores, ...]


def compute_panoptic_scores(
    counts: PQCounts, num_stuff: int, rules: PQRules = PQ_RULES["official"]
) -> PanopticScores:
    """PQ, SQ, RQ and PQ† by class (`score_classes`), and their means over all, things and stuff.

    Args:
        counts: over all images.
        num_stuff: classes before this train id are stuff.
        rules: only how absent classes count matters here.
    """
    is_thing = np.arange(counts.num_classes) >= num_stuff
    scores = score_classes(counts.columns, is_thing, rules)
    means = {name: _mean_scores(scores, group) for name, group in class_groups(is_thing).items()}
    return PanopticScores(
        **means,
        per_class=tuple(
            ClassScores(pq, sq, rq, known(pq_dagger), is_counted)
            for pq, sq, rq, pq_dagger, is_counted in zip(
                scores.pq.tolist(),
                scores.sq.tolist(),
                scores.rq.tolist(),
                scores.pq_dagger.tolist(),
                scores.is_counted.tolist(),
            )
        ),
    )


def _mean_scores(scores: ScoreColumns, group: NDArray[np.bool_]) -> MeanScores:
    is_counted, has_dagger = scores.is_counted & group, ~np.isnan(scores.pq_dagger) & group
    return MeanScores(
        pq=known(mean_over(scores.pq, is_counted)),
        sq=known(mean_over(scores.sq, is_counted)),
        rq=known(mean_over(scores.rq, is_counted)),
        pq_dagger=known(mean_over(scores.pq_dagger, has_dagger)),
        num_categories=int(is_counted.sum()),
        num_dagger_categories=int(has_dagger.sum()),
    )


def known(value: Any) -> float | None:
    """NaN, which stands for nothing to measure in arrays, as None."""
    return None if np.isnan(value) else float(value)


def _from_units(units: Sequence[int]) -> NDArray[np.float64]:
    # Division of Python integers is correctly rounded, however large they are.
    return np.array([total / (1 << IOU_BINARY_PLACES) for total in units], dtype=np.float64)
