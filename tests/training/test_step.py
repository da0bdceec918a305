"""Steps that a GPU is only told to take, and what is read of them in one transfer."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.training_settings import (
    AdamWSettings,
    OptimizerSettings,
    PolySettings,
    SGDSettings,
    TrainingSettings,
)
from seamless_pr.training import step as step_module
from seamless_pr.training.checkpoints import load_checkpoint
from seamless_pr.training.optimizer import make_optimizer
from seamless_pr.training.step import OptimizerStep
from tests.support.numbered_gpu import DEVICE, numbered_gpu, on_gpu
from tests.training.tiny_training import TinyNetwork, endless_batches, make_trainer

LOSS_WEIGHTS = {"first": 1.0, "second": 0.5}
OPTIMIZERS = [
    SGDSettings(lr=0.1, clip_grad_norm=1.0),
    SGDSettings(lr=0.1, momentum=0.0, nesterov=False),
    AdamWSettings(lr=0.1),
]


class QuietNetwork(TinyNetwork):
    """Asks no number of its device."""

    def losses(self, batch, targets, generators):
        features = self.dropout(self.norm(self.conv(batch.images.float() / 255)))
        count = len(targets)
        return {
            "first": LossSum(features.square().mean() * count, count),
            "second": LossSum(features.abs().mean() * count, count),
        }


def optimizer_step(network, optimizer: OptimizerSettings, device: Any, **training: Any):
    return OptimizerStep(
        network,
        loss_weights=LOSS_WEIGHTS,
        optimizer=optimizer,
        schedule=PolySettings(warmup_steps=0),
        training=TrainingSettings(**training),
        device=device,
    )


def deferred(trainer) -> None:
    """Makes a trainer on the CPU read its steps as one on a GPU does."""
    step = trainer._step
    step._is_deferred = True
    step._optimizer = make_optimizer(trainer.network, step._settings, fused=True)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["clipped", "no momentum", "adamw"])
@pytest.mark.parametrize("amp", ["none", "fp16"])
def test_five_steps_on_a_gpu_are_read_in_one_transfer(optimizer, amp, monkeypatch):
    # Without a GPU torch makes loss scalers that do nothing.
    monkeypatch.setattr("torch.amp.grad_scaler.torch.cuda.amp.common.amp_definitely_not_available",
                        lambda: False)  # fmt: skip
    monkeypatch.setattr(step_module, "_autocast", lambda device, amp: nullcontext())
    with numbered_gpu() as gpu:
        step = optimizer_step(on_gpu(QuietNetwork()).train(), optimizer, DEVICE, amp=amp)
        assert step._scaler.is_enabled() == (amp == "fp16")
        gpu.waits.clear()
        records = [step(endless_batches(index), index, index) for index in range(5)]
        assert not gpu.waits
        step.read(records)
    assert gpu.waits == {"training/step.py:OptimizerStep.read": 1}
    losses = [record.losses["second"] for record in records]
    assert len(set(losses)) == len(losses)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["clipped", "no momentum", "adamw"])
def test_a_step_that_is_not_finite_is_left_out_on_the_device_and_named_later(optimizer):
    torch.manual_seed(0)
    network = TinyNetwork()
    network.fail_on = "image-1-0"
    step = optimizer_step(network, optimizer, torch.device("cpu"))
    step._is_deferred = True
    step._optimizer = make_optimizer(network, optimizer, fused=True)
    stream = endless_batches(0)
    records = [step(stream, 0, 0.0)]
    before = [parameter.detach().clone() for parameter in network.parameters()]
    records.append(step(stream, 1, 1.0))
    for parameter, value in zip(network.parameters(), before, strict=True):
        assert torch.equal(parameter, value)
    records.append(step(stream, 2, 2.0))
    assert not torch.equal(network.conv.weight, before[0])
    assert all(parameter.isfinite().all() for parameter in network.parameters())
    with pytest.raises(FloatingPointError, match=r"second = nan at step 2 .*'image-1-0'"):
        step.read(records)
    assert records[0].losses.keys() == LOSS_WEIGHTS.keys()
    step.read(records)  # Nothing is left to read.


def test_a_first_step_that_is_left_out_leaves_no_momentum():
    network = TinyNetwork()
    network.fail_on = "image-0-0"
    settings = SGDSettings(lr=0.1)
    step = optimizer_step(network, settings, torch.device("cpu"))
    step._is_deferred = True
    step._optimizer = make_optimizer(network, settings, fused=True)
    step(endless_batches(0), 0, 0.0)
    buffers = [state["momentum_buffer"] for state in step._optimizer.state.values()]
    assert len(buffers) == len(step.parameters)
    assert not any(buffer.any() for buffer in buffers)


def test_steps_are_read_with_the_log_and_before_validation_and_checkpoints(tmp_path, monkeypatch):
    reads: list[tuple[int, int]] = []
    trainer = make_trainer(
        tmp_path,
        training__steps=9,
        training__log_interval_steps=4,
        training__checkpoint_interval_steps=3,
    )
    deferred(trainer)
    read = OptimizerStep.read

    def watched(step, records):
        unread = [record.number for record in records if record.unread]
        reads.append((trainer.steps_done, len(unread)))
        read(step, records)

    monkeypatch.setattr(step_module.OptimizerStep, "read", watched)
    trainer.run()
    assert reads == [(3, 3), (4, 1), (6, 2), (8, 2), (9, 1)]


def test_what_is_not_finite_is_never_saved(tmp_path):
    network = TinyNetwork()
    network.fail_on = "image-7-1"
    trainer = make_trainer(tmp_path, network)
    deferred(trainer)
    with pytest.raises(FloatingPointError, match=r"second = nan at step 8 .*'image-7-1'"):
        trainer.run()
    assert trainer.steps_done == 10
    assert load_checkpoint(tmp_path / "checkpoints/step_00000005")[1]["step"] == 5
    assert not (tmp_path / "checkpoints/step_00000010").exists()


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["clipped", "no momentum", "adamw"])
def test_fused_steps_are_those_of_the_plain_optimiser(optimizer):
    """Also those of a state that the other one has written."""
    networks, steps = [], []
    for fused in (False, True):
        torch.manual_seed(0)
        networks.append(TinyNetwork())
        step = optimizer_step(networks[-1], optimizer, torch.device("cpu"))
        step._is_deferred = fused
        step._optimizer = make_optimizer(networks[-1], optimizer, fused=fused)
        steps.append(step)
    for start in (0, 2):
        for step in steps:
            stream = endless_batches(start)
            for index in range(start, start + 2):
                step(stream, index, float(index))
        # The norm takes a bias before it away: its gradient is rounding alone, which Adam enlarges.
        ours, theirs = (
            [value for name, value in network.named_parameters() if name != "conv.bias"]
            for network in networks
        )
        torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6)
        first, second = (step.state_dict() for step in steps)
        steps[0].load_state_dict(second)
        steps[1].load_state_dict(first)
        assert [step._optimizer.param_groups[0]["fused"] for step in steps] == [False, True]
