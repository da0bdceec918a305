"""Box geometry against the reference's numbers, hand-worked cases and slow oracles."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from seamless_pr.ops.boxes import (
    box_area,
    box_iou,
    class_nms,
    clip_boxes,
    crowd_overlap,
    decode_boxes,
    encode_boxes,
    nms,
)
from tests.support.golden import load_golden, xyxy


def greedy_nms(boxes: Tensor, scores: Tensor, threshold: float) -> list[int]:
    """The definition, one box at a time."""
    iou = box_iou(boxes, boxes)
    limit = torch.tensor(threshold, dtype=torch.float32)
    kept: list[int] = []
    for candidate in scores.argsort(descending=True, stable=True).tolist():
        if not any(iou[candidate, better] >= limit for better in kept):
            kept.append(candidate)
    return kept


def lattice_boxes(count: int, seed: int, side: int = 12) -> Tensor:
    """Integer boxes: many IoUs are simple fractions, so thresholds are met exactly."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(0, side, (count, 2), generator=generator)
    size = torch.randint(0, side, (count, 2), generator=generator)
    return torch.cat([start, start + size], dim=1).float()


def test_overlap_is_the_references() -> None:
    golden = load_golden("seamseg/ops")
    boxes = xyxy(golden["nms_bbx"])
    torch.testing.assert_close(
        box_iou(boxes[:50], boxes[50:100]), golden["ious"], rtol=0, atol=1e-7
    )


def test_deltas_are_the_references() -> None:
    golden = load_golden("seamseg/ops")
    boxes = xyxy(golden["nms_bbx"])
    torch.testing.assert_close(
        encode_boxes(boxes[:50], boxes[50:100]), xyxy(golden["calc_shift"]), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        decode_boxes(boxes[:50], xyxy(golden["shift_in"])), xyxy(golden["shift_out"])
    )


def test_suppression_is_the_references() -> None:
    golden = load_golden("seamseg/ops")
    boxes, scores = xyxy(golden["nms_bbx"]), golden["nms_scores"]
    assert torch.equal(nms(boxes, scores, 0.5), golden["nms_5_-1"])
    assert torch.equal(nms(boxes, scores, 0.7), golden["nms_7_-1"])
    assert torch.equal(nms(boxes, scores, 0.7, max_kept=50), golden["nms_7_50"])


def test_crowd_share_is_the_references_and_0_where_it_divides_by_0() -> None:
    golden = load_golden("seamseg/ops")
    expected = golden["mask_overlap"].nan_to_num(nan=0.0)
    actual = crowd_overlap(xyxy(golden["nms_bbx"]), golden["mo_mask"])
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(("other_width", "threshold"), [(5, 0.5), (7, 0.7), (3, 0.3), (10, 1.0)])
def test_boxes_whose_overlap_equals_the_threshold_are_suppressed(
    other_width: float, threshold: float
) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 1], [0, 0, other_width, 1]])
    assert nms(boxes, torch.tensor([2.0, 1.0]), threshold).tolist() == [0]


def test_boxes_just_below_the_threshold_stay() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 1], [0, 0, 6.9999, 1]])
    assert nms(boxes, torch.tensor([2.0, 1.0]), 0.7).tolist() == [0, 1]


@pytest.mark.parametrize("threshold", [0.2, 0.3, 0.5, 0.7, 0.75])
def test_suppression_equals_its_definition_on_boxes_full_of_ties(threshold: float) -> None:
    boxes = lattice_boxes(120, seed=int(threshold * 100))
    scores = torch.randn(120, generator=torch.Generator().manual_seed(1))
    assert nms(boxes, scores, threshold).tolist() == greedy_nms(boxes, scores, threshold)


@pytest.mark.parametrize("max_kept", [1, 5, 40, 1000])
def test_stopping_early_gives_the_head_of_the_whole_result(max_kept: int) -> None:
    boxes = lattice_boxes(300, seed=3, side=40)
    scores = torch.randn(300, generator=torch.Generator().manual_seed(2))
    assert torch.equal(nms(boxes, scores, 0.3, max_kept), nms(boxes, scores, 0.3)[:max_kept])


def test_stopping_early_looks_on_when_the_best_boxes_suppress_each_other() -> None:
    boxes = torch.cat([torch.tensor([[0.0, 0, 9, 9]]).repeat(30, 1), lattice_boxes(20, 5) + 20])
    scores = torch.arange(50, 0, -1).float()
    kept = nms(boxes, scores, 0.5, max_kept=4)
    assert torch.equal(kept, nms(boxes, scores, 0.5)[:4])
    assert len(kept) == 4


def test_empty_and_swapped_boxes_neither_suppress_nor_are_suppressed() -> None:
    boxes = torch.tensor([[1.0, 1, 1, 5], [1, 1, 1, 5], [8, 8, 2, 2], [8, 8, 2, 2], [0, 0, 9, 9]])
    scores = torch.tensor([1.0, 2, 3, 4, 5])
    assert nms(boxes, scores, 0.1).tolist() == [4, 3, 2, 1, 0]
    assert box_area(boxes).tolist() == [0, 0, 0, 0, 81]
    assert box_iou(boxes[:2], boxes[:2]).tolist() == [[0, 0], [0, 0]]


