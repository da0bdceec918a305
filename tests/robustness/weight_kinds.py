"""Cases of weights."""

from __future__ import annotations

import io
import os
import pickle
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

from seamless_pr.pipelines import predict, train
from seamless_pr.training.trainer import Trainer
from seamless_pr.weights.detectron2 import read_zoo_file
from seamless_pr.weights.seamseg_snapshot import read_classes, read_snapshot
from seamless_pr.weights.tensor_files import read_tensors
from tests.robustness.mutators import (
    damage_bytes,
    damage_pickle,
    damage_safetensors,
    damage_zip,
)
from tests.robustness.sandbox import RIGHT, Sandbox, StageRun, Verdict, run_stage
from tests.robustness.structure_mutators import lie_in_safetensors, repack_zip
from tests.support.panoptic_files import write_png
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
        damage = random.choice((damage_safetensors, damage_safetensors, lie_in_safetensors))
        self.path.write_bytes(damage(self.original, random))
        self.sandbox.watch()
        run = run_stage(
            predict.main,
            ["--weights", self.path, "--images", self.sandbox.inputs / "a.png", "--output",
             self.sandbox.output],
        )  # fmt: skip
        # Sizes of the config make the image too large, which is named then.
        verdict = self.sandbox.judge(run, [self.path.name, "a.png: "], _opens(self.path))
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
            data = damaged_archive(original, random)
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


def damaged_archive(data: bytes, random: Random) -> bytes:
    if random.random() < 0.3:
        return repack_zip(data, random)
    return damage_zip(data, random, damage_pickle)


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
        self.weights.write_bytes(damaged_archive(self.original, random))
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
