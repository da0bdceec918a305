"""Mean IoU over classes by the rules of Cityscapes, from one confusion matrix over all images.

K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seamless_pr.id_maps.overlap import Overlap
from seamless_pr.metrics.segment_table import SegmentTable


@dataclass(frozen=True)
class ConfusionCounts:
    """Pixels by true and predicted class; `a + b` is the sum over both sets of images.

    Attributes:
        pixels: [K, K + 1] int64, row = true class, column = predicted class, the last column for
            pixels that are predicted as no class. Pixels that are void in the truth are not
            counted.
    """

    pixels: NDArray[np.int64]

    def __add__(self, other: ConfusionCounts) -> ConfusionCounts:
        if self.pixels.shape != other.pixels.shape:
            raise ValueError(
                f"counts of {len(self.pixels)} and {len(other.pixels)} classes do not add up; "
                "evaluate both parts with the same label space"
            )
        return ConfusionCounts(self.pixels + other.pixels)

    @classmethod
    def zeros(cls, num_classes: int) -> ConfusionCounts:
        """The sum over no image."""
        return cls(np.zeros((num_classes, num_classes + 1), dtype=np.int64))


def count_confusion(
    overlap: Overlap, gt: SegmentTable, pred: SegmentTable, num_classes: int
) -> ConfusionCounts:
    """Counts the pixels of one image by class.

    Crowd segments have a class and count with it. Ids that the ground truth does not list are void.
    """
    gt_index, pred_index = gt.find(overlap.gt_ids), pred.find(overlap.pred_ids)
    is_counted = gt_index >= 0
    # Index -1 (no segment) takes the class appended at the end.
    pred_class = np.append(pred.train_ids, num_classes)[pred_index[is_counted]]
    gt_class = gt.train_ids[gt_index[is_counted]]
    cells = np.bincount(
        gt_class * (num_classes + 1) + pred_class,
        weights=overlap.pixels[is_counted],
        minlength=num_classes * (num_classes + 1),
    )
    return ConfusionCounts(cells.astype(np.int64).reshape(num_classes, num_classes + 1))


@dataclass(frozen=True)
class SemanticScores:
    """IoU of classes, each in [0, 1].

    Attributes:
        mean_iou: over the classes that occur in truth or prediction; None if there is none.
        pixel_accuracy: share of the counted pixels with the right class; None without pixels.
        per_class: K values; None for a class that occurs nowhere.
    """

    mean_iou: float | None
    pixel_accuracy: float | None
    per_class: tuple[float | None, ...]

    @property
    def scene_parsing(self) -> float | None:
        """The score of the scene parsing challenge (ADE20K): mean of the two above."""
        if self.mean_iou is None or self.pixel_accuracy is None:
            return None
        return (self.pixel_accuracy + self.mean_iou) / 2


def compute_semantic_scores(counts: ConfusionCounts) -> SemanticScores:
    """IoU = TP / (TP + FP + FN).

    A false positive lies on a pixel of another evaluated class: what is predicted on void costs
    nothing. A pixel of a class that is predicted as void or as an ignored label is a false
    negative.
    """
    pixels = counts.pixels
    right = np.diagonal(pixels)
    unions = pixels.sum(1) + pixels[:, :-1].sum(0) - right
    per_class = tuple(int(tp) / int(union) if union else None for tp, union in zip(right, unions))
    present = [iou for iou in per_class if iou is not None]
    total = int(pixels.sum())
    return SemanticScores(
        mean_iou=sum(present) / len(present) if present else None,
        pixel_accuracy=int(right.sum()) / total if total else None,
        per_class=per_class,
    )
