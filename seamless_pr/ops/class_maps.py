"""The best class of every pixel of an image, from logits of another size.

Letters: K classes, h, w size of the logits, H, W size of the class map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.ops.fixed_shapes import needs_fixed_shapes

# Of all classes, as many as a processor keeps in its caches, and as a GPU has memory for.
_NUMBERS_IN_CACHE = 2**19
_NUMBERS_AT_ONCE = 2**26

# In the place of a class.
_DISAGREE = -1


@dataclass(frozen=True)
class ResampleGrid:
    """Where the pixels of an output image lie on a map of logits, as bilinear resizing sees it.

    Attributes:
        output_size: (H, W).
        cells_per_pixel: (vertical, horizontal) map cells for one output pixel.
    """

    output_size: tuple[int, int]
    cells_per_pixel: tuple[float, float]


def best_classes(
    logits: Tensor,
    padded_size: tuple[int, int],
    image_size: tuple[int, int],
    output_size: tuple[int, int],
) -> Tensor:
    """[output_size] int16 best classes of the valid part of [K, h, w] logits of a padded image."""
    map_size = (logits.shape[-2], logits.shape[-1])
    if map_size == padded_size:
        # Cropped, so that the last pixels are not mixed with the padding.
        logits = logits[:, : image_size[0], : image_size[1]]
        map_size = padded_size = image_size
    return resampled_classes(logits, resample_grid(map_size, padded_size, image_size, output_size))


def resample_grid(
    map_size: tuple[int, int],
    padded_size: tuple[int, int],
    image_size: tuple[int, int],
    output_size: tuple[int, int],
) -> ResampleGrid:
    """The part of a map that the valid image covers, seen at another size.

    Args:
        map_size: cells (h, w) of the logits, which cover the padded image.
        padded_size, image_size: network input and the valid part of it, in pixels.
        output_size: size of the result, for instance that of the image file.
    """
    vertical, horizontal = (
        cells * valid / (padded * output)
        for cells, padded, valid, output in zip(map_size, padded_size, image_size, output_size)
    )
    return ResampleGrid(output_size, (vertical, horizontal))


def resampled_classes(logits: Tensor, grid: ResampleGrid) -> Tensor:
    """The best class of every output pixel, as if all logits had been resized bilinearly.

    The resizing is that of align_corners=False. Between four cells whose best class is the same,
    every convex combination has that best class too, so only pixels between cells that disagree
    are computed: a small share of a real scene, at the same result.

    Args:
        logits: [K, h, w] on any device.
        grid: where the output pixels lie.

    Returns:
        [H, W] int16 class indices.
    """
    _, height, width = logits.shape
    if (height, width) == tuple(grid.output_size) and grid.cells_per_pixel == (1.0, 1.0):
        return _argmax_classes(logits)
    vertical, horizontal = (
        _axis(cells, pixels, scale, logits.device)
        for cells, pixels, scale in zip((height, width), grid.output_size, grid.cells_per_pixel)
    )
    if needs_fixed_shapes(logits):
        return _all_classes(logits.float(), vertical, horizontal)
    logits = logits.float().contiguous()
    rows, columns = _gap_pixels(vertical, height), _gap_pixels(horizontal, width)
    agreed = _agreed_classes(_argmax_classes(logits))
    classes = agreed.index_select(1, horizontal.gap).index_select(0, vertical.gap)
    undecided = (agreed == _DISAGREE) & rows.present[:, None] & columns.present
    numbers = len(logits) * len(rows.pixels) * len(columns.pixels)
    for gaps in undecided.nonzero().split(max(1, _NUMBERS_IN_CACHE // numbers)):
        of_rows, of_columns = rows.select(gaps[:, 0]), columns.select(gaps[:, 1])
        places = (of_rows.pixels * classes.shape[1])[:, None] + of_columns.pixels
        found = _classes_between(logits, of_rows, of_columns)
        classes.view(-1).scatter_(0, places.flatten(), found.flatten())
    return classes


@dataclass(frozen=True)
class _Axis:
    """How the L pixels along one side of the output read C cells of the map.

    A gap lies between two neighbouring cells, or beside the first or the last one: C + 1.

    Attributes:
        lower, upper: [L] int64 the cells around the centre of a pixel.
        fraction: [L] of the way from the lower to the upper one.
        gap: [L] int64, ascending.
    """

    lower: Tensor
    upper: Tensor
    fraction: Tensor
    gap: Tensor


def _axis(cells: int, pixels: int, cells_per_pixel: float, device: torch.device) -> _Axis:
    centre = torch.arange(pixels, dtype=torch.float32, device=device) + 0.5
    position = centre * cells_per_pixel - 0.5
    before, position = position < 0, position.clamp(min=0)
    lower = position.floor().long().clamp(max=cells - 1)
    upper = (lower + 1).clamp(max=cells - 1)
    return _Axis(lower, upper, position - lower, torch.where(before, 0, lower + 1))


@dataclass(frozen=True)
class _GapPixels:
    """The gaps of an axis, G of them, with P pixels each; those with fewer repeat their last one.

    Attributes:
        lower, upper: [G] int64 the cells beside a gap.
        pixels: [P, G] int64.
        fraction: [P, G] see `_Axis`.
        present: [G] bool whether there is a pixel.
    """

    lower: Tensor
    upper: Tensor
    pixels: Tensor
    fraction: Tensor
    present: Tensor

    def select(self, index: Tensor) -> _GapPixels:
        return _GapPixels(
            self.lower.index_select(0, index),
            self.upper.index_select(0, index),
            self.pixels.index_select(1, index),
            self.fraction.index_select(1, index),
            self.present.index_select(0, index),
        )


def _gap_pixels(axis: _Axis, cells: int) -> _GapPixels:
    gaps = torch.arange(cells + 1, device=axis.gap.device)
    start, stop = (torch.searchsorted(axis.gap, gaps, right=right) for right in (False, True))
    counts = stop - start
    pixels = start + torch.arange(int(counts.max()), device=gaps.device)[:, None]
    pixels = pixels.minimum(stop - 1).clamp(min=0)
    lower, upper = (gaps - 1).clamp(min=0), gaps.clamp(max=cells - 1)
    return _GapPixels(lower, upper, pixels, axis.fraction[pixels], counts > 0)


def _agreed_classes(cell_classes: Tensor) -> Tensor:
    """[h + 1, w + 1] class of the four cells around a gap of rows and one of columns.

    Where they are not of one class, `_DISAGREE`. The border is its own neighbour.
    """
    padded = F.pad(cell_classes[None], (1, 1, 1, 1), mode="replicate")[0]
    above, below = padded[:-1], padded[1:]
    first = above[:, :-1]
    agree = (above[:, 1:] == first) & (below[:, :-1] == first) & (below[:, 1:] == first)
    return torch.where(agree, first, _DISAGREE)


def _classes_between(logits: Tensor, rows: _GapPixels, columns: _GapPixels) -> Tensor:
    """[P, Q, G] int16 best classes of the P x Q pixels where gaps of rows and columns cross."""
    num_classes, _, width = logits.shape
    corners = [
        row * width + column
        for row in (rows.lower, rows.upper)
        for column in (columns.lower, columns.upper)
    ]
    cells = logits.view(num_classes, -1).index_select(1, torch.cat(corners))
    cells = cells.view(num_classes, 2, 2, -1)
    # In the order of `_all_classes`: first between rows, then between columns.
    sides = torch.lerp(cells[:, 0, None], cells[:, 1, None], rows.fraction[:, None])
    return _first_largest(torch.lerp(sides[:, :, 0, None], sides[:, :, 1, None], columns.fraction))


def _first_largest(values: Tensor) -> Tensor:
    """[K, ...] float32, which are lost, -> [...] int16, as argmax, which is slow on the CPU."""
    last = len(values) - 1
    order = torch.arange(last, -1, -1, dtype=values.dtype, device=values.device)
    order = order.view(-1, *[1] * (values.dim() - 1))
    return last - values.ge_(values.amax(0)).mul_(order).amax(0).to(torch.int16)


def _argmax_classes(logits: Tensor) -> Tensor:
    """[K, h, w] -> [h, w] int16 first largest class."""
    if needs_fixed_shapes(logits):
        return logits.argmax(0).to(torch.int16)
    num_rows = max(1, _NUMBERS_IN_CACHE // (len(logits) * logits.shape[2]))
    strips = logits.split(num_rows, dim=1)
    layout = torch.contiguous_format
    copies = (strip.to(torch.float32, copy=True, memory_format=layout) for strip in strips)
    return torch.cat([_first_largest(values) for values in copies])


def _all_classes(logits: Tensor, vertical: _Axis, horizontal: _Axis) -> Tensor:
    """All classes at once, as many rows of the output as fit."""
    left, right = horizontal.lower, horizontal.upper
    num_rows = max(1, _NUMBERS_AT_ONCE // (len(logits) * len(left)))
    strips = (part.split(num_rows) for part in (vertical.lower, vertical.upper, vertical.fraction))
    classes = []
    for top, bottom, fraction in zip(*strips, strict=True):
        rows = torch.lerp(logits[:, top], logits[:, bottom], fraction[:, None])
        resized = torch.lerp(rows[:, :, left], rows[:, :, right], horizontal.fraction)
        classes.append(resized.argmax(0).to(torch.int16))
    return torch.cat(classes)
