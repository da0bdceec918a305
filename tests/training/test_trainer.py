from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from seamless_pr.files import WriteError
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.training import trainer as trainer_module
from seamless_pr.training.checkpoints import load_checkpoint, load_weights
from seamless_pr.training.run_log import read_log
from seamless_pr.training.step import loss_scaler
from seamless_pr.training.trainer import TrainingHooks
from tests.training.tiny_training import TinyNetwork, endless_batches, make_trainer


def test_an_interrupted_run_ends_with_the_same_bits_as_an_undisturbed_one(tmp_path: Path) -> None:
    whole = make_trainer(tmp_path / "whole")
    whole.run()

    def batches_until_the_power_fails(first_batch: int):
        yield from itertools.islice(endless_batches(first_batch), 12)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path / "cut", batches_from=batches_until_the_power_fails).run()
    resumed = make_trainer(tmp_path / "cut")
    assert resumed.steps_done == 10
    resumed.run()

    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name
    old, new = (
        load_checkpoint(tmp_path / run / "checkpoints/step_00000020")[1] for run in ("whole", "cut")
    )
    for index, buffers in old["optimizer"]["state"].items():
        assert torch.equal(
            buffers["momentum_buffer"], new["optimizer"]["state"][index]["momentum_buffer"]
        )


def test_the_log_of_a_resumed_run_holds_every_step_once(tmp_path: Path) -> None:
    def nine_batches(first_batch: int):
        yield from itertools.islice(endless_batches(first_batch), 9)
        raise KeyboardInterrupt

    changes = {"training__log_interval_steps": 1}
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path, batches_from=nine_batches, **changes).run()
    assert [record["step"] for record in read_log(tmp_path / "log.jsonl")] == list(range(1, 10))
    make_trainer(tmp_path, **changes).run()
    records = read_log(tmp_path / "log.jsonl")
    assert [record["step"] for record in records] == list(range(1, 21))
    assert set(records[0]["losses"]) == {"first", "second"}
    assert records[0]["lr"] == pytest.approx(0.1 / 3)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_itself_and_the_images(
    tmp_path: Path,
) -> None:
    network = TinyNetwork()
    network.fail_on = "image-7-1"
    with pytest.raises(
        FloatingPointError, match=r"second = nan at step 8 .*'image-7-0', 'image-7-1'"
    ):
        make_trainer(tmp_path, network).run()
    _, state = load_checkpoint(tmp_path / "checkpoints/step_00000005")
    assert state["step"] == 5
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    class RootAtZero(TinyNetwork):
        def losses(self, batch, targets, generators):
            losses = super().losses(batch, targets, generators)
            return {**losses, "first": LossSum((losses["first"].total * 0).sqrt(), 1)}

    with pytest.raises(FloatingPointError, match=r"gradient not finite .* at step 1"):
        make_trainer(tmp_path, RootAtZero()).run()


def test_weights_that_are_not_finite_are_neither_judged_nor_saved_over_good_ones(
    tmp_path: Path,
) -> None:
    class Poisoned(TinyNetwork):
        """Statistics are no part of losses and gradients."""

        def losses(self, batch, targets, generators):
            if targets[0].image_key == "image-7-0":
                self.norm.running_var[2] = float("inf")
            return super().losses(batch, targets, generators)

    def evaluate(network: nn.Module) -> dict[str, dict[str, float]]:
        assert all(value.isfinite().all() for value in network.state_dict().values())
        return {"all": {"pq": 0.5}}

    hooks = TrainingHooks(evaluate=evaluate)
    message = (
        r"after step 10: norm\.running_var \(1 of 7 tensors\), with the losses first = .*, "
        r"second = .* the newest checkpoint is .*step_00000005; train with a lower"
    )
    with pytest.raises(FloatingPointError, match=message):
        make_trainer(tmp_path, Poisoned(), hooks=hooks, training__evaluation_interval_steps=5).run()
    for name in ("last", "best"):
        assert load_weights(tmp_path / f"checkpoints/{name}.safetensors")[1]["step"] == 5

    # The step is the last one, and no checkpoint is there.
    changes = {"training__steps": 8, "training__checkpoint_interval_steps": 100}
    with pytest.raises(FloatingPointError, match=r"after step 8: .* the newest checkpoint is none"):
        make_trainer(tmp_path / "short", Poisoned(), **changes).run()


