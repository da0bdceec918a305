"""Mapping over items in several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seamless_pr.parallel import map_in_processes
from tests.support.processes import PROC, descendants, wait_until

ROOT = Path(__file__).resolve().parents[1]
MAP = """
import sys, time
from pathlib import Path
from seamless_pr.parallel import map_in_processes

def work(number):
    Path(sys.argv[1], str(number)).touch()
    time.sleep(0.01 if number < 8 else 600)

list(map_in_processes(work, list(range(12)), num_workers=3, title="", show_progress=False))
"""
# Three loaders that are ahead of a training process which takes no batch.
LOAD = """
import sys, time
from pathlib import Path
import torch
from torch.utils.data import Dataset
from seamless_pr.datasets import loader

class Images(Dataset):
    def __len__(self):
        return 100
    def __getitem__(self, number):
        Path(sys.argv[1], str(number[0])).touch()
        return torch.zeros(1000, 1000)

loader.collate = list
batches = [[(number, 0)] for number in range(100)]
iterator = iter(loader._make_loader(Images(), batches, 3))
next(iterator)
time.sleep(600)
"""
# As torchrun does, by a program of its own.
PROGRAM = """
import subprocess, sys
child = '''
import sys, time
from pathlib import Path
from seamless_pr.parallel import end_with_parent
end_with_parent()
for number in range(4):
    Path(sys.argv[1], str(number)).touch()
time.sleep(600)
'''
subprocess.run([sys.executable, "-c", child, sys.argv[1]])
"""


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


def is_running(pid: int) -> bool:
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("code, workers", [(MAP, 3), (LOAD, 3), (PROGRAM, 1)])
def test_workers_end_with_their_parent_however_it_ends(
    tmp_path: Path, code: str, workers: int, how: signal.Signals
) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment)
    children: list[int] = []
    try:
        wait_until(lambda: len(list(tmp_path.iterdir())) >= 4, 120, "work")
        time.sleep(0.2)
        children = descendants(parent.pid)
        assert len(children) >= workers
        parent.send_signal(how)
        assert parent.wait(30) == -how
        wait_until(lambda: not any(map(is_running, children)), 10, f"the end of {children}")
    finally:
        for pid in (parent.pid, *filter(is_running, children)):
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
