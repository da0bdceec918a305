"""Feature pyramid: levels, sizes, top-down pathway."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seamless_pr.layers.abn import make_norm_act
from seamless_pr.models.necks.fpn import FPN


def stages(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, 3 + level, *size, generator=generator) for level, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("num_extra_levels", [0, 1, 2])
def test_levels_keep_the_sizes_of_stages_and_extra_levels_halve_them(num_extra_levels):
    fpn = FPN((3, 4, 5), 8, make_norm_act(), num_extra_levels)
    levels = fpn(stages((17, 25), (9, 13), (5, 7)))
    sizes = [(17, 25), (9, 13), (5, 7), (3, 4), (2, 2)]
    assert [tuple(level.shape) for level in levels] == [
        (2, 8, *size) for size in sizes[: 3 + num_extra_levels]
    ]


def test_a_coarse_stage_reaches_all_finer_levels_and_no_other_way_round():
    fpn = FPN((3, 4, 5), 8, make_norm_act("abn"), 1).eval()
    inputs = stages((16, 24), (8, 12), (4, 6))
    before = fpn(inputs)
    inputs[1] = inputs[1] + 1
    after = fpn(inputs)
    changed = [not torch.equal(*pair) for pair in zip(before, after)]
    assert changed == [True, True, False, False]


def test_upsampling_repeats_the_nearest_cell():
    fpn = FPN((1, 1), 1, lambda num_features, activation="": nn.Identity(), 0)
    for layer in (*fpn.lateral, *fpn.output):
        nn.init.dirac_(layer.conv.weight)
    fine, coarse = torch.zeros(1, 1, 3, 5), torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]])
    expected = torch.tensor([[1.0, 1, 2, 2, 3], [1, 1, 2, 2, 3], [4, 4, 5, 5, 6]])
    torch.testing.assert_close(fpn([fine, coarse])[0][0, 0], expected)


def test_the_wrong_number_of_stages_is_refused():
    with pytest.raises(ValueError, match="expected 3 stages, finest first; got 2"):
        FPN((3, 4, 5), 8, make_norm_act())(stages((8, 8), (4, 4)))


def test_pooled_levels_of_the_pyramid_are_every_second_cell() -> None:
    fpn = FPN([2, 3], 4, make_norm_act("bias"), 2, activation="identity", extra="pool")
    levels = fpn([torch.randn(1, 2, 8, 8), torch.randn(1, 3, 4, 4)])
    assert [tuple(level.shape[-2:]) for level in levels] == [(8, 8), (4, 4), (2, 2), (1, 1)]
    torch.testing.assert_close(levels[2], levels[1][..., ::2, ::2])
    torch.testing.assert_close(levels[3], levels[2][..., ::2, ::2])
    assert any(level.min() < 0 for level in levels)
    with pytest.raises(ValueError, match="extra must be one of"):
        FPN([2], 4, make_norm_act("bias"), extra="stride")
