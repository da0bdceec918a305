"""Data of one's own, described by a small YAML file.

    name: yard
    classes:
      - {id: 1, name: floor, thing: false}
      - {id: 2, name: box, thing: true, color: [200, 120, 40]}
    object_divisor: 1000        # value of a pixel = class id * 1000 + object number
    void: [0]                   # class ids that mean "nothing"
    splits:
      train: {images: images/train, labels: labels/train}
      val: {images: images/val, labels: labels/val}

A split may also give `instances` (a COCO instance JSON) and optionally `semantics` (pictures of
class ids for the stuff) in place of `labels`; or `panoptic` (a COCO panoptic JSON) and `segments`
(its PNG folder), which is checked and not converted. Paths are relative to the YAML file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from seamless_pr.datasets import checked_values as checked
from seamless_pr.datasets.folders import listed
from seamless_pr.datasets.label_spaces import made_color
from seamless_pr.files import path_fault
from seamless_pr.input_files import YamlLoader, read_text
from seamless_pr.structures.faults import Fault, FaultyDataError
from seamless_pr.structures.label_space import Category

TOP_KEYS = {"name", "classes", "object_divisor", "void", "splits", "label_suffix"}
SPLIT_KEYS = {"images", "labels", "instances", "semantics", "panoptic", "segments"}
CLASS_KEYS = {"id", "name", "thing", "color"}
# Letters of a name that becomes a part of the names of files.
MAX_NAME = 100


@dataclass(frozen=True)
class CustomDataset:
    """A checked YAML file; see the module.

    Attributes:
        path: of the file.
        name: of the dataset, part of the names of all results.
        categories: in the order of the file.
        divisor: pixel value = class id * divisor + object number; 1: values are class ids.
        void_ids: class ids that are void.
        label_suffix: ending of the stem of label pictures, less which it is the image's.
        splits: name -> keys -> path.
    """

    path: Path
    name: str
    categories: tuple[Category, ...]
    divisor: int
    void_ids: frozenset[int]
    label_suffix: str
    splits: Mapping[str, Mapping[str, Path]]


def read_custom_yaml(path: str | os.PathLike[str]) -> CustomDataset:
    """Reads and checks the description.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no text in UTF-8.
        FaultyDataError: everything that is wrong with it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; write one as docs/datasets.md shows")
    text = read_text(path)
    try:
        content = yaml.load(text, YamlLoader)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise FaultyDataError(f"{path} cannot be read", [Fault(str(path), reason)]) from error
    messages: list[str] = []
    dataset = _parse(path, content, messages)
    if messages or dataset is None:
        faults = [Fault(str(path), message) for message in messages]
        raise FaultyDataError(f"{path} does not describe a dataset", faults)
    return dataset


def _parse(path: Path, content: Any, messages: list[str]) -> CustomDataset | None:
    if not isinstance(content, Mapping):
        messages.append("must hold name, classes and splits; see docs/datasets.md")
        return None
    unknown = sorted(map(str, content.keys() - TOP_KEYS))
    if unknown:
        messages.append(f"unknown keys {listed(unknown)}; known are {listed(sorted(TOP_KEYS))}")
    name = content.get("name")
    if not isinstance(name, str) or not _is_word(name):
        messages.append(
            f"'name' must be a word of letters, digits, _ and -; got {checked.shown(name)}"
        )
        name = "custom"
    categories = _parse_classes(content.get("classes", []), messages)
    divisor = content.get("object_divisor", 1)
    if checked.whole(divisor, 1, checked.MAX_CATEGORY_ID) is None or isinstance(divisor, float):
        messages.append(f"'object_divisor' must be a positive number; got {checked.shown(divisor)}")
        divisor = 1
    void = content.get("void", [])
    if not isinstance(void, list) or not all(type(value) is int for value in void):
        messages.append(f"'void' must be a list of class ids; got {checked.shown(void)}")
        void = []
    suffix = content.get("label_suffix", "")
    if not isinstance(suffix, str):
        messages.append(f"'label_suffix' must be a text; got {checked.shown(suffix)}")
        suffix = ""
    splits = _parse_splits(path.parent, content.get("splits"), messages)
    if any("labels" in split for split in splits.values()):
        if not categories:
            messages.append("'classes' is empty; pictures of labels need their classes")
        if divisor == 1 and any(category.is_thing for category in categories):
            messages.append(
                "classes with 'thing: true' need 'object_divisor', or no object has a number"
            )
        largest = max((category.category_id for category in categories), default=0)
        if 1 < divisor <= largest:
            messages.append(f"class ids must be below object_divisor = {divisor}; got {largest}")
    return CustomDataset(path, name, categories, divisor, frozenset(void), suffix, splits)


