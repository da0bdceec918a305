"""Mean over a large sliding window at the cost of a few additions per cell.

Letters: N images, C channels, k side of the window along one axis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.ops.fixed_shapes import needs_fixed_shapes

HEIGHT_DIM, WIDTH_DIM = 2, 3
# Elements that are worked on at a time on the CPU, so that all passes over them stay in its cache.
CHUNK_ELEMENTS = 2**19


def window_mean(x: Tensor, window_size: int) -> Tensor:
    """Average pooling at stride 1 whose border values are repeated to the size of x.

    Equal to avg_pool2d with kernel (min(k, H), min(k, W)), followed by replicate padding of
    (kernel - 1) // 2 before and the rest after, per axis. Computed one axis after the other from
    sums of 1, 2, 4, ... neighbours: 6 additions per axis for 64 instead of 4096, and no difference
    of large sums as in an integral image.

    Args:
        x: [N, C, H, W], any float dtype; summed in float32 at least.
        window_size: k, at least 1.

    Returns:
        [N, C, H, W] of the dtype and memory format of x.
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
        if needs_fixed_shapes(x):
            wide = x if x.device.type != "cpu" else _wide(x)
            means = _pooled(_pooled(wide, HEIGHT_DIM, window_size), WIDTH_DIM, window_size)
            return means.to(x.dtype)
        rows = _along(_axis_mean, x, HEIGHT_DIM, window_size)
        return _along(_axis_mean, rows, WIDTH_DIM, window_size).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (grad,) = grad_outputs
        rows = _along(_axis_mean_backward, grad, WIDTH_DIM, ctx.window_size)
        return _along(_axis_mean_backward, rows, HEIGHT_DIM, ctx.window_size).to(grad.dtype), None


def _pooled(x: Tensor, dim: int, window_size: int) -> Tensor:
    """The mean along one axis in a tensor that nobody writes into, as graphs want it.

    In one operation on a GPU, where reads are cheap and launches are not.
    """
    k, before, after = _window(x.shape[dim], window_size)
    along_height = dim == HEIGHT_DIM
    if x.device.type == "cpu":
        means = _sliding_sum(x, dim, k) * (1 / k)
    else:
        means = F.avg_pool2d(x, (k, 1) if along_height else (1, k), 1)
    borders = (0, 0, before, after) if along_height else (before, after, 0, 0)
    return F.pad(means, borders, mode="replicate")


def _wide(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _along(
    function: Callable[[Tensor, int, int, Tensor], None], x: Tensor, dim: int, window_size: int
) -> Tensor:
    """Runs function(x, dim, window_size, result) in chunks along another axis."""
    x = _wide(x)
    result = torch.empty_like(x)
    if needs_fixed_shapes(x) or x.numel() <= CHUNK_ELEMENTS:
        function(x, dim, window_size, result)
        return result
    # Slices of the chunk must stay long runs of memory.
    other_dim = HEIGHT_DIM + WIDTH_DIM - dim
    chunk_dim = 1 if x.is_contiguous() else other_dim
    chunk_size = max(1, CHUNK_ELEMENTS * x.shape[chunk_dim] // x.numel())
    for x_chunk, result_chunk in zip(
        x.split(chunk_size, chunk_dim), result.split(chunk_size, chunk_dim)
    ):
        function(x_chunk, dim, window_size, result_chunk)
    return result


def _axis_mean(x: Tensor, dim: int, window_size: int, result: Tensor) -> None:
    size = x.shape[dim]
    k, before, after = _window(size, window_size)
    sums = _sliding_sum(x, dim, k)
    head, body, tail = result.split([before, size - before - after, after], dim)
    torch.mul(sums, 1 / k, out=body)
    head.copy_(body.narrow(dim, 0, 1).expand_as(head))
    tail.copy_(body.narrow(dim, body.shape[dim] - 1, 1).expand_as(tail))


def _axis_mean_backward(grad: Tensor, dim: int, window_size: int, result: Tensor) -> None:
    size = grad.shape[dim]
    k, before, after = _window(size, window_size)
    # Gradients of the repeated border values belong to the first and the last sum.
    head, body, tail = grad.split([before, size - before - after, after], dim)
    padded = F.pad(body / k, [0, 0, k - 1, k - 1] if dim == HEIGHT_DIM else [k - 1, k - 1])
    padded.narrow(dim, k - 1, 1).add_(head.sum(dim, keepdim=True), alpha=1 / k)
    padded.narrow(dim, size - 1, 1).add_(tail.sum(dim, keepdim=True), alpha=1 / k)
    result.copy_(_sliding_sum(padded, dim, k))


def _window(size: int, window_size: int) -> tuple[int, int, int]:
    """Cells of the window, and how many border values are repeated before and after."""
    k = min(window_size, size)
    return k, (k - 1) // 2, k - 1 - (k - 1) // 2


def _sliding_sum(x: Tensor, dim: int, k: int) -> Tensor:
    """Sums of k neighbours along an axis; the axis shrinks by k - 1."""
    num_sums = x.shape[dim] - k + 1
    total: Tensor | None = None
    # block: sums of `width` neighbours; k is put together from its binary digits.
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
