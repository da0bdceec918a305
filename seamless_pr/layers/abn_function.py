"""In-place activated batch norm as a differentiable function, from native tensor operations only.

    y = leaky_relu((x - mean) / sqrt(var + eps) * scale + bias),  scale = |weight| + eps

y overwrites x and is the only activation kept for the backward pass, which recovers the
pre-activation from it: the leaky ReLU is inverted, and (x - mean) / sqrt(var + eps) = (z - bias) /
scale. Bulo et al., In-Place Activated BatchNorm, CVPR 2018; the arithmetic is that of the
inplace_abn package.

The end of a residual block, leaky_relu(norm(x) + shortcut), goes the same way: norm(x) is what the
activation had before it, less the shortcut, which is kept for other layers anyway.

Letters: N images or RoIs, C channels; `*` is any number of spatial axes, also none.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.layers.batch_statistics import BatchStatistics

# PyTorch knows no shape of this operation, so that nothing that contains it could be traced or
# tested without a GPU. The library object must live as long as what it registers.
_ELEMENTWISE_NORM = "batch_norm_elemt.out"
_LIBRARY = torch.library.Library("aten", "IMPL")
if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{_ELEMENTWISE_NORM}", "Meta"):
    _LIBRARY.impl(_ELEMENTWISE_NORM, lambda *arguments, out: out, "Meta")


class InPlaceNormAct(torch.autograd.Function):
    """Normalises, scales and activates x in place; see the head of the file."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        var: Tensor,
        batch: BatchStatistics | None,
        slope: float,
        eps: float,
        shortcut: Tensor | None = None,
    ) -> Tensor:
        """Overwrites x, [N, C, *], and returns it.

        Args:
            weight, bias, mean, var: [C]; mean and var are what x is normalised with.
            batch: where mean and var come from in training; None if they are constants
                (evaluation).
            slope: of the leaky ReLU; 1 is the identity; positive.
            shortcut: like x; added before the activation.
        """
        _normalize_(x, mean, var, _scale(weight, eps), bias, eps)
        if shortcut is not None:
            x += shortcut
        if slope != 1.0:
            F.leaky_relu(x, slope, inplace=True)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x, weight, bias, var, shortcut)
        ctx.batch, ctx.slope, ctx.eps = batch, slope, eps
        return x

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        output, weight, bias, var, shortcut = ctx.saved_tensors
        grad_z, z = _undo_activation(grad_outputs[0], output, ctx.slope)
        grad_shortcut = None
        if shortcut is not None:
            z, grad_shortcut = z - shortcut, grad_z
        scale = _scale(weight, ctx.eps)
        inverse_std = torch.rsqrt(var + ctx.eps)
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        if z.numel() == 0 or (ctx.batch is not None and ctx.batch.is_shared):
            grad_x, grad_weight, grad_bias = _gradients_over_workers(
                grad_z, z, bias, scale, inverse_std, ctx.batch
            )
        else:
            # The kernel's (input - mean) * invstd is our (z - bias) / scale.
            grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
                grad_z,
                z,
                scale**2 * inverse_std,
                bias,
                scale**2,
                bias,
                1 / scale,
                ctx.batch is not None,
                0.0,
                [needs_x, needs_weight, needs_bias],
            )
        if needs_weight:
            grad_weight = torch.where(weight < 0, -grad_weight, grad_weight)
        return (
            grad_x if needs_x else None,
            grad_weight if needs_weight else None,
            grad_bias if needs_bias else None,
            *[None] * 5,
            grad_shortcut,
        )


def _scale(weight: Tensor, eps: float) -> Tensor:
    return weight.abs() + eps


def _normalize_(
    x: Tensor, mean: Tensor, var: Tensor, scale: Tensor, shift: Tensor, eps: float
) -> None:
    """x = (x - mean) / sqrt(var + eps) * scale + shift, in one pass over x."""
    if x.numel() == 0:
        return
    if x.is_cuda:
        torch.batch_norm_elemt(x, scale, shift, mean, torch.rsqrt(var + eps), eps, out=x)
        return
    ignored = mean.new_empty(0), mean.new_empty(0)
    torch.native_batch_norm(x, scale, shift, mean, var, False, 0.0, eps, out=(x, *ignored))


def _undo_activation(grad_output: Tensor, output: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """Gradient at, and value of, the pre-activation z, in the memory format of the output."""
    grad_output = grad_output.contiguous(memory_format=_memory_format(output))
    if slope == 1.0:
        return grad_output, output
    # The sign of the output is the sign of z: the slope is positive.
    grad_z = torch.ops.aten.leaky_relu_backward(grad_output, output, slope, True)
    return grad_z, F.leaky_relu(output, 1 / slope)


def _gradients_over_workers(
    grad_z: Tensor,
    z: Tensor,
    bias: Tensor,
    scale: Tensor,
    inverse_std: Tensor,
    batch: BatchStatistics | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight (without its sign) and bias, the latter two of local elements only."""
    if z.numel() == 0:
        grad_weight, grad_bias = torch.zeros_like(scale), torch.zeros_like(bias)
    else:
        _, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad_z, z, scale, bias, scale**2, bias, 1 / scale, True, 0.0, [False, True, True]
        )
    if batch is None or isinstance(batch.count, int):
        return grad_z, grad_weight, grad_bias
    sums = torch.cat([grad_weight, grad_bias])
    dist.all_reduce(sums)
    mean_product, mean_grad = (sums / batch.count.clamp(min=1)).to(sums.dtype).split(len(scale))
    # grad_x = a * (grad_z - mean_grad - mean_product * (z - bias) / scale), a = scale * inverse_std
    a = scale * inverse_std
    grad_x = z.clone()
    _normalize_(grad_x, bias, scale**2, -a * mean_product, -a * mean_grad, 0.0)
    grad_x.addcmul_(grad_z, a.to(grad_z.dtype)[(None, ...) + (None,) * (z.ndim - 2)])
    return grad_x, grad_weight, grad_bias


def _memory_format(x: Tensor) -> torch.memory_format:
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format if x.is_contiguous() else torch.channels_last
    return torch.contiguous_format
