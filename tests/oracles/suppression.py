"""Suppression by plain loops: soft-NMS of boxes in float32, as published; matrix NMS of masks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Box = Sequence[float]


def box_overlap(a: Box, b: Box) -> np.float32:
    """IoU of two boxes (x0, y0, x1, y1)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return np.float32(0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return np.float32(width * height) / np.float32(sum(areas) - width * height)


def lowered(
    score: np.float32, iou: np.float32, method: str, limit: float, sigma: float, *, at: bool
) -> np.float32:
    """A score after the selection of a box that overlaps by `iou`; `at`: from the limit on."""
    if method == "gaussian":
        return score * np.float32(math.exp(-(float(iou) ** 2) / sigma))
    if iou > limit or (at and iou == limit):
        return score * (1 - iou) if method == "linear" else np.float32(0)
    return score


def soft_nms(
    boxes: Sequence[Box],
    scores: Sequence[float],
    *,
    method: str,
    iou_threshold: float,
    includes_threshold: bool,
    sigma: float,
    min_score: float,
    tests_all: bool,
) -> list[tuple[int, float]]:
    """Selected boxes and their scores, in place as the published loops do it.

    The best of the rest comes to the front; whoever falls below `min_score` gives its place to the
    last one, which is then looked at there.
    """
    order, left = list(range(len(boxes))), [np.float32(score) for score in scores]
    place = 0
    while place < len(order):
        best = max(range(place, len(order)), key=lambda row: (left[order[row]], -row))
        order[place], order[best] = order[best], order[place]
        other = place + 1
        while other < len(order):
            row = order[other]
            iou = box_overlap(boxes[order[place]], boxes[row])
            left[row] = lowered(left[row], iou, method, iou_threshold, sigma, at=includes_threshold)
            if left[row] < min_score and (tests_all or iou > 0):
                order[other] = order[-1]
                order.pop()
            else:
                other += 1
        place += 1
    return [(row, float(left[row])) for row in order]


def matrix_nms(
    masks: Sequence[set[int]],
    scores: Sequence[float],
    classes: Sequence[int],
    *,
    kernel: str,
    sigma: float,
) -> dict[int, float]:
    """New score of every mask, a set of pixels (SOLOv2, section 3.3)."""
    order = sorted(range(len(masks)), key=lambda index: (-scores[index], index))

    def iou(first: int, second: int) -> float:
        if classes[first] != classes[second]:
            return 0.0
        union = masks[first] | masks[second]
        return len(masks[first] & masks[second]) / len(union) if union else 0.0

    def decay(overlap: float) -> float:
        return math.exp(-sigma * overlap**2) if kernel == "gaussian" else 1 - overlap

    worst = [
        max((iou(index, better) for better in order[:place]), default=0.0)
        for place, index in enumerate(order)
    ]
    result = {}
    for place, index in enumerate(order):
        factors = [
            decay(iou(index, order[better])) / decay(worst[better])
            for better in range(place)
            if decay(worst[better]) > 0
        ]
        result[index] = scores[index] * min([1.0, *factors])
    return result
