"""The best class of every pixel of an image, from logits of another size.

Letters: K classes, h, w size of the logits, H, W size of the class map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.ops.fixed_shapes import needs_fixed_shapes

# Above this share of undecided pixels one dense pass is cheaper than gathering them.
_DENSE_FRACTION = 0.25
# Of a large photograph not all rows are computed at once, for the sake of the memory.
STRIP_ROWS = 1024
# The same for all classes of a strip on a GPU.
_NUMBERS_AT_ONCE = 2**26

# In the place of a class.
_DISAGREE = -1

_Neighbours = tuple[Tensor, Tensor, Tensor]


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
    device = logits.device
    if (height, width) == tuple(grid.output_size) and grid.cells_per_pixel == (1.0, 1.0):
        return _argmax_classes(logits)
    vertical = _neighbours(height, grid.output_size[0], grid.cells_per_pixel[0], device)
    horizontal = _neighbours(width, grid.output_size[1], grid.cells_per_pixel[1], device)
    if needs_fixed_shapes(logits):
        return _all_classes(logits.float(), vertical, horizontal)
    cell_classes = _argmax_classes(logits)
    cells = logits.flatten(1).T.float().contiguous()
    strips = zip(*(part.split(STRIP_ROWS) for part in vertical), strict=True)
    return torch.cat(
        [_strip_classes(logits, cells, cell_classes, strip, horizontal) for strip in strips]
    )


def _strip_classes(
    logits: Tensor,
    cells: Tensor,
    cell_classes: Tensor,
    vertical: _Neighbours,
    horizontal: _Neighbours,
) -> Tensor:
    """`resampled_classes` of some rows.

    Args:
        logits: [K, h, w].
        cells: the same, [h * w, K] float32.
        cell_classes: [h, w] best class of each cell.
        vertical, horizontal: of `_neighbours`, for these rows and all columns.
    """
    width = logits.shape[-1]
    (top, bottom, v), (left, right, u) = vertical, horizontal
    classes = _agreed_classes(cell_classes).index_select(1, left).index_select(0, top)
    undecided = (classes == _DISAGREE).flatten().nonzero()[:, 0]
    if len(undecided) > _DENSE_FRACTION * classes.numel():
        return _dense_classes(logits, vertical, horizontal)
    if len(undecided) == 0:
        return classes
    rows = undecided.div(len(left), rounding_mode="floor")
    columns = undecided - rows * len(left)
    y, x = torch.stack([top[rows], bottom[rows]]), torch.stack([left[columns], right[columns]])
    index = torch.stack(
        [y[0] * width + x[0], y[0] * width + x[1], y[1] * width + x[0], y[1] * width + x[1]], 1
    )
    fy, fx = v[rows], u[columns]
    weights = torch.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], 1)
    mixed = F.embedding_bag(index, cells, per_sample_weights=weights, mode="sum")
    # `max` is faster than `argmax` here.
    decided = mixed.max(1).indices.to(classes.dtype)
    return classes.flatten().scatter_(0, undecided, decided).view_as(classes)


def _agreed_classes(cell_classes: Tensor) -> Tensor:
    """[h, w] class of a cell, its right and lower neighbours and the one between, else `_DISAGREE`.

    At the border a cell is its own neighbour, as for `_neighbours`.
    """
    padded = F.pad(cell_classes[None], (0, 1, 0, 1), mode="replicate")[0]
    above, below = padded[:-1], padded[1:]
    first = above[:, :-1]
    agree = (above[:, 1:] == first) & (below[:, :-1] == first) & (below[:, 1:] == first)
    return torch.where(agree, first, _DISAGREE)


def _neighbours(
    cells: int, pixels: int, cells_per_pixel: float, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Lower cell, upper cell and weight of the upper one for each output pixel of an axis."""
    centre = torch.arange(pixels, dtype=torch.float32, device=device) + 0.5
    position = (centre * cells_per_pixel - 0.5).clamp(min=0)
    lower = position.floor().long().clamp(max=cells - 1)
    return lower, (lower + 1).clamp(max=cells - 1), position - lower


def _argmax_classes(logits: Tensor) -> Tensor:
    """[K, h, w] -> [h, w] int16 first largest class; on the CPU comparisons beat argmax."""
    if needs_fixed_shapes(logits):
        return logits.argmax(0).to(torch.int16)
    best, classes = logits[0].clone(), torch.zeros_like(logits[0], dtype=torch.int16)
    for index in range(1, len(logits)):
        larger = logits[index] > best
        classes.masked_fill_(larger, index)
        torch.maximum(best, logits[index], out=best)
    return classes


def _dense_classes(logits: Tensor, vertical: _Neighbours, horizontal: _Neighbours) -> Tensor:
    """Class by class, so that the full-size logits never exist together."""
    (top, bottom, v), (left, right, u) = vertical, horizontal
    best = logits.new_full((len(top), len(left)), float("-inf"), dtype=torch.float32)
    classes = torch.zeros_like(best, dtype=torch.int16)
    for index, values in enumerate(logits.float()):
        rows = torch.lerp(values[top], values[bottom], v[:, None])
        resized = torch.lerp(rows[:, left], rows[:, right], u)
        larger = resized > best
        classes.masked_fill_(larger, index)
        torch.maximum(best, resized, out=best)
    return classes


def _all_classes(logits: Tensor, vertical: _Neighbours, horizontal: _Neighbours) -> Tensor:
    """All classes at once, as many rows of the output as fit."""
    left, right, u = horizontal
    num_rows = max(1, _NUMBERS_AT_ONCE // (len(logits) * len(left)))
    classes = []
    for top, bottom, v in zip(*(part.split(num_rows) for part in vertical), strict=True):
        rows = torch.lerp(logits[:, top], logits[:, bottom], v[:, None])
        resized = torch.lerp(rows[:, :, left], rows[:, :, right], u)
        classes.append(resized.argmax(0).to(torch.int16))
    return torch.cat(classes)
