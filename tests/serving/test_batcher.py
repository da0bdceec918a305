from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from seamless_pr.inference.predictor import Predictor
from seamless_pr.serving.batcher import Batcher
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation
from tests.support.color_network import ColorNetwork
from tests.support.color_server import color_predictor, flag


class HeldNetwork(ColorNetwork):
    """Waits in its first pass until it is let go; fails on batches with a white first pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.is_at_work = threading.Event()

    def outputs(self, batch: ImageBatch) -> ImageBatch:
        self.is_at_work.set()
        assert self.go.wait(20)
        if bool((batch.images[:, :, 0, 0] == 255).all(1).any()):
            self.batches.append((-len(batch), *batch.padded_size))
            raise RuntimeError("white")
        return super().outputs(batch)


def image(height: int = 48, width: int = 80, *, white: bool = False) -> Tensor:
    pixels = torch.from_numpy(flag(height, width)).permute(2, 0, 1).contiguous()
    if white:
        pixels[:, 0, 0] = 255
    return pixels


def label_all(images: Sequence[Tensor], **options: Any) -> tuple[list[Any], HeldNetwork]:
    """Results or errors of images that come while the network is at work on the first one."""
    predictor = color_predictor(**options)
    network = predictor._network = HeldNetwork().eval()
    batcher = Batcher(predictor)

    async def run() -> list[Any]:
        first = asyncio.create_task(batcher.label(images[0]))
        assert await asyncio.to_thread(network.is_at_work.wait, 20)
        others = [asyncio.create_task(batcher.label(one)) for one in images[1:]]
        while len(batcher._waiting) < len(others):
            await asyncio.sleep(0.01)
        network.go.set()
        return list(await asyncio.gather(first, *others, return_exceptions=True))

    results = asyncio.run(run())
    batcher.close()
    return results, network


def test_images_of_one_size_that_wait_together_are_one_batch() -> None:
    sizes = [(48, 80), (48, 80), (48, 96), (48, 80), (48, 96), (48, 80), (48, 80)]
    images = [image(*size) for size in sizes]
    results, network = label_all(images, batch_size=3)
    assert network.batches == [(1, 48, 80), (3, 48, 80), (2, 48, 96), (1, 48, 80)]
    alone = color_predictor()
    for one, result in zip(images, results):
        assert isinstance(result, PanopticSegmentation)
        assert torch.equal(result.id_map, alone(one).id_map)


def test_an_image_on_which_the_network_fails_does_not_harm_its_batch() -> None:
    images = [image(), image(), image(white=True), image()]
    results, network = label_all(images, batch_size=4)
    assert network.batches == [(1, 48, 80), (-3, 48, 80), (1, 48, 80), (-1, 48, 80), (1, 48, 80)]
    assert [isinstance(result, RuntimeError) for result in results] == [False, False, True, False]


def test_an_image_whose_client_has_gone_is_not_labelled() -> None:
    predictor = color_predictor(batch_size=1)
    network = predictor._network = HeldNetwork().eval()
    batcher = Batcher(predictor)

    async def run() -> None:
        first = asyncio.create_task(batcher.label(image()))
        gone = asyncio.create_task(batcher.label(image()))
        while not network.is_at_work.is_set() or len(batcher._waiting) < 1:
            await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0.01)
        network.go.set()
        await first
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(run())
    batcher.close()
    assert len(network.batches) == 1


def test_networks_are_exchanged_between_batches() -> None:
    before, after = color_predictor(48), color_predictor(24)
    batcher = Batcher(before)

    async def run() -> list[PanopticSegmentation]:
        first = await batcher.label(image())
        batcher.exchange(lambda: after)
        return [first, await batcher.label(image())]

    results = asyncio.run(run())
    batcher.close()
    networks = [before.network, after.network]
    assert [n.batches for n in networks if isinstance(n, ColorNetwork)] == [
        [(1, 48, 80)],
        [(1, 24, 40)],
    ]
    assert [result.image_size for result in results] == [(48, 80)] * 2


def test_a_network_is_loaded_where_no_other_is_at_work_and_a_failed_one_changes_nothing() -> None:
    before = color_predictor()
    batcher = Batcher(before)
    threads: list[str] = []

    def load() -> Predictor:
        threads.append(threading.current_thread().name)
        raise ValueError("no such weights")

    with pytest.raises(ValueError, match="no such weights"):
        batcher.exchange(load)
    assert threads == ["network"]
    assert batcher.predictor is before
    assert asyncio.run(batcher.label(image())).image_size == (48, 80)
    batcher.close()


def test_a_closed_network_says_so() -> None:
    batcher = Batcher(color_predictor())
    assert batcher.is_alive()
    batcher.close()
    assert not batcher.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(batcher.label(image()))
