"""Ground truth of a street with two stuff and two thing classes, written as numbers."""

from __future__ import annotations

import torch

from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.structures.panoptic_target import PanopticTarget

SPACE = LabelSpace(
    "street",
    tuple(
        Category(index, name, is_thing, (0, 0, 0))
        for index, (name, is_thing) in enumerate(
            [("road", False), ("sky", False), ("car", True), ("person", True)]
        )
    ),
)


def target_of(rows: list[list[int]]) -> PanopticTarget:
    """Train id + 1 per pixel, 0 void."""
    id_map = torch.tensor(rows, dtype=torch.int32)
    return PanopticTarget(id_map, torch.arange(4), torch.zeros(4, dtype=torch.bool), SPACE)
