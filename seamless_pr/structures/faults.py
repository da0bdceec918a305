"""Faults of a dataset, collected so that one run names all of them; errors in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_LISTED_FAULTS = 200
# Letters: of a value that a message quotes, and of a line.
MAX_QUOTED, MAX_LINE = 200, 2000
# Values of one picture that are told one by one; a picture of noise has millions.
MAX_OF_ONE_PICTURE = 100
# What moves the cursor, recolours or turns a terminal's text around, as names of files may hold.
_COMMANDS = {
    **{code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))},
    **{code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))},
}


def first_line(error: BaseException) -> str:
    """What another program's error says, in one line; the name of its type if it says nothing."""
    return shortened(next(iter(str(error).strip().splitlines()), type(error).__name__))


def is_want_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch says that the processor's or a GPU's memory does not suffice."""
    text = str(error)
    return "can't allocate memory" in text or "out of memory" in text


def quoted(text: str, limit: int = MAX_QUOTED) -> str:
    """A value for a message, cut where it is long: files may hold words of any length."""
    return text if len(text) <= limit else f"{text[:limit]}..."


def spelled(text: str) -> str:
    """A text in which letters that a terminal would obey are spelled out."""
    return text.translate(_COMMANDS)


def shortened(message: str) -> str:
    """A message whose lines keep their beginning, which names the file, and their end.

    Letters that a terminal would obey are spelled out.
    """
    return "\n".join(
        line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - 505]} ... {line[-500:]}"
        for line in spelled(message).split("\n")
    )


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a dataset.

    Attributes:
        file: the file that holds the fault, or that is missing.
        message: what was expected, what was found.
        segment_id: the segment concerned; None if the fault is not about one segment.
    """

    file: str
    message: str
    segment_id: int | None = None

    def __str__(self) -> str:
        place = self.file if self.segment_id is None else f"{self.file}: segment {self.segment_id}"
        return f"{place}: {self.message}"


class FaultyDataError(ValueError):
    """A dataset that cannot be used; `faults` holds every fault, the message the first ones."""

    def __init__(self, summary: str, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        self.summary = summary
        lines = [str(fault) for fault in self.faults[:MAX_LISTED_FAULTS]]
        if len(self.faults) > len(lines):
            lines.append(f"... and {len(self.faults) - len(lines)} more")
        super().__init__(f"{summary} ({len(self.faults)} faults)\n  " + "\n  ".join(lines))

    def __reduce__(self) -> tuple[type[FaultyDataError], tuple[str, tuple[Fault, ...]]]:
        # Exceptions are rebuilt from their message by default; this one crosses process borders.
        return type(self), (self.summary, self.faults)
