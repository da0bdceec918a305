"""PointRend's refinement by plain loops over float64 arrays (paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def bilinear(level: np.ndarray, x: float, y: float) -> np.ndarray:
    """What a map [C, h, w] says at (x, y) in cells, 0 outside; a cell's centre is at .5."""
    _, height, width = level.shape
    column, row = int(np.floor(x - 0.5)), int(np.floor(y - 0.5))
    result = np.zeros(len(level))
    for r, row_weight in ((row, row + 1 - (y - 0.5)), (row + 1, y - 0.5 - row)):
        for c, column_weight in ((column, column + 1 - (x - 0.5)), (column + 1, x - 0.5 - column)):
            if 0 <= r < height and 0 <= c < width:
                result += row_weight * column_weight * level[:, r, c]
    return result


def doubled(grid: np.ndarray) -> np.ndarray:
    """[h, w] -> [2 h, 2 w], bilinear; edges are repeated."""
    padded = np.pad(grid, 1, mode="edge")
    height, width = grid.shape
    result = np.empty((2 * height, 2 * width))
    for row in range(2 * height):
        for column in range(2 * width):
            x, y = (column + 0.5) / 2 + 1, (row + 0.5) / 2 + 1
            result[row, column] = bilinear(padded[None], x, y)[0]
    return result


def refined(
    grid: np.ndarray, predict: Callable[[float, float], float], num_points: int, steps: int
) -> np.ndarray:
    """Doubles a grid of logits; in every step the cells nearest to 0 are predicted again.

    Args:
        grid: [h, w].
        predict: (x, y) in [0, 1] of the grid -> its logit.
        num_points: cells of a step.
        steps: doublings.
    """
    for _ in range(steps):
        grid = doubled(grid)
        height, width = grid.shape
        for cell in np.abs(grid).flatten().argsort()[:num_points]:
            row, column = divmod(int(cell), width)
            grid[row, column] = predict((column + 0.5) / width, (row + 0.5) / height)
    return grid
