"""Suppression as a fixed point against torchvision's greedy one."""

import pytest
import torch

from seamless_pr.ops.boxes import nms
from seamless_pr.ops.fixed_nms import fixed_nms, kept_first


def drawn_boxes(num_boxes, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(num_boxes, 2, generator=generator) * spread
    return torch.cat(
        [corners, corners + 20 + 60 * torch.rand(num_boxes, 2, generator=generator)], 1
    )


@pytest.mark.parametrize("spread", [40, 150, 1000])
@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_the_fixed_point_is_the_greedy_result(spread, threshold):
    boxes = torch.stack([drawn_boxes(300, spread, seed) for seed in range(3)])
    kept, settled = fixed_nms(boxes, torch.ones(3, 300, dtype=torch.bool), threshold)
    assert settled.all()
    best_first = torch.arange(300, 0, -1).float()
    for image in range(3):
        expected = nms(boxes[image], best_first, threshold)
        assert torch.equal(kept[image].nonzero().flatten(), expected)
        rows = kept_first(kept[image], 10)
        assert torch.equal(rows[: len(expected)], expected[:10])


def test_rows_that_do_not_count_neither_stay_nor_suppress():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]])
    kept, settled = fixed_nms(boxes, torch.tensor([False, True, True, True]), 0.5)
    assert kept.tolist() == [False, True, False, True]
    assert settled


def test_empty_boxes_stay_and_the_threshold_itself_suppresses():
    boxes = torch.tensor([[5.0, 5, 5, 5], [5, 5, 5, 5], [0, 0, 2, 1], [1, 0, 2, 1]])
    kept, _ = fixed_nms(boxes, torch.ones(4, dtype=torch.bool), 0.5)
    assert kept.tolist() == [True, True, True, False]


def test_a_chain_longer_than_the_sweeps_is_reported():
    """Each box suppresses the next one, unless it is suppressed itself."""
    starts = torch.arange(12) * 3.0
    boxes = torch.stack([starts, starts * 0, starts + 10, starts * 0 + 10], 1)
    valid = torch.ones(12, dtype=torch.bool)
    kept, settled = fixed_nms(boxes, valid, 0.5, num_sweeps=12)
    assert settled
    assert kept.tolist() == [True, False] * 6
    assert not fixed_nms(boxes, valid, 0.5, num_sweeps=5)[1]


def test_a_threshold_that_is_no_iou_is_refused():
    with pytest.raises(ValueError, match="got 0"):
        fixed_nms(torch.zeros(1, 4), torch.ones(1, dtype=torch.bool), 0.0)
