"""Mean over a large sliding window at the cost of a few additions per cell.

Letters: N images, C channels, k side of the window along one axis.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def window_mean(x: Tensor, window_size: int) -> Tensor:
    """Average pooling at stride 1 whose border values are repeated to the size of x.

    Equal to avg_pool2d with kernel (min(k, H), min(k, W)), followed by replicate padding of (kernel
    - 1) // 2 before and the rest after, per axis. Computed one axis after the other from sums of 1,
    2, 4, ... neighbours: 6 additions per axis for 64 instead of 4096, and no difference of large
    sums as in an integral image.

    Args:
        x: [N, C, H, W], any float dtype; summed in float32 at least.
        window_size: k, at least 1.

    Returns:
        [N, C, H, W] of the dtype of x.
    """
    if window_size < 1:
        raise ValueError(f"window_size must be at least 1; got {window_size}")
    result: Tensor = _WindowMean.apply(x, window_size)
    return result


class _WindowMean(torch.autograd.Function):
    """The pooling is linear, so nothing is kept; its backward pass is a window sum, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window_size: int) -> Tensor:
        ctx.window_size = window_size
        return _mean_along(_mean_along(x, 2, window_size), 3, window_size).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (grad,) = grad_outputs
        grad_rows = _mean_along_backward(grad, 3, ctx.window_size)
        return _mean_along_backward(grad_rows, 2, ctx.window_size).to(grad.dtype), None


def _mean_along(x: Tensor, dim: int, window_size: int) -> Tensor:
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    size = x.shape[dim]
    k = min(window_size, size)
    before = (k - 1) // 2
    sums = _sliding_sum(x, dim, k).div_(k)
    num_sums = size - k + 1
    index = (torch.arange(size, device=x.device) - before).clamp(0, num_sums - 1)
    return sums.index_select(dim, index)


def _mean_along_backward(grad: Tensor, dim: int, window_size: int) -> Tensor:
    grad = grad.to(torch.promote_types(grad.dtype, torch.float32))
    size = grad.shape[dim]
    k = min(window_size, size)
    before = (k - 1) // 2
    num_sums = size - k + 1
    # Gradients of the repeated border values belong to the first and the last sum.
    grad_sums = grad.narrow(dim, before, num_sums) / k
    grad_sums.narrow(dim, 0, 1).add_(grad.narrow(dim, 0, before).sum(dim, keepdim=True) / k)
    after = size - before - num_sums
    last = grad.narrow(dim, size - after, after).sum(dim, keepdim=True)
    grad_sums.narrow(dim, num_sums - 1, 1).add_(last / k)
    padding = [0, 0, k - 1, k - 1] if dim == 2 else [k - 1, k - 1]
    return _sliding_sum(F.pad(grad_sums, padding), dim, k)


def _sliding_sum(x: Tensor, dim: int, k: int) -> Tensor:
    """Sums of k neighbours along an axis; the axis shrinks by k - 1."""
    num_sums = x.shape[dim] - k + 1
    total: Tensor | None = None
    start, width, block = 0, 1, x
    while True:
        if k & width:
            piece = block.narrow(dim, start, num_sums)
            total = piece.clone() if total is None else total.add_(piece)
            start += width
        if 2 * width > k:
            break
        length = block.shape[dim] - width
        block = block.narrow(dim, 0, length) + block.narrow(dim, width, length)
        width *= 2
    assert total is not None
    return total
