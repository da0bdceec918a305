from __future__ import annotations

import numpy as np

from seamless_pr.id_maps.overlap import count_overlap
from seamless_pr.metrics.segment_confusion import count_segment_confusion
from seamless_pr.metrics.segment_matching import match_segments
from seamless_pr.metrics.segment_table import SegmentTable
from tests.metrics.maps import STUFF_AND_THINGS, draw, fuzz_image, table, to_table

ROAD, SKY, SIDEWALK, PERSON, CAR, BICYCLE = range(6)
NOTHING = NUM_CLASSES = STUFF_AND_THINGS.num_classes


def _confusion(
    gt_map: np.ndarray, gt: SegmentTable, pred_map: np.ndarray, pred: SegmentTable
) -> np.ndarray:
    overlap = count_overlap(gt_map, pred_map)
    matches = match_segments(overlap, gt, pred, NUM_CLASSES)
    return count_segment_confusion(overlap, gt, pred, matches, NUM_CLASSES)


def test_found_mistaken_missed_and_invented_segments_have_their_cells() -> None:
    confusion = _confusion(
        draw("aaaaaa\nccccpp\nbb...."),
        table({"a": ROAD, "c": CAR, "p": PERSON, "b": BICYCLE}),
        draw("aaaaqq\nttttqq\nbbs..."),
        table({"a": ROAD, "t": BICYCLE, "q": CAR, "b": BICYCLE, "s": SKY}),
    )
    expected = np.zeros_like(confusion)
    expected[ROAD, ROAD] = expected[BICYCLE, BICYCLE] = 1
    expected[CAR, BICYCLE] = 1
    expected[PERSON, NOTHING] = 1
    expected[NOTHING, CAR] = 1
    np.testing.assert_array_equal(confusion, expected)


def test_rows_sum_up_to_true_and_columns_to_predicted_segments() -> None:
    for seed in range(60):
        image = fuzz_image(np.random.default_rng(seed))
        gt, pred = (to_table(s, STUFF_AND_THINGS) for s in (image.gt_segments, image.pred_segments))
        overlap = count_overlap(image.gt_map, image.pred_map)
        matches = match_segments(overlap, gt, pred, NUM_CLASSES)
        confusion = count_segment_confusion(overlap, gt, pred, matches, NUM_CLASSES)
        true = np.bincount(gt.train_ids[~gt.is_crowd], minlength=NUM_CLASSES)
        np.testing.assert_array_equal(confusion[:NUM_CLASSES].sum(1), true)
        excused = np.bincount(pred.train_ids[matches.excused_pred], minlength=NUM_CLASSES)
        counted = np.bincount(pred.train_ids, minlength=NUM_CLASSES) - excused
        np.testing.assert_array_equal(confusion[:, :NUM_CLASSES].sum(0), counted)
