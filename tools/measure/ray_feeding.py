"""How well reading and writing keep up with a GPU that this machine does not have.

A stand-in takes a GPU's place: it waits as long as the network would take, using no core, and hands
out a drawn map. What it reaches of its own rate says how long it waits for files. Called by
tools/measure/benchmark_ray.py.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from seamless_pr.inference.folders import ImageOutcome, predict_images
from seamless_pr.inference.image_list import ImageItem
from seamless_pr.inference.prediction_folder import PredictionFolder
from seamless_pr.inference.predictor import Predictor
from seamless_pr.models.networks.network import Network
from seamless_pr.pipelines.ray_prediction import label_items
from seamless_pr.pipelines.ray_stages import Job
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation
from seamless_pr.structures.prediction import Prediction
from tools.measure.cluster_plan import (
    FULL_SIZE,
    as_prediction,
    drawn_samples,
    write_full_size_scenes,
)

THREADS_ALONE = "plain loop, threads beside the network"
THREADS = "Ray, threads beside the network"
TASKS = "Ray, reading and writing in tasks of their own"
NUM_THREADS = 2
STORE_BYTES = 2 * 2**30


class WaitingNetwork(Network):
    """Takes the time of a network on a GPU, and leaves the cores alone."""

    def __init__(self, segmentation: PanopticSegmentation, seconds_per_image: float) -> None:
        super().__init__()
        self.label_space = segmentation.label_space
        self._segmentation = segmentation
        self._seconds = seconds_per_image

    def outputs(self, batch: ImageBatch) -> None:
        time.sleep(self._seconds * len(batch))

    def finish(self, outputs: None, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        return [Prediction(self._segmentation)] * len(sizes)


def waiting_predictor(scenes: Path, seconds_per_image: float) -> Predictor:
    _, target = drawn_samples(scenes, is_training=False)[0]
    network = WaitingNetwork(as_prediction(target), seconds_per_image)
    return Predictor(network, shortest_side_pixels=min(FULL_SIZE))


def measure_feeding(options: argparse.Namespace, round_indices: range) -> list[dict[str, Any]]:
    """Rounds of the ways; of each the images a second and the share of the network's own rate."""
    scenes, photos = write_full_size_scenes(options.folder / "full_size")
    items = [ImageItem(photos[n % len(photos)], n, f"{n}") for n in range(options.fed_images)]
    load = partial(waiting_predictor, scenes, options.network_ms / 1000)
    rounds = []
    for index in round_indices:
        ways: dict[str, Callable[[PredictionFolder], Iterator[ImageOutcome]]] = {
            THREADS_ALONE: partial(_in_this_process, load, items),
            THREADS: partial(_on_ray, load, items, {"num_cpus": NUM_THREADS}),
            TASKS: partial(_on_ray, load, items, {"num_gpus": 1, "num_cpus": 0}),
        }
        found: dict[str, Any] = {"load": round(os.getloadavg()[0], 2)}
        for way in list(ways)[:: -1 if index % 2 else 1]:
            rate = _rate(ways[way], options.folder / "fed", options.fed_images // 4)
            found[way] = {"rate": round(rate, 3)}
            print(f"{way}: {rate:.2f} images a second", flush=True)
        rounds.append(found)
    return rounds


def _rate(
    label: Callable[[PredictionFolder], Iterator[ImageOutcome]], output: Path, num_starting: int
) -> float:
    """Images a second after the first `num_starting`."""
    shutil.rmtree(output, ignore_errors=True)
    folder = PredictionFolder(output, instances=False, overlays=False)
    folder.open({})
    for outcome in label(folder):
        if outcome.error:
            raise RuntimeError(outcome.error)
    done = sorted(path.stat().st_mtime for path in (output / "records").glob("*.json"))
    return (len(done) - num_starting) / (done[-1] - done[num_starting - 1])


def _in_this_process(
    load: Callable[[], Predictor], items: Sequence[ImageItem], folder: PredictionFolder
) -> Iterator[ImageOutcome]:
    return predict_images(load(), items, folder, num_threads=NUM_THREADS)


def _on_ray(
    load: Callable[[], Predictor],
    items: Sequence[ImageItem],
    resources: dict[str, float],
    folder: PredictionFolder,
) -> Iterator[ImageOutcome]:
    job = Job(load, (min(FULL_SIZE), None), 1, folder, os.getcwd(), NUM_THREADS)
    with _cluster_with_a_gpu():
        yield from label_items(items, job, 1, resources)


@contextmanager
def _cluster_with_a_gpu() -> Iterator[None]:
    """As many logical cores as read and write; the stand-in needs none."""
    import ray

    ray.init(
        address="local",
        num_cpus=2 * NUM_THREADS,
        num_gpus=1,
        include_dashboard=False,
        object_store_memory=STORE_BYTES,
    )
    try:
        yield
    finally:
        ray.shutdown()


def feeding_section(part: dict[str, Any]) -> str:
    """The result in Markdown.

    Args:
        part: `network_ms`, `num_images` and `rounds` of `measure_feeding`.
    """
    own_rate = 1000 / part["network_ms"]
    lines = [
        "### Does a GPU wait for files?",
        "",
        "| | images a second | of what the network could do |",
        "|---|---:|---:|",
    ]
    for way in (THREADS_ALONE, THREADS, TASKS):
        rates = sorted(found[way]["rate"] for found in part["rounds"])
        middle = statistics.median(rates)
        low, share, high = (100 * rate / own_rate for rate in (rates[0], middle, rates[-1]))
        lines.append(f"| {way} | {middle:.1f} | {share:.0f} % ({low:.0f} to {high:.0f}) |")
    loads = [found["load"] for found in part["rounds"]]
    lines += [
        "",
        "Simulated: instead of a network on a GPU something that waits "
        f"{part['network_ms']:g} ms an image and leaves the cores alone; reading, resizing and "
        f"writing are real, {FULL_SIZE[0]}x{FULL_SIZE[1]} PNG, {part['num_images']} images of "
        f"which the last three quarters count, {NUM_THREADS} threads or tasks that read and as "
        f"many that write. Median of {len(part['rounds'])} rounds (smallest to largest), load of "
        f"the machine before each {min(loads):.1f} to {max(loads):.1f}. With a GPU the pipeline "
        "takes tasks of their own, which may run on any machine of the cluster; the threads in "
        "the middle row are what it does without GPUs.",
    ]
    return "\n".join(lines)
