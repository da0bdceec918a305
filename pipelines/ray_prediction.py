"""Prediction as a Ray Data stream: image lists in, one line per image out.

One stage does all work. Its actors read, label and write in threads of their own, so only names and
errors move between machines, and no second stage can be left without a core.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.ray_support import TASK_RETRIES, cluster_failures, ray_cluster, work_in
from seamless_pr.build import load_predictor
from seamless_pr.data.image_list import ImageItem
from seamless_pr.data.prediction_folder import PredictionFolder
from seamless_pr.data.remote_files import as_location
from seamless_pr.engine.cpu_memory import keep_freed_memory
from seamless_pr.predict import ImageOutcome, predict_images

# After a block its images count as progress. Before and after it the network waits for files, which
# only a GPU notices: 32 images take it a second.
IMAGES_PER_BLOCK, IMAGES_PER_GPU_BLOCK = 32, 256
BLOCKS_PER_ACTOR = 4

Labelling = Callable[[Sequence[ImageItem], PredictionFolder], Iterator[ImageOutcome]]


@dataclass(frozen=True)
class ActorSettings:
    """What an actor needs to build its network; `folder` is where its relative paths begin."""

    weights: str
    device: str
    overrides: tuple[str, ...]
    batch_size: int
    amp: str
    num_threads: int
    folder: str


@contextmanager
def labelling_on_cluster(options: argparse.Namespace) -> Iterator[Labelling]:
    """Connects to Ray and yields what labels images there.

    Args:
        options: of pipelines/predict.py.

    Raises:
        OSError: from the labelling, when a worker dies again and again.
    """

    def label(items: Sequence[ImageItem], folder: PredictionFolder) -> Iterator[ImageOutcome]:
        with cluster_failures():
            yield from _label(items, folder, options)

    wanted = (options.workers or 1) * options.cpus_per_worker
    with ray_cluster(wanted_cpus=wanted):
        yield label


def _label(
    items: Sequence[ImageItem], folder: PredictionFolder, options: argparse.Namespace
) -> Iterator[ImageOutcome]:
    import ray.data

    if not items:
        return
    num_actors, resources = actor_resources(options, ray.cluster_resources())
    num_actors = min(num_actors, len(items))
    on_gpu = "num_gpus" in resources
    print(f"{num_actors} networks, each with {_in_words(resources)}", flush=True)
    settings = ActorSettings(
        weights=options.weights,
        # Ray shows an actor its own GPU only.
        device="cuda" if on_gpu else "cpu",
        overrides=tuple(options.overrides),
        batch_size=options.batch_size,
        amp=options.amp,
        num_threads=options.threads,
        folder=os.getcwd(),
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # The pipeline has its own.
    context.print_on_execution_start = False
    stream = ray.data.from_items(
        [_to_row(item) for item in items],
        override_num_blocks=num_blocks(
            len(items), num_actors, IMAGES_PER_GPU_BLOCK if on_gpu else IMAGES_PER_BLOCK
        ),
    ).map_batches(
        LabelImages,
        fn_constructor_args=(settings, folder),
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=num_actors),
        # Without limits an image that crashes the network would be tried for ever.
        max_restarts=TASK_RETRIES,
        max_task_retries=TASK_RETRIES,
        **resources,
    )
    for row in stream.iter_rows():
        yield ImageOutcome(_to_item(row), row["error"] or None)


class LabelImages:
    """The actor: labels blocks of images into the prediction folder."""

    def __init__(self, settings: ActorSettings, folder: PredictionFolder) -> None:
        work_in(settings.folder)
        self.folder = folder
        self.num_threads = settings.num_threads
        if settings.device == "cpu":
            keep_freed_memory()
        self.predictor = load_predictor(
            settings.weights,
            settings.device,
            overrides=settings.overrides,
            batch_size=settings.batch_size,
            amp=settings.amp,
        )

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        columns = ("path", "image_id", "name")
        items = [_to_item(dict(zip(columns, row))) for row in zip(*(batch[c] for c in columns))]
        # A block of a dead worker comes again; part of it may be done.
        unfinished = [item for item in items if not self.folder.is_finished(item)]
        errors = {
            outcome.item.name: outcome.error or ""
            for outcome in predict_images(
                self.predictor, unfinished, self.folder, num_threads=self.num_threads
            )
        }
        return {**batch, "error": np.array([errors.get(item.name, "") for item in items], object)}


def actor_resources(
    options: argparse.Namespace, cluster: dict[str, float]
) -> tuple[int, dict[str, Any]]:
    """Number of actors and what each reserves.

    A GPU comes with cores for the threads that read and write; without GPUs the threads share the
    cores of the network.
    """
    cpus, gpus = int(cluster.get("CPU", 1)), int(cluster.get("GPU", 0))
    if options.device != "cpu" and (gpus or options.device):
        share = max(1, min(2 * options.threads, cpus // max(gpus, 1)))
        return options.workers or max(gpus, 1), {"num_gpus": 1, "num_cpus": share}
    each = options.cpus_per_worker
    return options.workers or max(1, cpus // each), {"num_cpus": each}


def num_blocks(num_items: int, num_actors: int, largest: int = IMAGES_PER_BLOCK) -> int:
    """Enough blocks for all actors to end together, and none of more than `largest` items."""
    wanted = max(BLOCKS_PER_ACTOR * num_actors, math.ceil(num_items / largest))
    return min(wanted, num_items)


def _to_row(item: ImageItem) -> dict[str, str]:
    # JSON keeps apart the ids 42 and "42", which one column of a table could not.
    return {"path": str(item.path), "image_id": json.dumps(item.image_id), "name": item.name}


def _to_item(row: dict[str, Any]) -> ImageItem:
    return ImageItem(
        as_location(str(row["path"])), json.loads(str(row["image_id"])), str(row["name"])
    )


def _in_words(resources: dict[str, Any]) -> str:
    return " and ".join(
        f"{count:g} {name.removeprefix('num_')}" for name, count in resources.items()
    )
