"""Losses over one and several workers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.training.losses import MeanLosses, mean_losses, weighted_sum

# Inputs of two workers: unlike numbers of terms, and a worker that has none.
SHARES = ([1.0, 2.0, 4.0], [8.0])
SHARES_OF_ONE = ([1.0, 2.0], [])


class Scale(nn.Module):
    """One weight w; the loss is the mean of w * x over the numbers of the worker."""

    def __init__(self, numbers: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.numbers = numbers

    def losses(self, batch, targets, generators):
        total = (self.weight * torch.tensor(self.numbers)).sum()
        return {"only": LossSum(total, len(self.numbers))}


def gradient(module: nn.Module) -> float:
    batch = ImageBatch.from_images([torch.zeros(3, 8, 8, dtype=torch.uint8)])
    module(batch, [], [])["only"].backward()
    (weight,) = module.parameters()
    assert weight.grad is not None
    return float(weight.grad)


def run_worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    found = {
        f"{name} {flag}": gradient(DistributedDataParallel(MeanLosses(Scale(shares[rank]), flag)))
        for name, shares in (("uneven", SHARES), ("of one", SHARES_OF_ONE))
        for flag in (True, False)
    }
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.mark.slow
def test_workers_follow_the_gradient_of_the_joined_batch_or_by_choice_the_mean_of_their_own(
    tmp_path: Path,
) -> None:
    torch.multiprocessing.spawn(run_worker, (str(tmp_path),), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first == {
        "uneven True": pytest.approx((1 + 2 + 4 + 8) / 4),
        "uneven False": pytest.approx(((1 + 2 + 4) / 3 + 8) / 2),
        "of one True": pytest.approx((1 + 2) / 2),
        "of one False": pytest.approx((1 + 2) / 2 / 2),
    }


@pytest.mark.parametrize("flag", [True, False])
def test_one_worker_divides_by_its_own_counts_and_nothing_counted_is_exactly_zero(
    flag: bool,
) -> None:
    sums = {"mask": LossSum(torch.tensor(6.0), 2), "none": LossSum(torch.tensor(0.0), 0)}
    means = mean_losses(sums, torch.device("cpu"), flag)
    assert {name: float(value) for name, value in means.items()} == {"mask": 3, "none": 0}


def test_weights_and_losses_must_have_the_same_names() -> None:
    losses = {"a": torch.tensor(1.0), "b": torch.tensor(10.0)}
    assert weighted_sum(losses, {"b": 0.5, "a": 2.0}) == 7
    with pytest.raises(ValueError, match=r"missing: \['b'\]; extra: \['c'\]"):
        weighted_sum(losses, {"a": 1.0, "c": 1.0})
