"""Learning rate as a function of the step, without state."""

from __future__ import annotations

import math

from torch.optim import Optimizer

from seamless_pr.structures.training_settings import ScheduleSettings


def lr_factor(step: float, num_steps: int, settings: ScheduleSettings) -> float:
    """Factor on the base learning rate for the optimiser step number `step` (0 = the first;
    between two whole numbers where time drives the schedule).

    Warm-up and decay are multiplied. With milestones after the warm-up this is the schedule of the
    released Seamless Scene Segmentation code.

    Raises:
        ValueError: `settings.kind` is not known.
    """
    progress = step / num_steps
    if settings.kind == "multistep":
        decay = settings.gamma ** sum(milestone <= step for milestone in settings.milestones)
    elif settings.kind == "poly":
        decay = (1 - progress) ** settings.power
    elif settings.kind == "cosine":
        decay = 0.5 * (1 + math.cos(math.pi * progress))
    else:
        raise ValueError(f"schedule must be 'multistep', 'poly' or 'cosine'; got '{settings.kind}'")
    if step >= settings.warmup_steps:
        return decay
    rise = settings.warmup_factor + (1 - settings.warmup_factor) * step / settings.warmup_steps
    return decay * rise


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Gives every parameter group the learning rate, times its own factor if it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_multiplier", 1.0)
