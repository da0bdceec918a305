"""Files of the released Seamless code: snapshot, config.ini and metadata.bin, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import torch
from torch import Tensor

from seamless_pr.files import writing
from seamless_pr.input_files import read_regular, read_text
from seamless_pr.weights.tensor_files import plain_tensors, read_pickled

# The snapshot keeps one state dict for each of these parts of its network.
MODULES = ("body", "rpn_head", "roi_head", "sem_head")
CONFIG_NAME, METADATA_NAME = "config.ini", "metadata.bin"


@dataclass(frozen=True)
class Snapshot:
    """A training snapshot.

    Attributes:
        weights: names of the whole network ("body.fpn...", "rpn_head...") and tensors.
        config: text of the INI file that the network was trained with; empty if unknown.
    """

    weights: dict[str, Tensor]
    config: str


@dataclass(frozen=True)
class SnapshotClasses:
    """Classes of the data that a network was trained on, stuff first.

    Attributes:
        names: in the order of the network's outputs.
        colors: RGB in 0..255.
        original_ids: numbers of the dataset, as its converter wrote them.
        num_stuff: the first so many are stuff.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    original_ids: tuple[int, ...]
    num_stuff: int


def find_snapshot(path: str | Path) -> Path:
    """The snapshot that a path means: itself, or the only .tar file of a folder.

    Raises:
        FileNotFoundError: no such path, or a folder without a .tar file.
        ValueError: a folder with several.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no snapshot at {path}; give a .tar file or the folder with it")
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.tar"))
    if not found:
        raise FileNotFoundError(f"no .tar file in {path}; unpack the released archive there")
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise ValueError(f"several snapshots in {path} ({names}); give one of them")
    return found[0]


def read_snapshot(path: str | Path) -> Snapshot:
    """Reads a snapshot; a config.ini beside it stands in for a config that it lacks.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a snapshot of this kind; the message names what is missing.
    """
    path = Path(path)
    content = read_pickled(path)
    parts = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(parts, Mapping) or not all(
        isinstance(parts.get(module), Mapping) for module in MODULES
    ):
        found = sorted(map(str, parts if isinstance(parts, Mapping) else []))
        raise ValueError(
            f"{path} is no seamseg snapshot: its 'state_dict' must hold {', '.join(MODULES)}; "
            f"got {', '.join(found[:8]) or 'none of them'}"
        )
    weights = {
        f"{module}.{name}": tensor for module in MODULES for name, tensor in parts[module].items()
    }
    weights = plain_tensors(weights, path)
    config = content.get("config")
    beside = path.parent / CONFIG_NAME
    if not config and beside.is_file():
        config = read_text(beside)
    return Snapshot(weights, config if isinstance(config, str) else "")


def write_snapshot(path: str | Path, snapshot: Snapshot) -> None:
    """Writes a snapshot that the released code can load, whole or not at all.

    Optimiser and meters are left empty.
    """
    parts: dict[str, Any] = {module: {} for module in MODULES}
    for name, tensor in snapshot.weights.items():
        module, _, parameter = name.partition(".")
        if module not in parts:
            raise ValueError(f"'{name}' belongs to none of {', '.join(MODULES)}")
        parts[module][parameter] = tensor.detach().cpu().contiguous()
    content = {
        "config": snapshot.config,
        "state_dict": {**parts, "optimizer": {}},
        "training_meta": {"epoch": 0, "last_score": 0.0, "best_score": 0.0, "global_step": 0},
    }
    with writing(path) as file:
        torch.save(content, file)


def read_classes(path: str | Path) -> SnapshotClasses:
    """Reads names and colours of the classes from a metadata.bin.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"metadata file {path} does not exist")
    try:
        meta = msgpack.unpackb(read_regular(path))["meta"]
        classes = SnapshotClasses(
            names=tuple(map(str, meta["categories"])),
            colors=tuple((int(r), int(g), int(b)) for r, g, b in meta["palette"]),
            original_ids=tuple(map(int, meta["original_ids"])),
            num_stuff=int(meta["num_stuff"]),
        )
        if not len(classes.names) == len(classes.colors) == len(classes.original_ids):
            raise ValueError("categories, palette and original_ids are not of one length")
        if any(not 0 <= channel <= 255 for color in classes.colors for channel in color):
            raise ValueError("a colour of the palette is not of 0..255")
        return classes
    except (ValueError, TypeError, KeyError, OverflowError, msgpack.UnpackException) as error:
        raise ValueError(
            f"{path} is not the metadata.bin of a seamseg dataset ({type(error).__name__}: {error})"
        ) from error
