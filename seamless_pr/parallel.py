"""Mapping a function over files in several processes, with a progress bar.

Functions that do so take the mapping as an argument, so that a caller with more machines can give
his own.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from seamless_pr.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

ITEMS_PER_MESSAGE = 4
_SECONDS_BETWEEN_LOOKS = 1.0


class ItemMap(Protocol):
    """A way to map a function over items; `map_in_processes` is one, and says what is expected."""

    def __call__(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        num_workers: int | None,
        title: str,
        show_progress: bool = True,
    ) -> Iterator[Result]: ...


def map_in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    num_workers: int | None,
    title: str,
    show_progress: bool = True,
) -> Iterator[Result]:
    """Yields `function(item)` in the order of the items.

    Args:
        function: picklable; faults of one item belong in its result: an exception stops the map.
        items: picklable.
        num_workers: processes; None: one per core; 0 or 1: this process.
        title: shown before the progress.
        show_progress: a bar on a terminal, a line now and then elsewhere.

    Raises:
        OSError: a process was ended from outside, mostly for want of memory.
    """
    workers = min(available_cores() if num_workers is None else num_workers, len(items))
    with Progress(len(items), "image", title=title, is_shown=show_progress) as progress:
        if workers <= 1:
            for item in items:
                yield function(item)
                progress.update()
            return
        # Much to load for who needs one process only.
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        from concurrent.futures.process import BrokenProcessPool

        others = multiprocessing.active_children()
        with ProcessPoolExecutor(workers, initializer=_start_worker) as pool:
            # Not `pool.map`, which cancels on its way out what the pool then cannot end in peace.
            starts = range(0, len(items), ITEMS_PER_MESSAGE)
            shards = (items[start : start + ITEMS_PER_MESSAGE] for start in starts)
            futures = deque(pool.submit(_map_here, function, shard) for shard in shards)
            try:
                while futures:
                    for result in futures.popleft().result():
                        yield result
                        progress.update()
            except BrokenProcessPool as error:
                raise OSError(
                    f"a process of '{title}' was ended from outside, mostly for want of memory; "
                    "try fewer --workers"
                ) from error
            except BaseException:
                # What they are at is of no use any more, and may last.
                for process in multiprocessing.active_children():
                    if process not in others:
                        process.terminate()
                raise


def _map_here(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [function(item) for item in items]


def available_cores() -> int:
    """Cores that this process may use; fewer than the machine has in most containers."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start_worker() -> None:
    # The processes share the cores; threads inside each would only get in each other's way.
    import cv2

    cv2.setNumThreads(0)
    # Ctrl-C reaches the whole group; the parent says what happened and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()


def end_with_parent() -> None:
    """Ends this worker process as soon as the one that started it is gone, by a kill too.

    Without it a worker that waits for work, or for room in a pipe, would wait for ever.
    """
    threading.Thread(target=_outlive_no_parent, args=(os.getppid(),), daemon=True).start()


def _outlive_no_parent(parent_pid: int) -> None:
    from multiprocessing import parent_process
    from multiprocessing.connection import wait

    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
    else:  # Started by another program, as torchrun.
        while os.getppid() == parent_pid:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)
