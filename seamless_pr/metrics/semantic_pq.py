"""PQ of semantic maps: each class of an image is one segment, things included.

MaskFormer (Cheng et al. 2021), supplement, PQ^St: it compares per-pixel with per-mask
classification where neither tells objects apart. K classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seamless_pr.id_maps.overlap import Overlap
from seamless_pr.metrics.panoptic_quality import PQCounts, count_matches
from seamless_pr.metrics.segment_matching import match_segments
from seamless_pr.metrics.segment_table import SegmentTable


def count_as_stuff(
    overlap: Overlap, gt: SegmentTable, pred: SegmentTable, num_classes: int
) -> PQCounts:
    """Counts one image by the official rules after joining the segments of each class.

    Crowd has a class and joins it. Pixels of no true segment are void.

    Args:
        overlap: of the two maps.
        gt, pred: their segments.
        num_classes: K.
    """
    gt_classes = np.append(gt.train_ids + 1, 0)[gt.find(overlap.gt_ids)]
    pred_classes = np.append(pred.train_ids + 1, 0)[pred.find(overlap.pred_ids)]
    width = num_classes + 1
    pixels = np.bincount(
        gt_classes * width + pred_classes, weights=overlap.pixels, minlength=width * width
    ).astype(np.int64)
    pairs = np.flatnonzero(pixels)
    joined = Overlap(pairs // width, pairs % width, pixels[pairs], overlap.image_size)
    gt_table, pred_table = _classes(joined.gt_ids), _classes(joined.pred_ids)
    matches = match_segments(joined, gt_table, pred_table, num_classes)
    return count_matches(matches, gt_table, pred_table, num_classes)


def _classes(ids: NDArray[np.int64]) -> SegmentTable:
    """One segment for each class of a map of train ids + 1; 0 is void."""
    present = np.setdiff1d(ids, [0])
    return SegmentTable(present, present - 1, np.zeros(len(present), dtype=bool))
