"""Which predicted segment is which true segment of one image, under named rules for void and crowd.

P pairs of segments that share pixels, S segments, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seamless_pr.id_maps.overlap import VOID_SEGMENT_ID, Overlap
from seamless_pr.metrics.segment_table import SegmentTable

MATCH_IOU = 0.5
EXCUSE_FRACTION = 0.5


@dataclass(frozen=True)
class PQRules:
    """How void, crowd and absent classes count.

    Attributes:
        name: for messages and result files.
        crowd_is_void: True: crowd segments turn into void before matching, on both sides, so they
            leave every union and excuse any class. False: they stay in the union, and only the
            crowd segment of the prediction's own class excuses it (the last listed one, if there
            are several).
        excuse_void_prediction: True: a missed segment that is predicted void for more than half is
            no false negative.
        stated_gt_areas: take the areas of true segments from the JSON rather than from the map.
        absent_classes_count: True: a class that occurs neither in truth nor in prediction counts as
            0 in the mean; False: it is left out.
    """

    name: str
    crowd_is_void: bool = False
    excuse_void_prediction: bool = False
    stated_gt_areas: bool = True
    absent_classes_count: bool = False


PQ_RULES = {
    rules.name: rules
    for rules in (
        # panopticapi and cityscapesscripts, whose numbers are the official ones.
        PQRules("official"),
        # Text of the Seamless Scene Segmentation paper, section 3.5.
        PQRules("paper", excuse_void_prediction=True),
        # Released code of that paper; it also evaluates at network size, which files cannot show.
        PQRules("seamseg", crowd_is_void=True, stated_gt_areas=False, absent_classes_count=True),
    )
}


def rules_named(name: str) -> PQRules:
    """One of `PQ_RULES`; the error lists them."""
    if name not in PQ_RULES:
        raise ValueError(f"no rules '{name}'; choose one of {', '.join(PQ_RULES)}")
    return PQ_RULES[name]


@dataclass(frozen=True)
class SegmentMatches:
    """Outcome for one image; indices point into the two segment tables.

    Attributes:
        pair_gt, pair_pred: [P] int64, pairs of the same class that share pixels, crowd excluded.
        pair_iou: [P] float64 in (0, 1].
        pair_is_match: [P] bool, IoU > 0.5.
        missed_gt: indices of false negatives.
        invented_pred: indices of false positives.
        excused_pred: unmatched predicted segments that do not count (mostly on void or crowd).
        counted_gt: indices of all true segments that count: matched or missed or excused by the
            rules, crowd excluded.
    """

    pair_gt: NDArray[np.int64]
    pair_pred: NDArray[np.int64]
    pair_iou: NDArray[np.float64]
    pair_is_match: NDArray[np.bool_]
    missed_gt: NDArray[np.int64]
    invented_pred: NDArray[np.int64]
    excused_pred: NDArray[np.int64]
    counted_gt: NDArray[np.int64]


def match_segments(
    overlap: Overlap,
    gt: SegmentTable,
    pred: SegmentTable,
    num_classes: int,
    rules: PQRules = PQ_RULES["official"],
    *,
    boundary: Overlap | None = None,
) -> SegmentMatches:
    """Matches the segments of one image.

    IoU is I / (A(pred) + A(gt) - I - V(pred)): pixels that are void in the ground truth leave the
    union, pixels that are void in the prediction do not. A predicted segment without a pixel is no
    segment; the same holds for a true one whose area is counted in the map.

    Args:
        overlap: of the two maps.
        gt, pred: segments of the two maps; ids of the map that a table does not list belong to
            nobody.
        num_classes: K, above all train ids.
        rules: see `PQ_RULES`.
        boundary: `boundary_overlap` of the two maps, for Boundary PQ (Cheng et al. 2021): a pair is
            as good as the worse of its IoU and the IoU of its two bands. What is excused does not
            depend on it.
    """
    if len(gt) and int(gt.segment_ids.min()) == VOID_SEGMENT_ID:
        raise ValueError("the ground truth lists a segment with the id 0, which means void there")
    if boundary is not None and rules.crowd_is_void:
        raise ValueError(f"Boundary PQ is not defined for the rules '{rules.name}'")
    gt_index, pred_index = gt.find(overlap.gt_ids), pred.find(overlap.pred_ids)
    on_void = overlap.gt_ids == VOID_SEGMENT_ID
    if rules.crowd_is_void:
        on_void = on_void | _is_crowd(gt, gt_index)
        pred_index = np.where(_is_crowd(pred, pred_index), -1, pred_index)
    pixels_of_gt = sum_by(gt_index, overlap.pixels, len(gt))
    pixels_of_pred = sum_by(pred_index, overlap.pixels, len(pred))
    void_of_pred = sum_by(np.where(on_void, pred_index, -1), overlap.pixels, len(pred))
    if gt.areas is None or not rules.stated_gt_areas:
        gt_areas, gt_exists = pixels_of_gt, pixels_of_gt > 0
    else:
        gt_areas, gt_exists = gt.areas, np.ones(len(gt), dtype=bool)

    candidates = np.flatnonzero((gt_index >= 0) & (pred_index >= 0))
    pair_gt, pair_pred = gt_index[candidates], pred_index[candidates]
    same = (gt.train_ids[pair_gt] == pred.train_ids[pair_pred]) & ~gt.is_crowd[pair_gt]
    pair_gt, pair_pred, shared = pair_gt[same], pair_pred[same], overlap.pixels[candidates[same]]
    unions = pixels_of_pred[pair_pred] + gt_areas[pair_gt] - shared - void_of_pred[pair_pred]
    if (unions <= 0).any():
        segment_id = gt.segment_ids[pair_gt[np.argmin(unions)]]
        raise ValueError(
            f"stated area of true segment {segment_id} is smaller than its pixels in the map; "
            "recompute the areas or leave them out"
        )
    pair_iou = shared / unions
    if boundary is not None:
        pair_iou = np.minimum(pair_iou, _band_iou(boundary, gt, pred, pair_gt, pair_pred))
    pair_is_match = pair_iou > MATCH_IOU

    gt_is_open = gt_exists.copy()
    gt_is_open[pair_gt[pair_is_match]] = False
    pred_is_open = pixels_of_pred > 0
    pred_is_open[pair_pred[pair_is_match]] = False

    excused_pixels = void_of_pred + _crowd_pixels(
        overlap, gt, pred, gt_index, pred_index, num_classes, rules
    )
    # An area of 0 is not open; the division by 1 only keeps it quiet.
    excused_fraction = excused_pixels / np.maximum(pixels_of_pred, 1)
    is_excused_pred = excused_fraction > EXCUSE_FRACTION

    is_excused_gt = gt.is_crowd.copy()
    if rules.excuse_void_prediction:
        unpredicted = sum_by(np.where(pred_index < 0, gt_index, -1), overlap.pixels, len(gt))
        is_excused_gt |= unpredicted / np.maximum(gt_areas, 1) > EXCUSE_FRACTION
    return SegmentMatches(
        pair_gt=pair_gt,
        pair_pred=pair_pred,
        pair_iou=pair_iou,
        pair_is_match=pair_is_match,
        missed_gt=np.flatnonzero(gt_is_open & ~is_excused_gt),
        invented_pred=np.flatnonzero(pred_is_open & ~is_excused_pred),
        excused_pred=np.flatnonzero(pred_is_open & is_excused_pred),
        counted_gt=np.flatnonzero(gt_exists & ~gt.is_crowd),
    )


def _band_iou(
    boundary: Overlap,
    gt: SegmentTable,
    pred: SegmentTable,
    pair_gt: NDArray[np.int64],
    pair_pred: NDArray[np.int64],
) -> NDArray[np.float64]:
    """[P] IoU of the bands of each pair; void in the truth leaves the union."""
    gt_index, pred_index = gt.find(boundary.gt_ids), pred.find(boundary.pred_ids)
    on_void = boundary.gt_ids == VOID_SEGMENT_ID
    gt_areas = sum_by(gt_index, boundary.pixels, len(gt))
    pred_areas = sum_by(pred_index, boundary.pixels, len(pred))
    pred_void = sum_by(np.where(on_void, pred_index, -1), boundary.pixels, len(pred))
    both = np.flatnonzero((gt_index >= 0) & (pred_index >= 0))
    keys = gt_index[both] * len(pred) + pred_index[both]
    order = np.argsort(keys)
    keys, pixels = np.append(keys[order], -1), np.append(boundary.pixels[both[order]], 0)
    wanted = pair_gt * len(pred) + pair_pred
    places = np.searchsorted(keys[:-1], wanted)
    shared = np.where(keys[places] == wanted, pixels[places], 0)
    unions = gt_areas[pair_gt] + pred_areas[pair_pred] - shared - pred_void[pair_pred]
    return shared / np.maximum(unions, 1)


def _is_crowd(segments: SegmentTable, index: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Crowd flag of each position in a table; False at -1."""
    return np.append(segments.is_crowd, False)[index]


