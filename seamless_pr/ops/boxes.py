"""Geometry of boxes: area, overlap, encoding, clipping and suppression.

Boxes are float xyxy in absolute pixels; a pixel with index i covers [i, i + 1), so width = x1 - x0.
Letters: R boxes, A and B two sets of boxes, H and W the image.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torchvision
from torch import Tensor

from seamless_pr.ops.vectors import vector

# A decoded box is at most this many times as large as its reference (1000 px from a 16 px anchor).
MAX_LOG_SCALE = math.log(1000.0 / 16.0)
# References thinner than this (pixels) are widened before their size becomes a divisor.
MIN_REFERENCE_SIZE = 1e-5


def box_area(boxes: Tensor) -> Tensor:
    """Area of boxes [..., 4] in square pixels, [...]; 0 for a box whose corners are swapped."""
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return size[..., 0] * size[..., 1]


def box_iou(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """Intersection over union of every pair.

    Args:
        boxes_a: [..., A, 4].
        boxes_b: [..., B, 4].

    Returns:
        [..., A, B] in [0, 1]; 0 where both boxes are empty.
    """
    a, b = boxes_a[..., :, None, :], boxes_b[..., None, :, :]
    # One coordinate at a time: half the memory traffic of [A, B, 2] temporaries.
    width = torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])
    height = torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])
    intersection = width.clamp_(min=0).mul_(height.clamp_(min=0))
    union = (box_area(boxes_a)[..., :, None] + box_area(boxes_b)[..., None, :]).sub_(intersection)
    return intersection.div_(union.clamp_(min=torch.finfo(union.dtype).tiny))


def crowd_overlap(boxes: Tensor, crowd_mask: Tensor) -> Tensor:
    """Share of each box that is covered by crowd pixels.

    As in the reference implementation, pixels are counted between corners truncated to integers and
    clipped to the image, and divided by the area of the box as it is, so the share may slightly
    exceed 1.

    Args:
        boxes: [R, 4] in pixels of the mask.
        crowd_mask: [H, W] bool.

    Returns:
        [R] float32; 0 for empty boxes.
    """
    if not bool(crowd_mask.any()):
        return boxes.new_zeros(len(boxes), dtype=torch.float32)
    height, width = crowd_mask.shape
    integral = crowd_mask.new_zeros(height + 1, width + 1, dtype=torch.int32)
    integral[1:, 1:] = crowd_mask.cumsum(0, dtype=torch.int32).cumsum_(1)
    corners = boxes.trunc().long()
    x0, x1 = corners[:, 0].clamp(0, width), corners[:, 2].clamp(0, width)
    y0, y1 = corners[:, 1].clamp(0, height), corners[:, 3].clamp(0, height)
    count = integral[y1, x1] - integral[y0, x1] - integral[y1, x0] + integral[y0, x0]
    area = box_area(boxes.float())
    return torch.where(area > 0, count / area, torch.zeros_like(area))


def encode_boxes(
    reference: Tensor,
    boxes: Tensor,
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Tensor:
    """Deltas (dx, dy, dw, dh) that `decode_boxes` turns back into `boxes`.

    Args:
        reference: [..., 4] anchors or proposals.
        boxes: [..., 4]; must have positive sizes for finite deltas.
        weights: factors of dx, dy, dw and dh.

    Returns:
        [..., 4] float32: centre shift over reference size and log of the size ratio, times the
        weights.
    """
    reference, boxes = reference.float(), boxes.float()
    reference_size = (reference[..., 2:] - reference[..., :2]).clamp(min=MIN_REFERENCE_SIZE)
    size = boxes[..., 2:] - boxes[..., :2]
    shift = (boxes[..., :2] + 0.5 * size) - (reference[..., :2] + 0.5 * reference_size)
    deltas = torch.cat([shift / reference_size, (size / reference_size).log()], dim=-1)
    return deltas * vector(weights, deltas)


def decode_boxes(
    reference: Tensor,
    deltas: Tensor,
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
    *,
    limits_shrinking: bool = False,
) -> Tensor:
    """Boxes that deltas (dx, dy, dw, dh) describe, not clipped.

    Args:
        reference: [..., 4] anchors or proposals.
        deltas: [..., 4], broadcast against `reference`; any float dtype, computed in float32.
        weights: divisors of dx, dy, dw and dh, applied before the limit on the size ratio.
        limits_shrinking: that limit holds for boxes that become smaller, too (mmdetection).

    Returns:
        [..., 4] float32.
    """
    reference, deltas = reference.float(), deltas.float()
    deltas = deltas / vector(weights, deltas)
    reference_size = reference[..., 2:] - reference[..., :2]
    center = reference[..., :2] + 0.5 * reference_size + reference_size * deltas[..., :2]
    least = -MAX_LOG_SCALE if limits_shrinking else None
    log_scale = deltas[..., 2:].clamp(min=least, max=MAX_LOG_SCALE)
    half_size = 0.5 * reference_size * log_scale.exp()
    return torch.cat([center - half_size, center + half_size], dim=-1)


def clip_boxes(boxes: Tensor, size: tuple[int, int], *, keeps_pixel: bool = False) -> Tensor:
    """Moves corners of boxes [..., 4] into an image of `size` (height, width).

    Boxes outside the image become empty; with `keeps_pixel`, as in mmdetection 1.x, they keep the
    pixel at the border.
    """
    height, width = size
    if not keeps_pixel:
        return torch.minimum(boxes.clamp(min=0), vector([width, height] * 2, boxes))
    lower = vector([0, 0, 1, 1], boxes)
    upper = vector([width - 1, height - 1, width, height], boxes)
    return torch.minimum(torch.maximum(boxes, lower), upper)


def last_pixels(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] whose ends are the indices of their last pixels (mmdetection 1.x)."""
    return boxes - vector([0, 0, 1, 1], boxes)


