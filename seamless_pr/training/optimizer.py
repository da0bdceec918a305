"""The optimiser and its parameter groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import Parameter
from torch.optim import SGD, AdamW, Optimizer

from seamless_pr.structures.training_settings import (
    AdamWSettings,
    OptimizerSettings,
    SGDSettings,
)

POSITION_BIASES = "position_bias_table"


def make_optimizer(
    network: nn.Module, settings: OptimizerSettings, *, fused: bool = False
) -> Optimizer:
    """The optimiser over the trainable parameters; norms and embeddings have a decay of their own.

    Each group knows the `lr_multiplier` of its parameters, which `set_lr` applies.

    Args:
        network: on its device.
        settings: numbers.
        fused: torch's optimisers in one kernel, which leave a step out where their `found_inf`, on
            the device, says so.

    Raises:
        ValueError: the network has no trainable parameter, or not a part that `lr_multipliers`
            names.
    """
    weights, norms = split_norm_parameters(network)
    groups = [
        {"params": group, "weight_decay": decay, "lr_multiplier": multiplier}
        for parameters, decay in (
            (weights, settings.weight_decay),
            (norms, settings.norm_weight_decay),
        )
        for multiplier, group in split_by_multiplier(
            network, parameters, settings.lr_multipliers
        ).items()
    ]
    if not groups:
        raise ValueError("the network has no trainable parameter; check the frozen parts")
    _, make = OPTIMIZERS[settings.kind]
    return make(groups, settings, fused)


def split_norm_parameters(network: nn.Module) -> tuple[list[Parameter], list[Parameter]]:
    """Trainable parameters of other layers, and of norms and embeddings, in the network's order.

    Norm layers are known by their `num_features`, as in torch.nn, or are a GroupNorm or LayerNorm.
    What is looked up, not multiplied with, goes with them, as in MaskFormer: the vectors of an
    Embedding (queries) and tables of position biases.
    """
    weights: list[Parameter] = []
    norms: list[Parameter] = []
    seen: set[Parameter] = set()
    for module in network.modules():
        is_norm = hasattr(module, "num_features") or isinstance(
            module, (nn.GroupNorm, nn.LayerNorm, nn.Embedding)
        )
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                is_table = name.endswith(POSITION_BIASES)
                (norms if is_norm or is_table else weights).append(parameter)
    return weights, norms


def split_by_multiplier(
    network: nn.Module, parameters: Sequence[Parameter], multipliers: Mapping[str, float]
) -> dict[float, list[Parameter]]:
    """Parameters by the factor on their learning rate, 1 for those of parts that have none.

    Args:
        network: what the names refer to.
        parameters: some of its parameters.
        multipliers: part of the network (`semantic_head`, or `semantic_head.predictor`) -> factor;
            of a part within a part its own factor holds.

    Raises:
        ValueError: the network has no part of this name.
    """
    parts = dict(network.named_modules())
    if unknown := [name for name in multipliers if name not in parts]:
        raise ValueError(
            f"optimizer.lr_multipliers names {', '.join(unknown)}, but the parts of the network "
            f"are {', '.join(name for name, _ in network.named_children())} and parts of these"
        )
    multiplier_of: dict[Parameter, float] = {}
    # Outer parts first, so that inner ones have the last word.
    for name in sorted(multipliers, key=len):
        multiplier_of.update(dict.fromkeys(parts[name].parameters(), multipliers[name]))
    groups: dict[float, list[Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(multiplier_of.get(parameter, 1.0), []).append(parameter)
    return groups


def _sgd(groups: list[dict[str, Any]], settings: SGDSettings, fused: bool) -> Optimizer:
    optimizer = SGD(
        groups,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        fused=fused or None,
    )
    if fused and settings.momentum:
        # torch makes them without values in the first step, and would read these after a first step
        # that is left out.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _adamw(groups: list[dict[str, Any]], settings: AdamWSettings, fused: bool) -> Optimizer:
    return AdamW(groups, lr=settings.lr, fused=fused or None)


# Kind -> (its settings, what makes it of parameter groups, fused or not).
OPTIMIZERS: dict[str, tuple[type, Callable[[list[dict[str, Any]], Any, bool], Optimizer]]] = {
    "sgd": (SGDSettings, _sgd),
    "adamw": (AdamWSettings, _adamw),
}
