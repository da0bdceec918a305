"""Assignment of objects to anchors and proposals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from seamless_pr.ops import matching
from seamless_pr.ops.boxes import box_iou
from seamless_pr.ops.matching import (
    BACKGROUND,
    UNUSED,
    assign_anchors,
    assign_proposals,
    sample_matches,
)
from tests.support.golden import load_golden, xyxy

IMAGE_SIZE = (100, 100)


def assign(
    anchors: Tensor, gt_boxes: Tensor, crowd_mask: Tensor | None = None, **changes: Any
) -> list[int]:
    arguments: dict[str, Any] = {
        "positive_iou": 0.7,
        "negative_iou": 0.3,
        "max_crowd_overlap": 0.7,
        **changes,
    }
    return assign_anchors(anchors, gt_boxes, IMAGE_SIZE, crowd_mask, **arguments).tolist()


def strip(*widths: float, x: float = 0.0) -> Tensor:
    """Boxes of height 10 that start at x: the IoU of two is the ratio of their widths."""
    return torch.tensor([[x, 0, x + width, 10] for width in widths])


def random_boxes(count: int, seed: int, extent: float = 90) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, 2, generator=generator) * extent - 5
    return torch.cat([start, start + torch.rand(count, 2, generator=generator) * 40 + 1], dim=1)


@pytest.mark.parametrize("image", [0, 1])
def test_anchor_matches_are_the_references(image: int) -> None:
    golden = load_golden("seamseg/ops")
    with_objects = (xyxy(golden["am_gt"]), (75, 118), golden["am_crowd"])
    gt_boxes, image_size, crowd_mask = [with_objects, (torch.zeros(0, 4), (80, 120), None)][image]
    matches = assign_anchors(
        xyxy(golden["am_anchors"]),
        gt_boxes,
        image_size,
        crowd_mask,
        positive_iou=0.7,
        negative_iou=0.3,
        max_crowd_overlap=0.7,
    )
    assert torch.equal(matches, golden["am_match"][image])


def test_overlap_decides_between_object_unused_and_background() -> None:
    anchors = strip(20, 14, 13.9, 6, 5.9)
    assert assign(anchors, strip(20)) == [0, 0, UNUSED, UNUSED, BACKGROUND]


def test_object_without_a_good_anchor_takes_its_best_one_even_from_the_background() -> None:
    anchors = torch.cat([strip(2), strip(4), strip(30, x=50)])
    assert assign(anchors, strip(20)) == [BACKGROUND, 0, BACKGROUND]


def test_first_of_equally_good_anchors_is_taken() -> None:
    anchors = torch.cat([strip(1), strip(4), strip(4)])
    assert assign(anchors, strip(20)) == [BACKGROUND, 0, BACKGROUND]


def test_all_equally_good_anchors_are_taken_on_demand() -> None:
    assert assign(strip(50, 50, 40), strip(100), forces_equals=True) == [0, 0, UNUSED]
    # The later of two objects with equal claims.
    assert assign(strip(50, 50), strip(100, 100), forces_equals=True) == [1, 1]


def test_an_object_takes_its_best_anchor_only_from_the_least_overlap_on() -> None:
    for forces_equals in (False, True):
        changes = {"forced_iou": 0.3, "forces_equals": forces_equals}
        assert assign(strip(25), strip(100), **changes) == [BACKGROUND]
        assert assign(strip(35), strip(100), **changes) == [0]


def test_anchors_that_end_with_the_image_are_inside_unless_the_end_is_left_out() -> None:
    anchors = torch.tensor([[90.0, 0, 100, 10], [89.0, 0, 99, 10]])
    assert assign(anchors, strip(5)) == [BACKGROUND, BACKGROUND]
    assert assign(anchors, strip(5), inside_excludes_end=True) == [UNUSED, BACKGROUND]


def test_an_object_may_take_its_best_proposal_from_another_one() -> None:
    objects = strip(50, 80)
    # The first two proposals are the objects themselves; the third overlaps the second more.
    proposals = torch.cat([objects, strip(68)])
    arguments = {"positive_iou": 0.5, "max_crowd_overlap": 2.0}
    assert assign_proposals(proposals, objects, None, **arguments).tolist() == [0, 1, 1]
    for wanted, order in (([0, 1, 1], [0, 1]), ([0, 1, 1], [1, 0])):
        found = assign_proposals(
            torch.cat([objects[order], strip(68)]), objects[order], None, num_own=2, **arguments
        )
        # Both want it: the later one gets it.
        assert found.tolist() == wanted
    alone = assign_proposals(proposals[:2], objects, None, num_own=2, **arguments)
    assert alone.tolist() == [0, 1]


def test_later_object_wins_an_anchor_that_two_objects_want() -> None:
    anchors = torch.cat([strip(10), strip(30, x=60)])
    assert assign(anchors, strip(9, 8)) == [1, BACKGROUND]
    assert assign(anchors, strip(8, 9)) == [1, BACKGROUND]


def test_object_that_touches_no_anchor_takes_none() -> None:
    assert assign(strip(10), strip(10, x=50)) == [BACKGROUND]


def test_anchors_across_the_border_are_used_only_on_demand() -> None:
    anchors = torch.tensor([[-1.0, 0, 9, 10], [90, 90, 100, 100.5], [90, 90, 100, 100]])
    objects = torch.tensor([[0.0, 0, 9, 10]])
    assert assign(anchors, objects) == [UNUSED, UNUSED, BACKGROUND]
    assert assign(anchors, objects, inside_only=False) == [0, BACKGROUND, BACKGROUND]


def test_anchors_in_the_crowd_are_not_even_taken_by_an_object() -> None:
    crowd_mask = torch.zeros(IMAGE_SIZE, dtype=torch.bool)
    crowd_mask[:10, :7] = True
    anchors = torch.cat([strip(10), strip(12)])
    assert assign(anchors, strip(10), crowd_mask) == [UNUSED, 0]


def test_all_usable_anchors_are_background_without_objects() -> None:
    anchors = torch.cat([strip(10), strip(200)])
    assert assign(anchors, torch.zeros(0, 4)) == [BACKGROUND, UNUSED]
    assert assign(anchors[1:], strip(10)) == [UNUSED]
    assert assign(torch.zeros(0, 4), strip(10)) == []


def test_matches_equal_a_plain_loop_whatever_the_size_of_the_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Every anchor twice: the first of the two is an object's best one, also in another block.
    anchors, gt_boxes = random_boxes(200, 0).repeat(2, 1), random_boxes(12, 1)
    iou = box_iou(anchors, gt_boxes)
    expected = []
    for row in iou:
        best = int(row.argmax())
        expected.append(best if row[best] >= 0.7 else BACKGROUND if row[best] < 0.3 else UNUSED)
    for index in range(len(gt_boxes)):
        if iou[:, index].max() > 0:
            expected[int(iou[:, index].argmax())] = index
    for pairs_per_block in (1, 50, 1 << 19):
        monkeypatch.setattr(matching, "_PAIRS_PER_BLOCK", pairs_per_block)
        assert assign(anchors, gt_boxes, inside_only=False) == expected


def test_proposals_below_the_threshold_are_background() -> None:
    proposals = torch.cat([strip(20, 10, 9.9), strip(20, x=50)])
    matches = assign_proposals(
        proposals, strip(8, 20), None, positive_iou=0.5, max_crowd_overlap=0.7
    )
    assert matches.tolist() == [1, 0, 0, BACKGROUND]


def test_proposals_in_the_crowd_and_empty_ones_beside_a_crowd_are_not_used() -> None:
    crowd_mask = torch.zeros(IMAGE_SIZE, dtype=torch.bool)
    crowd_mask[:10, :7] = True
    proposals = torch.cat([strip(10), strip(11), strip(0, x=90)])
    arguments = {"positive_iou": 0.5, "max_crowd_overlap": 0.7}
    with_crowd = assign_proposals(proposals, strip(10), crowd_mask, **arguments)
    assert with_crowd.tolist() == [UNUSED, 0, UNUSED]
    assert assign_proposals(proposals, strip(10), None, **arguments).tolist() == [0, 0, BACKGROUND]


def test_proposals_are_background_without_objects() -> None:
    arguments = {"positive_iou": 0.5, "max_crowd_overlap": 0.7}
    none = torch.zeros(0, 4)
    assert assign_proposals(strip(10), none, None, **arguments).tolist() == [BACKGROUND]
    assert assign_proposals(none, strip(10), None, **arguments).tolist() == []


def draw(
    matches: Tensor, num_samples: int, fraction: float, seed: int = 0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return sample_matches(matches, num_samples, fraction, generator)


def test_objects_are_limited_and_background_fills_up() -> None:
    matches = torch.tensor([UNUSED] * 20 + [3] * 30 + [BACKGROUND] * 50)
    positives, negatives = draw(matches, 40, 0.25)
    assert (len(positives), len(negatives)) == (10, 30)
    assert (matches[positives] == 3).all()
    assert (matches[negatives] == BACKGROUND).all()
    assert len(set(positives.tolist() + negatives.tolist())) == 40


def test_background_fills_the_place_of_missing_objects() -> None:
    matches = torch.tensor([5, 7] + [BACKGROUND] * 50)
    positives, negatives = draw(matches, 20, 0.5)
    assert positives.tolist() == [0, 1]
    assert len(negatives) == 18


def test_many_samples_mean_all_of_them() -> None:
    matches = torch.tensor([UNUSED, 0, BACKGROUND, 1, BACKGROUND])
    positives, negatives = draw(matches, 10_000_000, 0.5)
    assert (positives.tolist(), negatives.tolist()) == ([1, 3], [2, 4])


def test_draws_depend_on_the_generator_alone_and_reach_every_anchor() -> None:
    matches = torch.tensor([0, BACKGROUND] * 20)
    drawn = [torch.cat(draw(matches, 8, 0.5, seed)).tolist() for seed in range(60)]
    assert drawn[7] == torch.cat(draw(matches, 8, 0.5, seed=7)).tolist()
    assert {index for indices in drawn for index in indices} == set(range(40))


def test_nothing_to_draw_from_gives_no_indices() -> None:
    for indices in draw(torch.zeros(0, dtype=torch.int64), 8, 0.5):
        assert indices.shape == (0,)
        assert indices.dtype == torch.int64
