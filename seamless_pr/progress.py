"""Progress of a long run: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts finished things; shows how many a second and the time left."""

    def __init__(
        self,
        total: int,
        unit: str,
        *,
        stream: TextIO | None = None,
        seconds_between_lines: float = SECONDS_BETWEEN_LINES,
    ) -> None:
        """Starts the clock.

        Args:
            total: number of things to do.
            unit: what one of them is called.
            stream: where to write; stderr if None. A bar is drawn when it is a terminal.
            seconds_between_lines: shortest time between two lines of a log.
        """
        self._stream = stream or sys.stderr
        self._unit = unit
        self._seconds_between_lines = seconds_between_lines
        self._last_line = time.monotonic()
        self._bar = tqdm(
            total=total,
            unit=f" {unit}",
            file=self._stream,
            smoothing=0.1,
            dynamic_ncols=True,
            disable=not self._stream.isatty(),
        )
        self._total, self._done, self._start = total, 0, self._last_line

    def update(self) -> None:
        """One more is done."""
        self._done += 1
        self._bar.update()
        now = time.monotonic()
        is_due = now - self._last_line >= self._seconds_between_lines
        if self._bar.disable and (is_due or self._done == self._total):
            self._last_line = now
            self.message(self._line(now - self._start))

    def message(self, text: str) -> None:
        """A line of text above the bar."""
        tqdm.write(text, file=self._stream)
        self._stream.flush()

    def _line(self, seconds: float) -> str:
        rate = self._done / max(seconds, 1e-9)
        left = tqdm.format_interval((self._total - self._done) / rate)
        done = f"{self._done} of {self._total} {self._unit}s"
        return f"{done}, {rate:.2f} {self._unit}s/s, {left} left"

    def close(self) -> None:
        """Leaves the terminal ready for other lines."""
        self._bar.close()