def test_classes_do_not_suppress_each_other() -> None:
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 8], [30, 0, 39, 9]])
    scores = torch.tensor([0.6, 0.9, 0.8, 0.7])
    classes = torch.tensor([0, 2, 0, 0])
    assert class_nms(boxes, scores, classes, 0.5).tolist() == [2, 3, 1]


def test_threshold_outside_its_range_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"\(0, 1\]; got 0"):
        nms(torch.zeros(0, 4), torch.zeros(0), 0.0)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_decoding_undoes_encoding(weights: tuple[float, float, float, float]) -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 100, 2, generator=generator) * 500
    sizes = torch.rand(2, 100, 2, generator=generator) * 100 + 2
    reference, boxes = torch.cat([corners, corners + sizes], dim=-1)
    deltas = encode_boxes(reference, boxes, weights)
    torch.testing.assert_close(
        decode_boxes(reference, deltas, weights), boxes, rtol=1e-5, atol=1e-3
    )


def test_deltas_of_a_shifted_and_doubled_box() -> None:
    reference = torch.tensor([[10.0, 20, 30, 30]])
    boxes = torch.tensor([[10.0, 15, 50, 35]])
    expected = torch.tensor([[10 * 0.5, 0, 5 * math.log(2), 5 * math.log(2)]])
    torch.testing.assert_close(encode_boxes(reference, boxes, (10, 10, 5, 5)), expected)


def test_decoded_boxes_grow_by_62_and_a_half_at_most_after_the_weights() -> None:
    decoded = decode_boxes(
        torch.tensor([[0.0, 0, 16, 16]]), torch.tensor([[0.0, 0, 1e4, 5]]), (1, 1, 5, 5)
    )
    torch.testing.assert_close(decoded[0, 2] - decoded[0, 0], torch.tensor(1000.0))
    torch.testing.assert_close(decoded[0, 3] - decoded[0, 1], torch.tensor(16 * math.e))


def test_half_precision_deltas_are_decoded_in_single_precision() -> None:
    reference = torch.tensor([[1000.0, 500, 1003, 507]])
    deltas = torch.tensor([[0.125, -0.25, 0, 0]], dtype=torch.bfloat16)
    expected = torch.tensor([[1000.375, 498.25, 1003.375, 505.25]])
    assert torch.equal(decode_boxes(reference, deltas), expected)


def test_deltas_to_an_empty_reference_are_finite() -> None:
    deltas = encode_boxes(torch.zeros(1, 4), torch.tensor([[0.0, 0, 8, 8]]))
    assert torch.isfinite(deltas).all()


def test_clipping_keeps_x_within_the_width_and_y_within_the_height() -> None:
    boxes = torch.tensor([[-5.0, -5, 300, 300], [250, 10, 260, 20]])
    clipped = clip_boxes(boxes, (100, 200))
    assert clipped.tolist() == [[0, 0, 200, 100], [200, 10, 200, 20]]


def test_crowd_share_counts_pixels_between_truncated_corners() -> None:
    mask = torch.zeros(6, 8, dtype=torch.bool)
    mask[2:4, 3:7] = True
    boxes = torch.tensor(
        [[3.0, 2, 7, 4], [3.9, 2.9, 8, 4.9], [-4, -4, 20, 20], [0, 0, 3, 6], [5, 5, 5, 5]]
    )
    expected = torch.tensor([1.0, 8 / 8.2, 8 / 576, 0, 0])
    torch.testing.assert_close(crowd_overlap(boxes, mask), expected)


def test_crowd_share_equals_counting_one_box_at_a_time() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(30, 40, generator=generator) < 0.3
    start = torch.rand(50, 2, generator=generator) * 40 - 5
    boxes = torch.cat([start, start + torch.rand(50, 2, generator=generator) * 30 + 1], dim=1)
    for box, share in zip(boxes, crowd_overlap(boxes, mask), strict=True):
        x0, y0, x1, y1 = (max(0, int(corner)) for corner in box)
        torch.testing.assert_close(share, mask[y0:y1, x0:x1].sum() / box_area(box))


def test_nothing_in_gives_nothing_out() -> None:
    none = torch.zeros(0, 4)
    assert box_area(none).shape == (0,)
    assert box_iou(none, torch.zeros(3, 4)).shape == (0, 3)
    assert encode_boxes(none, none).shape == decode_boxes(none, none).shape == (0, 4)
    assert clip_boxes(none, (5, 5)).shape == (0, 4)
    assert crowd_overlap(none, torch.ones(4, 4, dtype=torch.bool)).shape == (0,)
    kept = [nms(none, torch.zeros(0), 0.5), nms(none, torch.zeros(0), 0.5, max_kept=0)]
    kept.append(class_nms(none, torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5))
    assert all(indices.shape == (0,) and indices.dtype == torch.int64 for indices in kept)