def test_a_run_folder_that_is_removed_meanwhile_can_be_started_again(tmp_path: Path) -> None:
    def batches_until_somebody_cleans_up(first_batch: int):
        yield from itertools.islice(endless_batches(first_batch), 7)
        shutil.rmtree(tmp_path / "run")
        yield from endless_batches(first_batch + 7)

    # The log comes first at step 10; without it, the checkpoint.
    for interval in (5, 1000):
        changes = {"training__log_interval_steps": interval, "training__steps": 12}
        with pytest.raises(WriteError, match=r"cannot write .*removed meanwhile: give the same"):
            make_trainer(
                tmp_path / "run", batches_from=batches_until_somebody_cleans_up, **changes
            ).run()
        assert not (tmp_path / "run").exists()
        make_trainer(tmp_path / "run", **changes).run()
        shutil.rmtree(tmp_path / "run")


def test_a_disk_without_room_for_a_checkpoint_is_told_before_the_first_step(
    tmp_path: Path, monkeypatch
) -> None:
    nearly_full = shutil._ntuple_diskusage(10**9, 10**9, 100)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: nearly_full)
    trainer = make_trainer(tmp_path, batches_from=lambda _: pytest.fail("a step"))
    with pytest.raises(
        WriteError, match=rf"cannot write {tmp_path}.*, a checkpoint takes 0\.\d MB"
    ):
        trainer.run()


@pytest.mark.parametrize("weights", [{"first": 1.0}, {"first": 1.0, "second": 1.0, "third": 1.0}])
def test_loss_weights_must_name_exactly_the_losses_of_the_network(tmp_path: Path, weights) -> None:
    with pytest.raises(ValueError, match="loss_weights must name the losses"):
        make_trainer(tmp_path, loss_weights=weights).run()


def test_two_accumulated_parts_give_the_gradient_of_the_joined_batch(tmp_path: Path) -> None:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def losses(self, batch, targets, generators):
            outputs = self.layer(batch.images.float().mean((2, 3)) / 255)
            return {"only": LossSum(outputs.square().sum(), len(targets))}

    def joined(first_batch: int):
        return endless_batches(first_batch)

    def halves(first_step: int):
        for number in itertools.count(first_step):
            batch, targets = next(endless_batches(number))
            for index in range(2):
                part = type(batch)(
                    batch.images[index : index + 1], batch.image_sizes[index : index + 1]
                )
                yield part, targets[index : index + 1]

    torch.manual_seed(0)
    changes = {"loss_weights": {"only": 1.0}, "training__steps": 4}
    one, two = Linear(), Linear()
    two.load_state_dict(one.state_dict())
    make_trainer(tmp_path / "one", one, batches_from=joined, **changes).run()
    make_trainer(
        tmp_path / "two", two, batches_from=halves, optimizer__accumulation_steps=2, **changes
    ).run()
    torch.testing.assert_close(one.layer.weight, two.layer.weight)


def test_the_best_weights_are_those_of_the_highest_pq(tmp_path: Path) -> None:
    qualities = iter([0.2, 0.6, 0.4, 0.5])
    seen: list[tuple[int, str | None, float]] = []

    def evaluate(network: nn.Module) -> dict[str, dict[str, float]]:
        assert not network.training
        assert not torch.is_grad_enabled()
        return {"all": {"pq": next(qualities)}}

    def on_checkpoint(step: int, path: Path | None, metrics) -> None:
        seen.append((step, path.name if path else None, metrics["all"]["pq"]))

    hooks = TrainingHooks(evaluate=evaluate, on_checkpoint=on_checkpoint)
    trainer = make_trainer(tmp_path, hooks=hooks, training__evaluation_interval_steps=5)
    assert trainer.run()["all"]["pq"] == 0.5
    assert load_weights(tmp_path / "checkpoints/best.safetensors")[1]["step"] == 10
    metadata = load_weights(tmp_path / "checkpoints/last.safetensors")[1]
    assert (metadata["step"], metadata["metrics"]["all"]["pq"]) == (20, 0.5)
    assert seen == [
        (step, f"step_{step:08d}", pq) for step, pq in [(5, 0.2), (10, 0.6), (15, 0.4), (20, 0.5)]
    ]


