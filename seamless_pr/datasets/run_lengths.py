"""COCO run lengths of masks, checked before any C code sees them.

pycocotools trusts them: what is cut, negative or too long reads or writes where it must not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamless_pr.datasets import checked_values as checked
from seamless_pr.structures.limits import MAX_PIXELS

# Compressed run lengths: five bits a letter, least first, a sixth says that more follow.
FIRST_LETTER, BITS, MORE, SIGN = 48, 5, 0x20, 0x10
MAX_LETTERS = 7


@dataclass(frozen=True)
class RunLengths:
    """A mask as runs.

    Attributes:
        size: (height, width).
        runs: int64, down the columns; the first one is of pixels outside the mask; their sum is
            the number of pixels.
    """

    size: tuple[int, int]
    runs: NDArray[np.int64]

    def mask(self) -> NDArray[np.bool_]:
        """[H, W]."""
        values = np.repeat(np.arange(len(self.runs)) % 2 == 1, self.runs)
        return np.ascontiguousarray(values.reshape(self.size[::-1]).T)


def check_run_lengths(segmentation: Any) -> dict[str, Any]:
    """Run lengths in the form that pycocotools wants everywhere.

    Raises:
        ValueError: as `read_run_lengths`.
    """
    read = read_run_lengths(segmentation)
    size = [*read.size]
    if isinstance(segmentation["counts"], str):
        return {"size": size, "counts": segmentation["counts"]}
    from pycocotools import mask as coco_mask

    return dict(coco_mask.frPyObjects({"size": size, "counts": read.runs.tolist()}, *size))


def read_run_lengths(segmentation: Any) -> RunLengths:
    """Reads COCO run lengths.

    Args:
        segmentation: {"size": [H, W], "counts": a list of runs or their compressed text}.

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
    return RunLengths((height, width), runs)


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
