from __future__ import annotations

import numpy as np
import pytest

from seamless_pr.id_maps.overlap import count_overlap
from seamless_pr.metrics.segment_table import SegmentTable
from seamless_pr.metrics.semantic_iou import (
    ConfusionCounts,
    SemanticScores,
    compute_semantic_scores,
    count_confusion,
)
from tests.metrics.maps import STUFF_AND_THINGS, draw, table

ROAD, SKY, SIDEWALK, PERSON, CAR, BICYCLE = range(6)
NUM_CLASSES = STUFF_AND_THINGS.num_classes


def _count(gt_text: str, gt: SegmentTable, pred_text: str, pred: SegmentTable) -> ConfusionCounts:
    return count_confusion(count_overlap(draw(gt_text), draw(pred_text)), gt, pred, NUM_CLASSES)


def _score(gt_text: str, gt: SegmentTable, pred_text: str, pred: SegmentTable) -> SemanticScores:
    return compute_semantic_scores(_count(gt_text, gt, pred_text, pred))


def test_iou_is_shared_pixels_over_all_pixels_of_a_class() -> None:
    classes = {"a": ROAD, "b": SKY}
    scores = _score("aaab", table(classes), "aabb", table(classes))
    assert scores.per_class[:2] == pytest.approx((2 / 3, 1 / 2))
    assert scores.mean_iou == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores.pixel_accuracy == pytest.approx(3 / 4)


def test_void_of_the_truth_costs_nothing_and_void_of_the_prediction_does() -> None:
    scores = _score("aa..", table({"a": ROAD}), "a.aa", table({"a": ROAD}))
    assert scores.per_class[ROAD] == pytest.approx(1 / 2)


def test_objects_and_crowd_count_with_their_class() -> None:
    gt = table({"a": CAR, "b": CAR, "c": CAR}, crowd="c")
    scores = _score("abcc", gt, "zzzz", table({"z": CAR}))
    assert scores.per_class[CAR] == 1.0


def test_ids_that_the_truth_does_not_list_are_void() -> None:
    counts = _count("aaxx", table({"a": ROAD}), "aaaa", table({"a": ROAD}))
    assert counts.pixels.sum() == 2


def test_a_class_without_any_pixel_has_no_iou() -> None:
    scores = _score("aa", table({"a": ROAD}), "aa", table({"a": ROAD}))
    assert scores.per_class[SKY] is None
    assert scores.mean_iou == 1.0
    nothing = compute_semantic_scores(ConfusionCounts.zeros(NUM_CLASSES))
    assert (nothing.mean_iou, nothing.pixel_accuracy) == (None, None)


def test_counts_add_up_over_images() -> None:
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 3, (2, 8, 10))
    segments = SegmentTable(np.array([1, 2]), np.array([ROAD, SKY]), np.zeros(2, bool))

    def count(rows: slice) -> ConfusionCounts:
        overlap = count_overlap(maps[0, rows], maps[1, rows])
        return count_confusion(overlap, segments, segments, NUM_CLASSES)

    whole, parts = count(slice(None)), count(slice(3)) + count(slice(3, None))
    np.testing.assert_array_equal(whole.pixels, parts.pixels)
    with pytest.raises(ValueError, match="counts of 6 and 5 classes do not add up"):
        _ = whole + ConfusionCounts.zeros(5)
