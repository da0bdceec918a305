"""The loss of the 4-convolution mask head."""

from __future__ import annotations

import math

import pytest
import torch

from seamless_pr.models.instances.mask_rcnn import mask_loss
from seamless_pr.models.instances.positive_rois import PositiveRoIs
from tests.support.street_targets import target_of


def test_cells_of_void_count_neither_in_the_sum_nor_in_the_number_of_cells():
    # The left half of the object's box is void in the ground truth.
    target = target_of([[0] * 4 + [3] * 4] * 8)
    box, one = torch.tensor([[0.0, 0.0, 8.0, 8.0]]), torch.ones(1, dtype=torch.int64)
    ids = target.id_map[0, 7].view(1)
    rois = PositiveRoIs(box, 0 * one, 1 * one, ids, torch.tensor([[4.0, 0.0, 8.0, 8.0]]))
    logits = torch.zeros(1, 2, 8, 8)
    logits[0, 0] = 50.0  # of another class
    loss = mask_loss(logits, rois, [target])["mask"]
    assert loss.count == 32
    assert float(loss.total) == pytest.approx(32 * math.log(2))
