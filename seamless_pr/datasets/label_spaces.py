"""Label spaces of the known datasets (tables in datasets/labels/) and of any COCO panoptic JSON."""

from __future__ import annotations

import colorsys
import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seamless_pr.datasets import checked_values as checked
from seamless_pr.structures.label_space import Category, LabelSpace

LABEL_SPACE_NAMES = (
    "cityscapes",
    "vistas_v1_2",
    "vistas_v2_0",
    "idd",
    "coco_panoptic",
    "ade20k",
    "future3d",
)

GOLDEN_RATIO = (5**0.5 - 1) / 2
MADE_COLOR_SATURATION = 0.65
MADE_COLOR_BRIGHTNESSES = (0.95, 0.75, 0.55)


@dataclass(frozen=True)
class Label:
    """One row of a label table: evaluated classes and those that count as void.

    Attributes:
        label_id: the dataset's number; the `category_id` of evaluated classes.
        name: the dataset's name.
        supercategory: group of classes; empty if the dataset has none.
        is_thing: countable objects.
        is_ignored: never a training target, never evaluated.
        color: RGB in 0..255; None where the dataset gives none.
    """

    label_id: int
    name: str
    supercategory: str
    is_thing: bool
    is_ignored: bool
    color: tuple[int, int, int] | None


def load_label_space(name: str) -> LabelSpace:
    """The evaluated classes of a known dataset, stuff first, each group in the official order.

    `category_id` is the id that the dataset's panoptic JSON uses. Vistas v2.0 ids are inferred (the
    evaluated labels numbered from 1); there prefer `label_space_from_categories` with the JSON.

    Args:
        name: one of `LABEL_SPACE_NAMES`.
    """
    categories = [
        Category(
            category_id=label.label_id,
            name=label.name,
            is_thing=label.is_thing,
            color=label.color if label.color is not None else made_color(index),
            supercategory=label.supercategory,
        )
        for index, label in enumerate(load_labels(name))
        if not label.is_ignored
    ]
    return LabelSpace(name, stuff_first(categories))


def load_labels(name: str) -> tuple[Label, ...]:
    """All rows of a dataset's table in its own order, ignored labels included."""
    if name not in LABEL_SPACE_NAMES:
        raise ValueError(f"no label space '{name}'; choose one of {', '.join(LABEL_SPACE_NAMES)}")
    from importlib import resources

    table = resources.files("seamless_pr").joinpath("datasets", "labels", f"{name}.csv")
    with table.open(encoding="utf-8") as file:
        return tuple(_label_from_row(row) for row in csv.DictReader(file))


def _label_from_row(row: Mapping[str, str]) -> Label:
    color = (int(row["r"]), int(row["g"]), int(row["b"])) if row["r"] else None
    return Label(
        label_id=int(row["id"]),
        name=row["name"],
        supercategory=row["supercategory"],
        is_thing=row["isthing"] == "1",
        is_ignored=row["ignore"] == "1",
        color=color,
    )


def label_space_from_categories(categories: Sequence[Mapping[str, Any]], name: str) -> LabelSpace:
    """The label space of a COCO panoptic JSON's own `categories`, stuff first, else in their order.

    Args:
        categories: entries with `id`, `name`, `isthing`; optional `color` ([r, g, b]) and
            `supercategory`.
        name: name of the label space, and of the source in messages.

    Raises:
        ValueError: missing keys or wrong types; all of them are listed.
    """
    faults: list[str] = []
    parsed = parse_categories(categories, faults)
    if faults:
        raise ValueError(f"categories of '{name}' are not valid:\n  " + "\n  ".join(faults))
    return LabelSpace(name, stuff_first(parsed))


def parse_categories(raw_categories: Any, faults: list[str]) -> tuple[Category, ...]:
    """Reads `categories` of a COCO panoptic JSON in file order; appends faults to `faults`."""
    if not isinstance(raw_categories, Sequence) or isinstance(raw_categories, str):
        faults.append(f"'categories' must be a list; got {type(raw_categories).__name__}")
        return ()
    categories: list[Category] = []
    seen_ids: set[int] = set()
    for index, raw in enumerate(raw_categories):
        category = _parse_category(raw, index, faults)
        if category is None:
            continue
        if category.category_id in seen_ids:
            faults.append(f"categories[{index}]: id {category.category_id} occurs more than once")
        seen_ids.add(category.category_id)
        categories.append(category)
    return tuple(categories)


def _parse_category(raw: Any, index: int, faults: list[str]) -> Category | None:
    place = f"categories[{index}]"
    if not isinstance(raw, Mapping):
        faults.append(f"{place} must be an object with id, name and isthing; got {raw!r}")
        return None
    category_id, name, is_thing = raw.get("id"), raw.get("name"), raw.get("isthing")
    num_faults = len(faults)
    if isinstance(category_id, float) and category_id.is_integer():
        category_id = int(category_id)  # As some exporters write whole numbers.
    if not isinstance(category_id, int) or isinstance(category_id, bool):
        faults.append(f"{place}: 'id' must be an integer; got {checked.shown(category_id)}")
    if not isinstance(name, str) or not name:
        faults.append(f"{place}: 'name' must be a text; got {checked.shown(name)}")
    if is_thing not in (0, 1):
        faults.append(f"{place}: 'isthing' must be 0 or 1; got {checked.shown(is_thing)}")
    color = raw.get("color")
    if color is not None and not _is_color(color):
        faults.append(f"{place}: 'color' must be [r, g, b] in 0..255; got {checked.shown(color)}")
    if len(faults) > num_faults:
        return None
    return Category(
        category_id=category_id,  # type: ignore[arg-type]
        name=name,  # type: ignore[arg-type]
        is_thing=bool(is_thing),
        color=made_color(index) if color is None else (color[0], color[1], color[2]),
        supercategory=str(raw.get("supercategory") or ""),
    )


def _is_color(color: Any) -> bool:
    if not isinstance(color, Sequence) or isinstance(color, str) or len(color) != 3:
        return False
    return all(isinstance(channel, int) and 0 <= channel <= 255 for channel in color)


def stuff_first(categories: Iterable[Category]) -> tuple[Category, ...]:
    """Stuff, then things; the order within each group stays."""
    return tuple(sorted(categories, key=lambda category: category.is_thing))


def made_color(index: int) -> tuple[int, int, int]:
    """A colour for class number `index` of a dataset without colours; neighbours differ clearly."""
    hue = (index * GOLDEN_RATIO) % 1.0
    brightness = MADE_COLOR_BRIGHTNESSES[index % len(MADE_COLOR_BRIGHTNESSES)]
    red, green, blue = colorsys.hsv_to_rgb(hue, MADE_COLOR_SATURATION, brightness)
    return round(red * 255), round(green * 255), round(blue * 255)
