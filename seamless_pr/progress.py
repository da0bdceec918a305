"""Progress of a long run: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts finished things; shows how many a second and the time left.

    It never stops the work that it counts: a reader that is gone gets no text, and a terminal that
    lacks a letter gets a question mark.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        *,
        title: str = "",
        stream: TextIO | None = None,
        is_shown: bool = True,
        seconds_between_lines: float = SECONDS_BETWEEN_LINES,
    ) -> None:
        """Starts the clock.

        Args:
            total: number of things to do.
            unit: what one of them is called.
            title: what is done to them.
            stream: where to write; stderr if None. A bar is drawn when it is a terminal.
            is_shown: False: only count; messages are written all the same.
            seconds_between_lines: shortest time between two lines of a log.
        """
        self._stream = _Tolerant(stream or sys.stderr)
        self._title, self._unit = title, unit
        self._seconds_between_lines = seconds_between_lines
        self._last_line = time.monotonic()
        draws = is_shown and total > 0
        self._writes_lines = draws and not self._stream.isatty()
        self._bar = self._drawn_bar(total) if draws and not self._writes_lines else None
        self._total, self._done, self._start = total, 0, self._last_line

    def _drawn_bar(self, total: int) -> tqdm:
        from tqdm import tqdm  # Takes long to import; most runs write lines.

        return tqdm(
            total=total,
            desc=self._title or None,
            unit=f" {self._unit}",
            file=self._stream,
            smoothing=0.1,
            dynamic_ncols=True,
        )

    def update(self) -> None:
        """One more is done."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()
        now = time.monotonic()
        is_due = now - self._last_line >= self._seconds_between_lines
        if self._writes_lines and (is_due or self._done == self._total):
            self._last_line = now
            self.message(self._line(now - self._start))

    def message(self, text: str) -> None:
        """A line of text above the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def _line(self, seconds: float) -> str:
        rate = self._done / max(seconds, 1e-9)
        left = timedelta(seconds=round((self._total - self._done) / rate))
        title = f"{self._title}: " if self._title else ""
        done = f"{self._done} of {self._total} {self._unit}s"
        return f"{title}{done}, {rate:.2f} {self._unit}s/s, {left} left"

    def close(self) -> None:
        """Leaves the terminal ready for other lines."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Tolerant:
    """A text stream as tqdm needs one, whose writing never fails."""

    def __init__(self, stream: TextIO | None) -> None:
        # Without a stream of errors (`2>&-`) Python has None there.
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> None:
        text = text.encode(self.encoding, "replace").decode(self.encoding)
        with suppress(OSError, ValueError):  # Of a file that is closed.
            if self._stream is not None:
                self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.flush()

    def isatty(self) -> bool:
        with suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def fileno(self) -> int:
        """Of the terminal, whose width tqdm asks for."""
        if self._stream is None:
            raise OSError("no stream")
        return self._stream.fileno()
