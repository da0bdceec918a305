"""Losses of SOLOv2's cells in every precision of what the head says."""

from __future__ import annotations

import pytest
import torch

from seamless_pr.models.instances.solo_head import SoloOutput
from seamless_pr.models.instances.solo_targets import (
    LevelTarget,
    SoloTarget,
    focal_loss_sum,
    solo_losses,
)
from seamless_pr.structures.settings import SoloSettings


def test_the_focal_loss_keeps_double_precision_and_raises_half():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    classes = torch.randint(-1, 3, (2, 4, 5), generator=generator)
    loss = focal_loss_sum(logits, classes, 0.25, 2.0)
    probs = logits.detach().sigmoid().movedim(1, -1).flatten(0, -2)
    expected = 0.0
    for row, own in zip(probs.tolist(), classes.flatten().tolist(), strict=True):
        for index, prob in enumerate(row):
            right, share = (prob, 0.25) if index == own else (1 - prob, 0.75)
            expected -= share * (1 - right) ** 2 * torch.tensor(right).double().log().item()
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert torch.autograd.gradcheck(lambda x: focal_loss_sum(x, classes, 0.25, 2.0), logits)
    for dtype in (torch.float16, torch.bfloat16):
        half = logits.detach().to(dtype)
        found = focal_loss_sum(half, classes, 0.25, 2.0)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, focal_loss_sum(half.float(), classes, 0.25, 2.0))


def test_autocast_changes_no_loss():
    draw = torch.Generator().manual_seed(0)
    output = SoloOutput(
        category_logits=[torch.randn(1, 3, 2, 2, generator=draw)],
        kernels=[torch.randn(1, 8, 2, 2, generator=draw)],
        mask_features=torch.randn(1, 8, 6, 5, generator=draw),
    )
    level = LevelTarget(
        torch.tensor([[0, -1], [-1, 2]]), torch.tensor([0, 3]), torch.tensor([0, 1])
    )
    masks = (torch.rand(2, 6, 5, generator=draw) > 0.5).float()
    targets = [SoloTarget((level,), masks)]
    losses = solo_losses(output, targets, SoloSettings())
    with torch.autocast("cpu", torch.bfloat16):
        same = solo_losses(output, targets, SoloSettings())
    assert {name: loss.total.item() for name, loss in same.items()} == {
        name: loss.total.item() for name, loss in losses.items()
    }
