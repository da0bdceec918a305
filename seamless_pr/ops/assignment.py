"""The one-to-one assignment of least total cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@torch.no_grad()
def cheapest_assignments(costs: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Pairs rows and columns of each matrix so that the sum of the chosen entries is least.

    Each row and each column is used at most once, and min(rows, columns) pairs are chosen: the
    Hungarian method, on the CPU (`scipy.optimize.linear_sum_assignment`). A cost that is not finite
    says that the network has left the range of numbers, which its losses report by name; here it
    only must not be chosen, so it counts as dearer than every finite one.

    Args:
        costs: matrices [Q, T] on one device, Q or T may be 0; read in one transfer.

    Returns:
        For each matrix the rows and the columns of its pairs, rows ascending; int64 on the device
        of the costs.
    """
    if not costs:
        return []
    # Imported here: only training needs it.
    from scipy.optimize import linear_sum_assignment

    device = costs[0].device
    values = torch.cat([cost.flatten() for cost in costs]).double().cpu().numpy()
    ends = np.cumsum([cost.numel() for cost in costs])
    pairs = []
    for cost, part in zip(costs, np.split(values, ends[:-1]), strict=True):
        matrix = _finite(part.reshape(cost.shape))
        pairs.append(np.stack(linear_sum_assignment(matrix)).astype(np.int64))
    counts = [pair.shape[1] for pair in pairs]
    on_device = torch.from_numpy(np.concatenate(pairs, axis=1)).to(device)
    return [(rows, columns) for rows, columns in on_device.split(counts, dim=1)]


def _finite(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    finite = np.isfinite(matrix)
    if finite.all():
        return matrix
    known = matrix[finite]
    dearest = known.max() + abs(known).max() + 1 if known.size else 0.0
    return np.where(finite, matrix, dearest)
