"""Checkpoints on disk: weights as safetensors with metadata, and what is needed to go on training.

A checkpoint is a folder `step_00001000/` with `weights.safetensors` and `state.pt`. It appears
whole under its name or not at all.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from seamless_pr.files import (
    link_whole,
    naming,
    remove_folder,
    remove_partials,
    sync_folder,
    writing,
    writing_folder,
)
from seamless_pr.input_files import refuse_bomb
from seamless_pr.ops.finite import names_not_finite

WEIGHTS_NAME = "weights.safetensors"
STATE_NAME = "state.pt"
BEST_NAME, LAST_NAME = "best.safetensors", "last.safetensors"
# A safetensors file starts with the length of its header, which is a multiple of this too.
_LENGTH_BYTES = 8
_STEP_FOLDER = re.compile(r"step_\d{8}")


def save_weights(
    path: str | Path, weights: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> None:
    """Writes tensors and metadata to one file, whole or not at all; equal ones give equal bytes.

    Args:
        path: the file; an older one of that name is replaced.
        weights: name -> tensor, for example a state dict.
        metadata: name -> anything that JSON can hold (config, label space, versions).
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    texts = {name: json.dumps(value) for name, value in metadata.items()}
    # Not by save_file: that one hides the file from other users of a shared folder (mode 0600).
    content = memoryview(save(tensors, metadata=texts))
    end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    header = json.loads(bytes(content[_LENGTH_BYTES:end]))
    if "__metadata__" in header:
        # The library writes them in an order of chance.
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)
    with writing(path) as file:
        file.write(len(text).to_bytes(_LENGTH_BYTES, "little"))
        file.write(text)
        file.write(content[end:])


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and metadata of a file of `save_weights`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is truncated, not of this format, or holds NaN or infinity.
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
    if bad := names_not_finite(tensors):
        raise ValueError(
            f"{path} holds NaN or infinity in {len(bad)} of {len(tensors)} tensors "
            f"({', '.join(bad[:3])}): its training had failed; use another checkpoint"
        )
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
    names = (BEST_NAME, LAST_NAME, WEIGHTS_NAME)
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
    predict with. A checkpoint counts from the moment its step folder has its name; everything else
    follows from it in `settle`, so a kill at any moment of a save loses nothing.
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

        Raises:
            WriteError: the disk is full or read-only; the older checkpoint is still there.
        """
        target = self.folder / f"step_{step:08d}"
        with naming(target):
            # Without its parents: a run folder that was removed must not come back without config.
            self.folder.mkdir(exist_ok=True)
        with writing_folder(target) as folder:
            save_weights(folder / WEIGHTS_NAME, weights, {**metadata, "step": step})
            with writing(folder / STATE_NAME) as file:
                torch.save(dict(state), file)
        self.settle(target, is_best)
        return target

    def settle(self, checkpoint: Path, is_best: bool) -> None:
        """Brings everything beside a checkpoint in line with it; harmless to repeat.

        Called after a save, and before a run goes on: a kill may have come between the two.

        Args:
            checkpoint: the step folder that the run goes on from.
            is_best: its weights are the best so far.
        """
        if is_best:
            link_whole(checkpoint / WEIGHTS_NAME, self.folder / BEST_NAME)
        link_whole(checkpoint / WEIGHTS_NAME, self.folder / LAST_NAME)
        with naming(self.folder):
            sync_folder(self.folder)
        steps = self._steps()
        end = steps.index(checkpoint) + 1
        for other in (*steps[: max(0, end - self.num_kept)], *steps[end:]):
            remove_folder(other)
        remove_partials(self.folder)

    def latest(self) -> Path | None:
        """Folder of the checkpoint with the most steps; None when there is none."""
        steps = self._steps()
        return steps[-1] if steps else None

    def publish(self, path: Path) -> None:
        """Gives the best weights, or the last ones where none were judged, another name."""
        best, last = self.folder / BEST_NAME, self.folder / LAST_NAME
        link_whole(best if best.exists() else last, path)

    def _steps(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _STEP_FOLDER.fullmatch(path.name))


def load_checkpoint(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and training state of one checkpoint folder.

    Raises:
        ValueError: a file is missing, truncated or unreadable; the message names it and the fix.
    """
    folder = Path(folder)
    fix = f"remove the folder {folder} to go on from an older checkpoint, or to start the run again"
    state_path = folder / STATE_NAME
    try:
        weights, _ = load_weights(folder / WEIGHTS_NAME)
        refuse_bomb(state_path)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"{error}; {fix}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # They name no file.
            state = torch.load(state_path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises half a dozen unrelated types on a damaged file.
        raise ValueError(f"{state_path} cannot be read ({type(error).__name__}); {fix}") from error
    if not isinstance(state, dict):
        raise ValueError(f"{state_path} holds no state, but a {type(state).__name__}; {fix}")
    return weights, state


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text  # Metadata of other programs.