def test_a_checkpoint_carries_the_metrics_of_its_own_weights_or_none(tmp_path: Path) -> None:
    seen: list[tuple[int, Any, Any]] = []
    trainer = None

    def evaluate(network: nn.Module) -> dict[str, dict[str, float]]:
        assert trainer is not None
        return {"all": {"pq": 1 - trainer.steps_done / 100}}

    def on_checkpoint(step: int, path: Path | None, metrics) -> None:
        assert path is not None
        stored = load_weights(path / "weights.safetensors")[1]["metrics"]
        seen.append((step, metrics.get("all"), stored.get("all")))

    hooks = TrainingHooks(evaluate=evaluate, on_checkpoint=on_checkpoint)
    for steps in (10, 16):
        # A run goes on with more steps: its first checkpoint has no validation of its own.
        trainer = make_trainer(
            tmp_path, hooks=hooks, training__steps=steps, training__evaluation_interval_steps=10
        )
        last = trainer.run()
    of_ten, of_sixteen = {"pq": 0.9}, {"pq": 0.84}
    assert seen == [
        (5, None, None),
        (10, of_ten, of_ten),
        (15, None, None),
        (16, of_sixteen, of_sixteen),
    ]
    assert last == {"all": of_sixteen}
    # A finished run that is started again knows its last validation, and trains no more.
    trainer = make_trainer(
        tmp_path, hooks=hooks, training__steps=16, training__evaluation_interval_steps=10
    )
    assert trainer.run() == last
    assert len(seen) == 4


def test_a_checkpoint_of_another_version_is_refused_with_the_way_on(tmp_path: Path) -> None:
    make_trainer(tmp_path, training__steps=5).run()
    path = tmp_path / "checkpoints/step_00000005/state.pt"
    state = torch.load(path)
    del state["best_step"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"state.pt has no best_step: .* initial_weights.file="):
        make_trainer(tmp_path)


@pytest.mark.parametrize("step", [-5, 10**30, float("inf"), float("nan"), "x", None])
def test_a_checkpoint_of_an_impossible_step_is_refused_with_the_way_on(
    tmp_path: Path, step: object
) -> None:
    make_trainer(tmp_path, training__steps=5).run()
    path = tmp_path / "checkpoints/step_00000005/state.pt"
    torch.save({**torch.load(path), "step": step}, path)
    with pytest.raises(ValueError, match=r"step_00000005 does not fit this run \(.*remove that"):
        make_trainer(tmp_path)


def test_a_checkpoint_of_other_data_is_not_continued(tmp_path: Path) -> None:
    these = {"data.train": "a", "data.val": "b"}
    make_trainer(tmp_path, training__steps=5, data_fingerprints=these).run()
    for key in these:
        those = {**these, key: "c"}
        with pytest.raises(ValueError, match=f"other data than those that {key} names now: .* put"):
            make_trainer(tmp_path, data_fingerprints=those)
        accepting = {"data_fingerprints": those, "training__accept_changed_data": True}
        assert make_trainer(tmp_path, **accepting).steps_done == 5
    # Other workers do not look, nor does who never validates.
    assert make_trainer(tmp_path).steps_done == 5
    assert make_trainer(tmp_path, data_fingerprints={"data.train": "a"}).steps_done == 5
    assert make_trainer(tmp_path, data_fingerprints=these).steps_done == 5


def test_a_run_that_accepted_other_data_goes_on_with_them(tmp_path: Path) -> None:
    make_trainer(tmp_path, training__steps=5, data_fingerprints={"data.train": "a"}).run()
    other = {"data_fingerprints": {"data.train": "b"}, "training__steps": 10}
    make_trainer(tmp_path, training__accept_changed_data=True, **other).run()
    assert make_trainer(tmp_path, **other).steps_done == 10


