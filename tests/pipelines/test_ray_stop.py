"""A stage on a cluster of its own that is told to end: one line, its exit code, nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.support.processes import PROC, descendants, kill_all, wait_until
from tests.support.tiny_run import write_tiny_run
from tests.support.training_runs import environment

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300
# Tasks that would last for minutes; each leaves a file to show that it has begun.
SLOW = """
import pathlib, sys, time
from functools import partial
from seamless_pr.pipelines.ray_support import add_ray_option
from seamless_pr.pipelines.ray_tasks import item_map
from seamless_pr.pipelines.stage import Stage

def work(folder, number):
    (folder / str(number)).touch()
    time.sleep(600)

def run(options):
    with item_map(options) as map_items:
        there = partial(work, pathlib.Path(options.folder))
        list(map_items(there, range(8), num_workers=2, title="slow"))

def add_options(parser):
    parser.add_argument("folder")
    add_ray_option(parser)

if __name__ == "__main__":
    sys.exit(Stage("Slow.", add_options, run).main())
"""


def stop(
    command: Sequence[str],
    log: Path,
    has_begun: Callable[[], object],
    number: int,
    *,
    whole_group: bool,
) -> tuple[int, str]:
    """Starts a stage, sends it a signal when it is at work, and waits for all of its processes.

    Returns:
        Exit code and last line of the stage.
    """
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**environment(), "PYTHONPATH": str(ROOT)},
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        wait_until(lambda: has_begun() or process.poll() is not None, SECONDS, "the work")
        processes = descendants(process.pid)
        assert len(processes) > 2, log.read_text()
        (os.killpg if whole_group else os.kill)(process.pid, number)
        code = process.wait(SECONDS)
    finally:
        kill_all(process.pid)
    wait_until(lambda: not any((PROC / str(pid)).exists() for pid in processes), 60, "the end")
    # Ray's own processes may print where they were interrupted; what is ours ends with a line.
    ours = [line for line in log.read_text().splitlines() if " pid=" not in line]
    assert not any("Traceback" in line for line in ours)
    return code, log.read_text().splitlines()[-1]


@pytest.mark.parametrize(
    "number, whole_group, ending",
    [
        (signal.SIGINT, True, (130, "stopped by Ctrl-C; the same command goes on from here")),
        (signal.SIGTERM, False, (143, "stopped by SIGTERM; the same command goes on from here")),
    ],
    ids=["ctrl-c", "sigterm"],
)
def test_tasks_end_with_their_stage(
    number: int, whole_group: bool, ending: tuple[int, str], tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    command = ["-c", SLOW, str(marks), "--ray"]
    log = tmp_path / "log"
    begun = lambda: len(list(marks.iterdir())) == 2  # noqa: E731
    assert stop(command, log, begun, number, whole_group=whole_group) == ending


def test_ctrl_c_ends_a_training_although_ray_would_take_it_over(tmp_path: Path) -> None:
    config, log = write_tiny_run(tmp_path / "tiny"), tmp_path / "log"
    command = ["pipelines/train.py", "--config", str(config), "--output", str(tmp_path / "run")]
    command += ["--ray", "training.steps=100000"]
    snapshot = tmp_path / "run/ray/checkpoint_manager_snapshot.json"
    ending = stop(command, log, snapshot.exists, signal.SIGINT, whole_group=True)
    assert ending == (130, "stopped by Ctrl-C; the same command goes on from the newest checkpoint")
