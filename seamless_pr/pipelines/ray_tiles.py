"""Tiles of large images over the networks of a cluster; they are joined where the command runs."""

from __future__ import annotations

import argparse
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from seamless_pr.inference.mosaic_folder import LabelTiles
from seamless_pr.inference.predictor import Predictor
from seamless_pr.inference.tile_labels import TileLabels, label_tile
from seamless_pr.pipelines.ray_prediction import (
    check_gpus,
    in_words,
    network_loader,
    network_resources,
)
from seamless_pr.pipelines.ray_support import TASK_RETRIES, cluster_failures, ray_cluster
from seamless_pr.pipelines.ray_tasks import work_in

# While a network labels one, the next is on its way.
TILES_PER_NETWORK = 2


class TileNetwork:
    """A network that labels tiles, for an actor.

    Args:
        load_network: makes the predictor.
        folder: what relative paths are relative to.
    """

    def __init__(self, load_network: Callable[[], Predictor], folder: str) -> None:
        work_in(folder)
        self._predictor = load_network()

    def label(self, pixels: Any) -> TileLabels:
        """Labels a tile, [3, H, W] uint8 as an array."""
        return label_tile(self._predictor, torch.from_numpy(pixels.copy()))


@contextmanager
def tiling_on_cluster(options: argparse.Namespace) -> Iterator[LabelTiles]:
    """Connects to Ray and yields what labels tiles there, in their order.

    Args:
        options: of pipelines/predict.py.

    Raises:
        OSError: from the labelling, when a worker dies again and again.
        ValueError: this machine alone has not the GPU that is asked for.
    """
    import ray

    networks: list[Any] = []

    def label_tiles(tiles: Iterable[Tensor]) -> Iterator[TileLabels]:
        if not networks:
            print(f"{count} networks for tiles, each with {in_words(resources)}", flush=True)
            retries = {"max_restarts": TASK_RETRIES, "max_task_retries": TASK_RETRIES}
            actor_options: dict[str, Any] = {**retries, **resources}
            actor: Any = ray.remote(**actor_options)(TileNetwork)
            load_network = network_loader(options, resources)
            networks.extend(actor.remote(load_network, os.getcwd()) for _ in range(count))
        running: deque[Any] = deque()
        with cluster_failures():
            for index, tile in enumerate(tiles):
                if len(running) >= TILES_PER_NETWORK * len(networks):
                    yield ray.get(running.popleft())
                network = networks[index % len(networks)]
                running.append(network.label.remote(tile.numpy()))
            while running:
                yield ray.get(running.popleft())

    wanted = (options.workers or 1) * options.cpus_per_worker
    with ray_cluster(wanted_cpus=wanted):
        # Before the first image, of which it is no fault.
        count, resources = network_resources(options, ray.cluster_resources())
        check_gpus(resources)
        try:
            yield label_tiles
        finally:
            for network in networks:
                ray.kill(network)
