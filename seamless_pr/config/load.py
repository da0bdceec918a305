"""Reading of YAML configs: fragments, overrides, and errors that name the file and the key.

Values are taken as written: nothing is filled in from the environment or from other keys. The kinds
of groups come in as an argument, because what they are built of lies above this room;
`seamless_pr.build.configs` has the same functions for the networks of this package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from seamless_pr.config.keys import Kinds
from seamless_pr.config.legacy import check_layout
from seamless_pr.config.merge import Merger, Source, nested
from seamless_pr.config.schema import Config
from seamless_pr.config.values import shown
from seamless_pr.config.words import Word, dump_yaml, read_yaml
from seamless_pr.files import path_fault, write_whole
from seamless_pr.structures.faults import quoted


def load_config(path: str | Path, overrides: Sequence[str] = (), *, kinds: Kinds) -> Config:
    """Reads a YAML config.

    A config may name other files as `base:` (one or a list, relative to its own folder), over which
    it is laid; the later of them win, and they have no base themselves. Overrides
    (`optimizer.lr=0.02`) come last.

    Args:
        path: the file.
        overrides: `key=value` each; the value is typed by the schema.
        kinds: place -> kind -> class of its settings.

    Raises:
        FileNotFoundError: the file or its base does not exist.
        ValueError: a key that does not exist, a value of the wrong type or range, or a file of an
            older layout; the message names the key, the file or override it stands in, and for a
            misspelt key the nearest valid one.
    """
    path = Path(path)
    return merge_sources([*read_sources(path), *_override_sources(overrides)], str(path), kinds)


def config_from_dict(
    values: Mapping[str, Any], source: str, overrides: Sequence[str] = (), *, kinds: Kinds
) -> Config:
    """The config of plain containers, as `config_to_dict` makes them.

    Args:
        values: nested mappings with the keys of the schema.
        source: where they come from, for messages.
        overrides: changes that come last, as in `load_config`.
        kinds: as in `load_config`.

    Raises:
        ValueError: as `load_config`.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{source} must be a mapping of keys; got a {type(values).__name__}")
    return merge_sources([Source(source, values), *_override_sources(overrides)], source, kinds)


def config_to_dict(config: Any) -> dict[str, Any]:
    """Plain containers, for JSON and YAML; every value is given, also the defaults."""
    values = _plain(config)
    assert isinstance(values, dict)
    return values


def save_config(config: Config, path: str | Path) -> None:
    """Writes the resolved config, whole or not at all; `load_config` reads it back."""
    write_whole(Path(path), dump_yaml(config_to_dict(config)).encode())


def config_differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ -> (old value, new value); None where a side has no value."""
    old_leaves, new_leaves = flatten(config_to_dict(old)), flatten(config_to_dict(new))
    keys = [*old_leaves, *(key for key in new_leaves if key not in old_leaves)]
    pairs = {key: (old_leaves.get(key), new_leaves.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def read_sources(path: Path) -> list[Source]:
    """A config file after the files that it names as `base:`, as they are written.

    Raises:
        FileNotFoundError, ValueError: as `load_config`, for everything but keys and values.
    """
    values = read_yaml(path)
    sources = []
    for name in _base_names(values.pop("base", None), path):
        base_path = path.parent / name
        base_values = read_yaml(base_path)
        if "base" in base_values:
            raise ValueError(
                f"{base_path} is a base of {path} and names a base itself; only one level is "
                f"allowed: let {path.name} name it too, as 'base: [FIRST, SECOND]'"
            )
        sources.append(Source(str(base_path), base_values))
    return [*sources, Source(str(path), values)]


def merge_sources(sources: Sequence[Source], named: str, kinds: Kinds) -> Config:
    """The config of sources of which later ones win; `named` is the config in messages.

    Raises:
        ValueError: as `load_config`.
    """
    merger = Merger(Config, kinds)
    for source in sources:
        if not source.adds:
            check_layout(source.values, source.name)
        merger.add(source)
    config = merger.build(named)
    assert isinstance(config, Config)
    return config


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings -> dotted key -> leaf; an empty mapping is a leaf."""
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _base_names(base: Any, path: Path) -> list[str]:
    names = [] if base is None else base if isinstance(base, list) else [base]
    for name in names:
        if not isinstance(name, str) or path_fault(path.parent / name):
            raise ValueError(
                f"{path}: 'base' must be the name of a file, or a list of them; got {shown(name)}"
            )
    return [str(name) for name in names]


def _override_sources(overrides: Iterable[str]) -> list[Source]:
    sources = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            raise ValueError(
                f"override '{quoted(override)}' must read key=value, for example optimizer.lr=0.02"
            )
        values = nested(key.strip(), Word(value))
        sources.append(Source(f"override '{quoted(override)}'", values, adds=True))
    return sources


def _plain(value: Any) -> Any:
    """Settings and tuples as mappings and lists, which YAML and JSON both know."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(entry) for entry in value]
    return value
