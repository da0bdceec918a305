"""The optimiser and its parameter groups."""

from __future__ import annotations

from torch import nn
from torch.nn import Parameter
from torch.optim import SGD, AdamW, Optimizer

from seamless_pr.structures.training_settings import OptimizerSettings


def make_optimizer(network: nn.Module, settings: OptimizerSettings) -> Optimizer:
    """The optimiser over the trainable parameters; norm layers have their own weight decay.

    Raises:
        ValueError: unknown kind, or the network has no trainable parameter.
    """
    weights, norms = split_norm_parameters(network)
    groups = [
        {"params": weights, "weight_decay": settings.weight_decay},
        {"params": norms, "weight_decay": settings.norm_weight_decay},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ValueError("the network has no trainable parameter; check the frozen parts")
    if settings.kind == "sgd":
        return SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.nesterov)
    if settings.kind == "adamw":
        return AdamW(groups, lr=settings.lr)
    raise ValueError(f"optimizer kind must be 'sgd' or 'adamw'; got '{settings.kind}'")


def split_norm_parameters(network: nn.Module) -> tuple[list[Parameter], list[Parameter]]:
    """Trainable parameters of other layers, and of norm layers, both in the network's order.

    Norm layers are known by their `num_features`, as in torch.nn, or are a GroupNorm or LayerNorm.
    """
    weights: list[Parameter] = []
    norms: list[Parameter] = []
    seen: set[Parameter] = set()
    for module in network.modules():
        is_norm = hasattr(module, "num_features") or isinstance(
            module, (nn.GroupNorm, nn.LayerNorm)
        )
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                (norms if is_norm else weights).append(parameter)
    return weights, norms