def nms(boxes: Tensor, scores: Tensor, threshold: float, max_kept: int | None = None) -> Tensor:
    """Greedy non-maximum suppression of boxes whose IoU with a better one reaches the threshold.

    The reference suppresses at IoU >= threshold where torchvision needs >, so torchvision gets the
    next smaller float32. IoUs are float32 on every device. Empty boxes neither suppress nor are
    suppressed.

    Args:
        boxes: [R, 4].
        scores: [R]; any real numbers.
        threshold: IoU in (0, 1].
        max_kept: stop after that many; None keeps all.

    Returns:
        Indices of the kept boxes by descending score, int64.

    Raises:
        ValueError: threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"the NMS threshold must be in (0, 1]; got {threshold}")
    boxes = boxes.float()
    strict_threshold = float(np.nextafter(np.float32(threshold), np.float32(0)))
    if max_kept is None or len(boxes) <= 2 * max_kept or boxes.is_cuda:
        kept = torchvision.ops.nms(boxes, scores.float(), strict_threshold)
        return kept if max_kept is None else kept[:max_kept]
    # What is kept of the best scores does not depend on the rest: try a prefix first (CPU cost is
    # quadratic).
    order = scores.argsort(descending=True, stable=True)
    prefix = order[: 2 * max_kept]
    kept = torchvision.ops.nms(boxes[prefix], scores[prefix].float(), strict_threshold)
    if len(kept) < max_kept:
        prefix = order
        kept = torchvision.ops.nms(boxes[prefix], scores[prefix].float(), strict_threshold)
    return prefix[kept[:max_kept]]


def class_nms(boxes: Tensor, scores: Tensor, class_indices: Tensor, threshold: float) -> Tensor:
    """`nms` among the boxes of each class.

    Classes are processed one by one: shifting the classes apart in one call would round the
    coordinates.

    Args:
        boxes: [R, 4].
        scores: [R].
        class_indices: [R] int64.
        threshold: IoU in (0, 1].

    Returns:
        Indices of the kept boxes, by ascending class, then descending score; int64.
    """
    kept = [class_indices.new_zeros(0)]
    for class_index in class_indices.unique().tolist():
        members = torch.nonzero(class_indices == class_index).flatten()
        kept.append(members[nms(boxes[members], scores[members], threshold)])
    return torch.cat(kept)
