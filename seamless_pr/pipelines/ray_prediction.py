"""Prediction as a Ray Data stream: image lists in, one line per image out.

Networks on GPUs get their pixels from tasks that read, and leave theirs to tasks that write, on any
core of the cluster; they reserve no core themselves, so that those tasks always find one. Without
GPUs the network is what needs the cores: then its actor reads and writes too, in threads, and only
names and errors move between machines.
"""

from __future__ import annotations

import argparse
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from seamless_pr.inference.folders import WAITING_BATCHES, ImageOutcome
from seamless_pr.inference.image_list import ImageItem
from seamless_pr.inference.prediction_folder import PredictionFolder
from seamless_pr.inference.predictor import Predictor
from seamless_pr.pipelines.ray_stages import (
    Job,
    LabelFiles,
    LabelImages,
    read_files,
    to_item,
    to_row,
    write_files,
)
from seamless_pr.pipelines.ray_support import TASK_RETRIES, cluster_failures, ray_cluster
from seamless_pr.pipelines.wanted_predictor import load_wanted_predictor

# After a block its images count as progress. A network that reads and writes itself waits for files
# before and after it.
IMAGES_PER_BLOCK = 32
BLOCKS_PER_ACTOR = 4
# Pixels that move between stages: enough to outweigh the start of a task, and few megabytes.
IMAGES_PER_TASK = 8
# Blocks in a network's hands: while one is labelled, the next is unpacked and the last packed.
BLOCKS_AT_HAND = 3

Labelling = Callable[[Sequence[ImageItem], PredictionFolder], Iterator[ImageOutcome]]


@contextmanager
def labelling_on_cluster(options: argparse.Namespace, predictor: Predictor) -> Iterator[Labelling]:
    """Connects to Ray and yields what labels images there.

    Args:
        options: of pipelines/predict.py.
        predictor: what the cluster shall run, for its image size.

    Raises:
        OSError: from the labelling, when a worker dies again and again.
        ValueError: from the labelling, when this machine alone has not the GPU that is asked for.
    """

    def label(items: Sequence[ImageItem], folder: PredictionFolder) -> Iterator[ImageOutcome]:
        import ray

        if not items:
            return
        num_networks, resources = network_resources(options, ray.cluster_resources())
        num_networks = min(num_networks, len(items))
        check_gpus(resources)
        networks = "1 network with" if num_networks == 1 else f"{num_networks} networks, each with"
        print(f"{networks} {in_words(resources)}", flush=True)
        load_network = network_loader(options, resources)
        job = Job(
            load_network,
            predictor.sides,
            options.batch_size,
            folder,
            os.getcwd(),
            num_threads=options.threads,
        )
        with cluster_failures():
            yield from label_items(items, job, num_networks, resources)

    wanted = (options.workers or 1) * options.cpus_per_worker
    with ray_cluster(wanted_cpus=wanted):
        yield label


def network_loader(
    options: argparse.Namespace, resources: dict[str, float]
) -> Callable[[], Predictor]:
    """What loads the network in an actor with these resources."""
    # Ray shows an actor its own GPU only.
    return partial(load_wanted_predictor, options, "cuda" if "num_gpus" in resources else "cpu")


def label_items(
    items: Sequence[ImageItem], job: Job, num_networks: int, resources: dict[str, float]
) -> Iterator[ImageOutcome]:
    """Labels images on the cluster that this process has joined.

    Args:
        items: at least one image.
        job: what to do.
        num_networks: actors with a network each.
        resources: what each reserves; with "num_gpus", tasks of their own read and write.

    Yields:
        One outcome an image, after its results are on the disk.
    """
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # The pipeline has its own.
    context.print_on_execution_start = False
    with warnings.catch_warnings():
        # The releases of Ray that setup.py admits know no other way to limit restarts.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        stream = _stream(items, job, num_networks, resources)
    for row in stream.iter_rows():
        yield ImageOutcome(to_item(row), row["error"] or None)


