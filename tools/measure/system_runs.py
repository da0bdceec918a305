"""One run of tools/measure/compare_systems.py: training, prediction and scores, and their costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seamless_pr.build.configs import config_from_dict
from seamless_pr.config.load import config_to_dict
from seamless_pr.config.schema import DatasetConfig
from seamless_pr.files import write_json
from seamless_pr.training.checkpoints import load_weights, save_weights
from tools.measure.systems import System

ROOT = Path(__file__).resolve().parents[2]
TRIMAP_PIXELS = (8, 20)
BOUNDARY_RATIO = 0.005
# ru_maxrss of Linux counts in these.
BYTES_OF_RSS = 1024


@dataclass(frozen=True)
class Run:
    """One training with its predictions and scores.

    Attributes:
        system: key of the comparison.
        seed: of new weights, image order, augmentation and drawn points.
        output: folder of all runs of the comparison.
        of: what it is a run of.
    """

    system: str
    seed: int
    output: Path
    of: System = field(default_factory=lambda: System("", ""))

    @property
    def trained(self) -> Run:
        """The run whose training it takes."""
        return Run(self.of.weights_of or self.system, self.seed, self.output)

    @property
    def name(self) -> str:
        return f"{self.system}_seed{self.seed}"

    @property
    def folder(self) -> Path:
        return self.output / self.name

    @property
    def config(self) -> Path:
        return self.folder.with_suffix(".yaml")

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    @property
    def costs(self) -> Path:
        return self.folder.with_suffix(".costs.json")

    @property
    def start(self) -> Path:
        return self.output / "start.safetensors"

    @property
    def weights(self) -> Path:
        return self.folder / "weights.safetensors"

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation" / "evaluation.json"


def random_parts(names: Iterable[str], kept: Sequence[str]) -> list[str]:
    """The shortest first names that cover every weight outside of the kept parts.

    `a.b` kept: `a.c.weight` is covered by `a.c`, `d.e.weight` by `d`.
    """
    parts: dict[str, None] = {}
    for name in names:
        if name.startswith(tuple(f"{part}." for part in kept)):
            continue
        words = name.split(".")
        for length in range(1, len(words) + 1):
            part = ".".join(words[:length])
            if not any(other.startswith(f"{part}.") for other in kept):
                parts[part] = None
                break
    return list(parts)


def write_reduced(run: Run) -> None:
    """Writes the weights of a training that is finished, changed as `run` is at prediction."""
    weights, metadata = load_weights(run.trained.weights)
    changes = run.of.at_prediction
    config = config_from_dict(metadata["config"], str(run.trained.weights), changes)
    metadata["config"] = config_to_dict(config)
    left_out = tuple(f"{part}." for part in run.of.without)
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith(left_out)}
    run.folder.mkdir(exist_ok=True)
    save_weights(run.weights, kept, metadata)


def finish_run(run: Run, held_out: DatasetConfig, with_instances: bool) -> str | None:
    """Runs what is left of one run; returns the reason if it failed."""
    commands = {}
    if run.of.weights_of:
        if not run.trained.weights.exists():
            return f"'{run.trained.name}' is not trained"
        write_reduced(run)
    elif not run.weights.exists():
        commands["train"] = ["--config", run.config, "--output", run.folder]
    if not run.evaluation.exists():
        instances = ["--instances"] if with_instances else []
        truth = held_out.json
        commands["predict"] = ["--weights", run.weights, "--images", held_out.images, *instances]
        commands["predict"] += ["--image-ids", truth, "--output", run.predictions]
        if with_instances:
            instances.append(run.predictions / "instances.json")
        commands["evaluate"] = ["--ground-truth", truth, "--predictions", run.predictions]
        commands["evaluate"] += ["--workers", 1, "--boundary", BOUNDARY_RATIO, *instances]
        commands["evaluate"] += ["--trimap", *TRIMAP_PIXELS, "--output", run.evaluation.parent]
    for stage, arguments in commands.items():
        script = str(ROOT / "pipelines" / f"{stage}.py")
        code = _run_in_one_thread(run, stage, [sys.executable, script, *map(str, arguments)])
        if code:
            return f"{stage}.py ended with {code}, see {run.log}"
    print(f"finished {run.name}", flush=True)
    return None


def _run_in_one_thread(run: Run, stage: str, command: Sequence[str]) -> int:
    """Runs one stage and adds what it took to the costs of the run; returns its exit code."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with run.log.open("a", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    costs = read_costs(run)
    known = costs.get(stage, {"processor_seconds": 0.0, "peak_bytes": 0})
    costs[stage] = {
        "processor_seconds": known["processor_seconds"] + usage.ru_utime + usage.ru_stime,
        "peak_bytes": max(known["peak_bytes"], usage.ru_maxrss * BYTES_OF_RSS),
    }
    write_json(run.costs, costs)
    return process.returncode


def read_costs(run: Run) -> dict[str, Any]:
    """Stage -> its processor time, over all its attempts, and the most memory that it had."""
    if not run.costs.exists():
        return {}
    costs: dict[str, Any] = json.loads(run.costs.read_text(encoding="utf-8"))
    return costs
