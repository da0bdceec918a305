"""Focal and dice losses of masks, one by one and for all pairs."""

from __future__ import annotations

import math

import pytest
import torch

from seamless_pr.ops.mask_losses import (
    dice_loss,
    focal_loss,
    pairwise_dice_loss,
    pairwise_focal_loss,
)


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(3)
    logits = 4 * torch.randn(5, 6, 7, generator=generator, dtype=torch.float64)
    masks = (torch.rand(3, 6, 7, generator=generator) < 0.4).double()
    return logits, masks


def test_the_focal_loss_is_that_of_the_formula():
    logits, masks = torch.tensor([[[2.0, -1.0]]]), torch.tensor([[[1.0, 0.0]]])
    inside, outside = (1 / (1 + math.exp(-x)) for x in (2.0, -1.0))
    expected = 0.25 * (1 - inside) ** 2 * -math.log(inside)
    expected += 0.75 * outside**2 * -math.log(1 - outside)
    assert focal_loss(logits, masks).item() == pytest.approx(expected / 2)


def test_the_dice_loss_is_that_of_the_formula():
    logits, masks = torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    assert dice_loss(logits, masks).item() == pytest.approx(1 - (2 * 1 + 1) / (1.5 + 2 + 1))


@pytest.mark.parametrize(
    ("pairwise", "single"), [(pairwise_focal_loss, focal_loss), (pairwise_dice_loss, dice_loss)]
)
def test_losses_of_all_pairs_are_those_of_single_pairs(pairs, pairwise, single):
    logits, masks = pairs
    found = pairwise(logits.flatten(1), masks.flatten(1))
    for row, query in enumerate(logits):
        expected = single(query.expand_as(masks), masks)
        torch.testing.assert_close(found[row], expected)


def test_losses_stay_finite_and_have_a_gradient_for_any_logit():
    logits = torch.tensor([[-1e4, 1e4, 0.0, 88.0]], requires_grad=True)
    masks = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    total = focal_loss(logits, masks).sum() + dice_loss(logits, masks).sum()
    total.backward()
    assert total.isfinite()
    assert logits.grad.isfinite().all()


def test_no_masks_have_no_losses():
    empty = torch.zeros(0, 4, 5)
    assert focal_loss(empty, empty).shape == dice_loss(empty, empty).shape == (0,)
    cells = torch.zeros(3, 20)
    assert pairwise_focal_loss(cells, empty.flatten(1)).shape == (3, 0)
    assert pairwise_dice_loss(cells, empty.flatten(1)).shape == (3, 0)
