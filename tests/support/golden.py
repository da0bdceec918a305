"""Numbers computed with the published reference implementation, as tensors in our conventions."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

GOLDEN_FOLDER = Path(__file__).parents[1] / "golden"


@cache
def load_golden(name: str) -> dict[str, Tensor]:
    """All arrays of tests/golden/NAME.npz; texts are left out."""
    with np.load(GOLDEN_FOLDER / f"{name}.npz") as arrays:
        return {
            key: torch.from_numpy(arrays[key])
            for key in arrays.files
            if arrays[key].dtype.kind != "U"
        }


def xyxy(boxes: Tensor) -> Tensor:
    """Boxes (y0, x0, y1, x1) or deltas (dy, dx, dh, dw) [..., 4] -> ours, x first."""
    return boxes[..., [1, 0, 3, 2]]


def x_first_channels(deltas: Tensor) -> Tensor:
    """[N, 4A, h, w] with channel anchor * 4 + (dy, dx, dh, dw) -> (dx, dy, dw, dh)."""
    return deltas.unflatten(1, (-1, 4))[:, :, [1, 0, 3, 2]].flatten(1, 2)


# Cases that show nothing beyond their neighbours, for whoever changes what they rest on.
EVERY_GOLDEN_CASE = "SEAMLESS_PR_EVERY_GOLDEN_CASE" in os.environ
every_golden_case = pytest.mark.skipif(
    not EVERY_GOLDEN_CASE,
    reason="takes long; set SEAMLESS_PR_EVERY_GOLDEN_CASE=1",
)


def golden_names(name: str, key: str) -> list[str]:
    """An array of texts in tests/golden/NAME.npz."""
    with np.load(GOLDEN_FOLDER / f"{name}.npz") as arrays:
        return [str(text) for text in arrays[key]]
