"""Layers of norm and activation that need no batch statistics: group norm, frozen batch norm, bias.

Letters: N images or RoIs, C channels; `*` is any number of spatial axes, also none.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = ("leaky_relu", "identity")
LEAKY_SLOPE = 0.01
GROUP_NORM_GROUPS = 16


class Activated(nn.Module):
    """The activation at the end of a layer.

    Args:
        activation: "leaky_relu" or "identity".
        slope: of the leaky ReLU below 0; 0 makes it a ReLU.
    """

    def __init__(self, activation: str, slope: float) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {ACTIVATIONS}; got '{activation}'")
        if slope < 0:
            raise ValueError(f"slope must be 0 or more; got {slope}")
        self.activation = activation
        self.slope = slope if activation == "leaky_relu" else 1.0

    def _activate(self, x: Tensor, *, in_place: bool = False) -> Tensor:
        if self.activation == "identity":
            return x
        if self.slope == 0:
            return F.relu(x, in_place)
        return F.leaky_relu(x, self.slope, in_place)

    def extra_repr(self) -> str:
        slope = "" if self.activation == "identity" else f"({self.slope})"
        return f"{self.activation}{slope}"


class NormAct(Activated):
    """Affine parameters and activation that the norms with trained parameters share.

    Args:
        num_features: C.
        activation, slope: as in `Activated`.
        eps: added to the variance, and by the batch norms to |weight|.
    """

    def __init__(
        self,
        num_features: int,
        activation: str = "leaky_relu",
        *,
        slope: float = LEAKY_SLOPE,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(activation, slope)
        self.num_features = num_features
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    def extra_repr(self) -> str:
        return f"{self.num_features}, {super().extra_repr()}, eps={self.eps}"


class GroupNormAct(NormAct):
    """Group norm and activation; independent of the batch, so nothing is shared or tracked.

    `forward`: [N, C, *] -> a new tensor of the same shape. The scale is the weight itself, as
    everywhere for this norm.

    Args:
        num_groups: most groups; if it does not divide C, the largest common divisor is used.
    """

    def __init__(
        self,
        num_features: int,
        activation: str = "leaky_relu",
        *,
        slope: float = LEAKY_SLOPE,
        eps: float = 1e-5,
        num_groups: int = GROUP_NORM_GROUPS,
    ) -> None:
        super().__init__(num_features, activation, slope=slope, eps=eps)
        self.num_groups = math.gcd(num_groups, num_features)

    def forward(self, x: Tensor) -> Tensor:
        return self._activate(F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps))


class FrozenBatchNormAct(Activated):
    """Batch norm whose statistics and affine parameters never change, and activation.

    All four vectors are buffers, so no optimiser sees them and training mode makes no difference.
    The scale is the weight itself (plain batch norm, not the |weight| + eps of the in-place layer).

    `forward`: [N, C, *] -> a new tensor of the same shape.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        num_features: int,
        activation: str = "leaky_relu",
        *,
        slope: float = LEAKY_SLOPE,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(activation, slope)
        self.num_features = num_features
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        normalized = F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )
        return self._activate(normalized, in_place=True)

    def extra_repr(self) -> str:
        return f"{self.num_features}, {super().extra_repr()}, eps={self.eps}"


class FixedBatchNormAct(NormAct):
    """Batch norm whose statistics never change while its affine parameters train, and activation.

    Fine-tuning as in mmdetection's ResNets (their norms stay in evaluation mode). The scale is the
    weight itself.

    `forward`: [N, C, *] -> a new tensor of the same shape.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        num_features: int,
        activation: str = "leaky_relu",
        *,
        slope: float = LEAKY_SLOPE,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(num_features, activation, slope=slope, eps=eps)
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        normalized = F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )
        return self._activate(normalized, in_place=True)


class BiasAct(Activated):
    """No norm: only the bias that the convolution before it leaves out, and activation.

    `forward`: [N, C, *] -> a new tensor of the same shape.
    """

    def __init__(
        self, num_channels: int, activation: str = "leaky_relu", *, slope: float = LEAKY_SLOPE
    ) -> None:
        super().__init__(activation, slope)
        # Not `num_features`: weight decay treats this as the bias that it is, not as a norm.
        self.num_channels = num_channels
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.ndim - 2))
        return self._activate(x + self.bias.to(x.dtype).view(shape), in_place=True)

    def extra_repr(self) -> str:
        return f"{self.num_channels}, {super().extra_repr()}"
