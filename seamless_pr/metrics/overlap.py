"""How many pixels carry each pair of true and predicted segment: all that PQ needs of two maps.
maps.

P pairs, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamless_pr.ops.jit import compiled

VOID_SEGMENT_ID = 0
INITIAL_TABLE_SIZE = 1 << 12


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
        ValueError: sizes differ, or not two-dimensional.
        TypeError: not integers.
    """
    gt_ids, pred_ids = as_id_map(gt_map, "gt_map"), as_id_map(pred_map, "pred_map")
    if gt_ids.shape != pred_ids.shape:
        raise ValueError(
            "maps must have the same size; got "
            f"{_size_text(gt_ids.shape)} for the ground truth and {_size_text(pred_ids.shape)} for "
            "the prediction; resize the prediction (nearest neighbour)"
        )
    table_size = INITIAL_TABLE_SIZE
    while True:
        keys = np.zeros((table_size, 2), dtype=np.uint32)
        pixels = np.zeros(table_size, dtype=np.int64)
        if _count_runs(gt_ids, pred_ids, keys, pixels):
            break
        table_size *= 8
    used = np.flatnonzero(pixels)
    pairs = keys[used].astype(np.int64)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    height, width = gt_ids.shape
    return Overlap(
        pairs[order, 0], pairs[order, 1], pixels[used[order]], image_size=(height, width)
    )


def as_id_map(id_map: Any, name: str = "id map") -> NDArray[np.uint32]:
    """An array or CPU tensor of segment ids as contiguous [H, W] uint32, copied only if need be."""
    values = np.asarray(id_map)
    if values.ndim != 2:
        raise ValueError(f"{name} must be [H, W]; got shape {tuple(values.shape)}")
    if values.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers; got {values.dtype}")
    if values.dtype.itemsize == 4:
        return np.ascontiguousarray(values).view(np.uint32)
    return np.ascontiguousarray(values, dtype=np.uint32)


def _size_text(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]} (height x width)"


@compiled
def _count_runs(gt_map, pred_map, keys, pixels):  # type: ignore[no-untyped-def]
    """Adds the length of each run of one pair to a hash table; False if the table got too full.

    keys: [T, 2] uint32; pixels: [T] int64, 0 = free slot; T is a power of two.
    """
    height, width = gt_map.shape
    table_mask = np.uint64(len(pixels) - 1)
    free_slots = len(pixels) // 2
    # Multiplicative hashing; the upper bits of the product depend on all bits of both ids.
    factor, shift = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)
    for row in range(height):
        gt_row, pred_row = gt_map[row], pred_map[row]
        column = 0
        while column < width:
            gt_id, pred_id = gt_row[column], pred_row[column]
            start = column
            column += 1
            while column < width and gt_row[column] == gt_id and pred_row[column] == pred_id:
                column += 1
            key = (np.uint64(gt_id) << shift) | np.uint64(pred_id)
            slot = ((key * factor) >> shift) & table_mask
            while pixels[slot] != 0 and (keys[slot, 0] != gt_id or keys[slot, 1] != pred_id):
                slot = (slot + np.uint64(1)) & table_mask
            if pixels[slot] == 0:
                if free_slots == 0:
                    return False
                free_slots -= 1
                keys[slot, 0] = gt_id
                keys[slot, 1] = pred_id
            pixels[slot] += column - start
    return True
