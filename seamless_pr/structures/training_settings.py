"""Plain numbers of a training run: nodes of the YAML config and arguments of the trainer alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Literal

from annotated_types import Interval

from seamless_pr.structures.kinds import Kinded
from seamless_pr.structures.settings import (
    MAX_NETWORK_GIGABYTES,
    Count,
    CountOrZero,
    NotNegative,
    Positive,
    PositiveFraction,
)


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings(Kinded):
    """What optimisers of every kind have; defaults of the released Seamless code.

    Attributes:
        lr: learning rate after the warm-up, for the global batch.
        lr_multipliers: part of the network (`semantics.head`, `trunk.backbone.conv1`, ...) ->
            factor on the learning rate of its weights.
        weight_decay: for all weights but those of norm layers and embeddings.
        norm_weight_decay: for scale and shift of norm layers, embeddings of queries and position
            biases.
        clip_grad_norm: largest L2 norm of the whole gradient; 0: no clipping.
        accumulation_steps: the global batch is computed in this many parts, one after the other.
    """

    lr: Positive = 0.01
    lr_multipliers: dict[str, Positive] = field(default_factory=dict)
    weight_decay: NotNegative = 1e-4
    norm_weight_decay: NotNegative = 0.0
    clip_grad_norm: NotNegative = 0.0
    accumulation_steps: Count = 1


@dataclass(frozen=True, kw_only=True)
class SGDSettings(OptimizerSettings):
    """Stochastic gradient descent.

    Attributes:
        momentum: share of the last step that is added to the next one.
        nesterov: look ahead along the momentum.
    """

    kind: str = "sgd"
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    nesterov: bool = True

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise ValueError("'nesterov' needs 'momentum' above 0; got 0; set nesterov to false")


@dataclass(frozen=True, kw_only=True)
class AdamWSettings(OptimizerSettings):
    """Adam with decoupled weight decay; learns faster in short runs from scratch."""

    kind: str = "adamw"


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings(Kinded):
    """Learning rate as a factor over steps: what schedules of every kind have.

    Attributes:
        warmup_steps: the factor rises linearly from `warmup_factor` to 1 over these; 0: no warm-up.
        warmup_factor: first factor of the warm-up.
    """

    warmup_steps: CountOrZero = 200
    warmup_factor: PositiveFraction = 1 / 3


@dataclass(frozen=True, kw_only=True)
class MultistepSettings(ScheduleSettings):
    """A factor that falls at given steps.

    Attributes:
        milestones: steps at which the factor is multiplied by `gamma`.
        gamma: factor of one milestone.
    """

    kind: str = "multistep"
    milestones: tuple[Count, ...] = ()
    gamma: PositiveFraction = 0.1

    def __post_init__(self) -> None:
        if any(first >= second for first, second in pairwise(self.milestones)):
            raise ValueError(f"'milestones' must be ascending steps; got {list(self.milestones)}")


@dataclass(frozen=True, kw_only=True)
class PolySettings(ScheduleSettings):
    """A factor of (1 - step / steps) ** power.

    Attributes:
        power: the exponent.
    """

    kind: str = "poly"
    power: Positive = 0.9


@dataclass(frozen=True, kw_only=True)
class CosineSettings(ScheduleSettings):
    """Half a cosine, from 1 to 0 over the run."""

    kind: str = "cosine"


@dataclass(frozen=True)
class TrainingSettings:
    """Length, precision and rhythm of a run.

    Attributes:
        steps: optimiser steps of the whole run.
        max_minutes: the run ends after this time if that comes before the last step, and the
            schedule ends with it; such a run depends on the speed of the machine. 0: no limit.
        clock: what `max_minutes` counts: "wall", time that passes, or "process", processor time of
            the first worker, all its threads together, which other programs do not change.
        seed: every random number of the run follows from it.
        amp: arithmetic of the network: "none" (float32), "bf16" or "fp16" (the latter on a GPU
            only).
        loss_scale: fixed factor of the losses in fp16, against gradients that are too small for it;
            0: found during the run, as large as the gradients allow.
        channels_last: keep feature maps with channels innermost in memory (faster convolutions).
        joint_padding: batches of all workers are padded to one size, so that synchronised norms see
            what one worker would see in the joined batch; False: each worker pads for itself.
        global_loss_counts: losses are divided by counts of all workers (a batch gives the same
            gradient however it is spread); False: of each worker alone.
        log_interval_steps: a line on the console and in the log every so many steps.
        checkpoint_interval_steps: a checkpoint every so many steps, and at the end.
        evaluation_interval_steps: validation every so many steps, and at the end; 0: never.
        num_example_pictures: validation images that are drawn for TensorBoard after each
            validation.
        max_network_gigabytes: a network whose weights would take more memory, of 10^9 bytes, is not
            built; a width with a digit too much is told before it fills the machine.
        accept_changed_data: go on with a run though its training or validation data were changed
            since it began; False: that is refused.
    """

    steps: Count = 48000
    max_minutes: NotNegative = 0.0
    clock: Literal["wall", "process"] = "wall"
    seed: int = 0
    amp: Literal["none", "bf16", "fp16"] = "none"
    loss_scale: NotNegative = 0.0
    channels_last: bool = True
    joint_padding: bool = True
    global_loss_counts: bool = True
    log_interval_steps: Count = 20
    checkpoint_interval_steps: Count = 1000
    evaluation_interval_steps: CountOrZero = 2000
    num_example_pictures: CountOrZero = 4
    max_network_gigabytes: Positive = MAX_NETWORK_GIGABYTES
    accept_changed_data: bool = False

    def __post_init__(self) -> None:
        if self.loss_scale and self.amp != "fp16":
            raise ValueError(
                f"'loss_scale' is for amp fp16; got amp {self.amp}; set loss_scale to 0"
            )
