"""The training loop of one worker; a network is a function from a batch to named losses."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from seamless_pr.ops.generators import keyed_generator, keyed_seed
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.training_settings import (
    OptimizerSettings,
    ScheduleSettings,
    TrainingSettings,
)
from seamless_pr.training.checkpoints import WEIGHTS_NAME, CheckpointFolder, load_checkpoint
from seamless_pr.training.distributed import (
    barrier,
    mean_over_workers,
    of_first_worker,
    padded_to_largest,
    parameter_checksum_spread,
    rank,
    world_size,
)
from seamless_pr.training.optimizer import make_optimizer
from seamless_pr.training.run_log import RunLog
from seamless_pr.training.schedule import lr_factor, set_lr

Batch = tuple[ImageBatch, Sequence[PanopticTarget]]
_AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class TrainingHooks:
    """What a run does besides training; every worker calls each of them at the same steps.

    Attributes:
        evaluate: network -> metrics, the same on every worker, with `metrics["all"]["pq"]` to find
            the best.
        draw_examples: network -> name -> picture [3, H, W] uint8 RGB; called on the first worker
            only.
        on_checkpoint: called after each checkpoint with the steps done, its folder (None on all
            workers but the first) and the newest metrics.
    """

    evaluate: Callable[[nn.Module], Mapping[str, Any]] | None = None
    draw_examples: Callable[[nn.Module], Mapping[str, Tensor]] | None = None
    on_checkpoint: Callable[[int, Path | None, Mapping[str, Any]], None] | None = None


class Trainer:
    """Trains one network in one run folder, from its newest checkpoint on.

    The same run gives the same weights, bit for bit on a CPU, however often it is interrupted:
        batches are
    found by their step, the generator of each image by (seed, step, image key), and the global
    generator is set anew at each step.
    """

    def __init__(
        self,
        network: nn.Module,
        batches_from: Callable[[int], Iterable[Batch]],
        *,
        loss_weights: Mapping[str, float],
        optimizer: OptimizerSettings,
        schedule: ScheduleSettings,
        training: TrainingSettings,
        folder: str | Path,
        metadata: Mapping[str, Any],
        device: torch.device | str = "cpu",
        hooks: TrainingHooks = TrainingHooks(),
        resume_from: str | Path | None = None,
    ) -> None:
        """Takes finished parts; nothing runs before `run`.

        Args:
            network: forward(batch, targets, generators) -> name -> scalar loss.
            batches_from: steps done -> iterable over this worker's batches from the next step on,
                `accumulation_steps` of them for each step.
            loss_weights: name -> factor, for exactly the names that the network returns.
            optimizer, schedule, training: numbers of the run.
            folder: the run folder.
            metadata: goes into every weights file (config, label space, versions); must fit JSON.
            device: where the network computes.
            hooks: validation, pictures, and what follows a checkpoint.
            resume_from: checkpoint folder to start from; the newest of the run folder if None.

        Raises:
            ValueError: fp16 without a GPU.
        """
        self.device = torch.device(device)
        if training.amp == "fp16" and self.device.type != "cuda":
            raise ValueError(
                f"training.amp 'fp16' needs a GPU; got device '{self.device}'; use bf16 or none"
            )
        self.network = network.to(self.device)
        if training.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.folder = Path(folder)
        self.hooks = hooks
        self._batches_from = batches_from
        self._loss_weights = dict(loss_weights)
        self._optimizer_settings = optimizer
        self._schedule = schedule
        self._training = training
        self._metadata = dict(metadata)
        self._optimizer = make_optimizer(self.network, optimizer)
        self._parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=training.amp == "fp16")
        self._checkpoints = CheckpointFolder(self.folder / "checkpoints")
        self._steps_done = 0
        self._seconds_before = 0.0
        self._started = time.monotonic()
        self._best_pq = -math.inf
        self._metrics: Mapping[str, Any] = {}
        self._load(Path(resume_from) if resume_from else self._checkpoints.latest())
        self._replica = self._wrap()

    @property
    def steps_done(self) -> int:
        """Optimiser steps that the weights have seen."""
        return self._steps_done

    def run(self) -> Mapping[str, Any]:
        """Trains to the last step.

        The best weights (the last ones without validation) become `weights.safetensors` of the run
        folder.

        Returns:
            Metrics of the last validation; empty without one.

        Raises:
            FloatingPointError: a loss or the gradient is not finite; names the loss and the images.
            ValueError: the network returns other losses than those with a weight.
        """
        self._started = time.monotonic()
        log = None
        if rank() == 0:
            log = RunLog(self.folder, self._training.steps, self._steps_done)
            if self._steps_done:
                log.say(f"going on after step {self._steps_done}")
        try:
            self._loop(log)
            if rank() == 0:
                self._checkpoints.publish(self.folder / WEIGHTS_NAME)
        finally:
            if log is not None:
                log.close()
        return self._metrics

    def _loop(self, log: RunLog | None) -> None:
        settings = self._training
        self.network.train()
        stream: Iterator[Batch] | None = None
        window = _Window()
        position = self._position()
        while position < settings.steps:
            if stream is None:
                stream = iter(self._batches_from(self._steps_done))
            window.add(self._step(stream, position))
            self._steps_done += 1
            done = self._steps_done
            position = self._position()
            is_last = position >= settings.steps
            if done % settings.log_interval_steps == 0 or is_last:
                self._report(window, log)
                window = _Window()
            evaluates = self.hooks.evaluate is not None and settings.evaluation_interval_steps > 0
            evaluates = evaluates and (is_last or done % settings.evaluation_interval_steps == 0)
            is_best = self._evaluate(log) if evaluates else False
            if is_last or is_best or done % settings.checkpoint_interval_steps == 0:
                self._save(is_best)

    def _position(self) -> float:
        """Where the run stands on its schedule, in steps."""
        limit = self._training.max_minutes * 60
        if not limit:
            return self._steps_done
        used = of_first_worker(self._seconds_used(), self.device)
        return max(self._steps_done, self._training.steps * used / limit)

    def _seconds_used(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def _step(self, stream: Iterator[Batch], position: float) -> _StepRecord:
        """One optimiser step on one global batch."""
        started = time.perf_counter()
        step, training = self._steps_done, self._training
        torch.manual_seed(keyed_seed("step", training.seed, step, rank()))
        lr = self._optimizer_settings.lr * lr_factor(position, training.steps, self._schedule)
        set_lr(self._optimizer, lr)
        self._optimizer.zero_grad(set_to_none=True)
        record = _StepRecord(lr=lr)
        parts = self._optimizer_settings.accumulation_steps
        sums: dict[str, Tensor] = {}
        for part in range(parts):
            waiting = time.perf_counter()
            batch, targets = next(stream)
            record.data_seconds += time.perf_counter() - waiting
            record.image_keys += [target.image_key for target in targets]
            losses = self._backward(batch, targets, is_last_part=part == parts - 1)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0) + loss.detach().float() / parts
        self._scaler.unscale_(self._optimizer)
        largest = self._optimizer_settings.clip_grad_norm or math.inf
        norm = nn.utils.clip_grad_norm_(self._parameters, largest)
        # One transfer per step: on a GPU each .item() would wait for all queued work.
        *values, record.grad_norm = torch.stack([*sums.values(), norm.float()]).tolist()
        record.losses = dict(zip(sums, values))
        self._check_finite(record)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        record.seconds = time.perf_counter() - started
        return record

    def _backward(
        self, batch: ImageBatch, targets: Sequence[PanopticTarget], is_last_part: bool
    ) -> dict[str, Tensor]:
        """Adds the gradient of a part of the batch; workers' gradients meet after the last part."""
        step, seed = self._steps_done, self._training.seed
        generators = [keyed_generator(seed, step, target.image_key) for target in targets]
        batch = batch.to(self.device)
        if self._training.joint_padding:
            batch = padded_to_largest(batch)
        targets = [target.to(self.device) for target in targets]
        with contextlib.ExitStack() as stack:
            if isinstance(self._replica, DistributedDataParallel) and not is_last_part:
                stack.enter_context(self._replica.no_sync())
            with _autocast(self.device, self._training.amp):
                losses = self._replica(batch, targets, generators)
            total = weighted_sum(losses, self._loss_weights)
            self._scaler.scale(total / self._optimizer_settings.accumulation_steps).backward()
        return losses

    def _check_finite(self, record: _StepRecord) -> None:
        images = ", ".join(f"'{key}'" for key in record.image_keys)
        bad = [
            f"{name} = {value}" for name, value in record.losses.items() if not math.isfinite(value)
        ]
        where = f"at step {self._steps_done + 1} on the images {images}"
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

    def _report(self, window: _Window, log: RunLog | None) -> None:
        losses = window.mean_losses()
        values = [*losses.values(), float(window.num_images)]
        *means, num_images = mean_over_workers(torch.tensor(values, device=self.device)).tolist()
        losses = dict(zip(losses, means))
        spread = parameter_checksum_spread(self._parameters)
        if log is None:
            return
        total = sum(self._loss_weights[name] * value for name, value in losses.items())
        num_steps, last = len(window.records), window.records[-1]
        seconds = window.seconds / num_steps
        images_per_second = world_size() * num_images / window.seconds
        log.write(
            "train",
            self._steps_done,
            {
                "total": total,
                "losses": losses,
                "lr": last.lr,
                "grad_norm": last.grad_norm,
                "images_per_second": images_per_second,
                "step_seconds": seconds,
                "data_seconds": window.data_seconds / num_steps,
                **({"checksum_spread": spread} if world_size() > 1 else {}),
            },
        )
        shown = {"loss": total, "lr": last.lr, "images/s": images_per_second}
        log.show_progress(self._steps_done, shown, seconds)

    def _evaluate(self, log: RunLog | None) -> bool:
        """Runs validation; returns whether the weights are the best so far."""
        assert self.hooks.evaluate is not None
        self.network.eval()
        started = time.perf_counter()
        with torch.no_grad():
            self._metrics = self.hooks.evaluate(self.network)
            if log is not None and self.hooks.draw_examples is not None:
                log.draw(self._steps_done, self.hooks.draw_examples(self.network))
        self.network.train()
        pq = float(self._metrics["all"]["pq"])
        is_best = pq > self._best_pq
        self._best_pq = max(pq, self._best_pq)
        if log is not None:
            seconds = time.perf_counter() - started
            log.write("validation", self._steps_done, {**self._metrics, "seconds": seconds})
            note = "the best so far" if is_best else f"best {self._best_pq:.4f}"
            log.say(
                f"validation after step {self._steps_done}: PQ {pq:.4f} ({note}), {seconds:.1f} s"
            )
        return is_best

    def _save(self, is_best: bool) -> None:
        path = None
        if rank() == 0:
            parts = self._optimizer_settings.accumulation_steps
            state = {
                "step": self._steps_done,
                "batches_seen": self._steps_done * parts,
                "best_pq": self._best_pq,
                "seconds": self._seconds_used(),
                "optimizer": self._optimizer.state_dict(),
                "scaler": self._scaler.state_dict(),
            }
            metadata = {**self._metadata, "metrics": self._metrics}
            weights = self.network.state_dict()
            path = self._checkpoints.save(self._steps_done, weights, metadata, state, is_best)
        barrier()
        if self.hooks.on_checkpoint is not None:
            self.hooks.on_checkpoint(self._steps_done, path, self._metrics)

    def _load(self, checkpoint: Path | None) -> None:
        if checkpoint is None:
            return
        weights, state = load_checkpoint(checkpoint)
        self.network.load_state_dict(weights)
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self._steps_done = state["step"]
        self._best_pq = state["best_pq"]
        self._seconds_before = state["seconds"]

    def _wrap(self) -> nn.Module:
        if world_size() == 1:
            return self.network
        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(self.network, device_ids=devices)


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Sum of all losses with their weights.

    Raises:
        ValueError: the names differ.
    """
    if losses.keys() != weights.keys():
        missing, extra = losses.keys() - weights.keys(), weights.keys() - losses.keys()
        raise ValueError(
            "loss_weights must name the losses of the network; "
            f"missing: {sorted(missing) or 'none'}; extra: {sorted(extra) or 'none'}"
        )
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()


@dataclass
class _StepRecord:
    """What one step did."""

    lr: float
    losses: dict[str, float] = field(default_factory=dict)
    image_keys: list[str] = field(default_factory=list)
    grad_norm: float = math.nan
    seconds: float = 0.0
    data_seconds: float = 0.0


@dataclass
class _Window:
    """The steps since the last line of the log."""

    records: list[_StepRecord] = field(default_factory=list)

    def add(self, record: _StepRecord) -> None:
        self.records.append(record)

    @property
    def seconds(self) -> float:
        return sum(record.seconds for record in self.records)

    @property
    def data_seconds(self) -> float:
        return sum(record.data_seconds for record in self.records)

    @property
    def num_images(self) -> int:
        return sum(len(record.image_keys) for record in self.records)

    def mean_losses(self) -> dict[str, float]:
        names = self.records[0].losses
        return {
            name: sum(record.losses[name] for record in self.records) / len(self.records)
            for name in names
        }


def _autocast(device: torch.device, amp: str) -> contextlib.AbstractContextManager[Any]:
    if amp == "none":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_AMP_DTYPES[amp])
