"""The few questions that code asks about its worker group; all have an answer without a group."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.parallel import end_with_parent
from seamless_pr.structures.image_batch import ImageBatch


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def join_torchrun() -> torch.device:
    """Joins the process group when started by torchrun, and returns the device of this process.

    Returns:
        The GPU of this worker, or the CPU where there is none.
    """
    on_gpu = torch.cuda.is_available()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ and not dist.is_initialized():
        end_with_parent()
        dist.init_process_group("nccl" if on_gpu else "gloo")
    return device


def leave() -> None:
    """Ends the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def of_first_worker(value: float, device: torch.device) -> float:
    """The value that the first worker has."""
    if world_size() == 1:
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    dist.broadcast(shared, src=0)
    return float(shared)


def mean_over_workers(values: Tensor) -> Tensor:
    """The mean of a tensor over all workers; the tensor itself without a group."""
    if world_size() == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values / world_size()


def padded_to_largest(batch: ImageBatch) -> ImageBatch:
    """Pads to the largest height and width among the workers' batches.

    Norm statistics count the padding, so only then do they equal those of the joined batch. It
    costs hardly any time: with synchronised norms all workers wait for the largest batch anyway.
    """
    if world_size() == 1:
        return batch
    largest = torch.tensor(batch.padded_size, device=batch.images.device)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    height, width = batch.padded_size
    bottom, right = int(largest[0]) - height, int(largest[1]) - width
    return ImageBatch(F.pad(batch.images, (0, right, 0, bottom)), batch.image_sizes)


def parameter_checksum_spread(parameters: Iterable[Tensor]) -> float:
    """Largest difference between workers of the sum of all parameters; 0 if they agree."""
    if world_size() == 1:
        return 0.0
    total = torch.stack([parameter.detach().double().sum() for parameter in parameters]).sum()
    largest, smallest = total.clone(), total.clone()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    dist.all_reduce(smallest, op=dist.ReduceOp.MIN)
    return float(largest - smallest)
