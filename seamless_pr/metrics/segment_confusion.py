"""What became of segments: found, found as another class, missed, or invented.

K classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seamless_pr.id_maps.overlap import VOID_SEGMENT_ID, Overlap
from seamless_pr.metrics.segment_matching import MATCH_IOU, SegmentMatches, sum_by
from seamless_pr.metrics.segment_table import SegmentTable


def mistaken_pairs(
    overlap: Overlap, gt: SegmentTable, pred: SegmentTable, matches: SegmentMatches
) -> NDArray[np.int64]:
    """[P, 2] (true, predicted) indices of segments that fit in shape but not in class.

    Both must be unmatched, and their IoU (void in the truth left out) must exceed the one of a
    match.
    """
    gt_index, pred_index = gt.find(overlap.gt_ids), pred.find(overlap.pred_ids)
    is_missed, is_invented = np.zeros(len(gt) + 1, bool), np.zeros(len(pred) + 1, bool)
    is_missed[matches.missed_gt] = True
    is_invented[matches.invented_pred] = True
    gt_pixels = sum_by(gt_index, overlap.pixels, len(gt))
    pred_pixels = sum_by(pred_index, overlap.pixels, len(pred))
    void = sum_by(
        np.where(overlap.gt_ids == VOID_SEGMENT_ID, pred_index, -1), overlap.pixels, len(pred)
    )
    # Index -1 (no segment) reads the places appended at the end, which are never missed or
    # invented.
    chosen = np.flatnonzero(is_missed[gt_index] & is_invented[pred_index])
    pairs = np.stack([gt_index[chosen], pred_index[chosen]], axis=1)
    unions = gt_pixels[pairs[:, 0]] + pred_pixels[pairs[:, 1]] - void[pairs[:, 1]]
    shared = overlap.pixels[chosen]
    differs = gt.train_ids[pairs[:, 0]] != pred.train_ids[pairs[:, 1]]
    return pairs[differs & (shared > MATCH_IOU * (unions - shared))]


def count_segment_confusion(
    overlap: Overlap,
    gt: SegmentTable,
    pred: SegmentTable,
    matches: SegmentMatches,
    num_classes: int,
) -> NDArray[np.int64]:
    """[K + 1, K + 1] segments of one image by true class (row) and predicted class (column).

    The diagonal holds matches, other cells pairs of `mistaken_pairs`. Row K holds invented segments
    without such a partner, column K missed ones. Each row c sums up to the true segments of class c
    that count.
    """
    confusion = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    matched = gt.train_ids[matches.pair_gt[matches.pair_is_match]]
    np.add.at(confusion, (matched, matched), 1)
    pairs = mistaken_pairs(overlap, gt, pred, matches)
    np.add.at(confusion, (gt.train_ids[pairs[:, 0]], pred.train_ids[pairs[:, 1]]), 1)
    for cells, table, indices, taken in (
        (confusion[:-1, -1], gt, matches.missed_gt, pairs[:, 0]),
        (confusion[-1, :-1], pred, matches.invented_pred, pairs[:, 1]),
    ):
        is_left = np.zeros(len(table), dtype=bool)
        is_left[indices] = True
        is_left[taken] = False
        cells[:] = np.bincount(table.train_ids[is_left], minlength=num_classes)
    return confusion
