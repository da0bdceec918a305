"""Statistics of a batch: every memory layout, large means, and several workers."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from seamless_pr.layers.abn import ABN, InPlaceABN
from seamless_pr.layers.batch_norm import BatchNormAct, TrainedBatchNorm
from seamless_pr.layers.batch_statistics import batch_statistics

# Worker 1 has no RoI at all in the last case.
SPLITS = {"dense": (3, 3), "uneven": (1, 5), "one without data": (6, 0)}
SHAPE = (6, 4, 5, 3)


def oracle(x: Tensor) -> tuple[Tensor, Tensor]:
    flat = x.double().movedim(1, 0).flatten(1)
    return flat.mean(1).float(), flat.var(1, unbiased=False).float()


@pytest.mark.parametrize("offset", [0.0, 3.0, 1000.0])
@pytest.mark.parametrize("shape", [(50, 6), (3, 6, 40), (2, 6, 90, 110), (2, 6, 3, 7)])
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last", "strided"])
def test_mean_and_variance_hold_for_every_layout_and_offset(shape, offset, memory_format):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + offset
    if memory_format == "channels_last" and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    elif memory_format == "strided":
        x = x.repeat_interleave(2, dim=0)[::2]
    mean, var = oracle(x)
    statistics = batch_statistics(x, shared=False)
    assert statistics.count == x.numel() // 6
    torch.testing.assert_close(statistics.mean, mean, rtol=5e-6, atol=1e-6)
    torch.testing.assert_close(statistics.var, var, rtol=2e-5, atol=0)


def test_a_constant_channel_has_no_variance():
    statistics = batch_statistics(torch.full((2, 3, 4, 4), 0.1), shared=False)
    torch.testing.assert_close(statistics.var, torch.zeros(3), rtol=0, atol=1e-9)
    assert (statistics.var >= 0).all()


def test_an_empty_batch_has_count_zero():
    statistics = batch_statistics(torch.zeros(0, 3, 4, 4), shared=False)
    assert statistics.count == 0
    assert statistics.mean.tolist() == statistics.var.tolist() == [0.0, 0.0, 0.0]


def joined_batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SHAPE, generator=generator) + 100 * torch.arange(SHAPE[1])[:, None, None]
    return x, torch.randn(SHAPE, generator=generator)


def run_layer(kind: type[TrainedBatchNorm], x: Tensor, grad: Tensor) -> dict[str, Tensor]:
    layer = kind(SHAPE[1], sync=True)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, -0.5, 2.0, 0.3]))
        layer.bias.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    leaf = x.clone().requires_grad_()
    output = layer(leaf.clone())
    output.backward(grad)
    assert leaf.grad is not None
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None
    return {
        "y": output.detach(),
        "dx": leaf.grad,
        "dweight": layer.weight.grad,
        "dbias": layer.bias.grad,
        "running_mean": layer.running_mean,
        "running_var": layer.running_var,
    }


def run_worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    x, grad = joined_batch()
    results = {}
    for kind in (InPlaceABN, ABN, BatchNormAct):
        for name, split in SPLITS.items():
            own = [each.split(list(split))[rank] for each in (x, grad)]
            results[f"{kind.__name__} {name}"] = run_layer(kind, *own)
    results["nobody has data"] = run_layer(InPlaceABN, x[:0], grad[:0])
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    """What each of two gloo processes got, by layer and case."""
    folder = tmp_path_factory.mktemp("workers")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(run_worker, (port, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, alone", [(InPlaceABN, InPlaceABN), (ABN, InPlaceABN), (BatchNormAct, BatchNormAct)]
)
@pytest.mark.parametrize("case", SPLITS)
def test_two_workers_equal_one_on_the_joined_batch(two_workers, kind, alone, case):
    expected = run_layer(alone, *joined_batch())
    first, second = (worker[f"{kind.__name__} {case}"] for worker in two_workers)
    for name in ("y", "dx"):
        joined = torch.cat([first[name], second[name]])
        torch.testing.assert_close(joined, expected[name], rtol=1e-4, atol=1e-4)
    for name in ("dweight", "dbias"):
        total = first[name] + second[name]
        torch.testing.assert_close(total, expected[name], rtol=1e-4, atol=1e-4)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(first[name], expected[name], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(second[name], first[name], rtol=0, atol=0)


@pytest.mark.slow
def test_workers_without_any_data_keep_their_statistics(two_workers):
    for worker in two_workers:
        results = worker["nobody has data"]
        assert results["y"].shape == (0, *SHAPE[1:])
        torch.testing.assert_close(results["running_var"], torch.ones(SHAPE[1]))
        torch.testing.assert_close(results["dweight"], torch.zeros(SHAPE[1]))
