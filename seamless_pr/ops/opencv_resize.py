"""Bilinear resizing exactly as OpenCV's, whose 8-bit path rounds in its own way.

Older detection code makes mask targets and pastes masks with it; weights trained there expect it.
Letters: H, W source, h, w result.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Weights are integers of this scale in the 8-bit path.
_WEIGHT_SCALE = 2048


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes a binary mask in OpenCV's integer arithmetic for 8-bit images.

    The result is not "interpolated value at least 0.5": products are cut off twice.

    Args:
        mask: [..., H, W] bool or integers in {0, 1}; at least one pixel.
        size: (h, w).

    Returns:
        [..., h, w] int64 in {0, 1}.
    """
    mask = mask.long()
    (left, right), (a0, a1) = _taps(mask.shape[-1], size[1], mask.device)
    (top, bottom), (b0, b1) = _taps(mask.shape[-2], size[0], mask.device)
    a0, a1 = (_integer_weights(weights) for weights in (a0, a1))
    b0, b1 = (_integer_weights(weights)[:, None] for weights in (b0, b1))
    rows = a0 * mask[..., left] + a1 * mask[..., right]
    upper, lower = rows[..., top, :] >> 4, rows[..., bottom, :] >> 4
    return (((b0 * upper) >> 16) + ((b1 * lower) >> 16) + 2) >> 2


def resize_probs(probs: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes a float map bilinearly: centres at + 0.5, borders repeated, no anti-aliasing.

    Args:
        probs: [..., H, W] float.
        size: (h, w).
    """
    (left, right), (a0, a1) = _taps(probs.shape[-1], size[1], probs.device)
    (top, bottom), (b0, b1) = _taps(probs.shape[-2], size[0], probs.device)
    rows = probs[..., left] * a0 + probs[..., right] * a1
    return rows[..., top, :] * b0[:, None] + rows[..., bottom, :] * b1[:, None]


def _taps(
    source: int, target: int, device: torch.device
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Lower and upper source cell of each target cell along an axis, and their weights."""
    # Positions in float64 and weights in float32, as OpenCV computes them.
    centre = torch.arange(target, dtype=torch.float64, device=device) + 0.5
    position = (centre * (source / target) - 0.5).float()
    lower = position.floor()
    upper_weight = position - lower
    cell = lower.long()
    cells = (cell.clamp(0, source - 1), (cell + 1).clamp(0, source - 1))
    return cells, (1 - upper_weight, upper_weight)


def _integer_weights(weights: Tensor) -> Tensor:
    return (weights * _WEIGHT_SCALE).round().long()
