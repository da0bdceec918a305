"""SIGTERM as an exception, so that a stage that is told to end cleans up behind itself."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Terminated(KeyboardInterrupt):
    """SIGTERM has come; whatever knows how to stop for Ctrl-C stops for it as well."""


@contextmanager
def sigterm_raises() -> Iterator[Callable[[], bool]]:
    """SIGTERM raises `Terminated` in the main thread for the time of the context.

    Yields:
        Whether SIGTERM has come: Ray raises a KeyboardInterrupt of its own in place of any other.
    """
    received: list[int] = []

    def terminate(number: int, _: object) -> None:
        received.append(number)
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGTERM, previous)
