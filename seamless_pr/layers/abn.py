"""In-place activated batch norm, its plain twin, and the choice among all norm + activation layers.

Letters: N images or RoIs, C channels; `*` is any number of spatial axes, also none.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.layers.abn_function import InPlaceNormAct
from seamless_pr.layers.batch_norm import BatchNormAct, TrainedBatchNorm
from seamless_pr.layers.norm_act import (
    GROUP_NORM_GROUPS,
    LEAKY_SLOPE,
    BiasAct,
    FixedBatchNormAct,
    FrozenBatchNormAct,
    GroupNormAct,
)
from seamless_pr.ops.fixed_shapes import needs_fixed_shapes


class NormActFactory(Protocol):
    """Makes the norm + activation layer that follows a convolution or a linear layer."""

    def __call__(self, num_features: int, activation: str = "leaky_relu") -> nn.Module: ...


class ABN(TrainedBatchNorm):
    """Activated batch norm from plain operations; the readable twin of `InPlaceABN`.

    y = activation((x - mean) / sqrt(var + eps) * (|weight| + eps) + bias). Parameters, buffers,
    state_dict keys and arithmetic are those of the inplace_abn package (1.1.0); the gradient of the
    weight carries the sign of the weight, +1 at 0.

    `forward`: [N, C, *] in any float dtype -> a new tensor of the same shape, dtype and memory
    format. N may be 0.

    Args:
        slope: as in `Activated`, but positive.
        momentum, sync: as in `TrainedBatchNorm`.
    """

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
        super().__init__(
            num_features, activation, slope=slope, eps=eps, momentum=momentum, sync=sync
        )
        if slope <= 0:
            raise ValueError(
                f"slope must be positive so that the activation can be inverted; got {slope}"
            )

    def forward(self, x: Tensor) -> Tensor:
        if self._needs_own_statistics(x):
            return self._normalize_in_place(x.clone())
        scale = torch.where(self.weight < 0, -self.weight, self.weight) + self.eps
        return self._activate(self._batch_norm(x, scale))

    def _normalize_in_place(
        self, x: Tensor, shortcut: Tensor | None = None, sum_slope: float = 1.0
    ) -> Tensor:
        batch, mean, var = None, self.running_mean, self.running_var
        if self.training:
            batch = self._tracked_statistics(x)
            mean, var = batch.mean, batch.var
        slope = self.slope if shortcut is None else sum_slope
        arguments = (self.weight, self.bias, mean, var, batch, slope, self.eps, shortcut)
        result: Tensor = InPlaceNormAct.apply(x, *arguments)
        return result


class InPlaceABN(ABN):
    """`ABN` that overwrites its input and keeps one activation tensor for backward, not two.

    `forward`: [N, C, *] -> the same tensor, overwritten; a new one in predictions of fixed shapes.
    Whoever made the input must not need it for its own backward pass (a convolution does not; a
    ReLU does), and whoever reads the output must not change it in place. autograd raises an error
    in both cases.

    With a `shortcut` like x (of a layer whose own activation is the identity): the activation of
    the sum of both, of which only the sum is kept. Not in 16 bits, whose differences of sums are
    too coarse: there the norm's output is kept as well.

    Attributes:
        sum_slope: of the leaky ReLU after such a sum.
        is_folded: the layer before it has taken the norm over; only the activation is left.
    """

    sum_slope = 1.0
    is_folded = False

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        if shortcut is None:
            return self._normalize(x)
        half = x.dtype in (torch.bfloat16, torch.float16)
        if half or self.is_folded or not torch.is_grad_enabled():
            return F.leaky_relu(self._normalize(x) + shortcut, self.sum_slope, inplace=True)
        return self._normalize_in_place(x, shortcut, self.sum_slope)

    def _normalize(self, x: Tensor) -> Tensor:
        if self.is_folded:
            return self._activate(x, in_place=True)
        if not self.training and not torch.is_grad_enabled() and needs_fixed_shapes(x):
            # One operation for a GPU to start, where the in-place function takes three; and one
            # that can be exported.
            scale = self.weight.abs() + self.eps
            return self._activate(self._batch_norm(x, scale), in_place=True)
        return self._normalize_in_place(x)


def make_norm_act(
    kind: str = "inplace_abn",
    *,
    slope: float = LEAKY_SLOPE,
    eps: float = 1e-5,
    momentum: float = 0.1,
    sync: bool = False,
    num_groups: int = GROUP_NORM_GROUPS,
) -> NormActFactory:
    """Chooses the norm + activation layer of a network.

    Args:
        kind: "inplace_abn" (own), "abn" (its plain twin), "batch_norm" (as in torch.nn),
            "group_norm", "frozen_batch_norm" (nothing in it trains), "fixed_batch_norm" (its
            statistics stay, scale and bias train), "bias" (no norm), or "inplace_abn_package" (the
            optional inplace_abn package, same state_dict).
        slope: of the leaky ReLU; 0 makes it a ReLU where the layer does not invert it.
        eps, momentum: of the norm.
        sync: share batch statistics over the workers of torch.distributed; only for those kinds
            that have any.
        num_groups: most groups of "group_norm".

    Returns:
        A factory `norm_act(num_features, activation="leaky_relu")`.

    Raises:
        ValueError: unknown kind.
        ModuleNotFoundError: the package is chosen and not installed.
    """
    if kind == "inplace_abn_package":
        return _package_factory(slope=slope, eps=eps, momentum=momentum, sync=sync)
    options: dict[str, Any] = {"slope": slope}
    if kind != "bias":
        options.update(eps=eps)
    if kind in ("inplace_abn", "abn", "batch_norm"):
        options.update(momentum=momentum, sync=sync)
    if kind == "group_norm":
        options.update(num_groups=num_groups)
    layers: dict[str, type[nn.Module]] = {
        "inplace_abn": InPlaceABN,
        "abn": ABN,
        "batch_norm": BatchNormAct,
        "group_norm": GroupNormAct,
        "frozen_batch_norm": FrozenBatchNormAct,
        "fixed_batch_norm": FixedBatchNormAct,
        "bias": BiasAct,
    }
    if kind not in layers:
        raise ValueError(
            f"kind of norm must be one of {(*layers, 'inplace_abn_package')}; got '{kind}'"
        )
    layer = layers[kind]

    def norm_act(num_features: int, activation: str = "leaky_relu") -> nn.Module:
        return layer(num_features, activation, **options)

    return norm_act


def _package_factory(*, slope: float, eps: float, momentum: float, sync: bool) -> NormActFactory:
    try:
        import inplace_abn
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "norm kind 'inplace_abn_package' needs the inplace_abn package: "
            "pip install setuptools_scm ninja, then "
            "pip install --no-build-isolation inplace-abn==1.1.0; "
            "or choose the built-in kind 'inplace_abn'"
        ) from error
    layer = inplace_abn.InPlaceABNSync if sync else inplace_abn.InPlaceABN

    def norm_act(num_features: int, activation: str = "leaky_relu") -> nn.Module:
        module: nn.Module = layer(
            num_features,
            eps=eps,
            momentum=momentum,
            activation=activation,
            activation_param=slope,
        )
        return module

    return norm_act
