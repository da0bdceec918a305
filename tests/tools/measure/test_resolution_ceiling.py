"""What a resolution can hold at best: on shapes whose loss is known by hand."""

from __future__ import annotations

import pytest
import torch

from seamless_pr.structures.panoptic_target import PanopticTarget
from tests.support.color_network import TOY_SPACE
from tools.measure.resolution_ceiling import (
    MASK_SIDES,
    STRIDES,
    ceiling_tables,
    coarse_classes,
    mask_ceilings,
    measure,
)

ROAD, SKY, CAR = 0, 1, 2


def target_of(class_map: torch.Tensor) -> PanopticTarget:
    """Class c of [H, W] is segment c + 1."""
    ids = (class_map + 1).int()
    return PanopticTarget(ids, torch.arange(3), torch.zeros(3, dtype=torch.bool), TOY_SPACE)


def filled(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (64, 64)) -> PanopticTarget:
    """Sky, with a car in the shape of all boxes (x0, y0, x1, y1) together."""
    classes = torch.full(size, SKY)
    for x0, y0, x1, y1 in boxes:
        classes[y0:y1, x0:x1] = CAR
    return target_of(classes)


def test_a_full_box_loses_no_more_than_its_corners():
    # Pasting reads 0 outside the mask, so a pixel near a corner falls below one half.
    ((size, ious),) = mask_ceilings(filled((3, 5, 60, 50)), MASK_SIDES)
    assert size == "medium"
    assert min(ious) > 0.99
    assert ious[MASK_SIDES.index(28) :] == [1.0] * 3


def test_a_bar_thinner_than_half_a_cell_is_lost_until_cells_are_as_thin():
    # An L of 56x56: arms of 3 pixels, in 7x7 cells of 8 pixels, in 28x28 cells of 2 pixels.
    bars = filled((4, 4, 60, 7), (4, 4, 7, 60))
    ((_, ious),) = mask_ceilings(bars, [7, 28, 56])
    assert ious[0] < 0.1
    assert 0.6 < ious[1] < 1.0
    assert ious[2] == 1.0


def test_sizes_are_cocos():
    sizes = [mask_ceilings(filled((0, 0, side, side)), [7])[0][0] for side in (31, 32, 64)]
    assert sizes == ["small", "medium", "medium"]
    large = filled((0, 0, 96, 96), size=(100, 100))
    assert mask_ceilings(large, [7])[0][0] == "large"


def test_stripes_of_one_pixel_survive_at_stride_1_only():
    classes = torch.full((8, 8), SKY)
    classes[:, ::4] = ROAD
    assert coarse_classes(target_of(classes), 1, 3).equal(classes)
    assert (coarse_classes(target_of(classes), 4, 3) == SKY).all()


def test_results_are_shares_and_make_two_tables():
    result = measure([filled((3, 5, 60, 50)), filled((8, 8, 20, 16))])
    assert result["num_objects"] == {"small": 1, "medium": 1, "large": 0, "all": 2}
    assert result["mask_iou"]["28"] == {"small": 1.0, "medium": 1.0, "large": None, "all": 1.0}
    assert result["longer_side_pixels"]["median"] == pytest.approx((57 + 12) / 2)
    assert result["semantic_iou"]["1"] == [1.0, 1.0, 1.0]
    lines = ceiling_tables(result).splitlines()
    assert len(lines) == 2 + len(MASK_SIDES) + 1 + 2 + len(STRIDES)
    assert "| 28x28   |     100.0 |      100.0 |         – |   100.0 |" in lines
