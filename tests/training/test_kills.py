"""A run that is killed at any file operation ends, when it is repeated, as if nothing had been."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from seamless_pr.training.checkpoints import load_checkpoint, load_weights
from seamless_pr.training.run_log import read_log
from seamless_pr.training.trainer import TrainingHooks
from tests.support.kills import is_killed, listing
from tests.training.tiny_training import make_trainer

STEPS = 3
# After each step; the best weights are those of neither the first nor the last.
QUALITIES = {1: 0.2, 2: 0.7, 3: 0.5}
BOARD = "tensorboard"


def run(folder: Path) -> dict[str, Any]:
    """Three steps, each with validation and checkpoint."""

    def evaluate(network: nn.Module) -> dict[str, dict[str, float]]:
        return {"all": {"pq": QUALITIES[trainer.steps_done]}}

    trainer = make_trainer(
        folder,
        hooks=TrainingHooks(evaluate=evaluate),
        training__steps=STEPS,
        training__checkpoint_interval_steps=1,
        training__evaluation_interval_steps=1,
        training__log_interval_steps=1,
    )
    return dict(trainer.run())


def contents(folder: Path) -> dict[str, bytes]:
    """The weights files; equal weights and metadata give equal bytes."""
    return {path.name: path.read_bytes() for path in folder.rglob("*.safetensors")}


@pytest.mark.slow
def test_a_kill_at_any_file_operation_changes_neither_weights_nor_files(tmp_path: Path) -> None:
    undisturbed = tmp_path / "undisturbed"
    metrics = run(undisturbed)
    killed, operation = tmp_path / "killed", 0
    while is_killed(lambda: run(killed), killed, operation, BOARD):
        assert run(killed) == metrics
        assert listing(killed, BOARD) == listing(undisturbed, BOARD), operation
        assert contents(killed) == contents(undisturbed), operation
        steps = [(record["kind"], record["step"]) for record in read_log(killed / "log.jsonl")]
        assert steps == [
            (kind, step) for step in range(1, STEPS + 1) for kind in ("train", "validation")
        ]
        shutil.rmtree(killed)
        operation += 1
    # Folders, files, writes, renames, links and removals of three saves.
    assert operation > 80
    assert load_weights(undisturbed / "weights.safetensors")[1]["step"] == 2


def test_a_kill_during_the_repeat_of_a_killed_save_is_no_worse(tmp_path: Path) -> None:
    torch.manual_seed(0)
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    run(undisturbed)
    for first, second in ((40, 3), (60, 20), (80, 12)):
        assert is_killed(lambda: run(killed), killed, first, BOARD)
        is_killed(lambda: run(killed), killed, second, BOARD)
        run(killed)
        assert listing(killed, BOARD) == listing(undisturbed, BOARD)
        assert contents(killed) == contents(undisturbed)
        state = load_checkpoint(killed / f"checkpoints/step_{STEPS:08d}")[1]
        assert (state["best_step"], state["validation_step"]) == (2, STEPS)
        shutil.rmtree(killed)
