"""The precision in which losses and scores are computed."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_single(x: Tensor) -> Tensor:
    """Half precision becomes float32: sums over an image do not fit into it. float64 stays."""
    return x if x.dtype == torch.float64 else x.float()
