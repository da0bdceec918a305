"""Mapping over items by the tasks of a cluster."""

from __future__ import annotations

import argparse
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from seamless_pr.parallel import ItemMap, map_in_processes
from seamless_pr.pipelines.ray_support import (
    TASK_RETRIES,
    cluster_failures,
    ray_cluster,
    uses_ray,
)
from seamless_pr.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

# Shards are small enough that a lost one costs little, and large enough to outweigh a task's start.
SHARDS_PER_TASK = 4
MAX_SHARD_ITEMS = 64


@contextmanager
def item_map(options: argparse.Namespace) -> Iterator[ItemMap]:
    """The way to map over items: tasks of a cluster with Ray, processes of this machine without."""
    if not uses_ray(options):
        yield map_in_processes
        return
    with ray_cluster(), cluster_failures():
        yield map_in_tasks


def map_in_tasks(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    num_workers: int | None,
    title: str,
    show_progress: bool = True,
) -> Iterator[Result]:
    """`map_in_processes` over a cluster: shards of the items become tasks.

    Args:
        function, items: as there; relative paths in them mean what they mean in this process.
        num_workers: tasks at a time; None: as many as keep the cluster busy.
        title, show_progress: as there.
    """
    import ray

    num_tasks = num_workers or 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    size = math.ceil(len(items) / (SHARDS_PER_TASK * num_tasks))
    size = min(max(size, 1), MAX_SHARD_ITEMS)
    task: Any = ray.remote(num_cpus=1, max_retries=TASK_RETRIES)(_run_shard)
    shared = ray.put((function, os.getcwd()))
    shards = iter([items[start : start + size] for start in range(0, len(items), size)])
    progress = Progress(len(items), "image", title=title, is_shown=show_progress)
    running: deque[Any] = deque()
    try:
        while True:
            while len(running) < num_tasks and (shard := next(shards, None)) is not None:
                running.append(task.remote(shared, shard))
            if not running:
                return
            for result in ray.get(running.popleft()):
                yield result
                progress.update()
    finally:
        for reference in running:
            ray.cancel(reference)
        progress.close()


def _run_shard(shared: tuple[Callable[[Item], Result], str], items: Sequence[Item]) -> list[Result]:
    import cv2

    # Tasks share the cores with each other; threads inside each would only get in the way.
    cv2.setNumThreads(0)
    function, folder = shared
    work_in(folder)
    return [function(item) for item in items]


def work_in(folder: str) -> None:
    """Makes relative paths mean on this worker what they mean in the process that sent them."""
    # A node may lack the folder; absolute paths on shared storage do not need it.
    with suppress(FileNotFoundError):
        os.chdir(folder)