def _parse_classes(raw: Any, messages: list[str]) -> tuple[Category, ...]:
    if not isinstance(raw, list):
        messages.append(f"'classes' must be a list; got {checked.shown(raw)}")
        return ()
    categories: list[Category] = []
    seen_ids: set[int] = set()
    for index, entry in enumerate(raw):
        if not isinstance(entry, Mapping) or not entry.keys() <= CLASS_KEYS:
            messages.append(
                f"classes[{index}] must have {listed(sorted(CLASS_KEYS))}; {checked.shown(entry)}"
            )
            continue
        class_id = checked.whole(entry.get("id"), 0, checked.MAX_CATEGORY_ID)
        name, is_thing = checked.text(entry.get("name")), entry.get("thing")
        color = entry.get("color", list(made_color(index)))
        is_color = isinstance(color, list) and len(color) == 3
        if class_id is None or name is None:
            messages.append(
                f"classes[{index}] needs an id of at least 0 and a name; got {checked.shown(entry)}"
            )
        elif not isinstance(is_thing, bool):
            messages.append(f"class '{name}' needs 'thing: true' (countable) or 'thing: false'")
        elif not is_color or not all(type(c) is int and 0 <= c <= 255 for c in color):
            messages.append(f"class '{name}': color must be [red, green, blue] in 0..255")
        elif class_id in seen_ids:
            messages.append(f"class '{name}': id {class_id} occurs more than once")
        else:
            seen_ids.add(class_id)
            categories.append(Category(class_id, name, is_thing, (color[0], color[1], color[2])))
    return tuple(categories)


def _parse_splits(root: Path, raw: Any, messages: list[str]) -> dict[str, dict[str, Path]]:
    if not isinstance(raw, Mapping) or not raw:
        messages.append("'splits' must name at least one split, such as train")
        return {}
    splits: dict[str, dict[str, Path]] = {}
    for name, entry in raw.items():
        if not _is_word(str(name)):  # It names files.
            messages.append(f"split {name!r} must be a word of letters, digits, _ and -")
            continue
        if not isinstance(entry, Mapping) or not all(isinstance(v, str) for v in entry.values()):
            messages.append(f"split '{name}' must be keys with paths; got {checked.shown(entry)}")
            continue
        unknown = sorted(map(str, entry.keys() - SPLIT_KEYS))
        kinds = [key for key in ("labels", "instances", "panoptic") if key in entry]
        if unknown:
            messages.append(f"split '{name}': unknown keys {listed(unknown)}")
        if len(kinds) != 1:
            messages.append(f"split '{name}' needs one of labels, instances and panoptic")
        elif "images" not in entry:
            messages.append(f"split '{name}' needs 'images', the folder of the pictures")
        elif faults := [
            f"split '{name}': '{key}' {fault}; got {checked.shown(path)}"
            for key, path in entry.items()
            if (fault := path_fault(root / path))
        ]:
            messages += faults
        else:
            splits[str(name)] = {key: root / path for key, path in entry.items()}
    return splits


def _is_word(name: str) -> bool:
    return len(name) <= MAX_NAME and name.replace("_", "").replace("-", "").isalnum()
