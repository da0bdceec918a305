"""Kills each pipeline at every rename and at seeded moments; the repeat must end as if undisturbed.

Every run is a fork of this process, which has done the work once: a kill costs no start.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import yaml

from seamless_pr.pipelines import evaluate, predict, prepare, train, wanted_predictor
from tests.evaluation.files import PanopticFiles
from tests.metrics.maps import fuzz_image
from tests.robustness.map_kinds import tiny_predictor
from tests.robustness.sandbox import Sandbox
from tests.support.panoptic_files import write_cityscapes, write_png
from tests.support.tiny_run import tiny_run_values, write_tiny_data

# Names of files that hold times, or the process.
TIMED = ("log.jsonl", "state.pt", ".lock")
SECONDS_PER_RUN = 120

Work = Callable[[Path], int]


def _prepare(sandbox: Sandbox) -> Work:
    root = sandbox.inputs / "cityscapes"
    write_cityscapes(root, {"val": tuple(f"ulm_000000_00000{i}" for i in range(4))})
    return lambda output: prepare.main(
        _texts("cityscapes", "--root", root, "--splits", "val", "--output", output, "--workers", 1)
    )


def _train(sandbox: Sandbox) -> Work:
    data = sandbox.inputs / "data"
    write_tiny_data(data, num_train=2, num_val=1)
    values = tiny_run_values(data)
    values["training"].update(
        steps=3, checkpoint_interval_steps=1, evaluation_interval_steps=2, num_example_pictures=0
    )
    values["data"]["batch_size"] = 1
    config = sandbox.inputs / "config.yaml"
    config.write_text(yaml.safe_dump(values))
    return lambda output: train.main(_texts("--config", config, "--output", output))


def _predict(sandbox: Sandbox) -> Work:
    predictor = tiny_predictor(sandbox)
    images = sandbox.inputs / "images"
    for index in range(4):
        write_png(images / f"{index}.png", np.full((20, 30, 3), 60 * index, np.uint8))

    def run(output: Path) -> int:
        with patch.object(wanted_predictor, "load_predictor", lambda *_, **__: predictor):
            return predict.main(
                _texts("--weights", "W", "--images", images, "--output", output, "--overlays",
                       "--instances")
            )  # fmt: skip

    return run


def _evaluate(sandbox: Sandbox) -> Work:
    images = [fuzz_image(np.random.default_rng(seed)) for seed in range(3)]
    files = PanopticFiles(sandbox.inputs / "scored", images)
    return lambda output: evaluate.main(files.arguments("--output", str(output), "--report"))


def _texts(*words: Any) -> list[str]:
    return [str(word) for word in words]


# What makes the input of each stage, and returns its work into a folder: a second or less.
PIPELINES: dict[str, Callable[[Sandbox], Work]] = {
    "prepare": _prepare,
    "train": _train,
    "predict": _predict,
    "evaluate": _evaluate,
}


@dataclass
class KillTally:
    """What became of the kills of one pipeline."""

    name: str
    num_renames: int = 0
    num_moments: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def note(self, where: str, fault: str) -> None:
        self.outcomes["failed" if fault else "same result"] += 1
        if fault:
            self.failures.append(f"{self.name} {where}: {fault}")


def kill_pipeline(
    name: str,
    folder: Path,
    *,
    every_rename: int = 1,
    num_moments: int = 20,
    seed: int = 0,
) -> KillTally:
    """Kills before every n-th rename, and at moments that the seed chooses.

    Args:
        name: of PIPELINES: what to kill.
        folder: where to work.
        every_rename: n.
        num_moments: kills at moments.
        seed: of the moments.
    """
    tally = KillTally(name)
    calm, killed = folder / "calm", folder / "killed"
    pipeline = PIPELINES[name](Sandbox(folder / "box"))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pipeline(folder / "warm")  # Here, so that no fork loads or compiles it again.
    start = time.monotonic()
    fault = _run(pipeline, calm)
    seconds = time.monotonic() - start
    if fault:
        tally.note("undisturbed", fault)
        return tally
    expected = _state(calm)
    number = 0
    while _run(pipeline, killed, kill_at_rename=number) == "killed":
        tally.num_renames += 1
        tally.note(f"before rename {number}", _repeated(pipeline, killed, expected))
        number += every_rename
    random = Random(f"{name}:{seed}")
    for _ in range(num_moments):
        moment = random.uniform(0, seconds)
        shutil.rmtree(killed, ignore_errors=True)
        _run(pipeline, killed, kill_after=moment)
        tally.num_moments += 1
        tally.note(f"after {moment:.3f} s", _repeated(pipeline, killed, expected))
    return tally


def _repeated(pipeline: Work, output: Path, expected: dict[str, str]) -> str:
    """What is wrong after the same command was given again; empty if nothing."""
    fault = _run(pipeline, output)
    found = _state(output)
    shutil.rmtree(output, ignore_errors=True)
    if fault:
        return fault
    if found.keys() != expected.keys():
        return f"other files: {', '.join(sorted(found.keys() ^ expected.keys()))}"
    changed = [name for name, digest in expected.items() if found[name] != digest]
    return f"other content: {', '.join(changed)}" if changed else ""


def _run(
    pipeline: Work,
    output: Path,
    *,
    kill_at_rename: int | None = None,
    kill_after: float | None = None,
) -> str:
    """Runs in a fork. Returns "killed", what went wrong, or nothing."""
    said = output.parent / "said.txt"
    child = os.fork()
    if child == 0:
        _be_the_child(pipeline, output, said, kill_at_rename)
    deadline = time.monotonic() + (SECONDS_PER_RUN if kill_after is None else kill_after)
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if kill_after is None:
                return f"still running after {SECONDS_PER_RUN} s"
            break
        time.sleep(0.002)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return "killed"
    code = os.waitstatus_to_exitcode(status)
    return "" if code == 0 else f"exit code {code}: {said.read_text()[-400:]}"


def _be_the_child(pipeline: Work, output: Path, said: Path, kill_at: int | None) -> None:
    """Does the work, and ends this process."""
    code = 1
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            if kill_at is not None:
                _die_at_rename(kill_at)
            code = pipeline(output)
    except BaseException as error:
        text.write(f"Traceback: {type(error).__name__}: {error}")
    said.write_text(text.getvalue())
    os._exit(code)


def _die_at_rename(number: int) -> None:
    count = 0

    def on_event(event: str, _: Sequence[Any]) -> None:
        nonlocal count
        if event == "os.rename":
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

    sys.addaudithook(on_event)


def _state(folder: Path) -> dict[str, str]:
    """Names of all files and folders, hidden ones too, and checksums where no time is inside."""
    state: dict[str, str] = {}
    for path in _below(folder):
        name = path.relative_to(folder).as_posix()
        if "events.out" in name:
            continue  # One for each start.
        is_timed = path.is_dir() or path.name in TIMED
        state[name] = "" if is_timed else hashlib.sha256(path.read_bytes()).hexdigest()
    return state


def _below(folder: Path) -> Iterable[Path]:
    return sorted(folder.rglob("*"))
