"""Learning rate as a function of the step, without state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from seamless_pr.structures.training_settings import (
    CosineSettings,
    MultistepSettings,
    PolySettings,
    ScheduleSettings,
)


def lr_factor(step: float, num_steps: int, settings: ScheduleSettings) -> float:
    """Factor on the base learning rate for the optimiser step number `step` (0 = the first;
    between two whole numbers where time drives the schedule).

    Warm-up and decay are multiplied. With milestones after the warm-up this is the schedule of the
    released Seamless Scene Segmentation code.
    """
    _, decay_at = SCHEDULES[settings.kind]
    decay = decay_at(step, num_steps, settings)
    if step >= settings.warmup_steps:
        return decay
    rise = settings.warmup_factor + (1 - settings.warmup_factor) * step / settings.warmup_steps
    return decay * rise


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Gives every parameter group the learning rate, times its own factor if it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_multiplier", 1.0)


def _multistep(step: float, num_steps: int, settings: MultistepSettings) -> float:
    return settings.gamma ** sum(milestone <= step for milestone in settings.milestones)


def _poly(step: float, num_steps: int, settings: PolySettings) -> float:
    return float((1 - step / num_steps) ** settings.power)


def _cosine(step: float, num_steps: int, settings: CosineSettings) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / num_steps))


# Kind -> (its settings, factor at a step of so many).
SCHEDULES: dict[str, tuple[type, Callable[[float, int, Any], float]]] = {
    "multistep": (MultistepSettings, _multistep),
    "poly": (PolySettings, _poly),
    "cosine": (CosineSettings, _cosine),
}
