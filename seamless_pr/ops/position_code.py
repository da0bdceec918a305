"""Where a cell of a map lies, as numbers that attention can compare."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Ratio between the slowest and the fastest wave, nearly.
TEMPERATURE = 10000.0
_ABOVE_ZERO = 1e-6


def sine_position_code(
    size: tuple[int, int], num_channels: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Sines and cosines of the row and of the column of every cell, at many wavelengths.

    The normalised code of DETR: the row, counted from 1, is divided by the number of rows and
    multiplied by 2 pi, so that maps of all sizes use the same range. Always computed in float32, as
    the published networks do, whatever the type of the map that it is added to.

    Args:
        size: (height, width) of the map.
        num_channels: even; the first half codes the row, the second the column, in each half
            sines at even places, cosines at odd ones.
        device: of the result.

    Returns:
        [num_channels, height, width] float32.

    Raises:
        ValueError: an odd number of channels.
    """
    if num_channels % 2 != 0 or num_channels < 2:
        raise ValueError(f"num_channels must be even: rows and columns; got {num_channels}")
    height, width = size
    num_waves = num_channels // 2
    rows = _axis_code(height, num_waves, device)[:, :, None].expand(-1, -1, width)
    columns = _axis_code(width, num_waves, device)[:, None, :].expand(-1, height, -1)
    return torch.cat([rows, columns])


def _axis_code(length: int, num_waves: int, device: torch.device | str) -> Tensor:
    """[num_waves, length] for positions 1 .. length."""
    positions = torch.arange(1, length + 1, dtype=torch.float32, device=device)
    angles = positions / (positions[-1:] + _ABOVE_ZERO) * (2 * math.pi)
    waves = torch.arange(num_waves, device=device)
    pairs = waves.div(2, rounding_mode="floor").float()
    periods = TEMPERATURE ** (2 * pairs / num_waves)
    phases = angles / periods[:, None]
    return torch.where((waves % 2 == 0)[:, None], phases.sin(), phases.cos())
