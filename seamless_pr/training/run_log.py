"""What a run says while it works: console lines, a JSON-lines file and TensorBoard."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from seamless_pr.files import append_line, json_bytes, naming, write_whole
from seamless_pr.input_files import read_regular

LOG_NAME = "log.jsonl"


class RunLog:
    """Log of one run folder; a resumed run goes on where its checkpoint stands.

    Lines of steps after the checkpoint are dropped on opening, so that no step stands in the file
    twice.
    """

    def __init__(self, folder: str | Path, num_steps: int, first_step: int) -> None:
        """Opens the log.

        Args:
            folder: the run folder.
            num_steps: steps of the whole run, for the progress display.
            first_step: steps that the loaded checkpoint has done; 0 for a new run.
        """
        # TensorBoard takes a second to import; only training needs it.
        from torch.utils.tensorboard import SummaryWriter

        folder = Path(folder)
        self._path, self._board_folder = folder / LOG_NAME, folder / "tensorboard"
        with naming(folder):
            folder.mkdir(parents=True, exist_ok=True)
        _drop_later_lines(self._path, first_step)
        self._num_steps = num_steps
        with naming(self._board_folder):
            self._board = SummaryWriter(str(self._board_folder), purge_step=first_step + 1)
        self._started = time.monotonic()

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Adds one line to the file, and its numbers to TensorBoard.

        Args:
            kind: "train" or "validation"; groups the curves.
            step: optimiser steps done.
            values: numbers, texts, and mappings of them.
        """
        record = {"kind": kind, "step": step, **values}
        append_line(self._path, json.dumps(record, ensure_ascii=False))
        with naming(self._board_folder):
            for name, number in _numbers(values, kind):
                self._board.add_scalar(name, number, step)

    def show_progress(
        self, step: int, values: Mapping[str, float], seconds_per_step: float
    ) -> None:
        """Prints one line: progress, the main numbers, and the time that is left."""
        width = len(str(self._num_steps))
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        left = _clock(seconds_per_step * (self._num_steps - step))
        self.say(f"step {step:{width}d}/{self._num_steps}  {numbers}  left {left}")

    def say(self, sentence: str) -> None:
        """Prints a sentence after the time since the start."""
        print(
            f"[{_clock(time.monotonic() - self._started)}] {sentence}", file=sys.stdout, flush=True
        )

    def draw(self, step: int, pictures: Mapping[str, Tensor]) -> None:
        """Adds pictures ([3, H, W] uint8 RGB each) to TensorBoard."""
        with naming(self._board_folder):
            for name, picture in pictures.items():
                self._board.add_image(f"validation/{name}", picture, step)

    def close(self) -> None:
        with naming(self._board_folder):
            self._board.close()


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """All records of a log file; what is none, as a last line that was cut short, is left out."""
    records = []
    for line in read_regular(path).splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # Neither JSON nor, cut inside a letter, UTF-8.
            continue
        if isinstance(record, dict) and type(record.get("step")) is int:
            records.append(record)
    return records


def _drop_later_lines(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [record for record in read_log(path) if record["step"] <= step]
    write_whole(path, b"".join(json_bytes(record) + b"\n" for record in kept))


def _numbers(values: Mapping[str, Any], prefix: str) -> list[tuple[str, float]]:
    """Numbers of nested mappings with the path to each; lists and texts are left out."""
    found: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _numbers(value, f"{prefix}/{name}")
        elif isinstance(value, (int, float)):
            found.append((f"{prefix}/{name}", float(value)))
    return found


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
