"""Damaged input of every kind ends in the right result or in one line that names the file."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import pytest

from tests.robustness.campaign import PARTS, Part, run_part, working_folder
from tests.robustness.large_files import LARGE_CASES, run_large
from tests.robustness.sandbox import (
    MAX_MEMORY,
    REFUSED,
    RIGHT,
    Sandbox,
    Tally,
    Verdict,
    run_cases,
    run_stage,
)

# Another run of the tests may try other cases: SEAMLESS_PR_ROBUSTNESS_SEED=1000 pytest ...
SEED = int(os.environ.get("SEAMLESS_PR_ROBUSTNESS_SEED", "0"))


@pytest.fixture
def folder() -> Iterator[Path]:
    with working_folder() as path:
        yield path


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name.replace(" ", "_"))
def test_damaged_input_is_used_rightly_or_refused_by_name(
    part: Part, folder: Path, clean_process: Executor
) -> None:
    tally = clean_process.submit(run_part, part, folder / "box", part.num_quick, SEED).result()
    assert tally.failures == []
    assert tally.count == part.num_quick == tally.outcomes[RIGHT] + tally.outcomes[REFUSED]
    assert 3 * tally.num_passed_header >= tally.count, "a mutator that only breaks headers is a toy"
    assert tally.highest_memory < MAX_MEMORY


# Those that take less than a second; the campaign has all.
QUICK_LARGE_CASES = (
    "a FIFO as an id PNG",
    "a link to /dev/zero as an id PNG",
    "JSON of 900,000 brackets",
    "TIFF that Pillow does not open, 400 million pixels",
    "JPEG of 1,000 scans",
    "weights of a network of 500,000 channels",
    "config of a network of 100 million channels",
    "config of 8^12 values by aliases",
    "description of 8^12 values by aliases",
    "8,000 polygons of 52 million pixels",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK_LARGE_CASES)
def test_a_small_file_that_claims_to_be_huge_is_refused(
    name: str, folder: Path, clean_process: Executor
) -> None:
    index = [case.name for case in LARGE_CASES].index(name)
    row = clean_process.submit(run_large, index, folder).result()
    assert row["failures"] == []
    assert row["outcome"] == REFUSED
    assert row["memory"] < MAX_MEMORY


def test_memory_of_other_tests_is_not_counted(clean_process: Executor) -> None:
    held = np.ones(1_500_000_000, np.uint8)
    tally = clean_process.submit(_idle_tally).result()
    assert tally.outcomes[RIGHT] == tally.count == 2
    assert tally.highest_memory < MAX_MEMORY / 2 < held.nbytes


def _idle_tally() -> Tally:
    tally = Tally()
    for seed, verdict in run_cases(lambda _: Verdict(RIGHT), range(2), "idle"):
        tally.add(seed, verdict)
    return tally


def test_what_a_library_in_c_writes_is_told(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path / "box")
    sandbox.watch()
    for write, outcome in (
        (lambda: os.write(2, b"libpng error: bad adaptive filter value"), "chatter"),
        (lambda: print("x.py:9: UserWarning: Truncated File Read", file=sys.stderr), "chatter"),
        (lambda: print("error: a.png is damaged", file=sys.stderr), RIGHT),
    ):
        run = run_stage(lambda _, write=write: (write() and 0) or 0, [])
        assert sandbox.judge(run, ["a.png"], True).outcome == outcome


def test_what_a_killed_case_left_is_undone_before_the_next_one(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path / "box")
    sound, strange = sandbox.inputs / "sound.json", sandbox.inputs / "strange.json"
    sound.write_text("{}")
    sandbox.keep()

    def case(_: object) -> Verdict:
        assert (sound.read_text(), strange.exists()) == ("{}", False)
        sound.write_text("]")
        strange.touch()
        os.kill(os.getpid(), signal.SIGKILL)
        return Verdict(RIGHT)

    verdicts = [verdict for _, verdict in run_cases(case, range(2), "test", sandbox.restore)]
    assert [verdict.outcome for verdict in verdicts] == ["ended", "ended"]


def test_a_case_that_hangs_ends_or_fills_the_memory_is_told_and_the_next_one_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.robustness.sandbox.SECONDS_PER_CASE", 0.3)
    monkeypatch.setattr("tests.robustness.sandbox.MAX_MEMORY", 30_000_000_000)
    started = iter(range(10))

    def case(_: object) -> Verdict:
        number = next(started)
        if _named[number] == "hang":
            time.sleep(60)
        if _named[number] == "ended":
            os.kill(os.getpid(), signal.SIGKILL)
        if _named[number] == "traceback":
            raise KeyError("a")
        return Verdict(RIGHT)

    # Each child begins to count anew, at the case that follows.
    _named = ["right", "hang"]
    outcomes = [verdict.outcome for _, verdict in run_cases(case, range(2), "test")]
    assert outcomes == ["right", "hang"]
    _named[:] = ["traceback", "right", "ended"]
    outcomes = [verdict.outcome for _, verdict in run_cases(case, range(3), "test")]
    assert outcomes == ["traceback", "right", "ended"]
