"""Runs cases one after the other in a process of their own, and says what became of each.

The process is forked from a warm one. A case that hangs, takes too much memory or ends the process
is a failure of that case alone: the next process goes on behind it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import select
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.support.memory import forget_peak, memory_status

# Of the whole process, in bytes.
MAX_MEMORY = 2_000_000_000
# Of a processor; a case that waits may take some more of a clock, on a machine that others use.
SECONDS_PER_CASE = 30
CLOCK_PER_PROCESSOR = 4
# Letters of a line of an error.
MAX_LINE = 2100
RIGHT, REFUSED = "right", "refused"
FAILURES = (
    "traceback", "unnamed", "chatter", "wrong", "outside", "ran code", "hang", "memory", "ended",
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What became of one case.

    Attributes:
        outcome: RIGHT, REFUSED, or one of FAILURES.
        passed_header: the mutant reached what stands behind the outermost reader.
        detail: of a failure.
        memory: highest of the process during the case, in bytes.
    """

    outcome: str
    passed_header: bool = False
    detail: str = ""
    memory: int = 0


@dataclass
class Tally:
    """Verdicts of one kind of input."""

    outcomes: Counter[str] = field(default_factory=Counter)
    num_passed_header: int = 0
    highest_memory: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, seed: int, verdict: Verdict) -> None:
        self.outcomes[verdict.outcome] += 1
        self.num_passed_header += verdict.passed_header
        self.highest_memory = max(self.highest_memory, verdict.memory)
        if verdict.outcome in FAILURES:
            self.failures.append(f"seed {seed}: {verdict.outcome}: {verdict.detail}")

    @property
    def count(self) -> int:
        return self.outcomes.total()


def run_cases(
    case: Callable[[Random], Verdict],
    seeds: Iterable[int],
    name: str,
    restore: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, Verdict]]:
    """Yields the verdict of `case` on the random numbers of each seed.

    Args:
        case: uses one damaged input.
        seeds: of the cases.
        name: of the kind; with the seed it decides the random numbers.
        restore: undoes what a case that was killed left behind.
    """
    waiting = list(seeds)
    while waiting:
        restore()
        done = 0
        for seed, verdict in _run_in_child(case, waiting, name):
            yield seed, verdict
            done += 1
        waiting = waiting[done:]


