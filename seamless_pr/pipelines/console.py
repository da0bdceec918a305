"""Text for people, which must never decide over results."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


@contextmanager
def tolerant_console() -> Iterator[None]:
    """Whatever is printed in this context is printed as far as that is possible.

    A letter that the terminal lacks becomes a question mark; text that nobody reads any more
    (`| head -1`), that finds no place on the disk or no stream at all (`>&-`) is dropped.
    """
    saved = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_tolerant(stream, number) for number, stream in enumerate(saved, 1))
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = saved


def _tolerant(stream: TextIO | None, number: int) -> TextIO:
    if stream is None:
        # The number is free: files opened later would get it, and the text of other programs.
        file = os.open(os.devnull, os.O_WRONLY)
        return open(file, "w", encoding="utf-8", errors="replace")
    try:
        is_the_process_own = stream.fileno() == number
    except (AttributeError, OSError, ValueError):  # A stream in memory, or a closed one.
        return stream
    if not is_the_process_own:
        return stream
    stream.flush()
    raw = io.BufferedWriter(_Dropping(number, "w", closefd=False))
    return io.TextIOWrapper(
        raw, encoding=stream.encoding, errors="replace", line_buffering=True, newline="\n"
    )


class _Dropping(io.FileIO):
    """A stream of this process that takes what it cannot write for written."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BlockingIOError:
            raise
        except OSError:
            return len(memoryview(data).cast("B"))
