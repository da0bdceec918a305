"""Training over Ray Train: what torchrun computes, also when a worker is killed on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seamless_pr.engine.checkpoints import load_weights
from seamless_pr.engine.run_log import read_log
from tests.support.processes import kill_one, wait_until
from tests.support.tiny_run import write_tiny_run

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
TRAIN = str(ROOT / "pipelines/train.py")
SECONDS = 900
# As in test_train.py: near-ties amplify rounding, small steps make few.
EXACT = ["optimizer.lr=0.001", "model.semantic.hard_pixel_fraction=1"]
STEPS = 8


def environment() -> dict[str, str]:
    free = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    # A busy machine takes its time to start workers.
    patience = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300"}
    return {**free, **patience, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    config = write_tiny_run(tmp_path_factory.mktemp("tiny_run"))
    return ["--config", str(config), f"training.steps={STEPS}", *EXACT]


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_weights(run / "weights.safetensors")[0]


def train_with_torchrun(arguments: list[str], num_workers: int, output: Path) -> Path:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(num_workers), TRAIN, *arguments, "--output", str(output)]
    subprocess.run(command, cwd=ROOT, env=environment(), check=True)
    return output


def test_a_run_of_two_workers_that_loses_one_ends_as_if_nothing_had_happened(
    arguments: list[str], tmp_path: Path
) -> None:
    output, log = tmp_path / "run", tmp_path / "log.txt"
    command = [sys.executable, TRAIN, *arguments, "--output", str(output)]
    command += ["--ray", "cluster.num_workers=2"]
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=stream, stderr=stream
        )
    snapshot = output / "ray/checkpoint_manager_snapshot.json"
    wait_until(
        lambda: snapshot.exists() or process.poll() is not None, SECONDS, "the first checkpoint"
    )
    assert kill_one(process.pid, "RayTrainWorker") is not None, log.read_text()
    assert process.wait(SECONDS) == 0, log.read_text()
    assert "going on after step" in log.read_text()

    records = read_log(output / "log.jsonl")
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    assert {record["checksum_spread"] for record in records} == {0}
    kept = json.loads(snapshot.read_text())["checkpoint_results"]
    assert [entry["checkpoint_dir_name"] for entry in kept] == ["step_00000006", "step_00000008"]
    assert (output / "tensorboard").is_dir()

    ours = weights_of(output)
    undisturbed = weights_of(train_with_torchrun(arguments, 2, tmp_path / "two"))
    assert [name for name in ours if not torch.equal(ours[name], undisturbed[name])] == []
    alone = weights_of(train_with_torchrun(arguments, 1, tmp_path / "one"))
    for name in ours:
        if "running" not in name:
            torch.testing.assert_close(ours[name], alone[name], rtol=0, atol=5e-5, msg=name)
