"""Reading COCO instance results (a JSON list of masks with scores), every value checked.

The evaluator's C code trusts run lengths: what is cut, negative or too long must not reach it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamless_pr.datasets import checked_values as checked
from seamless_pr.datasets.panoptic_records import ImageId
from seamless_pr.structures.faults import Fault, FaultyDataError

MAX_PIXELS = 1 << 30
# Compressed run lengths: five bits a letter, least first, a sixth says that more follow.
FIRST_LETTER, BITS, MORE, SIGN = 48, 5, 0x20, 0x10
MAX_LETTERS = 7


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
        entries = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FaultyDataError(f"{path} is not JSON", [Fault(str(path), str(error))]) from error
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


def check_run_lengths(segmentation: Any) -> dict[str, Any]:
    """Run lengths of a mask in the form that pycocotools wants everywhere.

    Args:
        segmentation: {"size": [H, W], "counts": a list of runs or their compressed text}; runs go
            down the columns, and the first one is of pixels outside the mask.

    Raises:
        ValueError: anything else, and runs that do not cover the mask exactly.
    """
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise ValueError("'segmentation' must be run lengths: an object with 'size' and 'counts'")
    size = checked.numbers(segmentation["size"], 2)
    sides = [] if size is None else [checked.whole(side, 1, MAX_PIXELS) for side in size]
    height, width = sides if sides and None not in sides else (None, None)
    if height is None or width is None or height * width > MAX_PIXELS:
        found = checked.shown(segmentation["size"])
        raise ValueError(f"'size' of a mask must be [height, width]; got {found}")
    counts = segmentation["counts"]
    runs = _listed_runs(counts) if isinstance(counts, list) else _compressed_runs(counts)
    if (runs < 0).any():
        raise ValueError(f"a run length is negative: {int(runs.min())}")
    if int(runs.sum()) != height * width:
        raise ValueError(
            f"the run lengths cover {int(runs.sum())} pixels; the mask has {height}x{width}, "
            f"{height * width}: they are cut, or of another image"
        )
    if isinstance(counts, str):
        return {"size": [height, width], "counts": counts}
    from pycocotools import mask as coco_mask

    listed = {"size": [height, width], "counts": runs.tolist()}
    return dict(coco_mask.frPyObjects(listed, height, width), size=[height, width])


def _listed_runs(counts: list[Any]) -> NDArray[np.int64]:
    runs = [checked.whole(run, -MAX_PIXELS, MAX_PIXELS) for run in counts]
    if None in runs:
        wrong = checked.shown(counts[runs.index(None)])
        raise ValueError(f"a run length must be a whole number of pixels; got {wrong}")
    return np.array(runs, dtype=np.int64)


def _compressed_runs(text: Any) -> NDArray[np.int64]:
    """COCO's compression: signed numbers in letters; from the fourth on less the one two before."""
    if not isinstance(text, str) or not text.isascii():
        raise ValueError(f"'counts' must be a list or a text of run lengths; got {text!r:.60}")
    letters = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - FIRST_LETTER
    ends = np.flatnonzero(letters & MORE == 0)
    if not len(letters) or letters.min() < 0 or letters.max() > 2 * MORE - 1:
        raise ValueError(f"'counts' is no text of run lengths; got {text!r:.60}")
    starts = np.append(0, ends[:-1] + 1)
    lengths = ends - starts + 1 if len(ends) else np.array([0])
    if not len(ends) or ends[-1] != len(letters) - 1 or lengths.max() > MAX_LETTERS:
        raise ValueError(f"'counts' ends inside a number, or holds too large a one: {text!r:.60}")
    places = np.arange(len(letters)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((letters & (MORE - 1)) << (BITS * places), starts)
    runs -= np.where(letters[ends] & SIGN, 1 << (BITS * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
