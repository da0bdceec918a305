"""One optimiser step: losses, gradient, clipping, and the numbers that tell how it went."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from seamless_pr.models.networks.network import Network
from seamless_pr.ops.generators import keyed_generator, keyed_seed
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.panoptic_target import Batch, PanopticTarget
from seamless_pr.structures.training_settings import (
    OptimizerSettings,
    ScheduleSettings,
    TrainingSettings,
)
from seamless_pr.training.distributed import padded_to_largest, rank, world_size
from seamless_pr.training.losses import MeanLosses, weighted_sum
from seamless_pr.training.optimizer import make_optimizer
from seamless_pr.training.schedule import lr_factor, set_lr

_NORM = "gradient norm"
_AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class StepRecord:
    """What one step did; losses and norm are there once `OptimizerStep.read` has fetched them.

    Attributes:
        number: of the step, from 1.
        lr: learning rate.
        losses: name -> mean of this worker, unweighted.
        image_keys: images of this worker.
        grad_norm: L2 norm of the whole gradient, before clipping.
        seconds, data_seconds: of the step, and of its wait for images.
        unread: name -> scalar on the device, of the losses and, last, of the norm.
    """

    number: int
    lr: float
    losses: dict[str, float] = field(default_factory=dict)
    image_keys: list[str] = field(default_factory=list)
    grad_norm: float = math.nan
    seconds: float = 0.0
    data_seconds: float = 0.0
    unread: dict[str, Tensor] = field(default_factory=dict)


class OptimizerStep:
    """Takes steps; holds the optimiser, the loss scaler and the replica that workers share.

    On a GPU a step is only started: its numbers stay there until they are read, many at once, and
    a step whose gradient is not finite is left out there. On the CPU each step reads its own.

    Args:
        network: on its device; has `losses(batch, targets, generators) -> name -> LossSum`.
        loss_weights: name -> factor, for exactly the names that the network returns.
        optimizer, schedule, training: numbers of the run.
        device: of the network.

    Raises:
        ValueError: fp16 without a GPU.
    """

    def __init__(
        self,
        network: Network,
        *,
        loss_weights: Mapping[str, float],
        optimizer: OptimizerSettings,
        schedule: ScheduleSettings,
        training: TrainingSettings,
        device: torch.device,
    ) -> None:
        if training.amp == "fp16" and device.type != "cuda":
            raise ValueError(
                f"training.amp 'fp16' needs a GPU; got device '{device}'; use bf16 or none"
            )
        self._device = device
        self._loss_weights = dict(loss_weights)
        self._settings = optimizer
        self._schedule = schedule
        self._training = training
        self._is_deferred = device.type == "cuda"
        self._optimizer = make_optimizer(network, optimizer, fused=self._is_deferred)
        self.parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        self._scaler = loss_scaler(device, training)
        self._replica: nn.Module = MeanLosses(network, training.global_loss_counts)

    def share(self) -> None:
        """Wraps the network for several workers; after its weights are loaded."""
        if world_size() > 1:
            devices = [self._device.index] if self._device.type == "cuda" else None
            self._replica = DistributedDataParallel(self._replica, device_ids=devices)

    def __call__(self, stream: Iterator[Batch], steps_done: int, position: float) -> StepRecord:
        """One step on one global batch.

        Args:
            stream: this worker's batches; `accumulation_steps` of them are taken.
            steps_done: number of this step, from 0; seeds its random numbers.
            position: where the run stands on its schedule, in steps.

        Returns:
            What it did; on a GPU `read` has to follow.

        Raises:
            FloatingPointError: on the CPU, as `read`.
            ValueError: the network returns other losses than those with a weight.
        """
        started = time.perf_counter()
        training = self._training
        torch.manual_seed(keyed_seed("step", training.seed, steps_done, rank()))
        lr = self._settings.lr * lr_factor(position, training.steps, self._schedule)
        set_lr(self._optimizer, lr)
        self._optimizer.zero_grad(set_to_none=True)
        record = StepRecord(steps_done + 1, lr)
        parts = self._settings.accumulation_steps
        sums: dict[str, Tensor] = {}
        for part in range(parts):
            waiting = time.perf_counter()
            batch, targets = next(stream)
            record.data_seconds += time.perf_counter() - waiting
            record.image_keys += [target.image_key for target in targets]
            losses = self._backward(batch, targets, steps_done, is_last_part=part == parts - 1)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0) + loss.detach().float() / parts
        self._scaler.unscale_(self._optimizer)
        largest = self._settings.clip_grad_norm or math.inf
        norm = nn.utils.clip_grad_norm_(self.parameters, largest)
        record.unread = {**sums, _NORM: norm.float()}
        if not self._is_deferred:
            self.read([record])
        self._update(norm)
        record.seconds = time.perf_counter() - started
        return record

    def read(self, records: Sequence[StepRecord]) -> None:
        """Fetches the numbers of all steps that are not read yet, in one transfer.

        Raises:
            FloatingPointError: a loss or the gradient of a step is not finite; names the step, its
                losses and images. That step has left the weights as they were.
        """
        unread = [record for record in records if record.unread]
        if not unread:
            return
        started = time.perf_counter()
        numbers = [number for record in unread for number in record.unread.values()]
        # On a GPU each .item() would wait for all queued work.
        values = iter(torch.stack(numbers).cpu().tolist())
        for record in unread:
            found = {name: next(values) for name in record.unread}
            record.unread = {}
            record.grad_norm = found.pop(_NORM)
            record.losses = found
        unread[-1].seconds += time.perf_counter() - started
        for record in unread:
            self._check_finite(record)

    def _update(self, norm: Tensor) -> None:
        """Moves the weights, but on a GPU only if the norm of the gradient is finite."""
        if self._is_deferred and not self._scaler.is_enabled():
            # What loss scalers leave there, for fused optimisers to read on the device.
            self._optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        self._scaler.step(self._optimizer)
        # A fixed scale comes back after an overflow, whose step is left out as always.
        self._scaler.update(self._training.loss_scale or None)

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on, besides the weights."""
        return {"optimizer": self._optimizer.state_dict(), "scaler": self._scaler.state_dict()}

    def state_bytes(self) -> int:
        """About the size of `state_dict` after the first step."""
        copies = 2 if self._settings.kind == "adamw" else 1
        return copies * sum(parameter.nbytes for parameter in self.parameters)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._optimizer.load_state_dict(state["optimizer"])
        # That of the device where the run began.
        for group in self._optimizer.param_groups:
            group["fused"] = self._is_deferred
        self._scaler.load_state_dict(state["scaler"])

    def _backward(
        self,
        batch: ImageBatch,
        targets: Sequence[PanopticTarget],
        steps_done: int,
        *,
        is_last_part: bool,
    ) -> dict[str, Tensor]:
        """Adds the gradient of a part of the batch; workers' gradients meet after the last part."""
        seed = self._training.seed
        generators = [keyed_generator(seed, steps_done, target.image_key) for target in targets]
        batch = batch.to(self._device)
        if self._training.joint_padding:
            batch = padded_to_largest(batch)
        targets = [target.to(self._device) for target in targets]
        with contextlib.ExitStack() as stack:
            if isinstance(self._replica, DistributedDataParallel) and not is_last_part:
                stack.enter_context(self._replica.no_sync())
            with _autocast(self._device, self._training.amp):
                losses: dict[str, Tensor] = self._replica(batch, targets, generators)
            total = weighted_sum(losses, self._loss_weights)
            self._scaler.scale(total / self._settings.accumulation_steps).backward()
        return losses

    def _check_finite(self, record: StepRecord) -> None:
        images = ", ".join(f"'{key}'" for key in record.image_keys)
        bad = [
            f"{name} = {value}" for name, value in record.losses.items() if not math.isfinite(value)
        ]
        where = f"at step {record.number} on the images {images}"
        if bad:
            raise FloatingPointError(
                f"loss not finite: {', '.join(bad)} {where}; look at these images and segments, "
                "or lower optimizer.lr or set optimizer.clip_grad_norm"
            )
        # In fp16 the scaler skips such a step and halves its factor.
        if not math.isfinite(record.grad_norm) and not self._scaler.is_enabled():
            raise FloatingPointError(
                f"gradient not finite (this worker's losses are) {where}; find the "
                "first message of this kind among the workers; lower optimizer.lr or set "
                "optimizer.clip_grad_norm"
            )


def loss_scaler(device: torch.device, training: TrainingSettings) -> torch.amp.GradScaler:
    """Scales the losses in fp16, by a fixed factor or one that follows the gradients."""
    if training.loss_scale:
        return torch.amp.GradScaler(device.type, training.loss_scale)
    return torch.amp.GradScaler(device.type, enabled=training.amp == "fp16")


def _autocast(device: torch.device, amp: str) -> contextlib.AbstractContextManager[Any]:
    if amp == "none":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_AMP_DTYPES[amp])
