"""Parts of a network whose activations are computed a second time, for the backward pass.

Norms follow a batch in the first pass only: what they saw is noted then, and read in the second.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from typing import Any

from torch.utils.checkpoint import checkpoint

from seamless_pr.layers.batch_statistics import BatchStatistics


class _Pass(AbstractContextManager["_Pass"]):
    """One pass through a part; entered again for every further backward pass.

    Attributes:
        notes: statistics of the batch of its norms, in their order; both passes share them.
        is_second: they are read, not written.
    """

    def __init__(self, notes: list[BatchStatistics], is_second: bool) -> None:
        self.notes = notes
        self.is_second = is_second
        self._position = 0
        self._token: Token[_Pass | None] | None = None

    def __enter__(self) -> _Pass:
        self._position = 0
        self._token = _CURRENT.set(self)
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._token is not None
        _CURRENT.reset(self._token)

    def next_note(self) -> BatchStatistics:
        self._position += 1
        return self.notes[self._position - 1]


_CURRENT: ContextVar[_Pass | None] = ContextVar("pass", default=None)


def recomputed(part: Callable[..., Any], *inputs: Any) -> Any:
    """part(*inputs), of which only the inputs are kept for the backward pass."""
    notes: list[BatchStatistics] = []
    return checkpoint(
        part,
        *inputs,
        use_reentrant=False,
        context_fn=lambda: (_Pass(notes, is_second=False), _Pass(notes, is_second=True)),
    )


def is_second_pass() -> bool:
    """Whether what runs now has run before on the same batch."""
    current = _CURRENT.get()
    return current is not None and current.is_second


def statistics_once(compute: Callable[[], BatchStatistics]) -> BatchStatistics:
    """Statistics of a batch: computed, or in a second pass those of the first."""
    current = _CURRENT.get()
    if current is None:
        return compute()
    if not current.is_second:
        current.notes.append(compute())
        return current.notes[-1]
    return current.next_note()
