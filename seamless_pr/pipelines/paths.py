"""Paths that mean the same on every machine of a cluster."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seamless_pr.datasets.remote_files import is_uri
from seamless_pr.pipelines.ray_support import inside_ray_job, uses_ray

# Keys of a config, at any depth, whose texts are files and folders.
# Weights that somebody else keeps under a name.
NAMES = ("torchvision:", "timm:", "hf:")
PATH_KEYS = ("json", "images", "segments", "weights", "file")


def settle_paths(
    options: argparse.Namespace, inputs: Sequence[str], outputs: Sequence[str]
) -> None:
    """Makes the paths of a run with Ray mean on its workers what they mean here.

    A Ray job runs in a temporary copy of the working directory, which all workers have: relative
    inputs are found there, relative outputs would be lost there. Outside of a job a worker may lack
    the working directory, or have another one: paths become absolute. Without Ray they stay as they
    were typed.

    Args:
        options: of a stage; the paths are changed in place.
        inputs, outputs: names of its options that hold paths; those that it lacks are left out.

    Raises:
        ValueError: a relative output inside a Ray job.
    """
    if inside_ray_job():
        for name in outputs:
            check_output(getattr(options, name, None), f"--{name.replace('_', '-')}")
    elif uses_ray(options):
        for name in (*inputs, *outputs):
            if hasattr(options, name):
                setattr(options, name, absolute(getattr(options, name)))


def check_output(path: str | os.PathLike[str] | None, option: str) -> None:
    """Refuses a result that a Ray job would leave in its copy of the working directory.

    Raises:
        ValueError: a relative path.
    """
    if path is not None and not is_uri(path) and not os.path.isabs(path):
        raise ValueError(
            f"a Ray job runs in a temporary copy of the working directory, where {option} {path} "
            "would be lost; give an absolute path on storage that all nodes share"
        )


def absolute(path: Any) -> Any:
    """A path, a list of paths or None, not relative any more; URIs stay as they are."""
    # Brings PyTorch, which a run that changes no path does without.
    from seamless_pr.integrations.transformers import PREFIX

    if isinstance(path, (list, tuple)):
        return [absolute(each) for each in path]
    if str(path).startswith(PREFIX) and os.path.isdir(source := str(path).removeprefix(PREFIX)):
        # A network of Hugging Face that lies here; the name of a repository is no path.
        return f"{PREFIX}{absolute(source)}"
    if path is None or is_uri(path) or str(path).startswith(NAMES):
        return path
    # Joined and not normalised: `link/..` is where the file system says.
    joined = os.path.join(os.getcwd(), path)
    return Path(joined) if isinstance(path, Path) else joined


def with_absolute_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config in plain containers whose files and folders are absolute."""
    settled: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            settled[key] = with_absolute_paths(value)
        elif isinstance(value, list) and all(isinstance(part, Mapping) for part in value):
            settled[key] = [with_absolute_paths(part) for part in value]
        elif key in PATH_KEYS and isinstance(value, str):
            settled[key] = absolute(value)
        else:
            settled[key] = value
    return settled
