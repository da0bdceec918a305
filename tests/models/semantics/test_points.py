"""Losses of semantic points."""

from __future__ import annotations

import math
from typing import Literal

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


def test_the_point_loss_can_teach_the_point_head_alone() -> None:
    torch.manual_seed(0)
    head = PointHead(4, 4, hidden_channels=8)
    nn.init.normal_(head.predictor.weight)
    fine, coarse = (torch.randn(1, 4, 4, 4, requires_grad=True) for _ in range(2))
    loss = semantic_point_loss(
        head,
        fine,
        coarse,
        [target_of([[1, 2, 3, 4] * 4] * 16).semantic_map],
        (16, 16),
        SemanticPointSettings(shared_gradient=False),
        [torch.Generator().manual_seed(0)],
    )
    loss["semantic_point"].total.backward()
    assert fine.grad is None
    assert coarse.grad is None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_a_point_stays_coarse_where_the_point_head_is_less_sure() -> None:
    coarse = torch.zeros(1, 3, 4, 4)
    coarse[:, 1, :, :2] = 4.0
    coarse[:, 2, :, 2:] = 1.0
    head = AlwaysFirstClass(torch.tensor([2.0]))

    def classes(*, only_where_surer: bool) -> Tensor:
        every = SemanticPointSettings(subdivision_points=256, only_where_surer=only_where_surer)
        return refine_semantic_logits(head, coarse, coarse, (16, 16), every).argmax(1)

    assert (classes(only_where_surer=False) == 0).all()
    # Inside: beyond the edge coarse logits read as 0.
    kept = classes(only_where_surer=True)[0, 2:-2]
    assert (kept[:, 2:6] == 1).all()
    assert (kept[:, 10:] == 0).all()


def test_the_unsurest_points_are_told_by_logits_or_probabilities() -> None:
    # A gap of 1 between two likely classes, and one of 1.5 where twelve are alike.
    coarse = torch.zeros(1, 12, 1, 2)
    coarse[0, :2, 0, 0] = torch.tensor([9.0, 8.0])
    coarse[0, 0, 0, 1] = 1.5

    class Recording(AlwaysFirstClass):
        def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
            self.second = float(coarse[0, 1])
            return super().forward(fine, coarse)

    def second_class_at_point(uncertainty: Literal["logits", "probabilities"]) -> float:
        head = Recording(torch.tensor([2.0]))
        one = SemanticPointSettings(subdivision_points=1, uncertainty=uncertainty)
        refine_semantic_logits(head, coarse, coarse, (2, 4), one)
        return head.second

    assert second_class_at_point("logits") > 4
    assert second_class_at_point("probabilities") == 0


def test_points_read_the_pixels_around_them() -> None:
    seen: list[Tensor] = []

    class Recording(AlwaysFirstClass):
        def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
            seen.append(fine)
            return super().forward(fine, coarse)

    pixels = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    every = SemanticPointSettings(subdivision_points=64, pixel_window=1)
    maps = torch.zeros(1, 4, 2, 2)
    refine_semantic_logits(Recording(torch.tensor([1.0])), maps, maps, (8, 8), every, pixels)
    assert [tuple(fine.shape) for fine in seen] == [(16, 7), (64, 7)]
    colors = (seen[1][:, 4:] + 2) * 64
    assert sorted(colors.tolist()) == sorted(pixels[0].flatten(1).T.tolist())
    with pytest.raises(ValueError, match="need the pixels"):
        refine_semantic_logits(AlwaysFirstClass(torch.ones(1)), maps, maps, (8, 8), every)


def test_a_window_of_pixels_has_a_middle() -> None:
    with pytest.raises(ValueError, match="got 4; take 0 or an odd number"):
        SemanticPointSettings(pixel_window=4)
