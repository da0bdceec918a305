"""Checkpoints on disk: weights as safetensors with metadata, and what is needed to go on training.

A checkpoint is a folder `step_00001000/` with `weights.safetensors` and `state.pt`. It appears
whole under its name or not at all.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

WEIGHTS_NAME = "weights.safetensors"
STATE_NAME = "state.pt"
_STEP_FOLDER = re.compile(r"step_(\d{8})$")


def save_weights(
    path: str | Path, weights: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> None:
    """Writes tensors and metadata to one file, whole or not at all.

    Args:
        path: the file; an older one of that name is replaced.
        weights: name -> tensor, for example a state dict.
        metadata: name -> anything that JSON can hold (config, label space, versions).
    """
    path = Path(path)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    texts = {name: json.dumps(value) for name, value in metadata.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # Not by save_file: that one hides the file from other users of a shared folder (mode 0600).
        temporary.write_bytes(save(tensors, metadata=texts))
        _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and metadata of a file of `save_weights`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is truncated or not of this format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = {name: _json_or_text(text) for name, text in texts.items()}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is not a complete safetensors file ({path.stat().st_size} bytes: {error}); "
            "copy it again from its source, or use another checkpoint of the run"
        ) from error
    return tensors, metadata


def find_weights(path: str | Path) -> Path:
    """The weights file that a path means: itself, or the best (else the last) one of a folder.

    Args:
        path: a .safetensors file, the folder of a run, its `checkpoints/` or one of its steps.

    Raises:
        FileNotFoundError: no such path, or a folder without weights.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"no weights at {path}; give a .safetensors file or the folder of a run"
        )
    if not path.is_dir():
        return path
    names = ("best.safetensors", "last.safetensors", WEIGHTS_NAME)
    for folder in (path, path / "checkpoints"):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    raise FileNotFoundError(
        f"no weights in {path} or its checkpoints/ (looked for {', '.join(names)}); give a "
        ".safetensors file, or train the run until its first checkpoint"
    )


class CheckpointFolder:
    """The checkpoints of one run: the newest ones to go on from, and the best weights.

    Besides the step folders it keeps `last.safetensors` and `best.safetensors`, the files to
    predict with.
    """

    def __init__(self, folder: str | Path, num_kept: int = 1) -> None:
        self.folder = Path(folder)
        self.num_kept = num_kept

    def save(
        self,
        step: int,
        weights: Mapping[str, Tensor],
        metadata: Mapping[str, Any],
        state: Mapping[str, Any],
        is_best: bool,
    ) -> Path:
        """Writes the checkpoint of a step and removes older ones beyond `num_kept`.

        Later ones go too: a run that went back to an earlier step computes them anew.

        Args:
            step: optimiser steps done.
            weights, metadata: as in `save_weights`.
            state: tensors, numbers, strings and containers of them (readable with
                weights_only=True).
            is_best: these weights also become `best.safetensors`.

        Returns:
            The folder of the checkpoint.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / f"step_{step:08d}"
        temporary = self.folder / f".step_{step:08d}.{os.getpid()}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            save_weights(temporary / WEIGHTS_NAME, weights, {**metadata, "step": step})
            torch.save(dict(state), temporary / STATE_NAME)
            _sync(temporary / STATE_NAME)
            _sync(temporary)
            shutil.rmtree(target, ignore_errors=True)
            os.replace(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _link(target / WEIGHTS_NAME, self.folder / "last.safetensors")
        if is_best:
            _link(target / WEIGHTS_NAME, self.folder / "best.safetensors")
        _sync(self.folder)
        steps = self._steps()
        end = steps.index(target) + 1
        for other in (*steps[: max(0, end - self.num_kept)], *steps[end:]):
            shutil.rmtree(other)
        return target

    def latest(self) -> Path | None:
        """Folder of the checkpoint with the most steps; None when there is none."""
        steps = self._steps()
        return steps[-1] if steps else None

    def publish(self, path: Path) -> None:
        """Gives the best weights, or the last ones where none were judged, another name."""
        best, last = self.folder / "best.safetensors", self.folder / "last.safetensors"
        _link(best if best.exists() else last, path)

    def _steps(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _STEP_FOLDER.search(path.name))


def load_checkpoint(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and training state of one checkpoint folder.

    Raises:
        ValueError: a file is missing, truncated or unreadable; the message names it and the fix.
    """
    folder = Path(folder)
    fix = f"remove the folder {folder} to go on from an older checkpoint, or to start the run again"
    try:
        weights, _ = load_weights(folder / WEIGHTS_NAME)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"{error}; {fix}") from error
    state_path = folder / STATE_NAME
    try:
        state = torch.load(state_path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises half a dozen unrelated types on a damaged file.
        raise ValueError(f"{state_path} cannot be read ({type(error).__name__}); {fix}") from error
    return weights, state


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text  # Metadata of other programs.


def _link(source: Path, target: Path) -> None:
    """Makes `target` the same file as `source`, or a copy where the disk has no hard links."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
        _sync(temporary)
    os.replace(temporary, target)


def _sync(path: Path) -> None:
    """Forces a file or folder to the disk: a rename before that may leave an empty file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
