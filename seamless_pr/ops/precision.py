"""The precision in which losses and scores are computed."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def at_least_single(x: Tensor) -> Tensor:
    """Half precision becomes float32: sums over an image do not fit into it. float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Where matrices are multiplied in the precision that they have.

    Autocast rounds the factors of every product to half precision, those that are single on purpose
    too: counts of pixels, probabilities that are added up or compared, places.
    """
    return torch.autocast(device.type, enabled=False)
