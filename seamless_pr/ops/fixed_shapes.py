"""Which way of computing a device gets: one whose steps depend on numbers, or one of fixed shapes.

The processor does what the numbers ask for and no more: few undecided pixels, the boxes that are
there. A GPU would have to tell the host each such number, and wait; it computes all rows instead,
and says at the end which of them count. Both give the same results but for ties.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_FORCED: ContextVar[bool] = ContextVar("fixed_shapes", default=False)


def needs_fixed_shapes(tensor: Tensor) -> bool:
    """Whether what is computed from a tensor shall not depend on its numbers in shape."""
    return tensor.device.type != "cpu" or _FORCED.get()


def read_together(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The same tensors on the CPU, in one transfer: the only point that waits for a device.

    Args:
        tensors: on one device, of any types; there they must be contiguous.
    """
    if tensors[0].device.type == "cpu":
        return tensors
    # The largest types first, so that every number lies at a multiple of its size.
    order = sorted(range(len(tensors)), key=lambda index: -tensors[index].element_size())
    packed = torch.cat([tensors[index].flatten().view(torch.uint8) for index in order]).cpu()
    parts = packed.split([tensors[index].nbytes for index in order])
    found = {
        index: part.view(tensors[index].dtype).view(tensors[index].shape)
        for index, part in zip(order, parts, strict=True)
    }
    return tuple(found[index] for index in range(len(tensors)))


@contextmanager
def fixed_shapes() -> Iterator[None]:
    """Fixed shapes on the CPU, too: for export, and to compare both ways."""
    token = _FORCED.set(True)
    try:
        yield
    finally:
        _FORCED.reset(token)
