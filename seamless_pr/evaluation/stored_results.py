"""evaluation.json read back, for baselines and comparisons; what is used again is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamless_pr.datasets import checked_values as checked
from seamless_pr.datasets.panoptic_records import ImageId
from seamless_pr.evaluation.class_names import GROUPS
from seamless_pr.evaluation.results import RESULT_FILE
from seamless_pr.input_files import read_json
from seamless_pr.metrics.panoptic_quality import COUNT_NAMES
from seamless_pr.metrics.segment_matching import PQ_RULES
from seamless_pr.structures.faults import Fault, FaultyDataError


def read_evaluation_json(path: Path) -> dict[str, Any]:
    """Reads evaluation.json, or the one in a folder.

    Raises:
        FileNotFoundError: no such file.
        FaultyDataError: not a file of this package; lists what is wrong.
    """
    path = path / RESULT_FILE if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; pipelines/evaluate.py --output DIR writes one")
    try:
        values = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}; evaluate again") from error
    messages = _faults(values)
    if messages:
        raise FaultyDataError(
            f"{path} is no file of pipelines/evaluate.py; evaluate again",
            [Fault(str(path), message) for message in messages],
        )
    return dict(values)


def _faults(values: Any) -> list[str]:
    if not isinstance(values, dict):
        return [f"expected an object; got a {type(values).__name__}"]
    keys = (*GROUPS, "rules", "pq_dagger", "per_category", "per_image")
    missing = [f"'{key}' is missing" for key in keys if key not in values]
    if missing:
        return missing
    messages = []
    if values["rules"] not in [*PQ_RULES]:
        messages.append(
            f"'rules' must be one of {', '.join(PQ_RULES)}; got {checked.shown(values['rules'])}"
        )
    for group in GROUPS:
        messages += _mean_faults(values[group], group, "pq")
        messages += _mean_faults(values["pq_dagger"], "pq_dagger", group)
    category_ids, class_messages = _class_faults(values["per_category"])
    if class_messages:
        return messages + class_messages  # the images are counted by these classes
    return messages + _image_faults(values["per_image"], category_ids)


def _mean_faults(means: Any, place: str, key: str) -> list[str]:
    if not isinstance(means, dict) or key not in means:
        return [f"'{place}' must be an object with '{key}'"]
    if means[key] is not None and checked.number(means[key]) is None:
        return [f"{place}: '{key}' must be a number or null; got {checked.shown(means[key])}"]
    return []


def _class_faults(rows: Any) -> tuple[set[int], list[str]]:
    if not isinstance(rows, list) or not rows:
        return set(), ["'per_category' must be a list with at least one class"]
    category_ids: set[int] = set()
    messages = []
    for index, row in enumerate(rows):
        entry = row if isinstance(row, dict) else {}
        category_id = checked.whole(entry.get("category_id"))
        name, is_thing = checked.text(entry.get("name")), checked.flag(entry.get("is_thing"))
        if None in (category_id, name, is_thing) or category_id in category_ids:
            messages.append(
                f"per_category[{index}] needs a category_id of its own, a name and is_thing; "
                f"got {checked.shown(row)}"
            )
        elif category_id is not None:
            category_ids.add(category_id)
    return category_ids, messages


def _image_faults(rows: Any, category_ids: set[int]) -> list[str]:
    if not isinstance(rows, list):
        return [f"'per_image' must be a list; got {checked.shown(rows)}"]
    seen: set[ImageId] = set()
    messages = []
    for index, row in enumerate(rows):
        entry = row if isinstance(row, dict) else {}
        image_id, classes = checked.image_id(entry.get("image_id")), entry.get("categories")
        if image_id is None or image_id in seen or not isinstance(classes, list):
            messages.append(
                f"per_image[{index}] needs an image_id of its own and a list of categories; "
                f"got {checked.shown(row)}"
            )
            continue
        seen.add(image_id)
        for of_class in classes:
            if not _has_counts(of_class, category_ids):
                messages.append(
                    f"image {image_id!r}: a class needs a category_id of per_category and "
                    f"{', '.join(COUNT_NAMES)}, each at least 0; got {checked.shown(of_class)}"
                )
    return messages


def _has_counts(row: Any, category_ids: set[int]) -> bool:
    if not isinstance(row, dict) or checked.whole(row.get("category_id")) not in category_ids:
        return False
    counts = [checked.number(row.get(name)) for name in COUNT_NAMES]
    return all(count is not None and count >= 0 for count in counts)


def count_cube(values: dict[str, Any], order: dict[str, Any] | None = None) -> NDArray[np.float64]:
    """The counts of each class in each image, from which every PQ can be computed again.

    Args:
        values: content of evaluation.json.
        order: another one, whose order of images and classes is taken.

    Returns:
        [N, K, 6], the numbers of `COUNT_NAMES`; 0 for classes that an image does not have.
    """
    order = values if order is None else order
    place = {row["category_id"]: index for index, row in enumerate(order["per_category"])}
    image_place = {image["image_id"]: index for index, image in enumerate(order["per_image"])}
    counts = np.zeros((len(image_place), len(place), len(COUNT_NAMES)))
    for image in values["per_image"]:
        for row in image["categories"]:
            cell = image_place[image["image_id"]], place[row["category_id"]]
            counts[cell] = [row[key] for key in COUNT_NAMES]
    return counts
