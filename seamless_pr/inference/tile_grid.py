"""Where the tiles of a large image lie, and how much each counts at a pixel.

Letters: H, W a tile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tiling:
    """How large images are cut.

    Attributes:
        size: side of a tile in pixels of the file.
        overlap: pixels that neighbours share, at least.
    """

    size: int
    overlap: int

    @classmethod
    def of(cls, size: int, overlap: int | None) -> Tiling:
        """Fills in the overlap.

        Raises:
            ValueError: the overlap is not smaller than the tile.
        """
        overlap = size // 4 if overlap is None else overlap
        if not 0 <= overlap < size:
            raise ValueError(
                f"tiles of {size} pixels cannot overlap by {overlap}; give an overlap from 0 to "
                f"{max(0, size - 1)}"
            )
        return cls(size, overlap)


@dataclass(frozen=True)
class Axis:
    """Tiles along one side of an image.

    Attributes:
        starts: first pixel of each tile, ascending.
        size: pixels of every tile.
        length: pixels of the side.
        overlap: over so many pixels from a neighbour on a tile counts less.
    """

    starts: tuple[int, ...]
    size: int
    length: int
    overlap: int

    @classmethod
    def of(cls, length: int, size: int, overlap: int) -> Axis:
        """As few tiles as overlap by `overlap` pixels or more, spread evenly.

        Raises:
            ValueError: the overlap is not smaller than the tile.
        """
        if not 0 <= overlap < size:
            raise ValueError(
                f"tiles of {size} pixels cannot overlap by {overlap}; give an overlap from 0 to "
                f"{size - 1}"
            )
        if length <= size:
            return cls((0,), length, length, overlap)
        count = 1 + math.ceil((length - size) / (size - overlap))
        starts = tuple(index * (length - size) // (count - 1) for index in range(count))
        return cls(starts, size, length, overlap)

    def end_of_owned(self, index: int) -> int:
        """Up to here no later tile says anything."""
        return self.starts[index + 1] if index + 1 < len(self.starts) else self.length

    def weights(self, index: int) -> Tensor:
        """[size] float32 in (0, 1]: less towards a neighbour, 1 where there is none."""
        weights = torch.ones(self.size)
        ramp = (torch.arange(self.overlap) + 0.5) / max(1, self.overlap)
        if index > 0:
            weights[: self.overlap] = torch.minimum(weights[: self.overlap], ramp)
        if index + 1 < len(self.starts):
            end = weights[self.size - self.overlap :]
            end[:] = torch.minimum(end, ramp.flip(0))
        return weights


@dataclass(frozen=True)
class TileGrid:
    """Tiles of an image.

    Attributes:
        vertical, horizontal: both sides.
    """

    vertical: Axis
    horizontal: Axis

    @classmethod
    def of(cls, image_size: tuple[int, int], size: int, overlap: int) -> TileGrid:
        """For an image of (height, width) and square tiles; see `Axis.of`."""
        height, width = image_size
        return cls(Axis.of(height, size, overlap), Axis.of(width, size, overlap))

    @property
    def image_size(self) -> tuple[int, int]:
        return self.vertical.length, self.horizontal.length

    def weights(self, row: int, column: int) -> Tensor:
        """[H, W] float32 in (0, 1]."""
        return self.vertical.weights(row)[:, None] * self.horizontal.weights(column)

    def inner_edges(self, row: int, column: int) -> tuple[bool, bool, bool, bool]:
        """Whether the image goes on above, below, left and right of a tile."""
        return (
            row > 0,
            row + 1 < len(self.vertical.starts),
            column > 0,
            column + 1 < len(self.horizontal.starts),
        )
