"""Average precision of instance masks by the rules of Cityscapes.

G true segments of thing classes, R predicted instances, P pairs of one class that share pixels.
COCO's own AP comes from pycocotools, see `coco_ap`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seamless_pr.id_maps.overlap import VOID_SEGMENT_ID, count_overlap
from seamless_pr.metrics.segment_table import SegmentTable

IOU_THRESHOLDS = tuple(0.5 + 0.05 * step for step in range(10))
MIN_OBJECT_PIXELS = 100


@dataclass(frozen=True)
class InstanceMasks:
    """Predicted instances of one image; their masks may overlap.

    Attributes:
        train_ids: [R] int64.
        scores: [R] float64.
        masks: R pairs of (top row, left column) and bool mask [h, w], the mask's crop of the image.
    """

    train_ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    masks: Sequence[tuple[tuple[int, int], NDArray[np.bool_]]]


@dataclass(frozen=True)
class InstanceOverlaps:
    """What AP needs of one image.

    Attributes:
        gt_train_ids, gt_pixels: [G] int64.
        is_object: [G] bool, true objects that must be found: no group, not too small.
        train_ids, pixels: [R] int64; instances without a pixel are left out.
        scores: [R] float64.
        ignored_pixels: [R] int64, pixels of each instance on void, groups and too small objects.
        pair_gt, pair_pred, shared: [P] int64, indices and common pixels.
    """

    gt_train_ids: NDArray[np.int64]
    gt_pixels: NDArray[np.int64]
    is_object: NDArray[np.bool_]
    train_ids: NDArray[np.int64]
    pixels: NDArray[np.int64]
    scores: NDArray[np.float64]
    ignored_pixels: NDArray[np.int64]
    pair_gt: NDArray[np.int64]
    pair_pred: NDArray[np.int64]
    shared: NDArray[np.int64]

    @property
    def pair_iou(self) -> NDArray[np.float64]:
        """[P] IoU; void stays in the union here."""
        unions = self.gt_pixels[self.pair_gt] + self.pixels[self.pair_pred] - self.shared
        return self.shared / unions


def count_instances(
    gt_map: NDArray[np.uint32],
    gt: SegmentTable,
    instances: InstanceMasks,
    num_stuff: int,
    ignored_objects: NDArray[np.bool_] | None = None,
) -> InstanceOverlaps:
    """Counts how instances and true objects of one image overlap.

    Args:
        gt_map: [H, W] segment ids, 0 = void.
        gt: its segments.
        instances: of thing classes.
        num_stuff: classes before this train id are stuff.
        ignored_objects: [H, W] bool, pixels with id 0 that are no void here. Cityscapes' evaluator
            compares raw values with a list of labels, which objects of caravan and trailer escape.
    """
    ids, counts = np.unique(gt_map, return_counts=True)
    index = gt.find(ids.astype(np.int64))
    pixels_of_gt = np.zeros(len(gt), dtype=np.int64)
    pixels_of_gt[index[index >= 0]] = counts[index >= 0]
    things = np.flatnonzero((gt.train_ids >= num_stuff) & (pixels_of_gt > 0))
    place = np.full(len(gt) + 1, -1)
    place[things] = np.arange(len(things))

    gt_train_ids, gt_pixels = gt.train_ids[things], pixels_of_gt[things]
    is_group, is_small = gt.is_crowd[things], gt_pixels < MIN_OBJECT_PIXELS
    rows: list[tuple[int, int, int, float]] = []
    pairs: list[tuple[int, int, int]] = []
    for train_id, score, ((top, left), mask) in zip(
        instances.train_ids.tolist(), instances.scores.tolist(), instances.masks
    ):
        window = (slice(top, top + mask.shape[0]), slice(left, left + mask.shape[1]))
        overlap = count_overlap(gt_map[window], mask.astype(np.uint32))
        inside = overlap.pred_ids == 1
        if not inside.any():
            continue
        gt_ids, shared = overlap.gt_ids[inside], overlap.pixels[inside]
        ignored = int(shared[gt_ids == VOID_SEGMENT_ID].sum())
        if ignored_objects is not None:
            ignored -= int((ignored_objects[window] & mask).sum())
        touched = place[gt.find(gt_ids)]
        same = (touched >= 0) & (gt_train_ids[touched] == train_id) if len(things) else touched >= 0
        touched, of_touched = touched[same], shared[same]
        # A small group is counted twice, as the official evaluator does.
        ignored += int(of_touched[is_group[touched]].sum() + of_touched[is_small[touched]].sum())
        pairs += [(gt_index, len(rows), n) for gt_index, n in zip(touched.tolist(), of_touched)]
        rows.append((train_id, int(shared.sum()), ignored, score))
    columns = np.array([row[:3] for row in rows], dtype=np.int64).reshape(-1, 3)
    pair_columns = np.array(pairs, dtype=np.int64).reshape(-1, 3)
    return InstanceOverlaps(
        gt_train_ids=gt_train_ids,
        gt_pixels=gt_pixels,
        is_object=~is_group & ~is_small,
        train_ids=columns[:, 0],
        pixels=columns[:, 1],
        scores=np.array([row[3] for row in rows], dtype=np.float64),
        ignored_pixels=columns[:, 2],
        pair_gt=pair_columns[:, 0],
        pair_pred=pair_columns[:, 1],
        shared=pair_columns[:, 2],
    )


@dataclass(frozen=True)
class InstanceScores:
    """Average precision, each value in [0, 1].

    Attributes:
        ap: mean over thresholds and classes with ground truth; None without any.
        ap50: the same at IoU 0.5 only.
        per_class: (AP, AP50) of each thing class in the order of the label space; None without
            ground truth.
    """

    ap: float | None
    ap50: float | None
    per_class: tuple[tuple[float, float] | None, ...]


def compute_cityscapes_ap(
    images: Sequence[InstanceOverlaps], num_stuff: int, num_classes: int
) -> InstanceScores:
    """AP over a set of images.

    Ten thresholds from 0.5 to 0.95, each exceeded strictly. Of several instances on one object the
    best counts and the others are false positives. An unmatched instance is forgiven when the share
    of its pixels on void, on groups of its class and on objects below 100 pixels exceeds the
    threshold.
    """
    per_class: list[tuple[float, float] | None] = []
    for train_id in range(num_stuff, num_classes):
        values = [_average_precision(images, train_id, iou) for iou in IOU_THRESHOLDS]
        known = [value for value in values if value is not None]
        per_class.append((sum(known) / len(known), known[0]) if known else None)
    present = [scores for scores in per_class if scores is not None]
    return InstanceScores(
        ap=sum(ap for ap, _ in present) / len(present) if present else None,
        ap50=sum(ap50 for _, ap50 in present) / len(present) if present else None,
        per_class=tuple(per_class),
    )


def _average_precision(
    images: Sequence[InstanceOverlaps], train_id: int, threshold: float
) -> float | None:
    """Area under the stepwise curve of one class; None without a true object."""
    right: list[float] = []
    wrong: list[float] = []
    num_missed, has_gt = 0, False
    for image in images:
        is_close = image.pair_iou > threshold
        for gt_index in np.flatnonzero(image.is_object & (image.gt_train_ids == train_id)):
            has_gt = True
            on_object = image.pair_pred[is_close & (image.pair_gt == gt_index)]
            if not len(on_object):
                num_missed += 1
                continue
            scores = sorted(image.scores[on_object].tolist())
            right.append(scores[-1])
            wrong += scores[:-1]
        wrong += _unexcused(image, train_id, is_close, threshold)
    if not has_gt:
        return None
    return _area_under_steps(np.array(right), np.array(wrong), num_missed)


def _unexcused(
    image: InstanceOverlaps, train_id: int, is_close: NDArray[np.bool_], threshold: float
) -> Iterator[float]:
    """Scores of the instances that are close to nothing and mostly on judged pixels."""
    is_open = image.train_ids == train_id
    is_open[image.pair_pred[is_close]] = False
    is_open &= image.ignored_pixels / np.maximum(image.pixels, 1) <= threshold
    yield from image.scores[is_open].tolist()


def _area_under_steps(
    right: NDArray[np.float64], wrong: NDArray[np.float64], num_missed: int
) -> float:
    """Precision summed over recall; at each step half of the change to either side counts."""
    if not len(right) + len(wrong):
        return 0.0
    thresholds = np.unique(np.concatenate([right, wrong]))
    tp = len(right) - np.searchsorted(np.sort(right), thresholds)
    fp = len(wrong) - np.searchsorted(np.sort(wrong), thresholds)
    precision = np.append(tp / (tp + fp), 1.0)
    recall = np.append(tp / (len(right) + num_missed), 0.0)
    padded = np.concatenate([recall[:1], recall, [0.0]])
    return float(precision @ ((padded[:-2] - padded[2:]) / 2))
