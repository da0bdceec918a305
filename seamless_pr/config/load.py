"""Reading of YAML configs: one level of `base:`, overrides, and errors that name the key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seamless_pr.config.schema import Config
from seamless_pr.config.validate import validate
from seamless_pr.files import write_whole

# OmegaConf raises TypeError itself for a mapping where a list belongs.
_MERGE_ERRORS = (OmegaConfBaseException, TypeError)
# Free-form mappings: a config that names one of them replaces the whole mapping of its base.
_REPLACED_AS_A_WHOLE = ("loss_weights", "model.backbone.options", "optimizer.lr_multipliers")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a YAML config.

    A config may name one other file as `base:` (relative to its own folder), whose values it
    changes; that file has no base itself. Overrides (`optimizer.lr=0.02`) come last.

    Raises:
        FileNotFoundError: the file or its base does not exist.
        ValueError: a key that does not exist, a value of the wrong type or range; the message names
            the key, the file or override it stands in, and for a misspelt key the nearest valid
            one.
    """
    path = Path(path)
    values = _read_yaml(path)
    sources = [(str(path), values)]
    if (base := values.pop("base", None)) is not None:
        base_path = path.parent / str(base)
        base_values = _read_yaml(base_path)
        if "base" in base_values:
            raise ValueError(
                f"{base_path} is the base of {path} and names a base itself; only one level is "
                f"allowed: let {path.name} name '{base_values['base']}' or copy its values"
            )
        sources.insert(0, (str(base_path), base_values))
    sources += [(f"override '{override}'", _parse_override(override)) for override in overrides]
    return _merge(sources, named=str(path))


def config_from_dict(
    values: Mapping[str, Any], source: str, overrides: Sequence[str] = ()
) -> Config:
    """The config of plain containers, as `config_to_dict` makes them.

    Args:
        values: nested mappings with the keys of the schema.
        source: where they come from, for messages.
        overrides: changes that come last, as in `load_config`.

    Raises:
        ValueError: as `load_config`.
    """
    sources = [(source, dict(values))]
    sources += [(f"override '{override}'", _parse_override(override)) for override in overrides]
    return _merge(sources, named=source)


def config_to_dict(config: Config) -> dict[str, Any]:
    """Plain containers, for JSON and YAML; every value is given, also the defaults."""
    values = OmegaConf.to_container(OmegaConf.structured(config))
    assert isinstance(values, dict)
    return _with_lists(values)


def save_config(config: Config, path: str | Path) -> None:
    """Writes the resolved config, whole or not at all; `load_config` reads it back."""
    text = yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True)
    write_whole(path, text.encode())


def config_differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ -> (old value, new value)."""
    old_leaves = _flatten(config_to_dict(old))
    new_leaves = _flatten(config_to_dict(new))
    keys = [*old_leaves, *(key for key in new_leaves if key not in old_leaves)]
    pairs = {key: (old_leaves.get(key), new_leaves.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"config {path} does not exist; give the path of a YAML file")
    try:
        # OmegaConf's loader reads 1e-4 as a number and refuses a key that stands twice.
        loaded = OmegaConf.load(path)
        values = OmegaConf.to_container(loaded)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(
            f"{path} must hold 'key: value' lines at the top; got a {type(values).__name__}"
        )
    return {str(key): value for key, value in values.items()}


def _parse_override(override: str) -> dict[str, Any]:
    key, equals, _ = override.partition("=")
    if not equals or not key.strip():
        raise ValueError(
            f"override '{override}' must read key=value, for example optimizer.lr=0.02"
        )
    values = OmegaConf.to_container(OmegaConf.from_dotlist([override]))
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _merge(sources: Sequence[tuple[str, dict[str, Any]]], named: str) -> Config:
    tree = OmegaConf.structured(Config)
    for source, values in sources:
        _check_keys(values, Config, source)
        if not source.startswith("override"):
            _clear_replaced(tree, values)
        tree = _merge_one(tree, values, source)
    try:
        missing = sorted(OmegaConf.missing_keys(tree))
        if missing:
            raise ValueError(f"{named}: {', '.join(missing)} must be given")
        config = OmegaConf.to_object(tree)
    except OmegaConfBaseException as error:  # A reference to a key that is not there.
        raise ValueError(f"{named}: '{error.full_key}' cannot be read: {_first(error)}") from error
    assert isinstance(config, Config)
    validate(config, named)
    return config


def _check_keys(values: Mapping[str, Any], node: Any, source: str, prefix: str = "") -> None:
    """Every key must be a field of the dataclass at its place."""
    hints = get_type_hints(node)
    names = [field.name for field in fields(node)]
    for key, value in values.items():
        if key not in names:
            raise ValueError(
                f"{source}: unknown key '{prefix}{key}'; {_hint(str(key), names, prefix)}"
            )
        if is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise ValueError(
                    f"{source}: '{prefix}{key}' is a group of settings; got {value!r}; "
                    f"give its keys: {', '.join(field.name for field in fields(hints[key]))}"
                )
            _check_keys(value, hints[key], source, f"{prefix}{key}.")


def _hint(key: str, names: Sequence[str], prefix: str) -> str:
    """The nearest key of the group, or the same key in another group, or all keys of the group."""
    if nearest := difflib.get_close_matches(key, names, n=1, cutoff=0.6):
        return f"did you mean '{prefix}{nearest[0]}'?"
    leaves = _flatten(OmegaConf.to_container(OmegaConf.structured(Config)))  # type: ignore[arg-type]
    if same := [leaf for leaf in leaves if leaf.rpartition(".")[2] == key]:
        return f"did you mean '{same[0]}'?"
    return f"valid: {', '.join(names)}"


def _clear_replaced(tree: DictConfig, values: Mapping[str, Any]) -> None:
    given = OmegaConf.create(dict(values))
    for key in _REPLACED_AS_A_WHOLE:
        if OmegaConf.select(given, key) is not None:
            node = OmegaConf.select(tree, key)
            OmegaConf.set_readonly(node, False)
            for name in list(node):
                del node[name]


def _merge_one(tree: DictConfig, values: Mapping[str, Any], source: str) -> DictConfig:
    """Merges all at once; some joint errors name no key, so the leaf at fault is then searched."""
    try:
        return OmegaConf.merge(tree, values)  # type: ignore[return-value]
    except _MERGE_ERRORS as joint_error:
        for key, value in _flatten(values).items():
            try:
                leaf = OmegaConf.create({})
                OmegaConf.update(leaf, key, value, force_add=True)
                tree = OmegaConf.merge(tree, leaf)  # type: ignore[assignment]
            except _MERGE_ERRORS as error:
                raise ValueError(
                    f"{source}: '{key}' cannot be {value!r}: {_first(error)}"
                ) from error
        raise ValueError(f"{source}: {_first(joint_error)}") from joint_error


def _first(error: Exception) -> str:
    return str(error).splitlines()[0]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings -> dotted key -> leaf; an empty mapping is a leaf."""
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            leaves |= _flatten(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _with_lists(values: Any) -> Any:
    """Tuples become lists, which YAML and JSON both know."""
    if isinstance(values, Mapping):
        return {key: _with_lists(value) for key, value in values.items()}
    if isinstance(values, (tuple, list)):
        return [_with_lists(value) for value in values]
    return values
