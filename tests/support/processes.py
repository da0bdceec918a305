"""Finding and killing processes that a test started itself, and no others."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")


def descendants(pid: int) -> list[int]:
    """Children of a process, their children, and so on."""
    parents: dict[int, int] = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            try:
                # The name in brackets may hold spaces; the parent is the second field after it.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # It has ended meanwhile.
                continue
            parents[int(folder.name)] = int(fields[1])
    found, queue = [], [pid]
    while queue:
        parent = queue.pop()
        children = [child for child, its_parent in parents.items() if its_parent == parent]
        found += children
        queue += children
    return found


def kill_one(pid: int, title: str) -> int | None:
    """Kills one descendant of a process whose title holds a text; None if there is none."""
    for child in descendants(pid):
        try:
            if title in (PROC / str(child) / "cmdline").read_text():
                os.kill(child, signal.SIGKILL)
                return child
        except OSError:
            continue
    return None


def kill_all(pid: int) -> None:
    """Kills a process and all its descendants, children of Ray's daemons included."""
    for each in (pid, *descendants(pid)):
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Waits for something to become true.

    Raises:
        TimeoutError: it did not, in so many seconds.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.05)
