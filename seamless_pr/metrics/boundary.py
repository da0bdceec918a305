"""Pixels near the borders of segments, for Boundary IoU, Boundary PQ and trimap mIoU.

Distances are those of a square window (Chebyshev): a pixel is within d of a border if a square of
2 d + 1 pixels around it holds another label. H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seamless_pr.id_maps.jit import kernel
from seamless_pr.id_maps.overlap import Overlap, count_overlap
from seamless_pr.metrics.segment_table import SegmentTable
from seamless_pr.metrics.semantic_iou import ConfusionCounts, count_confusion

# The id that pixels away from any border get: larger than any 24-bit id, listed by no table.
INTERIOR_ID = np.uint32(0xFFFFFFFF)


def boundary_width(image_size: tuple[int, int], dilation_ratio: float) -> int:
    """Width of the band in pixels: a share of the image's diagonal, at least 1.

    Boundary IoU (Cheng et al. 2021) takes 2 % of the diagonal in general and 0.5 % for Cityscapes.
    """
    if not 0 < dilation_ratio < 1:
        raise ValueError(f"dilation_ratio must be in (0, 1); got {dilation_ratio}")
    return max(1, round(dilation_ratio * math.hypot(*image_size)))


def distance_to_border(label_map: NDArray[np.uint32], *, count_image_border: bool) -> NDArray:
    """Distance of each pixel to the nearest pixel with another label.

    Args:
        label_map: [H, W].
        count_image_border: pixels beyond the image have another label.

    Returns:
        [H, W] float32 in pixels, at least 1; infinite where there is no other label.
    """
    is_edge = np.zeros(label_map.shape, dtype=bool)
    if count_image_border:
        is_edge[[0, -1], :] = True
        is_edge[:, [0, -1]] = True
    everything, first, last = slice(None), slice(None, -1), slice(1, None)
    for one, other in (
        ((first, everything), (last, everything)),
        ((everything, first), (everything, last)),
        ((first, first), (last, last)),
        ((first, last), (last, first)),
    ):
        differs = label_map[one] != label_map[other]
        is_edge[one] |= differs
        is_edge[other] |= differs
    if not is_edge.any():
        return np.full(label_map.shape, np.inf, dtype=np.float32)
    import cv2  # Only evaluations of borders need it.

    # The neighbour before the nearest other label has this label and is an edge itself.
    return cv2.distanceTransform((~is_edge).view(np.uint8), cv2.DIST_C, 3) + 1


def boundary_overlap(
    gt_map: NDArray[np.uint32], pred_map: NDArray[np.uint32], dilation_ratio: float
) -> Overlap:
    """As `count_overlap`, of the bands along the inside of all borders only.

    Pixels deeper inside a segment get `INTERIOR_ID`; void in the truth stays void throughout, so
    that what is predicted there can leave the union.
    """
    width = boundary_width((gt_map.shape[0], gt_map.shape[1]), dilation_ratio)
    gt_inside = distance_to_border(gt_map, count_image_border=True) > width
    pred_inside = distance_to_border(pred_map, count_image_border=True) > width
    return count_overlap(
        np.where(gt_inside & (gt_map != 0), INTERIOR_ID, gt_map),
        np.where(pred_inside, INTERIOR_ID, pred_map),
    )


@dataclass(frozen=True)
class BoundaryIoUCounts:
    """Pixels of the bands of each class; `a + b` is the sum over both sets of images.

    Attributes:
        shared, gt, pred: [K] int64 pixels in both bands, in the true band, in the predicted band.
    """

    shared: NDArray[np.int64]
    gt: NDArray[np.int64]
    pred: NDArray[np.int64]

    def __add__(self, other: BoundaryIoUCounts) -> BoundaryIoUCounts:
        return BoundaryIoUCounts(
            self.shared + other.shared, self.gt + other.gt, self.pred + other.pred
        )

    @classmethod
    def zeros(cls, num_classes: int) -> BoundaryIoUCounts:
        """The sum over no image."""
        none = np.zeros(num_classes, dtype=np.int64)
        return cls(none, none, none)


def count_boundary_iou(
    gt_map: NDArray[np.uint32],
    pred_map: NDArray[np.uint32],
    gt: SegmentTable,
    pred: SegmentTable,
    num_classes: int,
    dilation_ratio: float,
) -> BoundaryIoUCounts:
    """Counts the bands of the class regions of one image (Boundary IoU by class)."""
    gt_classes, pred_classes = class_map(gt_map, gt), class_map(pred_map, pred)
    overlap = boundary_overlap(gt_classes, pred_classes, dilation_ratio)
    labels = np.arange(num_classes + 1)
    # Class c is label c + 1; label 0 is void.
    in_gt = overlap.gt_ids[:, None] == labels[1:]
    in_pred = (overlap.pred_ids[:, None] == labels[1:]) & (overlap.gt_ids != 0)[:, None]
    return BoundaryIoUCounts(
        shared=overlap.pixels @ (in_gt & in_pred),
        gt=overlap.pixels @ in_gt,
        pred=overlap.pixels @ in_pred,
    )


def compute_boundary_iou(counts: BoundaryIoUCounts) -> tuple[float | None, ...]:
    """IoU of the bands of each class; None for a class that occurs nowhere."""
    unions = counts.gt + counts.pred - counts.shared
    return tuple(
        int(shared) / int(union) if union else None for shared, union in zip(counts.shared, unions)
    )


def count_trimaps(
    gt_map: NDArray[np.uint32],
    pred_map: NDArray[np.uint32],
    gt: SegmentTable,
    pred: SegmentTable,
    num_classes: int,
    widths_pixels: Sequence[int],
) -> tuple[ConfusionCounts, ...]:
    """Confusion of classes in bands around the borders of the true classes, one per width.

    PointRend, supplement: mIoU within so many pixels of a border. A border is any change of class,
    also from or to void; the edge of the image is none.
    """
    distance = distance_to_border(class_map(gt_map, gt), count_image_border=False)
    return tuple(
        count_confusion(
            count_overlap(np.where(distance <= width, gt_map, np.uint32(0)), pred_map),
            gt,
            pred,
            num_classes,
        )
        for width in widths_pixels
    )


def class_map(id_map: NDArray[np.uint32], segments: SegmentTable) -> NDArray[np.uint32]:
    """[H, W] train id + 1 of each pixel; 0 = no segment."""
    order = np.argsort(segments.segment_ids)
    classes = np.empty(id_map.shape, dtype=np.uint32)
    _relabel_runs(
        np.ascontiguousarray(id_map, dtype=np.uint32),
        segments.segment_ids[order].astype(np.uint32),
        (segments.train_ids[order] + 1).astype(np.uint32),
        classes,
    )
    return classes


@kernel("uint32[:, :]", "uint32[:]", "uint32[:]", "uint32[:, :]")
def _relabel_runs(id_map, sorted_ids, labels, relabelled):  # type: ignore[no-untyped-def]
    """Looks up each run of one id once."""
    height, width = id_map.shape
    for row in range(height):
        previous = np.uint32(0)
        label = np.uint32(0)
        for column in range(width):
            segment_id = id_map[row, column]
            if segment_id != previous:
                previous = segment_id
                place = np.searchsorted(sorted_ids, segment_id)
                found = place < len(sorted_ids) and sorted_ids[place] == segment_id
                label = labels[place] if found else np.uint32(0)
            relabelled[row, column] = label
