"""From the sums of a network's losses to the one number that is minimised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from seamless_pr.models.networks.network import Network
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.training.distributed import world_size


class MeanLosses(nn.Module):
    """A network as the module that DistributedDataParallel wraps.

    forward: batch, one target and one random generator per image -> dict of scalar losses by name,
    unweighted.

    Args:
        network: has `losses(batch, targets, generators) -> name -> LossSum`.
        global_counts: see `mean_losses`.
    """

    def __init__(self, network: Network, global_counts: bool) -> None:
        super().__init__()
        self.network: Any = network
        self.global_counts = global_counts

    def forward(
        self,
        batch: ImageBatch,
        targets: Sequence[PanopticTarget],
        generators: Sequence[torch.Generator],
    ) -> dict[str, Tensor]:
        sums = self.network.losses(batch, targets, generators)
        return mean_losses(sums, batch.images.device, self.global_counts)


def mean_losses(
    losses: Mapping[str, LossSum], device: torch.device, global_counts: bool
) -> dict[str, Tensor]:
    """Totals over counts, so that their average over the workers has the exact gradient.

    Args:
        losses: sums and counts of this worker; the same names in the same order on all workers.
        device: where the workers meet.
        global_counts: divide by the counts of all workers (a batch gives the same gradient however
            it is spread); False: each worker by its own, as the released Seamless code does.

    Returns:
        Name -> scalar; exactly 0 where nothing was counted.
    """
    counts = [float(loss.count) for loss in losses.values()]
    divisors: list[float | Tensor]
    if global_counts and world_size() > 1:
        # Nobody reads them: a GPU would be waited for at every step.
        shared = torch.tensor(counts, dtype=torch.float64).to(device, non_blocking=True)
        dist.all_reduce(shared)
        divisors = list((shared.clamp(min=1) / world_size()).unbind())
    else:
        divisors = [max(count, 1.0) for count in counts]
    return {
        name: loss.total / divisor
        for (name, loss), divisor in zip(losses.items(), divisors, strict=True)
    }


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Sum of all losses with their weights.

    Raises:
        ValueError: the names differ.
    """
    if losses.keys() != weights.keys():
        missing, extra = losses.keys() - weights.keys(), weights.keys() - losses.keys()
        raise ValueError(
            "loss_weights must name the losses of the network; "
            f"missing: {sorted(missing) or 'none'}; extra: {sorted(extra) or 'none'}"
        )
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
