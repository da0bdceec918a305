"""A loss as sum and count, so that its mean is the same however a batch is split over workers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LossSum:
    """Numerator and denominator of one named loss over the local images.

    Attributes:
        total: scalar with a gradient path, also when nothing was summed (then exactly 0).
        count: number of terms in `total` (anchors, RoIs, points, images); a non-negative number.
    """

    total: Tensor
    count: float
