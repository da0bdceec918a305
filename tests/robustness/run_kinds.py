"""Cases of what a run has left in its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from unittest.mock import patch

import numpy as np
import yaml

from seamless_pr.pipelines import predict, prepare, train, wanted_predictor
from tests.robustness.map_kinds import tiny_predictor
from tests.robustness.mutators import (
    damage_bytes,
    damage_json,
    damage_safetensors,
    damage_text,
)
from tests.robustness.sandbox import REFUSED, RIGHT, Sandbox, StageRun, Verdict, run_stage
from tests.robustness.structure_mutators import lie_in_safetensors, retype_json
from tests.robustness.weight_kinds import damaged_archive
from tests.support.panoptic_files import write_cityscapes, write_png
from tests.support.tiny_run import tiny_run_values, write_tiny_data


class RunFolders:
    """What earlier runs of predict, prepare and train left, damaged before they are given again."""

    name = "run folders"
    stages = ("predict", "prepare", "train")

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.predictor = tiny_predictor(sandbox)
        write_png(sandbox.inputs / "images" / "a.png", np.zeros((20, 30, 3), np.uint8))
        data = sandbox.inputs / "data"
        write_tiny_data(data, num_train=4, num_val=1)
        values = tiny_run_values(data)
        values["training"].update(steps=1, checkpoint_interval_steps=1)
        values["data"]["batch_size"] = 2
        self.config = sandbox.inputs / "config.yaml"
        self.config.write_text(yaml.safe_dump(values))
        self.kept = sandbox.root / "kept"
        write_cityscapes(sandbox.inputs / "cityscapes", {"val": ("ulm_000000_000001",)})
        for name in self.stages:
            self.sandbox.watch()
            assert self._run(name).code == 0
            shutil.copytree(sandbox.output, self.kept / name)

    def _run(self, name: str) -> StageRun:
        images, output = self.sandbox.inputs / "images", self.sandbox.output
        if name == "train":
            return run_stage(train.main, ["--config", self.config, "--output", output])
        if name == "prepare":
            return run_stage(
                prepare.main,
                ["cityscapes", "--root", self.sandbox.inputs / "cityscapes", "--splits", "val",
                 "--output", output, "--workers", "1"],
            )  # fmt: skip
        with patch.object(wanted_predictor, "load_predictor", lambda *_, **__: self.predictor):
            return run_stage(
                predict.main, ["--weights", "W", "--images", images, "--output", output]
            )

    def case(self, random: Random) -> Verdict:
        name = random.choice(self.stages)
        self.sandbox.watch()
        shutil.copytree(self.kept / name, self.sandbox.output)
        files = sorted(
            path
            for path in self.sandbox.output.rglob("*")
            if path.is_file()
            and "tensorboard" not in path.parts
            # That a PNG of predict is whole, its record does not say.
            and (path.suffix != ".png" or name == "prepare")
        )
        path = random.choice(files)
        _damage(path, random)
        run = self._run(name)
        # A step folder is named as a whole.
        names = [path.name, path.parent.name, self.sandbox.output.name]
        verdict = self.sandbox.judge(run, names, passed_header=True)
        if verdict.outcome not in (RIGHT, REFUSED):
            return Verdict(verdict.outcome, True, f"{path.name}: {verdict.detail}")
        if verdict.outcome == RIGHT and (other := self._other_results(name)):
            return Verdict("wrong", True, f"{path.name}: other {', '.join(other)}")
        return verdict

    def _other_results(self, name: str) -> list[str]:
        """Results that differ from those of the undisturbed run."""
        # Those of a training are compared by the kills; weights of any value are sound here.
        patterns = {"predict": ("panoptic.json",), "prepare": ("*.json", "*/*.png"), "train": ()}
        kept = self.kept / name
        names = [
            path.relative_to(kept) for pattern in patterns[name] for path in kept.glob(pattern)
        ]
        return [
            str(name)
            for name in sorted(names)
            if (kept / name).read_bytes() != (self.sandbox.output / name).read_bytes()
        ]


def _damage(path: Path, random: Random) -> None:
    data = path.read_bytes()
    if random.random() < 0.1:
        path.unlink()
        return
    if path.suffix == ".json":
        data = random.choice((damage_json, damage_json, retype_json))(data, random)
    elif path.suffix == ".jsonl":
        lines = data.splitlines() or [b"{}"]
        place = random.randrange(len(lines))
        lines[place] = damage_json(lines[place], random)
        data = b"\n".join(lines)
    elif path.suffix == ".yaml":
        data = damage_text(data, random, ("steps: 7", "a: b", "- x", "{", "\t", "lr: nan"))
    elif path.suffix == ".safetensors":
        data = random.choice((damage_safetensors, lie_in_safetensors))(data, random)
    elif path.suffix == ".pt":
        data = damaged_archive(data, random)
    else:
        data = damage_bytes(data, random)
    if len(data) == 0 and random.random() < 0.5:
        data = json.dumps({}).encode()
    path.unlink()  # Other names of the same file stay sound.
    path.write_bytes(data)
