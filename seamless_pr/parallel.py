"""Mapping a function over files in several processes, with a progress bar.

Functions that do so take the mapping as an argument, so that a caller with more machines can give
his own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Protocol, TypeVar

import cv2
from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")

ITEMS_PER_MESSAGE = 4


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
        title: shown before the progress bar.
        show_progress: False: no bar.
    """
    workers = min(available_cores() if num_workers is None else num_workers, len(items))
    bar = tqdm(total=len(items), desc=title, unit="image", disable=not show_progress)
    with bar:
        if workers <= 1:
            for item in items:
                yield function(item)
                bar.update()
            return
        with ProcessPoolExecutor(workers, initializer=_start_worker) as pool:
            try:
                for result in pool.map(function, items, chunksize=ITEMS_PER_MESSAGE):
                    yield result
                    bar.update()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def available_cores() -> int:
    """Cores that this process may use; fewer than the machine has in most containers."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start_worker() -> None:
    # The processes share the cores; threads inside each would only get in each other's way.
    cv2.setNumThreads(0)