def _stream(
    items: Sequence[ImageItem], job: Job, num_networks: int, resources: dict[str, float]
) -> Any:
    if "num_gpus" in resources:
        return _through_tasks(items, job, num_networks, resources)
    blocks = num_blocks(len(items), num_networks)
    return _on_networks(_rows(items, blocks), LabelFiles, job, num_networks, resources)


def _rows(items: Sequence[ImageItem], num_blocks: int) -> Any:
    import ray.data

    return ray.data.from_items([to_row(item) for item in items], override_num_blocks=num_blocks)


def _on_networks(
    stream: Any,
    actor: type[LabelFiles] | type[LabelImages],
    job: Job,
    num_networks: int,
    resources: dict[str, float],
    *,
    batch_size: int | None = None,
    at_hand: int = 1,
) -> Any:
    import ray.data

    return stream.map_batches(
        actor,
        fn_constructor_args=(job,),
        batch_size=batch_size,
        compute=ray.data.ActorPoolStrategy(
            size=num_networks,
            max_tasks_in_flight_per_actor=at_hand + 1,
            # One call at a time may as well run in the first thread of its process, where alone
            # the large blocks of a network on the CPU are kept for reuse.
            enable_true_multi_threading=at_hand == 1,
        ),
        max_concurrency=at_hand,
        # Without limits an image that crashes the network would be tried for ever.
        max_restarts=TASK_RETRIES,
        max_task_retries=TASK_RETRIES,
        **resources,
    )


def _through_tasks(
    items: Sequence[ImageItem], job: Job, num_networks: int, resources: dict[str, float]
) -> Any:
    """Reading, labelling and writing as three stages, pixels on the machine where they are."""
    import ray.data

    per_task = max(IMAGES_PER_TASK, WAITING_BATCHES * job.batch_size)
    tasks: dict[str, Any] = {
        "compute": ray.data.TaskPoolStrategy(size=job.num_threads * num_networks),
        "fn_kwargs": {"job": job},
        "num_cpus": 1,
        "max_retries": TASK_RETRIES,
    }
    photos = _rows(items, math.ceil(len(items) / per_task)).map_batches(read_files, **tasks)
    maps = _on_networks(
        photos,
        LabelImages,
        job,
        num_networks,
        resources,
        batch_size=per_task,
        at_hand=BLOCKS_AT_HAND,
    )
    # Where the maps are; Ray would spread tasks over all machines.
    return maps.map_batches(write_files, **tasks, scheduling_strategy="DEFAULT")


def network_resources(
    options: argparse.Namespace, cluster: dict[str, float]
) -> tuple[int, dict[str, float]]:
    """Number of networks and what each reserves.

    A network on a GPU leaves all cores to the tasks that read and write for it; without GPUs
    reading and writing share the cores of the network.
    """
    cpus, gpus = int(cluster.get("CPU", 1)), int(cluster.get("GPU", 0))
    if options.device != "cpu" and (gpus or options.device):
        return options.workers or max(gpus, 1), {"num_gpus": 1, "num_cpus": 0}
    each = options.cpus_per_worker
    return options.workers or max(1, cpus // each), {"num_cpus": each}


def check_gpus(resources: dict[str, float]) -> None:
    """Says that GPUs are awaited, which may come on demand; not on this machine alone."""
    import ray

    if "num_gpus" not in resources or ray.cluster_resources().get("GPU", 0):
        return
    if not os.environ.get("RAY_ADDRESS"):
        raise ValueError(
            "--device asks for a GPU and Ray finds none on this machine; leave --device out, or "
            "name a cluster with GPUs by RAY_ADDRESS"
        )
    print("waiting for a GPU; the cluster has none now", flush=True)


def num_blocks(num_items: int, num_networks: int) -> int:
    """Enough blocks for all networks to end together, and none of more than a moment's work."""
    wanted = max(BLOCKS_PER_ACTOR * num_networks, math.ceil(num_items / IMAGES_PER_BLOCK))
    return min(wanted, num_items)


def in_words(resources: dict[str, float]) -> str:
    names = {"num_gpus": "GPU", "num_cpus": "CPU"}
    counts = [(resources[key], name) for key, name in names.items() if resources.get(key)]
    return " and ".join(f"{count:g} {name}{'s' * (count != 1)}" for count, name in counts)
