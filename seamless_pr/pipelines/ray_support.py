"""What the pipelines share when they run on Ray: joining a cluster, and mapping over its tasks.

A pipeline uses Ray when `--ray` is given or when it runs inside a Ray job; Ray is imported then and
not before. `python -m seamless_pr.pipelines.ray_support` says how large the upload of `ray job
submit --working-dir .` would be.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from seamless_pr.parallel import ItemMap, available_cores, map_in_processes
from seamless_pr.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

ROOT = Path(__file__).resolve().parents[2]
# What the job server takes; Ray itself only says "413" beyond it.
UPLOAD_LIMIT = 100 * 2**20
IGNORE_FILES = (".gitignore", ".rayignore")
NEVER_SHIPPED = (".git/", ".venv/", "venv/", "__pycache__/")
# Shards are small enough that a lost one costs little, and large enough to outweigh a task's start.
SHARDS_PER_TASK = 4
MAX_SHARD_ITEMS = 64
TASK_RETRIES = 3
# Nothing calls home, and logs hold no colour codes.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_COLOR_PREFIX": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def add_ray_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--ray`."""
    parser.add_argument(
        "--ray",
        action="store_true",
        help="spread the work with Ray: over the cluster that RAY_ADDRESS names, else over one "
        "started on this machine; always on inside a Ray job",
    )


def uses_ray(options: argparse.Namespace) -> bool:
    """Whether this run is spread by Ray."""
    return bool(options.ray) or inside_ray_job()


def inside_ray_job() -> bool:
    """Whether `ray job submit` started this process."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def check_output(path: str | os.PathLike[str] | None, option: str = "--output") -> None:
    """Refuses results that a Ray job would leave in its temporary copy of the working directory.

    Raises:
        ValueError: a relative path inside a Ray job.
    """
    if path is not None and inside_ray_job() and not Path(path).is_absolute():
        raise ValueError(
            f"a Ray job runs in a temporary copy of the working directory, where {option} {path} "
            "would be lost; give an absolute path on storage that all nodes share"
        )


@contextmanager
def ray_cluster(*, wanted_cpus: float = 1, dashboard: bool = False) -> Iterator[None]:
    """Connects this process to a cluster, or starts one here, for the time of the context.

    Args:
        wanted_cpus: what the work needs at once; a started cluster has at least so many logical
            cores, and a lack of them on an existing one is said.
        dashboard: also start the dashboard of a new cluster.

    Raises:
        ValueError: the upload would be too large.
        ConnectionError: no cluster at RAY_ADDRESS.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not os.environ.get("RAY_ADDRESS"):
        # A private cluster; else Ray writes a token that later `ray job submit` calls stumble over.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    if os.environ.get("RAY_ADDRESS"):
        # A job has its working directory already.
        ray.init(runtime_env=None if inside_ray_job() else upload())
    else:
        cpus = max(available_cores(), math.ceil(wanted_cpus))
        ray.init(address="local", num_cpus=cpus, include_dashboard=dashboard)
    try:
        available = ray.cluster_resources().get("CPU", 0)
        if available < wanted_cpus:
            print(f"waiting for {wanted_cpus:g} CPUs; the cluster has {available:g} now")
        yield
    finally:
        ray.shutdown()


@contextmanager
def cluster_failures() -> Iterator[None]:
    """Turns failures of the cluster itself into an OSError with the reason.

    Raises:
        OSError: what Ray could not mend by trying again.
    """
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise OSError(f"Ray gave up after {TASK_RETRIES} retries: {reason}") from error


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
        title: shown before the progress.
        show_progress: a bar on a terminal, a line now and then in the log of a job.
    """
    import ray

    num_tasks = num_workers or 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    size = math.ceil(len(items) / (SHARDS_PER_TASK * num_tasks))
    size = min(max(size, 1), MAX_SHARD_ITEMS)
    task: Any = ray.remote(num_cpus=1, max_retries=TASK_RETRIES)(_run_shard)
    shared = ray.put((function, os.getcwd()))
    shards = iter([items[start : start + size] for start in range(0, len(items), size)])
    progress = Progress(len(items), f"{title} image") if show_progress and items else None
    running: deque[Any] = deque()
    try:
        while True:
            while len(running) < num_tasks and (shard := next(shards, None)) is not None:
                running.append(task.remote(shared, shard))
            if not running:
                return
            for result in ray.get(running.popleft()):
                yield result
                if progress is not None:
                    progress.update()
    finally:
        for reference in running:
            ray.cancel(reference)
        if progress is not None:
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


def upload() -> dict[str, Any] | None:
    """The runtime environment that brings this clone to a cluster; None for an installed package.

    Raises:
        ValueError: the clone is larger than what Ray takes.
    """
    if not (ROOT / "setup.py").is_file():
        return None
    check_upload(upload_sizes(ROOT))
    return {"working_dir": str(ROOT)}


def upload_sizes(root: Path) -> dict[str, int]:
    """Relative path -> bytes of each file that Ray ships from a working directory.

    Ray obeys .gitignore and .rayignore; of their syntax this understands names, wildcards and
    leading or closing slashes.
    """
    patterns = list(NEVER_SHIPPED)
    for name in IGNORE_FILES:
        if (root / name).is_file():
            patterns += (root / name).read_text(encoding="utf-8").splitlines()
    patterns = [line.strip() for line in patterns if line.strip() and not line.startswith("#")]
    sizes = {}
    for folder, names, files in os.walk(root):
        inside = Path(folder).relative_to(root)
        names[:] = [name for name in names if not _is_ignored(inside / name, patterns, True)]
        for name in files:
            if not _is_ignored(inside / name, patterns, False):
                sizes[str(inside / name)] = (root / inside / name).lstat().st_size
    return sizes


def _is_ignored(path: Path, patterns: Sequence[str], is_folder: bool) -> bool:
    for pattern in patterns:
        if pattern.endswith("/") and not is_folder:
            continue
        bare = pattern.strip("/")
        # A slash in front or inside ties the pattern to the top folder.
        tied = "/" in pattern.rstrip("/")
        if fnmatch(str(path) if tied else path.name, bare):
            return True
    return False


def check_upload(sizes: Mapping[str, int]) -> None:
    """Refuses an upload that the job server would refuse.

    Raises:
        ValueError: names the total and the largest files.
    """
    total = sum(sizes.values())
    if total <= UPLOAD_LIMIT:
        return
    largest = sorted(sizes, key=lambda name: sizes[name], reverse=True)[:3]
    names = ", ".join(f"{name} ({sizes[name] / 2**20:.0f} MiB)" for name in largest)
    raise ValueError(
        f"the working directory holds {total / 2**20:.0f} MiB for the cluster, and Ray's job "
        f"server takes {UPLOAD_LIMIT / 2**20:.0f}; largest: {names}; move them out of the clone or "
        "name them in .rayignore"
    )


def main() -> int:
    """Prints the size of the upload; 1 if it is too large."""
    sizes = upload_sizes(Path.cwd())
    try:
        check_upload(sizes)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(sizes)} files, {sum(sizes.values()) / 2**20:.1f} MiB go to the cluster")
    return 0


if __name__ == "__main__":
    sys.exit(main())
