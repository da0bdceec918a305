"""Masks of boxes pasted into images, all at once and without a number that the host would read.

The results are those of the crops of `seamless_pr.ops.masks`, one by one.
Letters: R boxes, M mask side, H, W image size. Boxes are xyxy in pixels of the image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Pixels of masks between 0 and 1 that exist at a time, as floats.
PIXELS_AT_ONCE = 2**26


def paste_masks(
    probs: Tensor,
    boxes: Tensor,
    image_size: tuple[int, int],
    threshold: float,
    *,
    includes_threshold: bool = False,
) -> Tensor:
    """`seamless_pr.ops.masks.paste_mask` of many masks.

    Args:
        probs: [R, M, M] float in [0, 1].
        boxes: [R, 4]; may be empty or outside of the image.
        image_size: (H, W).
        threshold, includes_threshold: see there.

    Returns:
        [R, H, W] bool.
    """
    parts = [
        _pasted(*part, image_size, threshold, includes_threshold)
        for part in _chunks(probs, boxes, image_size)
    ]
    return torch.cat(parts)


def paste_pixel_masks(
    probs: Tensor,
    boxes: Tensor,
    image_size: tuple[int, int],
    threshold: float,
    *,
    includes_threshold: bool = False,
) -> Tensor:
    """The same for boxes that are cut off to whole pixels and end at the index of their last one.

    Args:
        probs, boxes, image_size, threshold, includes_threshold: as for `paste_masks`.

    Returns:
        [R, H, W] bool.
    """
    parts = [
        _pasted_pixels(*part, image_size, threshold, includes_threshold)
        for part in _chunks(probs, boxes, image_size)
    ]
    return torch.cat(parts)


def _chunks(
    probs: Tensor, boxes: Tensor, image_size: tuple[int, int]
) -> list[tuple[Tensor, Tensor]]:
    size = max(1, PIXELS_AT_ONCE // (image_size[0] * image_size[1]))
    return list(zip(probs.split(size), boxes.split(size), strict=True))


def _pasted(
    probs: Tensor,
    boxes: Tensor,
    image_size: tuple[int, int],
    threshold: float,
    includes_threshold: bool,
) -> Tensor:
    (x0, y0), (x1, y1) = boxes[:, :2].unbind(1), boxes[:, 2:].unbind(1)
    padded = F.pad(probs, (1, 1, 1, 1))
    rows = _read_along(padded, y0, y1, image_size[0])
    values = _read_along(rows.mT, x0, x1, image_size[1]).mT
    mask = values >= threshold if includes_threshold else values > threshold
    in_rows, in_columns = _inside(y0, y1, image_size[0]), _inside(x0, x1, image_size[1])
    return mask & in_rows[:, :, None] & in_columns[:, None, :]


def _centres(pixels: int, like: Tensor) -> Tensor:
    return torch.arange(pixels, dtype=torch.float32, device=like.device) + 0.5


def _inside(start: Tensor, end: Tensor, pixels: int) -> Tensor:
    """[R, pixels] bool: pixels whose centres lie in [start, end] of a box that has an extent."""
    centres, start, end = _centres(pixels, start), start[:, None], end[:, None]
    return (centres >= start) & (centres <= end) & (end > start)


def _read_along(padded: Tensor, start: Tensor, end: Tensor, pixels: int) -> Tensor:
    """[R, M + 2, L] -> [R, pixels, L]: linear reads along dimension 1 at all pixel centres."""
    side = padded.shape[1] - 2
    start, end = start[:, None], end[:, None]
    position = side * (_centres(pixels, start) - start) / (end - start) - 0.5
    # Of a box without extent nothing counts, but an index must be one.
    position = position.nan_to_num(0.0, -2.0, -2.0).clamp(-2, side + 1)
    lower = position.floor()
    fraction = (position - lower)[..., None]
    cell = lower.long()
    below = _rows(padded, (cell + 1).clamp(0, side + 1))
    above = _rows(padded, (cell + 2).clamp(0, side + 1))
    return torch.lerp(below, above, fraction)


def _rows(maps: Tensor, index: Tensor) -> Tensor:
    """[R, A, L] and [R, B] -> [R, B, L]."""
    return maps.gather(1, index[..., None].expand(-1, -1, maps.shape[2]))


def _pasted_pixels(
    probs: Tensor,
    boxes: Tensor,
    image_size: tuple[int, int],
    threshold: float,
    includes_threshold: bool,
) -> Tensor:
    (left, top), (right, bottom) = boxes[:, :2].int().unbind(1), boxes[:, 2:].int().unbind(1)
    columns, in_columns = _resized_along(probs.mT, left, right, image_size[1])
    values, in_rows = _resized_along(columns.mT, top, bottom, image_size[0])
    mask = values >= threshold if includes_threshold else values > threshold
    return mask & in_rows[:, :, None] & in_columns[:, None, :]


def _resized_along(
    values: Tensor, first: Tensor, last: Tensor, pixels: int
) -> tuple[Tensor, Tensor]:
    """[R, M, L] -> [R, pixels, L] as `opencv_resize.resize_probs`, and [R, pixels] what is inside.

    Args:
        first, last: [R] int; at least one pixel is inside from `first` on.
    """
    side = values.shape[1]
    target = (last - first + 1).clamp(min=1)[:, None]
    index = torch.arange(pixels, device=values.device)[None] - first[:, None]
    position = ((index + 0.5).double() * (side / target.double()) - 0.5).float()
    lower = position.clamp(-1, side).floor()
    fraction = (position.clamp(-1, side) - lower)[..., None]
    cell = lower.long()
    below = _rows(values, cell.clamp(0, side - 1))
    above = _rows(values, (cell + 1).clamp(0, side - 1))
    return below * (1 - fraction) + above * fraction, (index >= 0) & (index < target)
