"""Mean and variance of a batch per channel, over one worker or all of them.

Letters: N images or RoIs, C channels, W parts (workers or blocks of a batch); `*` is any number of
spatial axes, also none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

# Cells that are summed in float32 one after the other. The native kernel for channels_last memory
# sums all of them in this way: for the half million cells of one image the variance is 2e-4 off,
# with blocks 1e-6.
BLOCK_CELLS = 8192
# Up to here, mean^2 / var costs less than two digits of E[x^2] - mean^2.
LARGEST_OFFSET = 16.0


@dataclass(frozen=True)
class BatchStatistics:
    """Mean and variance of a batch per channel.

    Attributes:
        mean, var: [C] float32 (float64 for float64 input); var is biased, that is the mean squared
            deviation.
        count: elements per channel behind them; a float64 scalar on the device if all workers
            contributed (reading it would stop a GPU at every layer). 0: no data, all 0.
    """

    mean: Tensor
    var: Tensor
    count: int | Tensor

    @property
    def is_shared(self) -> bool:
        """Whether other workers contributed."""
        return isinstance(self.count, Tensor)

    def move(self, running_mean: Tensor, running_var: Tensor, momentum: float) -> None:
        """Moves running statistics towards these by `momentum`, the variance unbiased.

        No data moves nothing; a single element counts as its own mean without variance.
        """
        if isinstance(self.count, Tensor):
            weight: float | Tensor = (momentum * (self.count > 0)).to(running_mean.dtype)
            unbiased = self.var * (self.count / (self.count - 1).clamp(min=1))
        else:
            weight = momentum if self.count > 0 else 0.0
            unbiased = self.var * (self.count / max(self.count - 1, 1))
        running_mean.lerp_(self.mean.to(running_mean.dtype), weight)
        running_var.lerp_(unbiased.to(running_var.dtype), weight)


def num_workers() -> int:
    """Workers of the default torch.distributed group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def batch_statistics(x: Tensor, shared: bool) -> BatchStatistics:
    """Statistics of x, [N, C, *], over everything but the channels.

    Args:
        x: any float dtype; may be empty.
        shared: combine with the other workers; each of them must call this.
    """
    count = x.numel() // x.shape[1]
    if count == 0:
        mean = var = x.new_zeros(x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))
    else:
        mean, var = _local_statistics(x)
    if not shared or num_workers() == 1:
        return BatchStatistics(mean, var, count)
    local = torch.cat([mean, var, mean.new_tensor([count])]).double()
    gathered = [torch.empty_like(local) for _ in range(num_workers())]
    # Gathering (not reducing) fixes the order of the additions: every worker gets the same bits.
    dist.all_gather(gathered, local)
    means, variances, counts = torch.stack(gathered).split([len(mean), len(var), 1], dim=1)
    joint_mean, joint_var = _merge(means, variances, counts)
    return BatchStatistics(joint_mean.to(mean.dtype), joint_var.to(var.dtype), counts.sum())


def _merge(means: Tensor, variances: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Joins the statistics of parts; [W, C], [W, C] and [W, 1] float64 -> [C], [C].

    Deviations are merged instead of sums of squares: nothing cancels when the mean is large.
    """
    shares = counts / counts.sum().clamp(min=1)
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean) ** 2)).sum(0)


def _local_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    if x.is_cuda:
        return _native_statistics(x)
    if x.ndim > 2 and x.is_contiguous() and x.dtype in (torch.float32, torch.float64):
        return _statistics_of_rows(x)
    if x.ndim == 2 or x.is_contiguous(memory_format=torch.channels_last):
        return _statistics_of_cells(x.movedim(1, -1).reshape(-1, x.shape[1]))
    return _native_statistics(x)


def _statistics_of_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """For [N, C, *] contiguous on the CPU: ten times as fast as the native kernel."""
    mean = x.mean([axis for axis in range(x.ndim) if axis != 1])
    norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True).double().flatten(2)
    mean_square = norms.square_().sum((0, 2)) / (x.numel() // x.shape[1])
    squared_mean = mean.double() ** 2
    var = mean_square - squared_mean
    if (squared_mean > LARGEST_OFFSET * var).any():
        return _native_statistics(x)
    return mean, var.to(mean.dtype)


def _statistics_of_cells(cells: Tensor) -> tuple[Tensor, Tensor]:
    """For channels_last memory, seen as [N * cells, C]."""
    blocks = cells.split(BLOCK_CELLS)
    # [cells, C] -> [1, C, cells, 1], channels_last
    statistics = [_native_statistics(block.t()[None, :, :, None]) for block in blocks]
    if len(blocks) == 1:
        return statistics[0]
    means, variances = (torch.stack(parts).double() for parts in zip(*statistics))
    counts = means.new_tensor([[len(block)] for block in blocks])
    mean, var = _merge(means, variances, counts)
    dtype = statistics[0][0].dtype
    return mean.to(dtype), var.to(dtype)


def _native_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    # The buffers only tell the kernel in which precision to answer.
    dtype = torch.promote_types(x.dtype, torch.float32)
    ignored = torch.zeros(2, x.shape[1], dtype=dtype, device=x.device)
    mean, var = torch.batch_norm_update_stats(x, ignored[0], ignored[1], 0.0)
    return mean, var
