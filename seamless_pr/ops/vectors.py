"""Small vectors of numbers that the host knows, made where they are needed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def vector(values: Sequence[float], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """[len(values)] numbers on the device of `like`, filled in there.

    A tensor made of a list is copied from the host, for which a GPU waits. As in such a tensor,
    numbers beyond the type are infinite.

    Args:
        values: at least one.
        like: gives the device.
        dtype: of the result; that of `like` if None.
    """
    dtype = dtype or like.dtype
    largest = math.inf
    if dtype.is_floating_point:
        largest = torch.finfo(dtype).max
        values = [
            v if abs(v) <= largest else math.copysign(math.inf, v) for v in map(float, values)
        ]
    if len(set(values)) == 1:
        return like.new_full((len(values),), values[0], dtype=dtype)
    # Its ends are exact, as long as the distance between them is a number of the type.
    if len(values) == 2 and max(*map(abs, values), abs(values[1] - values[0])) <= largest:
        return torch.linspace(values[0], values[1], 2, dtype=dtype, device=like.device)
    half = len(values) // 2
    return torch.cat([vector(part, like, dtype) for part in (values[:half], values[half:])])


def image_indices(counts: Sequence[int], device: torch.device) -> Tensor:
    """[sum(counts)] int64: image i, `counts[i]` times, for each i in order."""
    parts = [
        torch.full((count,), index, dtype=torch.int64, device=device)
        for index, count in enumerate(counts)
    ]
    return torch.cat(parts)
