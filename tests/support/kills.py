"""Kills a process at each of its file operations, one after the other."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from seamless_pr import files

# Of sys.addaudithook: what changes a folder, or opens a file of it.
OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}


def is_killed(
    work: Callable[[], object], folder: Path, operation: int, ignored: str = "//"
) -> bool:
    """Runs `work` in a process of its own, which dies before one of its file operations.

    Args:
        work: what to do.
        folder: operations on what is in it count.
        operation: number of the last one, from 0. A kill at a write leaves the half of it.
        ignored: operations on paths with this text do not count.

    Returns:
        Whether it came that far; False: it has fewer operations and ended well.
    """
    child = os.fork()
    if child == 0:
        try:
            _die_at(folder, operation, ignored)
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def _die_at(folder: Path, operation: int, ignored: str) -> None:
    count = 0

    def counts(path: object) -> bool:
        nonlocal count
        if not isinstance(path, (str, os.PathLike)):
            return False
        text = os.fspath(path)
        # Without a folder: rmtree names what it removes in the folder that it has open.
        inside = text.startswith(str(folder)) or not os.path.dirname(text)
        if not inside or ignored in text:
            return False
        count += 1
        return count > operation

    def on_event(event: str, arguments: tuple[object, ...]) -> None:
        if event in OPERATIONS and counts(arguments[0]):
            os.kill(os.getpid(), signal.SIGKILL)

    write = io.FileIO.write

    def half_write(file: files._PartialFile, data: bytes) -> int:
        if counts(file.partial):
            write(file, bytes(data)[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(file, data)

    files._PartialFile.write = half_write  # type: ignore[method-assign]
    sys.addaudithook(on_event)


def listing(folder: Path, ignored: str = "//") -> list[str]:
    """All files and folders below a folder, hidden ones included."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    return sorted(name for name in names if ignored not in name)
