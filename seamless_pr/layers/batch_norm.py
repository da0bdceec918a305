"""Batch norm that trains: what all variants share, and the plain one.

Letters: N images or RoIs, C channels; `*` is any number of spatial axes, also none.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.layers.abn_function import InPlaceNormAct
from seamless_pr.layers.batch_statistics import BatchStatistics, batch_statistics, num_workers
from seamless_pr.layers.norm_act import LEAKY_SLOPE, NormAct
from seamless_pr.layers.recomputation import is_second_pass, statistics_once


class TrainedBatchNorm(NormAct):
    """Buffers and statistics of the batch norms whose parameters train; a base class.

    In training mode the running statistics move towards those of the batch by `momentum`, the
    variance unbiased; a batch without elements leaves them alone.

    Args:
        momentum: share of the batch in the running statistics.
        sync: share the batch statistics, and their gradients, over the workers of
            torch.distributed. Every worker must then run the layer and its backward pass equally
            often, if need be on N = 0.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        activation: str = "leaky_relu",
        *,
        slope: float = LEAKY_SLOPE,
        eps: float = 1e-5,
        momentum: float = 0.1,
        sync: bool = False,
    ) -> None:
        super().__init__(num_features, activation, slope=slope, eps=eps)
        self.momentum = momentum
        self.sync = sync
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))

    def _needs_own_statistics(self, x: Tensor) -> bool:
        """F.batch_norm knows neither workers nor batches without a variance."""
        few_elements = x.numel() < 2 * self.num_features
        return self.training and (few_elements or (self.sync and num_workers() > 1))

    def _batch_norm(self, x: Tensor, scale: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        if self.training and is_second_pass():
            # They have followed this batch already.
            mean, var = mean.clone(), var.clone()
        elif self.training:
            self.num_batches_tracked.add_(1)
        return F.batch_norm(
            x,
            mean,
            var,
            scale,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )

    @torch.no_grad()
    def _tracked_statistics(self, x: Tensor) -> BatchStatistics:
        """Statistics of the batch, which the running ones have followed."""
        return statistics_once(partial(self._follow, x))

    def _follow(self, x: Tensor) -> BatchStatistics:
        batch = batch_statistics(x, self.sync)
        # Unseen by autograd: F.batch_norm, which may have run on another level of a pyramid, saves
        # the buffers and does not use them in training.
        batch.move(self.running_mean.data, self.running_var.data, self.momentum)
        self.num_batches_tracked.add_(batch.count > 0)
        return batch

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Older checkpoints of this kind of layer do not count their batches.
        state_dict.setdefault(prefix + "num_batches_tracked", self.num_batches_tracked)
        super()._load_from_state_dict(state_dict, prefix, *args)


class BatchNormAct(TrainedBatchNorm):
    """Batch norm as in torch.nn, whose scale is the weight itself, and activation.

    For networks that were published with it; `InPlaceABN` needs half the memory. `slope` may be 0
    (ReLU): nothing here inverts the activation.

    `forward`: [N, C, *] in any float dtype -> a new tensor of the same shape and dtype. N may be 0.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self._needs_own_statistics(x):
            return self._activate(self._batch_norm(x, self.weight), in_place=True)
        batch = self._tracked_statistics(x)
        # The scale of the in-place function is |weight| + eps, here 1.
        ones, zeros = torch.full_like(self.weight, 1 - self.eps), torch.zeros_like(self.bias)
        arguments = (ones.detach(), zeros.detach(), batch.mean, batch.var, batch, 1.0, self.eps)
        standardized: Tensor = InPlaceNormAct.apply(x.clone(), *arguments)
        shape = (-1, *[1] * (x.ndim - 2))
        scaled = standardized * self.weight.view(shape) + self.bias.view(shape)
        return self._activate(scaled.to(x.dtype))
