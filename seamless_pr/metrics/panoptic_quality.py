"""Panoptic quality (PQ) and PQ†: counts per class that add up, and the scores computed from them.

K classes, stuff first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seamless_pr.metrics.segment_matching import PQ_RULES, PQRules, SegmentMatches
from seamless_pr.metrics.segment_table import SegmentTable

# IoUs are summed as whole multiples of 2^-128. An IoU of maps below 2^40 pixels has at most
# 40 + 53 binary places, so the sum is exact and its order cannot matter.
IOU_BINARY_PLACES = 128


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
class ClassScores:
    """Scores of one class, each in [0, 1].

    Attributes:
        pq, sq, rq: 0 for a class without any count.
        pq_dagger: None for a class without ground truth.
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
    """PQ, SQ, RQ and PQ† by class, and their means over all classes, things and stuff.

    PQ† (Seamless Scene Segmentation, section 3.5): a stuff class scores the sum of the IoU of all
    its pairs, matched or not, over the number of its true segments, so a false region of stuff
    costs only what it takes from others; a thing class keeps its PQ. The mean of PQ† runs over the
    classes with ground truth. A stuff class that is predicted but has no ground truth at all has PQ
    0, which counts in the mean PQ as in the official evaluator, and no PQ†.

    Args:
        counts: over all images.
        num_stuff: classes before this train id are stuff.
        rules: only how absent classes count matters here.
    """
    per_class = tuple(
        _class_scores(*values, is_stuff=train_id < num_stuff, rules=rules)
        for train_id, values in enumerate(
            zip(
                counts.tp.tolist(),
                counts.fp.tolist(),
                counts.fn.tolist(),
                counts.num_gt.tolist(),
                counts.iou_sum.tolist(),
                counts.all_iou_sum.tolist(),
            )
        )
    )
    return PanopticScores(
        all=_mean_scores(per_class),
        things=_mean_scores(per_class[num_stuff:]),
        stuff=_mean_scores(per_class[:num_stuff]),
        per_class=per_class,
    )


def _class_scores(
    tp: int,
    fp: int,
    fn: int,
    num_gt: int,
    iou_sum: float,
    all_iou_sum: float,
    *,
    is_stuff: bool,
    rules: PQRules,
) -> ClassScores:
    occurs = tp + fp + fn > 0
    # In the official order of operations, so that results agree to the last digits.
    weight = tp + 0.5 * fp + 0.5 * fn
    pq = iou_sum / weight if occurs else 0.0
    pq_dagger: float | None = None
    if num_gt and is_stuff:
        pq_dagger = all_iou_sum / num_gt
    elif num_gt and occurs:
        pq_dagger = pq
    return ClassScores(
        pq=pq,
        sq=iou_sum / tp if tp else 0.0,
        rq=tp / weight if occurs else 0.0,
        pq_dagger=pq_dagger,
        is_counted=occurs or rules.absent_classes_count,
    )


def _mean_scores(per_class: Sequence[ClassScores]) -> MeanScores:
    counted = [scores for scores in per_class if scores.is_counted]
    daggers = [scores.pq_dagger for scores in per_class if scores.pq_dagger is not None]
    return MeanScores(
        pq=_mean(scores.pq for scores in counted),
        sq=_mean(scores.sq for scores in counted),
        rq=_mean(scores.rq for scores in counted),
        pq_dagger=_mean(daggers),
        num_categories=len(counted),
        num_dagger_categories=len(daggers),
    )


def _mean(values: Iterable[float]) -> float | None:
    kept = list(values)
    return math.fsum(kept) / len(kept) if kept else None


def _from_units(units: Sequence[int]) -> NDArray[np.float64]:
    # Division of Python integers is correctly rounded, however large they are.
    return np.array([total / (1 << IOU_BINARY_PLACES) for total in units], dtype=np.float64)
