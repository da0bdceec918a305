"""Plain numbers of a training run: nodes of the YAML config and arguments of the engine alike."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimiser; defaults of the released Seamless Scene Segmentation code.

    Attributes:
        kind: "sgd" or "adamw" (decoupled weight decay; learns faster in short runs from scratch).
        lr: learning rate after the warm-up, for the global batch.
        lr_multipliers: part of the network (`semantic_head`, `backbone.conv1`, ...) -> factor on
            the learning rate of its weights.
        momentum, nesterov: as in torch.optim.SGD ("sgd" only).
        weight_decay: for all weights but those of norm layers.
        norm_weight_decay: for scale and shift of norm layers.
        clip_grad_norm: largest L2 norm of the whole gradient; 0: no clipping.
        accumulation_steps: the global batch is computed in this many parts, one after the other.
    """

    kind: str = "sgd"
    lr: float = 0.01
    lr_multipliers: dict[str, float] = field(default_factory=dict)
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    norm_weight_decay: float = 0.0
    clip_grad_norm: float = 0.0
    accumulation_steps: int = 1


@dataclass(frozen=True)
class ScheduleSettings:
    """Learning rate as a factor over steps.

    Attributes:
        kind: "multistep", "poly" or "cosine".
        milestones: steps at which a multistep rate is multiplied by `gamma`.
        gamma: factor of one milestone.
        power: exponent of the poly schedule, (1 - step / steps) ** power.
        warmup_steps: the factor rises linearly from `warmup_factor` to 1 over these; 0: no warm-up.
        warmup_factor: first factor of the warm-up.
    """

    kind: str = "multistep"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    power: float = 0.9
    warmup_steps: int = 200
    warmup_factor: float = 1 / 3


@dataclass(frozen=True)
class TrainingSettings:
    """Length, precision and rhythm of a run.

    Attributes:
        steps: optimiser steps of the whole run.
        max_minutes: the run ends after this time if that comes before the last step, and the
            schedule ends with it; such a run depends on the speed of the machine. 0: no limit.
        seed: every random number of the run follows from it.
        amp: arithmetic of the network: "none" (float32), "bf16" or "fp16" (the latter on a GPU
            only).
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
    """

    steps: int = 48000
    max_minutes: float = 0.0
    seed: int = 0
    amp: str = "none"
    channels_last: bool = True
    joint_padding: bool = True
    global_loss_counts: bool = True
    log_interval_steps: int = 20
    checkpoint_interval_steps: int = 1000
    evaluation_interval_steps: int = 2000
    num_example_pictures: int = 4
