"""Reading of weights files of other programs without running code that they may hold."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from seamless_pr.input_files import refuse_bomb
from seamless_pr.ops.finite import names_not_finite
from seamless_pr.structures.faults import first_line, quoted
from seamless_pr.weights.array_pickles import StoredDtype, stored_scalar

# Layers may share their weights; nothing has each of its numbers under so many names.
MAX_SHARING = 16
# Under these keys training programs keep the weights beside the rest of their state.
_NESTING_KEYS = ("state_dict", "model")
# Training checkpoints of these programs hold objects of their own, such as histories of losses.
# They are passed over: nothing of their classes is imported or called.
_PASSED_OVER = ("mmengine", "mmcv", "mmdet")
# What the histories are made of besides: arrays, and functions of their class.
_PARTS_OF_HISTORIES = (
    "builtins.getattr",
    "numpy.ndarray",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
)


def read_pickled(path: str | Path) -> Any:
    """The content of a file of `torch.save`; only tensors, numbers, texts and containers.

    Objects of mmengine, mmcv and mmdetection become `PassedOver`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, not such a file, with objects that could run code, or with content
            that is far larger than the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist")
    refuse_bomb(path)
    try:
        with (
            torch.serialization.safe_globals([*_numpy_numbers(), *_passed_over(path)]),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # They name no file.
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises half a dozen unrelated types on a damaged file.
        raise ValueError(
            f"{path} cannot be read as weights ({type(error).__name__}: {first_line(error)}); "
            "expected a file of torch.save with tensors, numbers and texts; copy it again from its "
            "source"
        ) from error


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Name -> tensor of a .safetensors file or a file of `torch.save`.

    A mapping under "state_dict" or "model" is taken if the file has one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, or without tensors; the message names the file.
    """
    path = Path(path)
    if path.suffix == ".safetensors" and path.is_file():
        try:
            content = load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path} is not a complete safetensors file: {error}; copy it again"
            ) from error
        return plain_tensors(content, path)
    return tensors_of(read_pickled(path), path)


def tensors_of(content: Any, path: str | Path) -> dict[str, Tensor]:
    """`read_tensors` for what `read_pickled` has returned."""
    for key in _NESTING_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} must hold names and tensors; got a {type(content).__name__}")
    return plain_tensors(content, path)


def plain_tensors(content: Mapping[Any, Any], path: str | Path) -> dict[str, Tensor]:
    """The names and tensors of a file, if a network can take each of them.

    Raises:
        ValueError: none, something else, NaN or infinity, or tensors that are sparse, complex or
            larger than the numbers that the file holds for them; the message names the file.
    """
    others = [
        quoted(str(name))
        for name, value in content.items()
        if not isinstance(name, str) or not _is_plain(value)
    ]
    if others or not content:
        raise ValueError(
            f"{path} must hold names and tensors; got {len(content)} entries, of which "
            f"{', '.join(others[:5]) or 'none'} hold something else"
        )
    if blown := [name for name, value in content.items() if _is_larger_than_its_data(value)]:
        raise ValueError(
            f"{path}: the tensors {', '.join(blown[:5])} are larger than the numbers that the file "
            "holds for them; save them as contiguous ones"
        )
    # By their place in memory: of one array that a pickle names often each name has a tensor.
    storages = (tensor.untyped_storage() for tensor in content.values())
    held = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    if sum(tensor.nbytes for tensor in content.values()) > MAX_SHARING * held:
        raise ValueError(
            f"{path} gives the same numbers to many of its {len(content)} tensors; weights share "
            "few: copy it again from its source"
        )
    if bad := names_not_finite(content):
        raise ValueError(
            f"{path} holds NaN or infinity in {len(bad)} of {len(content)} tensors "
            f"({', '.join(bad[:3])}): its training had failed; take another file"
        )
    return dict(content)


def stored_config(content: Any) -> str:
    """The configuration in a checkpoint of mmdetection, as text; "" if there is none."""
    meta = content.get("meta") if isinstance(content, Mapping) else None
    texts = [meta.get(key) for key in ("cfg", "config")] if isinstance(meta, Mapping) else []
    return next((text for text in texts if isinstance(text, str)), "")


class PassedOver:
    """Stands for an object of another program; takes what a pickle gives it and keeps nothing."""

    def __new__(cls, *_: object) -> PassedOver:
        return super().__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...


def _passed_over(path: Path) -> list[tuple[type[PassedOver], str]]:
    """`PassedOver` under the names of what a checkpoint of those programs holds of theirs."""
    if not zipfile.is_zipfile(path):
        return []
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    theirs = [name for name in names if name.split(".")[0] in _PASSED_OVER]
    if not theirs:
        return []
    return [(PassedOver, name) for name in (*theirs, *_PARTS_OF_HISTORIES)]


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor whose numbers a parameter can take."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_nested:
        return False
    if value.is_meta or value.is_quantized or value.is_complex():
        return False
    # Floats of 8 bits and fewer stand for numbers only with factors that are kept elsewhere.
    return not value.is_floating_point() or value.element_size() > 1


def _is_larger_than_its_data(value: Tensor) -> bool:
    """Whether a tensor repeats its numbers: a few bytes may pass for any number of gigabytes."""
    return value.numel() * value.element_size() > value.untyped_storage().nbytes()


def _numpy_numbers() -> list[Any]:
    """What a pickled NumPy number is made of: old checkpoints hold their best score as one."""
    return [
        (StoredDtype, "numpy.dtype"),
        (stored_scalar, "numpy.core.multiarray.scalar"),
        (stored_scalar, "numpy._core.multiarray.scalar"),
    ]