def _run_in_child(
    case: Callable[[Random], Verdict], seeds: Sequence[int], name: str
) -> Iterator[tuple[int, Verdict]]:
    """Verdicts until one that ends the child; that one is the last."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with os.fdopen(writer, "w") as lines:
            _serve(case, seeds, name, lines)
        os._exit(0)
    os.close(writer)
    # Without a buffer: a line that waits in one, `select` does not see.
    with open(reader, "rb", buffering=0) as lines:
        for seed in seeds:
            if not _has_answer(lines, child):
                os.kill(child, signal.SIGKILL)
                yield seed, Verdict("hang", detail=f"more than {SECONDS_PER_CASE} s")
                break
            line = lines.readline()
            if not line:
                yield seed, Verdict("ended", detail="the process has gone")
                break
            verdict = Verdict(**json.loads(line))
            yield seed, verdict
            if verdict.outcome == "memory":
                os.kill(child, signal.SIGKILL)
                break
    os.waitpid(child, 0)


def _has_answer(lines: io.RawIOBase, child: int) -> bool:
    """Waits for a line of the child, as long as a case may take."""
    start, used = time.monotonic(), _processor_seconds(child)
    while not select.select([lines], [], [], min(1, SECONDS_PER_CASE))[0]:
        if (
            _processor_seconds(child) - used > SECONDS_PER_CASE
            or time.monotonic() - start > CLOCK_PER_PROCESSOR * SECONDS_PER_CASE
        ):
            return False
    return True


def _processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _serve(
    case: Callable[[Random], Verdict], seeds: Sequence[int], name: str, lines: io.TextIOBase
) -> None:
    # Far more than is allowed, far less than the machine has.
    resource.setrlimit(resource.RLIMIT_AS, (memory_status("VmSize") + 3 * MAX_MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for seed in seeds:
        forget_peak()
        try:
            verdict = case(Random(f"{name}:{seed}"))
        except BaseException:
            verdict = Verdict("traceback", detail=_last_lines(traceback.format_exc()))
        memory = memory_status("VmHWM")
        if memory > MAX_MEMORY:
            verdict = Verdict("memory", verdict.passed_header, f"{memory / 1e9:.1f} GB")
        line = json.dumps({**asdict(verdict), "memory": memory})
        lines.write(f"{line}\n")
        lines.flush()


@dataclass(frozen=True)
class StageRun:
    """What a stage said.

    Attributes:
        code: exit code; None if an exception left it.
        output, errors: of its streams.
        error: the last lines of the traceback.
        chatter: what libraries in C wrote past Python, to the descriptor of stderr itself.
    """

    code: int | None
    output: str
    errors: str
    error: str = ""
    chatter: str = ""


def run_stage(main: Callable[[Sequence[str]], int], arguments: Sequence[object]) -> StageRun:
    """Runs a command in this process."""
    output, errors = io.StringIO(), io.StringIO()
    error = ""
    code: int | None = None
    with (
        _written_to_stderr() as chatter,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # Of argparse.
            code = int(stop.code or 0)
        except BaseException:
            error = _last_lines(traceback.format_exc())
    return StageRun(code, output.getvalue(), errors.getvalue(), error, chatter[0])


@contextlib.contextmanager
def _written_to_stderr() -> Iterator[list[str]]:
    """The list holds what was written to descriptor 2, once the block is left."""
    found = [""]
    real = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield found
        finally:
            os.dup2(real, 2)
            os.close(real)
            file.seek(0)
            found[0] = file.read().decode(errors="replace")


def _last_lines(text: str) -> str:
    return " | ".join(line.strip() for line in text.strip().splitlines()[-3:])[-600:]


class Sandbox:
    """A folder with inputs, an output that may be written to, and a watch over all the rest."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # Deep enough that `../../../escape` still lies below the root.
        self.inputs = root / "a" / "b" / "c" / "inputs"
        self.output = root / "a" / "b" / "c" / "output"
        self.inputs.mkdir(parents=True)
        self._before: dict[str, Any] = {}
        self._kept: dict[Path, bytes] = {}

    @property
    def marker(self) -> Path:
        """What executed code would make."""
        return self.root / "executed"

    def keep(self) -> None:
        """Remembers the inputs as they are."""
        self._kept = {path: path.read_bytes() for path in self._input_files()}

    def restore(self) -> None:
        """Makes the inputs what they were when they were kept."""
        for path in self._input_files():
            if path not in self._kept:
                path.unlink()
        for path, content in self._kept.items():
            if not path.is_file() or path.read_bytes() != content:
                path.write_bytes(content)

    def _input_files(self) -> list[Path]:
        return [path for path in self.inputs.rglob("*") if path.is_file()]

    def watch(self) -> None:
        shutil.rmtree(self.output, ignore_errors=True)
        self._before = self._state()

    def judge(self, run: StageRun, names: Sequence[str], passed_header: bool) -> Verdict:
        """A verdict on everything but a result that may be wrong.

        Args:
            run: of the stage.
            names: one of them must stand in a message.
            passed_header: see `Verdict`.
        """
        if self.marker.exists():
            self.marker.unlink()
            return Verdict("ran code", passed_header, run.errors[-300:])
        if os.path.exists("/absolute"):  # Of the mutators' hostile names.
            return Verdict("outside", passed_header, "an absolute path was written to")
        if self._state() != self._before:
            strange = {str(key) for key in self._state().items() ^ self._before.items()}
            return Verdict("outside", passed_header, ", ".join(sorted(strange))[:300])
        if run.code is None or "Traceback" in run.errors:
            return Verdict("traceback", passed_header, run.error or run.errors[-300:])
        if run.chatter or "Warning: " in run.errors:
            return Verdict("chatter", passed_header, (run.chatter or run.errors)[-300:])
        if run.code == 0:
            return Verdict(RIGHT, passed_header)
        message = run.errors + run.output
        if not any(name in message for name in names):
            return Verdict("unnamed", passed_header, run.errors[-300:])
        if run.errors.startswith("error: ") and _is_rambling(run.errors):
            return Verdict("unnamed", passed_header, f"several lines: {run.errors[:300]}")
        return Verdict(REFUSED, passed_header)

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {}
        for folder, folders, files in os.walk(self.root):
            if Path(folder) == self.output.parent and self.output.name in folders:
                folders.remove(self.output.name)
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                stat = os.lstat(path)
                is_file = not os.path.isdir(path)
                state[path] = (stat.st_size, stat.st_mtime_ns) if is_file else None
        return state


def _is_rambling(errors: str) -> bool:
    """Whether an error is more than a line and its indented list, or has endless lines."""
    lines = [line for line in errors.strip().splitlines() if line.strip()]
    is_list = all(line.startswith("  ") for line in lines[1:-1])
    return not is_list or any(len(line) > MAX_LINE for line in lines)
