"""Focal and dice losses of masks, one by one and for all pairs."""

from __future__ import annotations

import math

import pytest
import torch

from seamless_pr.ops.mask_losses import mask_losses, pairwise_dice_loss, pairwise_focal_loss


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
    assert mask_losses(logits, masks)[0].item() == pytest.approx(expected / 2)


def test_the_dice_loss_is_that_of_the_formula():
    logits, masks = torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    assert mask_losses(logits, masks)[1].item() == pytest.approx(1 - (2 * 1 + 1) / (1.5 + 2 + 1))


@pytest.mark.parametrize(("pairwise", "place"), [(pairwise_focal_loss, 0), (pairwise_dice_loss, 1)])
def test_losses_of_all_pairs_are_those_of_single_pairs(pairs, pairwise, place):
    logits, masks = pairs
    found = pairwise(logits.flatten(1), masks.flatten(1))
    for row, query in enumerate(logits):
        expected = mask_losses(query.expand_as(masks), masks)[place]
        torch.testing.assert_close(found[row], expected)


def test_losses_stay_finite_and_have_a_gradient_for_any_logit():
    logits = torch.tensor([[-1e4, 1e4, 0.0, 88.0]], requires_grad=True)
    masks = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    total = torch.cat(mask_losses(logits, masks)).sum()
    total.backward()
    assert total.isfinite()
    assert logits.grad.isfinite().all()


def test_no_masks_have_no_losses():
    empty = torch.zeros(0, 4, 5)
    assert [loss.shape for loss in mask_losses(empty, empty)] == [(0,), (0,)]
    cells = torch.zeros(3, 20)
    assert pairwise_focal_loss(cells, empty.flatten(1)).shape == (3, 0)
    assert pairwise_dice_loss(cells, empty.flatten(1)).shape == (3, 0)
