"""Mapillary Vistas v1.2 and v2.0: in the COCO panoptic format already; found and checked.

Two archives are about. The older one holds `<split>/{images,panoptic,...}`, the newer one both
releases as `<split>/images` and `<split>/{v1.2,v2.0}/{panoptic,...}`. Classes are joined by name:
colours repeat, and ids differ between the releases.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

from seamless_pr.datasets import checked_values as checked
from seamless_pr.datasets.folders import listed, require_folder, split_folder, subfolders
from seamless_pr.datasets.label_spaces import load_labels
from seamless_pr.datasets.panoptic_files import PanopticFiles, open_panoptic_files
from seamless_pr.datasets.polygons import read_json_or_fault
from seamless_pr.structures.faults import Fault
from seamless_pr.structures.label_space import Category

VERSIONS = ("1.2", "2.0")
SPLITS = ("training", "validation")
SPLIT_NAMES = {
    "training": ("training", "train"),
    "train": ("training", "train"),
    "validation": ("validation", "val"),
    "val": ("validation", "val"),
}
JSON_NAMES = {"1.2": "panoptic_2018.json", "2.0": "panoptic_2020.json"}
TABLES = {"1.2": "vistas_v1_2", "2.0": "vistas_v2_0"}
NUM_EVALUATED = {"1.2": 65, "2.0": 116}
ARCHIVE = "mapillary-vistas-dataset_public_v1.2.zip or _v2.0.zip"


@dataclass(frozen=True)
class VistasLabel:
    """One entry of `labels` in config.json."""

    name: str
    readable: str
    has_instances: bool
    is_evaluated: bool


def open_vistas(
    root: str | os.PathLike[str], split: str, version: str | None = None
) -> PanopticFiles:
    """A split of one release.

    Args:
        root: folder that holds `training/`, `validation/` and `config*.json`.
        split: training (or train), validation (or val).
        version: "1.2" or "2.0"; None: the one that is there.

    Raises:
        FileNotFoundError: a folder or JSON is missing.
        ValueError: unknown split or version, or both releases are there and none was chosen.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; --root must hold training/ and validation/")
    if split not in SPLIT_NAMES:
        raise ValueError(f"Vistas has the splits {', '.join(SPLITS)}; got '{split}'")
    if version is not None and version not in VERSIONS:
        raise ValueError(f"Vistas has the versions {', '.join(VERSIONS)}; got '{version}'")
    folder = split_folder(root, SPLIT_NAMES[split], ARCHIVE)
    found = {name: path for name in VERSIONS if (path := _json_path(folder, name)) is not None}
    if version is None and len(found) > 1:
        raise ValueError(
            f"{root} holds Vistas v1.2 and v2.0, which have other classes; choose with --version"
        )
    version = version or next(iter(found), None)
    if version not in found:
        wanted = JSON_NAMES.get(version or "", " or ".join(JSON_NAMES.values()))
        raise FileNotFoundError(
            f"no panoptic/{wanted} below {folder} (folders there: {listed(subfolders(folder))}); "
            f"unpack {ARCHIVE} completely (v1.0 has no panoptic folder)"
        )
    json_path = found[version]
    images_dir = require_folder(folder / "images", ARCHIVE)
    labels, faults = _find_config(root, version)
    files = open_panoptic_files(
        f"Mapillary Vistas v{version}",
        f"{TABLES[version]}_{folder.name}",
        json_path,
        json_path.parent,
        images_dir,
        partial(_check_categories, labels=labels, version=version, json_path=json_path),
    )
    return replace(files, faults=(*faults, *files.faults))


def _json_path(folder: Path, version: str) -> Path | None:
    """The panoptic JSON of a release in either shape of the archive."""
    for inner in (folder / f"v{version}", folder):
        path = inner / "panoptic" / JSON_NAMES[version]
        if path.is_file():
            return path
    return None


def _find_config(root: Path, version: str) -> tuple[tuple[VistasLabel, ...], list[Fault]]:
    """The labels of the config file whose names are those of the release.

    The file's own version number is no help: copies of v1.2 say 1.1.
    """
    paths = sorted(root.glob("config*.json"))
    if not paths:
        message = f"no config*.json here; it lies beside training/ in {ARCHIVE}"
        return (), [Fault(str(root), message)]
    faults: list[Fault] = []
    others = []
    for path in paths:
        labels, path_faults = read_config(path)
        names = [label.name for label in labels]
        if path_faults:
            faults += path_faults
        elif names == list(_config_names(version)):
            return labels, []
        else:
            others.append((path, _describe(names, version)))
    faults += [Fault(str(path), text) for path, text in others]
    return (), faults


