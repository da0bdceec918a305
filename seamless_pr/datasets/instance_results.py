"""Reading COCO instance results (a JSON list of masks with scores), every value checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seamless_pr.datasets import checked_values as checked
from seamless_pr.datasets.panoptic_records import ImageId
from seamless_pr.datasets.run_lengths import check_run_lengths
from seamless_pr.input_files import read_json
from seamless_pr.structures.faults import Fault, FaultyDataError


@dataclass(frozen=True)
class InstanceResult:
    """One predicted instance.

    Attributes:
        image_id, category_id: as the file has them.
        score: any finite number.
        segmentation: run lengths as pycocotools takes them, {"size": [H, W], "counts": ...}; sound.
    """

    image_id: ImageId
    category_id: int
    score: float
    segmentation: dict[str, Any]


def read_instance_results(path: Path) -> list[InstanceResult]:
    """Reads COCO results with masks.

    Raises:
        FileNotFoundError: no such file.
        FaultyDataError: lists every fault, by entry.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; give COCO instance results (a JSON list)")
    try:
        entries = read_json(path)
    except ValueError as error:
        raise FaultyDataError(
            f"{path} is not JSON", [Fault(str(path), str(error).removeprefix(f"{path} "))]
        ) from error
    if not isinstance(entries, list):
        message = f"expected a list of COCO results; got a {type(entries).__name__}"
        raise FaultyDataError(f"{path} cannot be used", [Fault(str(path), message)])
    results: list[InstanceResult] = []
    faults: list[Fault] = []
    for index, entry in enumerate(entries):
        try:
            results.append(_instance(entry))
        except ValueError as error:
            faults.append(Fault(str(path), f"entry {index}: {error}"))
    if faults:
        raise FaultyDataError(f"{path} is not a valid list of COCO results", faults)
    return results


def _instance(entry: Any) -> InstanceResult:
    if not isinstance(entry, dict):
        raise ValueError(f"expected an object; got {checked.shown(entry)}")
    image_id = checked.image_id(entry.get("image_id"))
    if image_id is None:
        found = checked.shown(entry.get("image_id"))
        raise ValueError(f"'image_id' must be an integer or a text; got {found}")
    limit = checked.MAX_CATEGORY_ID
    category_id = checked.whole(entry.get("category_id"), -limit, limit)
    if category_id is None:
        found = checked.shown(entry.get("category_id"))
        raise ValueError(f"'category_id' must be an integer of at most 31 bits; got {found}")
    score = checked.number(entry.get("score"))
    if score is None:
        raise ValueError(f"'score' must be a number; got {checked.shown(entry.get('score'))}")
    run_lengths = check_run_lengths(entry.get("segmentation"))
    return InstanceResult(image_id, category_id, float(score), run_lengths)
