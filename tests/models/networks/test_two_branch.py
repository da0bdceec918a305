"""Normalisation of the losses over workers; the branches have tests of their own."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
import torch.distributed as dist

from seamless_pr.models.networks.two_branch import PanopticNet
from seamless_pr.structures.loss_sum import LossSum

# Sum and count of a loss on each of two workers.
PARTS = ((6.0, 2), (2.0, 6))


def normalised(parts: tuple[float, int], global_loss_counts: bool) -> float:
    network = cast(PanopticNet, SimpleNamespace(global_loss_counts=global_loss_counts))
    losses = {"mask": LossSum(torch.tensor(parts[0]), parts[1])}
    return float(PanopticNet._normalised(network, losses, torch.device("cpu"))["mask"])


def run_worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    values = {flag: normalised(PARTS[rank], flag) for flag in (True, False)}
    Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps(values))
    dist.destroy_process_group()


@pytest.mark.slow
def test_counts_are_those_of_all_workers_or_by_choice_of_each_alone(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(run_worker, (str(tmp_path),), nprocs=2)
    first, second = (pickle.loads((tmp_path / f"{rank}.pickle").read_bytes()) for rank in (0, 1))
    # The mean over workers, which is what their averaged gradients follow.
    assert (first[True] + second[True]) / 2 == pytest.approx((6 + 2) / (2 + 6))
    assert (first[False], second[False]) == pytest.approx((6 / 2, 2 / 6))


def test_one_worker_divides_by_its_own_counts() -> None:
    assert normalised(PARTS[0], True) == normalised(PARTS[0], False) == pytest.approx(3)
    # Nothing to count is no division by zero.
    assert normalised((0.0, 0), True) == 0
