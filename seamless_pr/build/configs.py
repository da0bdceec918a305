"""Reading of configs with the kinds that this package can build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seamless_pr.build.networks import KINDS
from seamless_pr.config import load
from seamless_pr.config.keys import Kinds
from seamless_pr.config.schema import Config
from seamless_pr.training.optimizer import OPTIMIZERS
from seamless_pr.training.schedule import SCHEDULES


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a YAML config; see `seamless_pr.config.load.load_config`."""
    return load.load_config(path, overrides, kinds=known_kinds())


def config_from_dict(
    values: Mapping[str, Any], source: str, overrides: Sequence[str] = ()
) -> Config:
    """The config of plain containers; see `seamless_pr.config.load.config_from_dict`."""
    return load.config_from_dict(values, source, overrides, kinds=known_kinds())


def known_kinds() -> Kinds:
    """Place -> kind -> class of its settings, of everything that can be built now."""
    networks = {
        place: {kind: entry.settings for kind, entry in entries.items()}
        for place, entries in KINDS.items()
    }
    return {**networks, "optimizers": _settings(OPTIMIZERS), "schedules": _settings(SCHEDULES)}


def _settings(entries: Mapping[str, tuple[type, Any]]) -> dict[str, type]:
    return {kind: settings for kind, (settings, _) in entries.items()}
