"""Non-maximum suppression whose shapes and steps do not depend on the numbers.

Letters: R boxes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from seamless_pr.ops.boxes import box_iou

# As many sweeps are needed as the longest chain has boxes of which each decides about the next: up
# to 6 in the golden cases, 11 among 6000 boxes of which 89 are kept.
NUM_SWEEPS = 16


def fixed_nms(
    boxes: Tensor, valid: Tensor, threshold: float, num_sweeps: int = NUM_SWEEPS
) -> tuple[Tensor, Tensor]:
    """Greedy suppression as the fixed point of one rule: kept is what no better kept box overlaps.

    The rule is applied to all boxes at once, again and again. After n sweeps it is settled for
    every box at the end of a chain of at most n suppressions; what the last sweep leaves as it was
    is the greedy result, exactly (`seamless_pr.ops.boxes.nms`), and there is no other fixed point.

    Args:
        boxes: [..., R, 4] float32, best first; R at least 1.
        valid: [..., R] bool; the others neither suppress nor are kept.
        threshold: IoU in (0, 1] from which (>=) the lesser box goes.
        num_sweeps: at least 1.

    Returns:
        kept [..., R] bool, and whether the last sweep changed nothing, [...] bool.

    Raises:
        ValueError: threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"the NMS threshold must be in (0, 1]; got {threshold}")
    strict_threshold = float(np.nextafter(np.float32(threshold), np.float32(0)))
    # The rows decide about the columns behind them. 0 and 1, so that a sweep is one product, whose
    # sums need no precision: is one 0 or not? Half the memory on GPUs; CPUs are slow at that.
    dtype = torch.float32 if boxes.device.type == "cpu" else torch.bfloat16
    decides = box_iou(boxes, boxes).gt(strict_threshold).triu(1).to(dtype)
    decides = decides.reshape(-1, *decides.shape[-2:])
    is_valid = valid.reshape(-1, 1, valid.shape[-1]).to(dtype)
    kept = before = is_valid
    for _ in range(num_sweeps):
        before = kept
        # 1 where nothing that is kept decides against a valid box, else at most 0.
        kept = torch.baddbmm(is_valid, kept, decides, alpha=-1).relu_()
    settled = (kept == before).all(-1).reshape(valid.shape[:-1])
    return kept.reshape(valid.shape) > 0, settled


def kept_first(kept: Tensor, count: int) -> Tensor:
    """[..., count] positions of the kept rows, in their order, and of others after them.

    Args:
        kept: [..., R] bool.
        count: at most R.
    """
    return kept.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices[..., :count]
