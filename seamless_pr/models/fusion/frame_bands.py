"""Maps of the network input, seen at the size of the image file, some rows at a time.

A hundred masks of a large photo do not fit into memory together; a band of their rows does.
Letters: R maps, h, w their cells, H, W pixels of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.models.fusion.by_score import FrameSizes
from seamless_pr.ops.precision import at_least_single

# Numbers in one band of all maps: what fits into memory, and on a processor into its caches.
_NUMBERS_AT_ONCE = 1 << 26
_NUMBERS_IN_CACHE = 1 << 20


@dataclass(frozen=True)
class FrameBand:
    """Some rows of the image file, and the rows of the network input that they are made of.

    Attributes:
        sizes: of the image.
        start, stop: rows of the file.
    """

    sizes: FrameSizes
    start: int
    stop: int

    @property
    def input_rows(self) -> tuple[int, int]:
        """First row of the image in the network input, and the row behind the last."""
        valid, length = self.sizes.image[0], self.sizes.original[0]
        if valid == length:
            return self.start, self.stop
        first, last = (
            min(max((row + 0.5) * valid / length - 0.5, 0.0), valid - 1.0)
            for row in (self.start, self.stop - 1)
        )
        # A row more on each side: these numbers are rounded differently from those of tensors.
        return max(0, int(first) - 1), min(valid, int(last) + 3)

    def at_input(self, maps: Tensor) -> Tensor:
        """[R, h, w] of the padded input -> its `input_rows`, as wide as the image.

        Bilinear to the size of the padded input, then cropped: [R, rows, image width].
        """
        padded_height, padded_width = self.sizes.padded
        rows = _resized_rows(maps, (0, maps.shape[1]), padded_height, self.input_rows)
        return _resized_columns(rows, padded_width)[:, :, : self.sizes.image[1]]

    def in_file(self, maps: Tensor) -> Tensor:
        """What `at_input` gives, or is made of it, resized to the file: [R, stop - start, W]."""
        if self.sizes.image == self.sizes.original:
            return maps
        first, _ = self.input_rows
        rows = _resized_rows(
            maps, (first, self.sizes.image[0]), self.sizes.original[0], (self.start, self.stop)
        )
        return _resized_columns(rows, self.sizes.original[1])


def frame_bands(
    sizes: FrameSizes, num_maps: int, device: torch.device | None = None
) -> Iterator[FrameBand]:
    """The bands of an image from top to bottom; one, if `num_maps` maps of it fit.

    Args:
        sizes: of the image.
        num_maps: that are made of each band at once.
        device: where; on the CPU bands are narrow, since passes over caches take two thirds of the
            time. None: wide ones.
    """
    width = max(sizes.original[1], sizes.padded[1])
    # Rows of the input may be denser than those of the file.
    density = max(1.0, sizes.image[0] / sizes.original[0])
    numbers = _NUMBERS_AT_ONCE
    if device is not None and device.type == "cpu":
        numbers = min(numbers, _NUMBERS_IN_CACHE)
    num_rows = max(1, int(numbers / (width * max(1, num_maps) * density)))
    height = sizes.original[0]
    for start in range(0, height, num_rows):
        yield FrameBand(sizes, start, min(height, start + num_rows))


def stacked_bands(
    sizes: FrameSizes,
    num_maps: int,
    make: Callable[[FrameBand], Tensor],
    device: torch.device | None = None,
) -> Tensor:
    """The rows that `make` gives for each band, [..., rows, W] each, as one tensor."""
    return torch.cat([make(band) for band in frame_bands(sizes, num_maps, device)], dim=-2)


def _resized_rows(
    maps: Tensor, source: tuple[int, int], length: int, wanted: tuple[int, int]
) -> Tensor:
    """Some rows of maps that are resized to `length` rows (bilinear, align_corners=False).

    Args:
        maps: [R, h', w]; rows from the first of `source` on.
        source: first row that `maps` holds, and the number of rows of the whole maps.
        length: rows of the whole result.
        wanted: first row of the result, and the row behind the last.
    """
    first, num_rows = source
    maps = at_least_single(maps)
    centres = torch.arange(*wanted, dtype=maps.dtype, device=maps.device) + 0.5
    positions = (centres * (num_rows / length) - 0.5).clamp(0, num_rows - 1)
    above = positions.floor().long()
    below = (above + 1).clamp(max=num_rows - 1)
    weights = (positions - above)[:, None]
    return torch.lerp(maps[:, above - first], maps[:, below - first], weights)


def _resized_columns(rows: Tensor, width: int) -> Tensor:
    if rows.shape[2] == width:
        return rows
    size = (rows.shape[1], width)
    return F.interpolate(rows[None], size, mode="bilinear", align_corners=False)[0]
