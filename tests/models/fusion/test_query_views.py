"""Queries of several views: who joins whom, and what the numbers of both become."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from seamless_pr.models.fusion.by_query import QueryOutputs
from seamless_pr.models.fusion.query_views import queries_of_views

SIZE = (16, 32)  # a grid of 4 by 8 cells
SURE, UNSURE = 0.9, 0.2


def mask(*columns: int) -> Tensor:
    """[4, 8] probabilities: some columns are the object's."""
    cells = torch.full((4, 8), UNSURE)
    cells[:, list(columns)] = SURE
    return cells


def view(*queries: tuple[list[float], Tensor], padded: tuple[int, int] = SIZE) -> QueryOutputs:
    """One image; queries of class probabilities ("no object" last) and masks on the grid."""
    classes = torch.tensor([probs for probs, _ in queries]).log()
    masks = torch.logit(torch.stack([cells for _, cells in queries]))
    return QueryOutputs(classes[None], masks[None], padded, (SIZE,))


def merged(*views: QueryOutputs, flips: tuple[bool, ...]) -> tuple[list[list[float]], Tensor]:
    """Class probabilities and masks of the result."""
    found = queries_of_views(views, flips, 0)
    assert found.padded_size == SIZE
    assert found.image_sizes == (SIZE,)
    return found.class_logits[0].exp().tolist(), found.mask_logits[0].sigmoid()


def close(*rows: list[float]) -> list[object]:
    return [pytest.approx(row, abs=1e-6) for row in rows]


def test_partners_are_averaged_and_one_without_partner_is_no_object_elsewhere() -> None:
    first = view(([0.8, 0.1, 0.1], mask(0, 1, 2)), ([0.2, 0.7, 0.1], mask(6, 7)))
    second = view(([0.6, 0.2, 0.2], mask(0, 1, 2, 3)))
    classes, masks = merged(first, second, flips=(False, False))
    assert classes == close([0.7, 0.15, 0.15], [0.1, 0.35, 0.55])
    torch.testing.assert_close(masks[0], (mask(0, 1, 2) + mask(0, 1, 2, 3)) / 2)
    torch.testing.assert_close(masks[1], mask(6, 7))


def test_three_views_of_one_segment_count_alike() -> None:
    views = [view(([p, 1 - p - 0.1, 0.1], mask(0, 1))) for p in (0.6, 0.7, 0.8)]
    classes, masks = merged(*views, flips=(False,) * 3)
    assert classes == close([0.7, 0.2, 0.1])
    torch.testing.assert_close(masks[0], mask(0, 1))


def test_a_view_that_is_alone_stays_as_it_is_unless_it_is_mirrored() -> None:
    alone = view(([0.8, 0.1, 0.1], mask(0, 1, 2)), ([0.01, 0.02, 0.97], mask(5)))
    same = queries_of_views([alone], [False], 0)
    assert torch.equal(same.mask_logits, alone.mask_logits)
    assert torch.equal(same.class_logits, alone.class_logits)
    classes, masks = merged(alone, flips=(True,))
    assert classes == close([0.8, 0.1, 0.1])
    torch.testing.assert_close(masks[0], mask(5, 6, 7))


def test_a_mirrored_view_is_turned_back() -> None:
    first, second = view(([0.8, 0.1, 0.1], mask(0, 1))), view(([0.6, 0.3, 0.1], mask(6, 7)))
    classes, masks = merged(first, second, flips=(False, True))
    assert classes == close([0.7, 0.2, 0.1])
    torch.testing.assert_close(masks[0], mask(0, 1))
    classes, _ = merged(first, second, flips=(False, False))
    assert len(classes) == 2


@pytest.mark.parametrize(
    ("probs", "columns", "joins"),
    [
        ([0.5, 0.4, 0.1], (0, 1, 2), True),  # 3 of 4 columns
        ([0.5, 0.4, 0.1], (0, 1), False),  # an IoU of 0.5 exactly
        ([0.4, 0.5, 0.1], (0, 1, 2, 3), False),  # another class
        ([0.2, 0.1, 0.7], (0, 1, 2, 3), True),  # the best class is one of an object
    ],
)
def test_partners_have_one_class_and_overlap_by_more_than_half(
    probs: list[float], columns: tuple[int, ...], joins: bool
) -> None:
    first = view(([0.8, 0.1, 0.1], mask(0, 1, 2, 3)))
    classes, _ = merged(first, view((probs, mask(*columns))), flips=(False, False))
    assert len(classes) == (1 if joins else 2)


def test_the_best_pair_comes_first_and_nobody_has_two_partners() -> None:
    # The first of the second view fits, the second fits better, and takes the place.
    first = view(([0.8, 0.1, 0.1], mask(0, 1, 2, 3)))
    second = view(([0.5, 0.4, 0.1], mask(0, 1, 2)), ([0.6, 0.3, 0.1], mask(0, 1, 2, 3)))
    classes, masks = merged(first, second, flips=(False, False))
    assert classes == close([0.7, 0.2, 0.1], [0.25, 0.2, 0.55])
    torch.testing.assert_close(masks[1], mask(0, 1, 2))


def test_queries_that_see_nothing_are_left_out() -> None:
    first = view(([0.049, 0.049, 0.902], mask(0)), ([0.051, 0.01, 0.939], mask(5)))
    classes, masks = merged(first, first, flips=(False, False))
    assert classes == close([0.051, 0.01, 0.939])
    torch.testing.assert_close(masks[0], mask(5))


def test_a_class_of_no_probability_has_a_finite_logarithm() -> None:
    first = view(([1.0, 0.0, 0.0], mask(0)))
    found = queries_of_views([first, first], [False, False], 0)
    assert found.class_logits[0, 0].tolist() == pytest.approx([0, math.log(1e-12), math.log(1e-12)])
    sure = QueryOutputs(first.class_logits, first.mask_logits * 1e4, SIZE, (SIZE,))
    found = queries_of_views([sure, sure], [False, False], 0)
    assert float(found.mask_logits.abs().max()) == pytest.approx(math.log(1e6), rel=1e-2)


def test_masks_are_those_of_the_valid_pixels_of_the_first_view() -> None:
    # Twice as large, and padded below and on the right by as much again.
    cells = torch.full((16, 32), 0.01)
    cells[:8, :16] = mask(0, 1, 2).repeat_interleave(2, 0).repeat_interleave(2, 1)
    large = QueryOutputs(
        torch.tensor([[[0.6, 0.3, 0.1]]]).log(),
        torch.logit(cells)[None, None],
        (64, 128),
        ((32, 64),),
    )
    classes, masks = merged(view(([0.8, 0.1, 0.1], mask(0, 1, 2))), large, flips=(False, False))
    assert classes == close([0.7, 0.2, 0.1])
    torch.testing.assert_close(masks[0, 1:3, 1:6], mask(0, 1, 2)[1:3, 1:6], rtol=0, atol=1e-5)
