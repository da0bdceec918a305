"""Which way of computing a device gets: one whose steps depend on numbers, or one of fixed shapes.

The processor does what the numbers ask for and no more: few undecided pixels, the boxes that are
there. A GPU would have to tell the host each such number, and wait; it computes all rows instead,
and says at the end which of them count. Both give the same results but for ties.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_FORCED: ContextVar[bool] = ContextVar("fixed_shapes", default=False)


def needs_fixed_shapes(tensor: Tensor) -> bool:
    """Whether what is computed from a tensor shall not depend on its numbers in shape."""
    return tensor.device.type != "cpu" or _FORCED.get()


@contextmanager
def fixed_shapes() -> Iterator[None]:
    """Fixed shapes on the CPU, too: for export, and to compare both ways."""
    token = _FORCED.set(True)
    try:
        yield
    finally:
        _FORCED.reset(token)