def test_a_run_with_a_time_limit_ends_with_its_schedule(tmp_path: Path, monkeypatch) -> None:
    changes = {"training__steps": 10**6, "training__log_interval_steps": 1}
    schedule = {"schedule__warmup_steps": 0, "schedule__power": 1.0}
    trainer = make_trainer(tmp_path, training__max_minutes=10 / 60, **changes, **schedule)
    # Each step takes one second.
    monkeypatch.setattr(trainer, "_seconds_used", lambda: float(trainer.steps_done))
    trainer.run()
    records = read_log(tmp_path / "log.jsonl")
    assert [record["step"] for record in records] == list(range(1, 11))
    expected = [0.1 * (1 - done / 10) for done in range(10)]
    assert [record["lr"] for record in records] == pytest.approx(expected)
    assert load_weights(tmp_path / "weights.safetensors")[1]["step"] == 10


def test_the_time_limit_can_count_processor_time(tmp_path: Path, monkeypatch) -> None:
    # Each look at this clock costs a second; the other one stands still.
    monkeypatch.setitem(trainer_module._CLOCKS, "process", itertools.count().__next__)
    monkeypatch.setitem(trainer_module._CLOCKS, "wall", lambda: 0)
    limit = {"training__max_minutes": 10 / 60, "training__steps": 10**6}
    trainer = make_trainer(tmp_path / "process", training__clock="process", **limit)
    trainer.run()
    assert 1 < trainer.steps_done <= 10
    state = torch.load(next((tmp_path / "process/checkpoints").glob("step_*/state.pt")))
    assert state["seconds"] >= 10, "a run that goes on has used its time"
    trainer = make_trainer(tmp_path / "wall", **limit | {"training__steps": 20})
    trainer.run()
    assert trainer.steps_done == 20


def test_a_part_with_a_multiplier_takes_longer_steps(tmp_path: Path) -> None:
    moves = {}
    for multiplier in (1.0, 3.0):
        torch.manual_seed(0)
        network = TinyNetwork()
        before = network.conv.weight.detach().clone()
        changes = {"optimizer__lr_multipliers": {"conv": multiplier}, "training__steps": 1}
        make_trainer(tmp_path / str(multiplier), network, **changes).run()
        moves[multiplier] = network.conv.weight.detach() - before
    torch.testing.assert_close(moves[3.0], 3 * moves[1.0], rtol=1e-3, atol=1e-6)


def test_clipping_bounds_the_step(tmp_path: Path) -> None:
    network = TinyNetwork()
    before = torch.cat([parameter.detach().flatten().clone() for parameter in network.parameters()])
    changes = {"optimizer__clip_grad_norm": 1e-3, "optimizer__weight_decay": 0.0}
    make_trainer(tmp_path, network, training__steps=1, **changes).run()
    after = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    # First Nesterov step: lr times warm-up times (1 + momentum) times the clipped gradient.
    assert (after - before).norm() == pytest.approx(0.1 / 3 * 1.9 * 1e-3, rel=0.05)


@pytest.mark.parametrize("fixed", [512.0, 0.0])
def test_a_fixed_loss_scale_survives_an_overflow(tmp_path: Path, fixed: float) -> None:
    step = make_trainer(tmp_path)._step
    # As on a GPU, which alone trains in fp16.
    step._training = replace(step._training, amp="fp16", loss_scale=fixed)
    step._scaler = loss_scaler(torch.device("cpu"), step._training)
    weights = [parameter.detach().clone() for parameter in step.parameters]
    first = step._scaler.get_scale()
    assert first == (fixed or 65536)
    step._loss_weights["first"] = 1e38
    step(endless_batches(0), 0, 10.0)
    assert step._scaler.get_scale() == (fixed or first / 2)
    for parameter, before in zip(step.parameters, weights, strict=True):
        assert torch.equal(parameter, before)


def test_bf16_trains_on_a_cpu_and_fp16_is_refused(tmp_path: Path) -> None:
    make_trainer(tmp_path / "bf16", training__amp="bf16", training__steps=2).run()
    with pytest.raises(ValueError, match="needs a GPU"):
        make_trainer(tmp_path / "fp16", training__amp="fp16")
