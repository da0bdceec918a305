"""Losses of semantic points."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from seamless_pr.layers.point_head import PointHead
from seamless_pr.models.semantics.points import refine_semantic_logits, semantic_point_loss
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.settings import SemanticPointSettings
from tests.support.street_targets import target_of


class AlwaysFirstClass(nn.Module):
    """A point head that sees class 0 at every point, with one certainty per image."""

    def __init__(self, certainty: Tensor) -> None:
        super().__init__()
        self.certainty = certainty

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        logits = torch.zeros_like(coarse)
        logits[:, 0] = self.certainty.repeat_interleave(len(coarse) // len(self.certainty))
        return logits


def test_only_the_hardest_points_of_each_image_count_if_wanted() -> None:
    # A quarter of the first image is class 1 and hard; the second has void and the easy class.
    certainty = torch.tensor([2.0, 3.0])
    first = [[2] * 4 + [1] * 12] * 16
    second = [[0] * 8 + [1] * 8] * 16

    def loss(fraction: float) -> LossSum:
        settings = SemanticPointSettings(
            num_train_points=2000, importance_fraction=0.0, hard_point_fraction=fraction
        )
        return semantic_point_loss(
            AlwaysFirstClass(certainty),
            torch.zeros(2, 4, 8, 8),
            torch.zeros(2, 4, 8, 8),
            [target.semantic_map for target in (target_of(first), target_of(second))],
            (16, 16),
            settings,
            [torch.Generator().manual_seed(seed) for seed in range(2)],
        )["semantic_point"]

    easy = torch.log1p(3 * torch.exp(-certainty))
    hard = easy[0] + certainty[0]
    every = loss(1.0)
    assert every.count == pytest.approx(3000, abs=100)
    expected = float(500 * hard + 1500 * easy[0] + 1000 * easy[1])
    assert float(every.total) == pytest.approx(expected, rel=0.05)
    few = loss(0.1)
    assert few.count == pytest.approx(300, abs=10)
    torch.testing.assert_close(few.total, 200 * hard + (few.count - 200) * easy[1])


@pytest.mark.parametrize("size, num_cells", [((64, 96), 24), ((50, 70), 20)])
def test_as_many_points_are_refined_as_a_stride_16_map_has_cells(
    size: tuple[int, int], num_cells: int
) -> None:
    class Counting(AlwaysFirstClass):
        counts: tuple[int, ...] = ()

        def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
            self.counts += (len(coarse),)
            return super().forward(fine, coarse)

    def counts(settings: SemanticPointSettings) -> tuple[int, ...]:
        head = Counting(torch.tensor([2.0]))
        height, width = math.ceil(size[0] / 4), math.ceil(size[1] / 4)
        maps = torch.randn(1, 4, height, width)
        logits = refine_semantic_logits(head, maps, maps, size, settings)
        assert logits.shape[-2:] == (4 * height, 4 * width)
        return head.counts

    assert counts(SemanticPointSettings()) == (num_cells, num_cells)
    assert counts(SemanticPointSettings(subdivision_points=7)) == (7, 7)


def test_the_point_loss_teaches_the_coarse_logits_too() -> None:
    torch.manual_seed(0)
    head = PointHead(4, 4, hidden_channels=8)
    nn.init.normal_(head.predictor.weight)
    coarse = torch.randn(1, 4, 4, 4, requires_grad=True)
    losses = semantic_point_loss(
        head,
        torch.randn(1, 4, 4, 4),
        coarse,
        [target_of([[1, 2, 3, 4] * 4] * 16).semantic_map],
        (16, 16),
        SemanticPointSettings(num_train_points=32),
        [torch.Generator().manual_seed(0)],
    )
    losses["semantic_point"].total.backward()
    assert coarse.grad is not None
    assert coarse.grad.abs().sum() > 0
