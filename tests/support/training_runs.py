"""Runs of pipelines/train.py to compare: by torchrun, and over a Ray cluster that loses a part."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from seamless_pr.training.checkpoints import load_weights
from tests.support.processes import wait_until
from tests.support.ray_variables import RAY_VARIABLES
from tests.support.tiny_run import write_tiny_run

ROOT = Path(__file__).resolve().parents[2]
TRAIN = str(ROOT / "pipelines/train.py")
SECONDS = 300
STEPS = 5
# Choices between near-ties (hard pixels, proposals) amplify rounding; small steps make few.
EXACT = ["optimizer.lr=0.001", "model.semantics.hard_pixel_fraction=1", "training.seed=2"]


def environment(**more: str) -> dict[str, str]:
    """Variables of a run: one thread, no cluster but the one in `more`."""
    free = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    # A busy machine takes its time to start workers.
    patience = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(SECONDS)}
    return {**free, **patience, **RAY_VARIABLES, "OMP_NUM_THREADS": "1", **more}


def write_arguments(folder: Path) -> list[str]:
    """Writes data and config of a run of 5 steps; returns the arguments of pipelines/train.py."""
    config = write_tiny_run(folder)
    return ["--config", str(config), f"training.steps={STEPS}", *EXACT]


def train_with_torchrun(arguments: Sequence[str], num_workers: int, output: Path) -> Path:
    """An undisturbed run without Ray; returns its folder."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(num_workers), TRAIN, *arguments, "--output", str(output)]
    subprocess.run(command, cwd=ROOT, env=environment(), check=True)
    return output


@dataclass
class RayRun:
    """A run under way."""

    process: subprocess.Popen[str]
    output: Path
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def snapshot(self) -> Path:
        """Ray's list of checkpoints."""
        return self.output / "ray/checkpoint_manager_snapshot.json"

    def wait_for_checkpoint(self) -> None:
        """Returns when Ray has registered the first checkpoint, which is before the last step."""
        wait_until(
            lambda: self.snapshot.exists() or self.process.poll() is not None,
            SECONDS,
            "the first checkpoint",
        )
        assert self.process.poll() is None, self.log

    def finish(self) -> None:
        """Waits for the end, which must be a good one."""
        try:
            assert self.process.wait(SECONDS) == 0, self.log
        finally:
            self.process.kill()


def train_with_ray(
    arguments: Sequence[str],
    output: Path,
    *,
    variables: Mapping[str, str],
    prefix: Sequence[str] = (),
) -> RayRun:
    """Starts two workers on a cluster.

    Args:
        arguments: of pipelines/train.py.
        output: run folder; the log of the driver lies beside it.
        variables: name the cluster.
        prefix: command that the driver is started by.
    """
    command = [*prefix, sys.executable, TRAIN, *arguments, "--output", str(output)]
    command += ["--ray", "cluster.num_workers=2"]
    log_file = output.with_suffix(".log")
    with log_file.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(**variables), stdout=stream, stderr=stream, text=True
        )
    return RayRun(process, output, log_file)


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_weights(run / "weights.safetensors")[0]


def differing(ours: Path, theirs: Path) -> list[str]:
    """Names of weights and statistics that are not the same to the last bit."""
    one, other = weights_of(ours), weights_of(theirs)
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def largest_difference(ours: Path, theirs: Path) -> tuple[float, str]:
    """Of trained weights; statistics of norm layers follow the rounding of other choices."""
    one, other = weights_of(ours), weights_of(theirs)
    return max(
        (float((one[name].double() - other[name].double()).abs().max()), name)
        for name in one
        if "running" not in name
    )
