"""Masks of boxes pasted into images, all at once and without a number that the host would read.

The results are those of the crops of `seamless_pr.ops.masks`, one by one.
Letters: R boxes, M mask side, H, W image size. Boxes are xyxy in pixels of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Pixels of masks between 0 and 1 that exist at a time, as floats.
PIXELS_AT_ONCE = 2**26


@dataclass(frozen=True)
class _Axis:
    """How masks are read along one side of the image, at each of its L pixels.

    Attributes:
        lower, upper: [R, L] int64 the two cells around the centre of a pixel.
        fraction: [R, L] of the way from the lower to the upper one.
        inside: [R, L] bool whether the box covers the pixel.
    """

    lower: Tensor
    upper: Tensor
    fraction: Tensor
    inside: Tensor

    def split(self, size: int) -> Iterator[_Axis]:
        """The same for `size` boxes after the other."""
        parts = (self.lower, self.upper, self.fraction, self.inside)
        return map(_Axis, *(part.split(size) for part in parts))


# Lower and upper values and the fraction between them -> values.
_Mix = Callable[[Tensor, Tensor, Tensor], Tensor]


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
    side = probs.shape[1]
    x0, y0, x1, y1 = boxes.unbind(1)
    rows = _stretched(y0, y1, side, image_size[0])
    columns = _stretched(x0, x1, side, image_size[1])
    # A cell of nothing on each side.
    padded = F.pad(probs, (1, 1, 1, 1))
    values = (
        _read(_read(part, vertical, torch.lerp).mT, horizontal, torch.lerp).mT
        for part, vertical, horizontal in _chunks(padded, rows, columns)
    )
    return _thresholded(values, rows, columns, threshold, includes_threshold)


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
    side = probs.shape[1]
    left, top, right, bottom = boxes.int().unbind(1)
    rows = _resized(top, bottom, side, image_size[0])
    columns = _resized(left, right, side, image_size[1])
    values = (
        _read(_read(part.mT, horizontal, _weighted).mT, vertical, _weighted)
        for part, vertical, horizontal in _chunks(probs, rows, columns)
    )
    return _thresholded(values, rows, columns, threshold, includes_threshold)


def _chunks(probs: Tensor, rows: _Axis, columns: _Axis) -> Iterator[tuple[Tensor, _Axis, _Axis]]:
    size = _chunk_size(rows, columns)
    return zip(probs.split(size), rows.split(size), columns.split(size), strict=True)


def _chunk_size(rows: _Axis, columns: _Axis) -> int:
    return max(1, PIXELS_AT_ONCE // (rows.inside.shape[1] * columns.inside.shape[1]))


def _thresholded(
    values: Iterator[Tensor],
    rows: _Axis,
    columns: _Axis,
    threshold: float,
    includes_threshold: bool,
) -> Tensor:
    """[R, H, W] bool: pixels of boxes with large enough values, of which chunks come in turn."""
    masks = torch.cat(
        [part >= threshold if includes_threshold else part > threshold for part in values]
    )
    return masks.logical_and_(rows.inside[:, :, None]).logical_and_(columns.inside[:, None, :])


def _read(values: Tensor, axis: _Axis, mix: _Mix) -> Tensor:
    """[R, M, K] -> [R, L, K] along dimension 1."""
    return mix(_rows(values, axis.lower), _rows(values, axis.upper), axis.fraction[..., None])


def _rows(maps: Tensor, index: Tensor) -> Tensor:
    """[R, A, K] and [R, B] -> [R, B, K]."""
    return maps.gather(1, index[..., None].expand(-1, -1, maps.shape[2]))


def _weighted(lower: Tensor, upper: Tensor, fraction: Tensor) -> Tensor:
    return lower * (1 - fraction) + upper * fraction


def _stretched(start: Tensor, end: Tensor, side: int, pixels: int) -> _Axis:
    """Linear reads of a mask with a cell of nothing on each side.

    Args:
        start, end: [R] of the boxes; those without an extent cover no pixel.
        side: cells of a mask.
        pixels: L.
    """
    centres = torch.arange(0.5, pixels, device=start.device)
    start, end = start[:, None], end[:, None]
    inside = (centres >= start) & (centres <= end) & (end > start)
    position = side * (centres - start) / (end - start) - 0.5
    # Of a box without extent nothing counts, but an index must be one.
    position = position.nan_to_num(0.0, -2.0, -2.0).clamp(-2, side + 1)
    floor = position.floor()
    cell = floor.long()
    lower, upper = (cell + 1).clamp(0, side + 1), (cell + 2).clamp(0, side + 1)
    return _Axis(lower, upper, position - floor, inside)


def _resized(first: Tensor, last: Tensor, side: int, pixels: int) -> _Axis:
    """Reads as in `seamless_pr.ops.opencv_resize.resize_probs`.

    Args:
        first, last: [R] int; at least one pixel is inside from `first` on.
        side: cells of a mask.
        pixels: L.
    """
    target = (last - first + 1).clamp(min=1)[:, None]
    index = torch.arange(pixels, device=first.device)[None] - first[:, None]
    inside = (index >= 0) & (index < target)
    position = ((index + 0.5).double() * (side / target.double()) - 0.5).float()
    position = position.clamp(-1, side)
    floor = position.floor()
    cell = floor.long()
    lower, upper = cell.clamp(0, side - 1), (cell + 1).clamp(0, side - 1)
    return _Axis(lower, upper, position - floor, inside)
