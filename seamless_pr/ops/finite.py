"""Finding NaN and infinity among named tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def names_not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors with a NaN or infinite element, in their order; waits once for a GPU.

    Integers are finite, and so is a tensor without elements.
    """
    floats = {name: t for name, t in tensors.items() if t.is_floating_point() or t.is_complex()}
    if not floats:
        return []
    if all(tensor.device.type == "cpu" for tensor in floats.values()):
        # Results of one byte that stay between large ones that go leave the memory full of holes.
        return [name for name, tensor in floats.items() if not bool(tensor.isfinite().all())]
    are_finite = torch.stack([tensor.isfinite().all() for tensor in floats.values()]).tolist()
    return [name for name, is_finite in zip(floats, are_finite, strict=True) if not is_finite]