def sum_by(index: NDArray[np.int64], pixels: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Sums pixels per index; rows with a negative index are left out."""
    kept = index >= 0
    # bincount sums in float64, which is exact below 2^53 pixels.
    return np.bincount(index[kept], weights=pixels[kept], minlength=size).astype(np.int64)


def _crowd_pixels(
    overlap: Overlap,
    gt: SegmentTable,
    pred: SegmentTable,
    gt_index: NDArray[np.int64],
    pred_index: NDArray[np.int64],
    num_classes: int,
    rules: PQRules,
) -> NDArray[np.int64]:
    """[S] pixels of each predicted segment on the crowd segment of its class."""
    crowd = np.flatnonzero(gt.is_crowd)
    if rules.crowd_is_void or not len(crowd):
        return np.zeros(len(pred), dtype=np.int64)
    # With a repeated index NumPy keeps the last assignment: the rule of the official evaluator.
    crowd_of_class = np.full(num_classes, -1, dtype=np.int64)
    crowd_of_class[gt.train_ids[crowd]] = crowd
    both = np.flatnonzero((gt_index >= 0) & (pred_index >= 0))
    own_crowd = crowd_of_class[pred.train_ids[pred_index[both]]]
    on_crowd = both[own_crowd == gt_index[both]]
    return sum_by(pred_index[on_crowd], overlap.pixels[on_crowd], len(pred))
