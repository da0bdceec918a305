"""Cases of weights and of what a run has left in its folder."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import msgpack
import numpy as np
import torch
import yaml
from safetensors import safe_open

from seamless_pr.pipelines import predict, prepare, train, wanted_predictor
from seamless_pr.training.trainer import Trainer
from seamless_pr.weights.detectron2 import read_zoo_file
from seamless_pr.weights.seamseg_snapshot import read_classes, read_snapshot
from seamless_pr.weights.tensor_files import read_tensors
from tests.robustness.map_kinds import tiny_predictor
from tests.robustness.mutators import (
    damage_bytes,
    damage_json,
    damage_pickle,
    damage_safetensors,
    damage_text,
    damage_zip,
)
from tests.robustness.sandbox import REFUSED, RIGHT, Sandbox, StageRun, Verdict, run_stage
from tests.support.panoptic_files import write_cityscapes, write_png
from tests.support.tiny_checkpoint import write_tiny_checkpoint
from tests.support.tiny_run import tiny_run_values, write_tiny_data


class Safetensors:
    """Weights of this package, which name their own config and classes."""

    name = "safetensors"

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.path = write_tiny_checkpoint(sandbox.inputs / "weights.safetensors")
        self.original = self.path.read_bytes()
        write_png(sandbox.inputs / "a.png", np.zeros((20, 30, 3), np.uint8))

    def case(self, random: Random) -> Verdict:
        self.path.write_bytes(damage_safetensors(self.original, random))
        self.sandbox.watch()
        run = run_stage(
            predict.main,
            ["--weights", self.path, "--images", self.sandbox.inputs / "a.png", "--output",
             self.sandbox.output, "data.shortest_side_pixels=32"],
        )  # fmt: skip
        verdict = self.sandbox.judge(run, [self.path.name], _opens(self.path))
        if verdict.outcome == RIGHT and not (self.sandbox.output / "panoptic.json").is_file():
            return Verdict("wrong", verdict.passed_header, "no result")
        return verdict


def _opens(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt"):
            return True
    except Exception:
        return False


class Pickles:
    """Weights of other programs: torch.save new and old, zoo pickles, snapshots, metadata."""

    name = "pickles and tars"

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        tensors = {"a.weight": torch.arange(24.0).reshape(2, 3, 4), "b": torch.ones(5).half()}
        arrays = {name: tensor.float().numpy() for name, tensor in tensors.items()}
        snapshot = {"config": "", "state_dict": {name: dict(tensors) for name in _MODULES}}
        classes = {"meta": {"categories": ["road", "car"], "palette": [[1, 2, 3], [4, 5, 6]],
                            "original_ids": [7, 26], "num_stuff": 1}}  # fmt: skip
        self.jobs: list[tuple[str, bytes, Callable[[Path], Any], bool]] = [
            ("a.pth", _saved(tensors), read_tensors, True),
            ("b.pth", _saved({"model": tensors, "iteration": 5}), read_zoo_file, True),
            ("old.pth", _saved(tensors, zipped=False), read_tensors, False),
            ("c.tar", _saved(snapshot), read_snapshot, True),
            ("zoo.pkl", pickle.dumps({"model": arrays}, protocol=2), read_zoo_file, False),
            ("metadata.bin", msgpack.packb(classes), read_classes, False),
        ]

    def case(self, random: Random) -> Verdict:
        name, original, read, is_zip = random.choice(self.jobs)
        if random.random() < 0.1 and name != "metadata.bin":
            data = self._with_code(is_zip, random)
        elif is_zip:
            data = damage_zip(original, random, damage_pickle)
        elif name == "metadata.bin":
            data = damage_bytes(original, random)
        else:
            data = damage_pickle(original, random)
        path = self.sandbox.inputs / name
        path.write_bytes(data)
        try:
            self.sandbox.watch()
            run = _call(read, path)
            return self.sandbox.judge(run, [name], data[:2] == original[:2])
        finally:
            path.unlink()

    def _with_code(self, is_zip: bool, random: Random) -> bytes:
        """A pickle that would make a folder when it is read."""
        function = random.choice((os.mkdir, os.system, Path.touch, eval, exec))
        argument: Any = str(self.sandbox.marker)
        if function is os.system:
            argument = f"mkdir {argument}"
        elif function in (eval, exec):
            argument = f"__import__('os').mkdir({argument!r})"
        elif function is Path.touch:
            argument = self.sandbox.marker

        class Payload:
            def __reduce__(self) -> tuple[Any, ...]:
                return function, (argument,)

        content = random.choice((Payload(), {"a": Payload()}, {"model": {"b": [Payload()]}}))
        return _saved(content) if is_zip else pickle.dumps(content, protocol=2)


_MODULES = ("body", "rpn_head", "roi_head", "sem_head")


def _saved(content: Any, *, zipped: bool = True) -> bytes:
    written = io.BytesIO()
    torch.save(content, written, _use_new_zipfile_serialization=zipped)
    return written.getvalue()


def _call(read: Callable[[Path], Any], path: Path) -> StageRun:
    """A reader as if a stage had called it."""

    def main(_: Any) -> int:
        try:
            content = read(path)
        except (OSError, ValueError) as error:
            print(f"error: {error}")
            return 1
        tensors = content.values() if isinstance(content, Mapping) else ()
        assert all(isinstance(value, torch.Tensor) for value in tensors)
        return 0

    return run_stage(main, [])


class InitialWeights:
    """Weights that a training starts from."""

    name = "initial weights"

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        data = sandbox.inputs / "data"
        write_tiny_data(data, num_train=4, num_val=1)
        self.config = sandbox.inputs / "config.yaml"
        self.config.write_text(yaml.safe_dump(tiny_run_values(data)))
        with patch.object(Trainer, "run", lambda trainer: _save(trainer, self.weights)):
            run = run_stage(train.main, self._arguments())
        assert run.code == 0, run
        self.original = self.weights.read_bytes()

    @property
    def weights(self) -> Path:
        return self.sandbox.inputs / "start.pth"

    def _arguments(self, *more: str) -> list[Any]:
        return ["--config", self.config, "--output", self.sandbox.output, *more]

    def case(self, random: Random) -> Verdict:
        self.weights.write_bytes(damage_zip(self.original, random, damage_pickle))
        try:
            self.sandbox.watch()
            with patch.object(Trainer, "run", lambda _: {}):
                run = run_stage(train.main, self._arguments(f"initial_weights.file={self.weights}"))
            return self.sandbox.judge(run, ["start.pth"], self.weights.read_bytes()[:2] == b"PK")
        finally:
            self.weights.unlink()


def _save(trainer: Trainer, path: Path) -> dict[str, Any]:
    torch.save(trainer.network.state_dict(), path)
    return {}


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
        data = damage_json(data, random)
    elif path.suffix == ".jsonl":
        lines = data.splitlines() or [b"{}"]
        place = random.randrange(len(lines))
        lines[place] = damage_json(lines[place], random)
        data = b"\n".join(lines)
    elif path.suffix == ".yaml":
        data = damage_text(data, random, ("steps: 7", "a: b", "- x", "{", "\t", "lr: nan"))
    elif path.suffix == ".safetensors":
        data = damage_safetensors(data, random)
    elif path.suffix == ".pt":
        data = damage_zip(data, random, damage_pickle)
    else:
        data = damage_bytes(data, random)
    if len(data) == 0 and random.random() < 0.5:
        data = json.dumps({}).encode()
    path.unlink()  # Other names of the same file stay sound.
    path.write_bytes(data)