def _describe(names: Sequence[str], version: str) -> str:
    for other in VERSIONS:
        if list(names) == list(_config_names(other)):
            return (
                f"is the config of v{other}, but the panoptic JSON is of v{version}: a mixture of "
                "releases; take all files from one archive"
            )
    expected = _config_names(version)
    missing = sorted(set(expected) - set(names))
    return (
        f"has {len(names)} labels, v{version} has {len(expected)}; missing: "
        f"{listed(missing[:5])}; take the file from the archive"
    )


def read_config(path: Path) -> tuple[tuple[VistasLabel, ...], list[Fault]]:
    """The labels of a config file in their order, which is the value in the label pictures."""
    content, fault = read_json_or_fault(path)
    if fault is not None:
        return (), [fault]
    entries = content.get("labels") if isinstance(content, Mapping) else None
    if not isinstance(entries, list):
        return (), [Fault(str(path), "has no list 'labels'; take the file from the archive")]
    labels, faults = [], []
    for index, entry in enumerate(entries):
        label = _parse_label(entry)
        if label is None:
            found = checked.shown(entry)
            message = f"labels[{index}] needs name, readable, instances and evaluate; got {found}"
            faults.append(Fault(str(path), message))
        else:
            labels.append(label)
    return tuple(labels), faults


def _parse_label(entry: Any) -> VistasLabel | None:
    if not isinstance(entry, Mapping):
        return None
    name, readable = entry.get("name"), entry.get("readable")
    flags = (entry.get("instances"), entry.get("evaluate"))
    if not isinstance(name, str) or not isinstance(readable, str):
        return None
    if not all(isinstance(flag, bool) for flag in flags):
        return None
    return VistasLabel(name, readable, bool(flags[0]), bool(flags[1]))


def _check_categories(
    categories: Sequence[Category],
    *,
    labels: tuple[VistasLabel, ...],
    version: str,
    json_path: Path,
) -> tuple[tuple[Category, ...], list[Fault]]:
    """Joins the JSON's categories with the config by name."""
    file = str(json_path)
    if not labels:
        return tuple(categories), []
    evaluated = {label.name: label for label in labels if label.is_evaluated}
    by_readable = {label.readable: label for label in evaluated.values()}
    faults: list[Fault] = []
    seen: set[str] = set()
    for category in categories:
        label = (
            evaluated.get(category.supercategory)
            or evaluated.get(category.name)
            or by_readable.get(category.name)
        )
        place = f"category {category.category_id} ('{category.name}')"
        if label is None:
            faults.append(Fault(file, f"{place} is no evaluated label of the config"))
            continue
        seen.add(label.name)
        if category.is_thing != label.has_instances:
            kinds = ("stuff", "a thing")
            faults.append(
                Fault(
                    file,
                    f"{place} is {kinds[category.is_thing]} here and "
                    f"{kinds[label.has_instances]} in the config",
                )
            )
    missing = sorted(evaluated.keys() - seen)
    if missing or len(categories) != NUM_EVALUATED[version]:
        faults.append(
            Fault(
                file,
                f"{len(categories)} categories, v{version} has {NUM_EVALUATED[version]} (missing: "
                f"{listed(missing[:5])}); is it of another release? take all files from one "
                "archive",
            )
        )
    return tuple(categories), faults


@cache
def _config_names(version: str) -> tuple[str, ...]:
    name = f"{TABLES[version]}_config.csv"
    table = resources.files("seamless_pr").joinpath("datasets", "labels", name)
    with table.open(encoding="utf-8") as file:
        return tuple(row["name"] for row in csv.DictReader(file))


def vistas_categories(version: str) -> tuple[Category, ...]:
    """The evaluated classes as the package's own table has them."""
    return tuple(
        Category(label.label_id, label.name, label.is_thing, label.color, label.supercategory)
        for label in load_labels(TABLES[version])
        if not label.is_ignored and label.color is not None
    )
