"""How many pixels carry each pair of true and predicted segment: all that PQ needs of two maps.

P pairs, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamless_pr.id_maps.id_png import IdRuns
from seamless_pr.id_maps.jit import helper, kernel

VOID_SEGMENT_ID = 0
MAX_ID = 2**32 - 1
INITIAL_TABLE_SIZE = 1 << 12
# Pixels compared at once.
BLOCK = 8


@dataclass(frozen=True)
class Overlap:
    """Pairs of segment ids that share pixels, each pair once, in ascending order.

    Attributes:
        gt_ids, pred_ids: [P] int64; 0 = void.
        pixels: [P] int64, at least 1; their sum is the number of pixels.
        image_size: (height, width).
    """

    gt_ids: NDArray[np.int64]
    pred_ids: NDArray[np.int64]
    pixels: NDArray[np.int64]
    image_size: tuple[int, int]


def count_overlap(gt_map: Any, pred_map: Any) -> Overlap:
    """Counts the pixels of each pair of ids in one pass over horizontal runs, without sorting
    pixels.

    Args:
        gt_map, pred_map: [H, W] arrays or CPU tensors of integers in 0..2^32-1.

    Raises:
        ValueError: sizes differ, not two-dimensional, or an id outside 0..2^32-1.
        TypeError: not integers.
    """
    gt_ids, pred_ids = as_id_map(gt_map, "gt_map"), as_id_map(pred_map, "pred_map")
    if gt_ids.shape != pred_ids.shape:
        raise ValueError(
            "maps must have the same size; got "
            f"{_size_text(gt_ids.shape)} for the ground truth and {_size_text(pred_ids.shape)} for "
            "the prediction; resize the prediction (nearest neighbour)"
        )
    height, width = gt_ids.shape
    overlap = _count(partial(_count_pixels, gt_ids, pred_ids), (height, width))
    _require_positive(overlap.gt_ids, gt_map, "gt_map")
    _require_positive(overlap.pred_ids, pred_map, "pred_map")
    return overlap


def count_overlap_of_runs(gt: IdRuns, pred: IdRuns) -> Overlap:
    """As `count_overlap`, of maps that are still runs; costs as much as there are runs."""
    if gt.image_size != pred.image_size:
        raise ValueError(
            "maps must have the same size (height, width); "
            f"got {gt.image_size} and {pred.image_size}"
        )
    count = partial(
        _count_runs,
        gt.starts,
        gt.ids,
        gt.row_starts,
        pred.starts,
        pred.ids,
        pred.row_starts,
        gt.image_size[1],
    )
    return _count(count, gt.image_size)


def _count(fill_table: Callable[..., bool], image_size: tuple[int, int]) -> Overlap:
    """Counts into a hash table, and into larger ones until it fits."""
    table_size = INITIAL_TABLE_SIZE
    while True:
        keys = np.zeros((table_size, 2), dtype=np.uint32)
        pixels = np.zeros(table_size, dtype=np.int64)
        if fill_table(keys, pixels):
            break
        table_size *= 8
    used = np.flatnonzero(pixels)
    pairs = keys[used].astype(np.int64)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return Overlap(pairs[order, 0], pairs[order, 1], pixels[used[order]], image_size)


def as_id_map(id_map: Any, name: str = "id map") -> NDArray[np.uint32]:
    """An array or CPU tensor of segment ids as contiguous [H, W] uint32, copied only if need be.

    Negative ids of at most 32 bits come out as 2^32 more, which `count_overlap` finds among the few
    ids of its result instead of looking at every pixel.
    """
    values = np.asarray(id_map)
    if values.ndim != 2:
        raise ValueError(f"{name} must be [H, W]; got shape {tuple(values.shape)}")
    if values.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers; got {values.dtype}")
    if values.dtype.itemsize == 4:
        return np.ascontiguousarray(values).view(np.uint32)
    if values.dtype.itemsize > 4 and values.size:
        for extreme in (int(values.min()), int(values.max())):
            if not 0 <= extreme <= MAX_ID:
                raise ValueError(_range_text(name, extreme))
    return np.ascontiguousarray(values, dtype=np.uint32)


def _require_positive(ids: NDArray[np.int64], id_map: Any, name: str) -> None:
    dtype = np.asarray(id_map).dtype
    may_wrap = dtype.kind == "i" and dtype.itemsize <= 4
    if may_wrap and len(ids) and int(ids.max()) > MAX_ID // 2:
        raise ValueError(_range_text(name, int(ids[ids > MAX_ID // 2].min()) - MAX_ID - 1))


def _range_text(name: str, segment_id: int) -> str:
    return (
        f"{name} holds the id {segment_id}; segment ids are in 0..{MAX_ID}, with 0 for pixels that "
        "belong to no segment (void)"
    )


def _size_text(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]} (height x width)"


@kernel("uint32[:, :]", "uint32[:, :]", "uint32[:, :]", "int64[:]", returns="bool")
def _count_pixels(gt_map, pred_map, keys, pixels):  # type: ignore[no-untyped-def]
    """Adds the length of each run of one pair to a hash table; False if the table got too full.

    keys: [T, 2] uint32; pixels: [T] int64, 0 = free slot; T is a power of two.
    """
    height, width = gt_map.shape
    num_used = 0
    for row in range(height):
        gt_row, pred_row = gt_map[row], pred_map[row]
        column = 0
        while column < width:
            gt_id, pred_id = gt_row[column], pred_row[column]
            start = column
            column += 1
            # Whole blocks first: without a branch per pixel the compiler compares many at once.
            while column + BLOCK <= width:
                differs = np.uint32(0)
                for place in range(column, column + BLOCK):
                    differs |= (gt_row[place] ^ gt_id) | (pred_row[place] ^ pred_id)
                if differs != 0:
                    break
                column += BLOCK
            while column < width and gt_row[column] == gt_id and pred_row[column] == pred_id:
                column += 1
            num_used += _add_run(gt_id, pred_id, column - start, keys, pixels)
            if num_used * 2 > len(pixels):
                return False
    return True


@kernel(
    *("int32[:]", "uint32[:]", "int64[:]", "int32[:]", "uint32[:]", "int64[:]"),
    *("int64", "uint32[:, :]", "int64[:]"),
    returns="bool",
)
def _count_runs(  # type: ignore[no-untyped-def]
    gt_starts, gt_ids, gt_rows, pred_starts, pred_ids, pred_rows, width, keys, pixels
):
    """The same from two lists of runs, which are walked together row by row."""
    num_used = 0
    for row in range(len(gt_rows) - 1):
        gt_run, gt_end = gt_rows[row], gt_rows[row + 1]
        pred_run, pred_end = pred_rows[row], pred_rows[row + 1]
        column = 0
        while column < width:
            gt_next = gt_starts[gt_run + 1] if gt_run + 1 < gt_end else width
            pred_next = pred_starts[pred_run + 1] if pred_run + 1 < pred_end else width
            stop = min(gt_next, pred_next)
            num_used += _add_run(gt_ids[gt_run], pred_ids[pred_run], stop - column, keys, pixels)
            if num_used * 2 > len(pixels):
                return False
            gt_run += gt_next == stop
            pred_run += pred_next == stop
            column = stop
    return True


@helper
def _add_run(gt_id, pred_id, length, keys, pixels):  # type: ignore[no-untyped-def]
    """Adds to the slot of a pair; 1 if the slot was free before."""
    # Multiplicative hashing; the upper bits of the product depend on all bits of both ids.
    table_mask, shift = np.uint64(len(pixels) - 1), np.uint64(32)
    key = (np.uint64(gt_id) << shift) | np.uint64(pred_id)
    slot = ((key * np.uint64(0x9E3779B97F4A7C15)) >> shift) & table_mask
    while pixels[slot] != 0 and (keys[slot, 0] != gt_id or keys[slot, 1] != pred_id):
        slot = (slot + np.uint64(1)) & table_mask
    is_new = pixels[slot] == 0
    if is_new:
        keys[slot, 0] = gt_id
        keys[slot, 1] = pred_id
    pixels[slot] += length
    return 1 if is_new else 0
