"""Files of version 0.1 in the layout of today: weights with their config, and YAML configs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path

from seamless_pr.build.configs import config_from_dict, known_kinds
from seamless_pr.config.legacy import (
    OldKinds,
    converted,
    is_old,
    kinds_of_new,
    laid_over,
    old_kinds,
)
from seamless_pr.config.load import config_to_dict, merge_sources, read_sources
from seamless_pr.config.merge import Source
from seamless_pr.config.words import dump_yaml
from seamless_pr.files import write_whole
from seamless_pr.input_files import read_text
from seamless_pr.training.checkpoints import find_weights, load_weights, save_weights
from seamless_pr.weights.legacy import has_old_names, new_name


def update_weights(source: Path, output: Path) -> str:
    """Weights of version 0.1 -> the same weights under today's names, with today's config.

    Args:
        source: a .safetensors file, or the folder of a run (then its best weights).
        output: .safetensors to write.

    Returns:
        A report.

    Raises:
        FileNotFoundError, ValueError: no weights, or none of version 0.1; the message names them.
    """
    path = find_weights(source)
    weights, metadata = load_weights(path)
    config = metadata.get("config")
    if not isinstance(config, Mapping) or not is_old(config) or not has_old_names(weights):
        raise ValueError(f"{path} is no weights file of version 0.1; there is nothing to update")
    renders = old_kinds(config, OldKinds()).renders_masks
    renamed = {new_name(name, renders_masks=renders): tensor for name, tensor in weights.items()}
    resolved = config_from_dict(converted(config), f"the config in {path}")
    save_weights(output, renamed, {**metadata, "config": config_to_dict(resolved)})
    return f"{path} -> {output}: {len(renamed)} tensors and their config"


def update_config(source: Path, output: Path) -> str:
    """A YAML config of version 0.1 -> one of today's layout; the comments at its top stay.

    A base of version 0.1 is taken into the file; a base of today's layout stays its base.

    Args:
        source: the YAML.
        output: YAML to write, in the same folder if it has a base.

    Returns:
        A report.

    Raises:
        FileNotFoundError, ValueError: no such file, none of version 0.1, or with keys that version
            0.1 did not have; the message names them.
    """
    *bases, own = read_sources(source)
    if not any(is_old(layer.values) for layer in (*bases, own)):
        raise ValueError(f"{source} is no config of version 0.1; there is nothing to update")
    if any(is_old(base.values) for base in bases):
        bases, values = [], converted(laid_over(layer.values for layer in (*bases, own)))
    else:
        kinds = kinds_of_new(laid_over(base.values for base in bases)) if bases else None
        values = converted(own.values, kinds)
    merge_sources([*bases, Source(str(source), values)], str(source), known_kinds())
    if bases:
        names = [str(Path(base.name).relative_to(source.parent)) for base in bases]
        values = {"base": names, **values}
    write_whole(output, (_header(source) + dump_yaml(values)).encode())
    return f"{source} -> {output}"


def _header(path: Path) -> str:
    """The comments at the top of a file."""
    lines = read_text(path).splitlines()
    header = list(takewhile(lambda line: line.startswith("#"), lines))
    return "\n".join([*header, "", ""]) if header else ""
