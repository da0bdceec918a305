"""Mapping over items in several processes."""

from __future__ import annotations

import os
import signal
import time

import pytest

from seamless_pr.parallel import map_in_processes
from tests.support.processes import descendants


def square(number: int) -> int:
    return number**2


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail_at_three(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    if number > 3:
        time.sleep(60)
    return number


@pytest.mark.parametrize("num_workers", [None, 0, 1, 3])
def test_results_come_in_the_order_of_the_items(num_workers: int | None) -> None:
    for items in (range(11), range(0)):
        found = map_in_processes(square, items, num_workers=num_workers, title="square")
        assert list(found) == [number**2 for number in items]


def test_lines_of_a_log_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    list(map_in_processes(square, range(5000), num_workers=1, title="square"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("square: 5000 of 5000 images, ")
    list(map_in_processes(square, range(9), num_workers=1, title="", show_progress=False))
    assert capsys.readouterr().err == ""


def test_a_worker_that_is_killed_is_an_error_in_words() -> None:
    with pytest.raises(OSError, match="a process of 'labels' was ended from outside"):
        list(map_in_processes(die_at_three, range(8), num_workers=2, title="labels"))


def test_an_exception_stops_the_others_at_once() -> None:
    before = set(descendants(os.getpid()))
    start = time.monotonic()
    with pytest.raises(ValueError, match="three"):
        list(map_in_processes(fail_at_three, range(80), num_workers=2, title="", show_progress=0))
    assert time.monotonic() - start < 30
    assert set(descendants(os.getpid())) <= before


def test_a_caller_that_wants_no_more_leaves_no_process_behind() -> None:
    before = set(descendants(os.getpid()))
    results = map_in_processes(square, range(100), num_workers=2, title="", show_progress=False)
    assert next(results) == 0
    results.close()
    assert set(descendants(os.getpid())) <= before
