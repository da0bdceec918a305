"""The training loop of one worker: steps, log lines, validation and checkpoints in their rhythm."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seamless_pr.files import check_writable
from seamless_pr.models.networks.network import Network
from seamless_pr.ops.finite import names_not_finite
from seamless_pr.structures.faults import first_line, quoted
from seamless_pr.structures.panoptic_target import Batch
from seamless_pr.structures.training_settings import (
    OptimizerSettings,
    ScheduleSettings,
    TrainingSettings,
)
from seamless_pr.training.checkpoints import (
    STATE_NAME,
    WEIGHTS_NAME,
    CheckpointFolder,
    load_checkpoint,
)
from seamless_pr.training.distributed import (
    barrier,
    mean_over_workers,
    of_first_worker,
    parameter_checksum_spread,
    rank,
    world_size,
)
from seamless_pr.training.run_log import RunLog
from seamless_pr.training.step import OptimizerStep, StepRecord

_STATE_KEYS = {
    "step",
    "best_pq",
    "best_step",
    "validation_step",
    "validation_metrics",
    "seconds",
    "optimizer",
    "scaler",
}

_CLOCKS: dict[str, Callable[[], float]] = {"wall": time.monotonic, "process": time.process_time}


@dataclass(frozen=True)
class TrainingHooks:
    """What a run does besides training; every worker calls each of them at the same steps.

    Attributes:
        evaluate: network -> metrics, the same on every worker, with `metrics["all"]["pq"]` to find
            the best.
        draw_examples: network -> name -> picture [3, H, W] uint8 RGB; called on the first worker
            only.
        on_checkpoint: called after each checkpoint with the steps done, its folder (None on all
            workers but the first) and the metrics of these weights, empty if nobody measured them.
    """

    evaluate: Callable[[Network], Mapping[str, Any]] | None = None
    draw_examples: Callable[[Network], Mapping[str, Tensor]] | None = None
    on_checkpoint: Callable[[int, Path | None, Mapping[str, Any]], None] | None = None


class Trainer:
    """Trains one network in one run folder, from its newest checkpoint on.

    The same run gives the same weights, bit for bit on a CPU, however often it is interrupted:
    batches are found by their step, the generator of each image by (seed, step, image key), and the
    global generator is set anew at each step.
    """

    def __init__(
        self,
        network: Network,
        batches_from: Callable[[int], Iterable[Batch]],
        *,
        loss_weights: Mapping[str, float],
        optimizer: OptimizerSettings,
        schedule: ScheduleSettings,
        training: TrainingSettings,
        folder: str | Path,
        metadata: Mapping[str, Any],
        data_fingerprints: Mapping[str, str] | None = None,
        device: torch.device | str = "cpu",
        hooks: TrainingHooks = TrainingHooks(),
        resume_from: str | Path | None = None,
    ) -> None:
        """Takes finished parts; nothing runs before `run`.

        Args:
            network: has `losses(batch, targets, generators) -> name -> LossSum`.
            batches_from: steps done -> iterable over this worker's batches from the next step on,
                `accumulation_steps` of them for each step.
            loss_weights: name -> factor, for exactly the names that the network returns.
            optimizer, schedule, training: numbers of the run.
            folder: the run folder.
            metadata: goes into every weights file (config, label space, versions); must fit JSON.
            data_fingerprints: config key -> what tells its data from others under the same names; a
                checkpoint of others is not continued. Keys that one side lacks: nobody looked.
            device: where the network computes.
            hooks: validation, pictures, and what follows a checkpoint.
            resume_from: checkpoint folder to start from; the newest of the run folder if None.

        Raises:
            ValueError: fp16 without a GPU; a checkpoint that cannot be read, or of other data.
        """
        self.device = torch.device(device)
        self.network = network.to(self.device)
        if training.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.folder = Path(folder)
        self.hooks = hooks
        self._batches_from = batches_from
        self._loss_weights = dict(loss_weights)
        self._training = training
        self._metadata = dict(metadata)
        self._data_fingerprints = dict(data_fingerprints or {})
        self._step = OptimizerStep(
            self.network,
            loss_weights=loss_weights,
            optimizer=optimizer,
            schedule=schedule,
            training=training,
            device=self.device,
        )
        self._checkpoints = CheckpointFolder(self.folder / "checkpoints")
        self._steps_done = 0
        self._seconds_before = 0.0
        self._clock = _CLOCKS[training.clock]
        self._started = self._clock()
        self._best_pq = -math.inf
        self._best_step = 0
        self._validation = _Validation()
        self._load(resume_from)
        self._step.share()

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
            FloatingPointError: a loss, the gradient or a weight is not finite; names the step, the
                losses and, for a loss, the images.
            WriteError: the disk is full or read-only; names the path.
            ValueError: the network returns other losses than those with a weight.
        """
        self._started = self._clock()
        log = None
        if rank() == 0:
            if self._steps_done < self._training.steps:
                weights = list(self.network.state_dict().values())
                num_bytes = sum(tensor.nbytes for tensor in weights) + self._step.state_bytes()
                check_writable(self.folder, num_bytes, "a checkpoint")
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
        return self._validation.metrics

    def _loop(self, log: RunLog | None) -> None:
        settings = self._training
        self.network.train()
        stream: Iterator[Batch] | None = None
        window = _Window()
        position = self._position()
        while position < settings.steps:
            if stream is None:
                stream = iter(self._batches_from(self._steps_done))
            window.records.append(self._step(stream, self._steps_done, position))
            last_step = window.records[-1]
            self._steps_done += 1
            done = self._steps_done
            position = self._position()
            is_last = position >= settings.steps
            reports = is_last or done % settings.log_interval_steps == 0
            evaluates = self.hooks.evaluate is not None and settings.evaluation_interval_steps > 0
            evaluates = evaluates and (is_last or done % settings.evaluation_interval_steps == 0)
            saves = is_last or done % settings.checkpoint_interval_steps == 0
            if reports or evaluates or saves:
                # The one time that a GPU is waited for.
                self._step.read(window.records)
            if reports:
                self._report(window, log)
                window = _Window()
            if evaluates or saves:
                self._check_weights(last_step.losses)
            if evaluates:
                self._evaluate(log)
            if saves or self._best_step == done:
                self._save()

    def _position(self) -> float:
        """Where the run stands on its schedule, in steps."""
        limit = self._training.max_minutes * 60
        if not limit:
            return self._steps_done
        used = of_first_worker(self._seconds_used(), self.device)
        return max(self._steps_done, self._training.steps * used / limit)

    def _seconds_used(self) -> float:
        return self._seconds_before + self._clock() - self._started

    def _report(self, window: _Window, log: RunLog | None) -> None:
        losses = window.mean_losses()
        values = [*losses.values(), float(window.num_images)]
        *means, num_images = mean_over_workers(torch.tensor(values, device=self.device)).tolist()
        losses = dict(zip(losses, means))
        spread = parameter_checksum_spread(self._step.parameters)
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

    def _check_weights(self, losses: Mapping[str, float]) -> None:
        """Weights that are not finite are neither judged nor saved over good ones."""
        weights = self.network.state_dict()
        bad = names_not_finite(weights)
        if not bad:
            return
        shown = ", ".join(f"{name} = {value:.4g}" for name, value in losses.items())
        newest = self._checkpoints.latest()
        raise FloatingPointError(
            f"weights not finite after step {self._steps_done}: {', '.join(bad[:3])} "
            f"({len(bad)} of {len(weights)} tensors), with the losses {shown}; they are not saved, "
            f"the newest checkpoint is {newest or 'none'}; train with a lower optimizer.lr or with "
            "optimizer.clip_grad_norm, in another folder"
        )

    def _evaluate(self, log: RunLog | None) -> None:
        """Runs validation and notes whether the weights are the best so far."""
        assert self.hooks.evaluate is not None
        self.network.eval()
        started = time.perf_counter()
        with torch.no_grad():
            metrics = self.hooks.evaluate(self.network)
            if log is not None and self.hooks.draw_examples is not None:
                log.draw(self._steps_done, self.hooks.draw_examples(self.network))
        self.network.train()
        # As plain values: both parts of a checkpoint hold them.
        metrics = json.loads(json.dumps(metrics))
        self._validation = _Validation(self._steps_done, metrics)
        pq = float(metrics["all"]["pq"])
        is_best = pq > self._best_pq
        if is_best:
            self._best_pq, self._best_step = pq, self._steps_done
        if log is not None:
            seconds = time.perf_counter() - started
            log.write("validation", self._steps_done, {**metrics, "seconds": seconds})
            note = "the best so far" if is_best else f"best {self._best_pq:.4f}"
            log.say(
                f"validation after step {self._steps_done}: PQ {pq:.4f} ({note}), {seconds:.1f} s"
            )

    def _save(self) -> None:
        path = None
        step = self._steps_done
        # Those of older weights would pass for those of these.
        metrics = self._validation.metrics if self._validation.step == step else {}
        if rank() == 0:
            state = {
                "step": step,
                "best_pq": self._best_pq,
                "best_step": self._best_step,
                "validation_step": self._validation.step,
                "validation_metrics": dict(self._validation.metrics),
                "seconds": self._seconds_used(),
                "data_fingerprints": self._data_fingerprints,
                **self._step.state_dict(),
            }
            metadata = {**self._metadata, "metrics": metrics}
            weights = self.network.state_dict()
            is_best = self._best_step == step
            path = self._checkpoints.save(step, weights, metadata, state, is_best)
        barrier()
        if self.hooks.on_checkpoint is not None:
            self.hooks.on_checkpoint(step, path, metrics)

    def _load(self, resume_from: str | Path | None) -> None:
        checkpoint = Path(resume_from) if resume_from else self._checkpoints.latest()
        if checkpoint is None:
            return
        weights, state = load_checkpoint(checkpoint)
        if missing := _STATE_KEYS - state.keys():
            raise ValueError(
                f"{checkpoint / STATE_NAME} has no {', '.join(sorted(missing))}: it is of another "
                "version of the package; start a new run, in another folder, from its weights: "
                f"initial_weights.file={checkpoint / WEIGHTS_NAME}"
            )
        before = state.get("data_fingerprints")
        before = before if isinstance(before, dict) else {}
        changed = [
            name
            for name, fingerprint in self._data_fingerprints.items()
            if before.get(name, fingerprint) != fingerprint
        ]
        if changed and not self._training.accept_changed_data:
            raise ValueError(
                f"{checkpoint} was made with other data than those that {' and '.join(changed)} "
                "names now: pictures or id PNGs were added, removed or replaced since; put the "
                "earlier ones back to go on with that run, choose another output folder, or go on "
                "with the changed ones by training.accept_changed_data=true"
            )
        try:
            self.network.load_state_dict(weights)
            self._step.load_state_dict(state)
            self._steps_done = _step_number(state["step"])
            self._best_pq = float(state["best_pq"])
            self._best_step = _step_number(state["best_step"])
            self._validation = _Validation(
                _step_number(state["validation_step"]), dict(state["validation_metrics"])
            )
            self._seconds_before = float(state["seconds"])
        except _MISFITS as error:
            raise ValueError(
                f"{checkpoint} does not fit this run ({first_line(error)}); remove that folder to "
                "go on from an older checkpoint, or to start the run again"
            ) from error
        if resume_from is None and rank() == 0:
            self._checkpoints.settle(checkpoint, self._best_step == self._steps_done)


# What numbers and containers raise that are not those of this run.
_MISFITS = (RuntimeError, LookupError, ArithmeticError, TypeError, ValueError, AttributeError)


def _step_number(value: Any) -> int:
    if not 0 <= value < 2**53:
        raise ValueError(f"{quoted(repr(value))} is no number of steps")
    return int(value)


@dataclass(frozen=True)
class _Validation:
    """The last one, and the step of the weights that it measured."""

    step: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Window:
    """The steps since the last line of the log."""

    records: list[StepRecord] = field(default_factory=list)

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
