"""Balanced pyramids against mmdetection and the winner's fork, which has two refining blocks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seamless_pr.layers.abn import make_norm_act
from seamless_pr.layers.conv_norm_act import ConvNormAct
from seamless_pr.layers.non_local import NonLocal2d
from seamless_pr.models.necks.bfp import BalancedPyramid, balanced
from tests.support.golden import load_golden
from tests.support.mmdet_recipe import recipe_normal, recipe_tensor

SEED, CHANNELS = 20, 32
SIZES = ((25, 39), (13, 20), (7, 10), (4, 5), (2, 3))
# Names of the seeded weights.
PREFIXES = {"two": "bfp2"}
GOLDEN = load_golden("mmdet/ops_mmdet3") | load_golden("mmdet/ops_winner")


class Levels(nn.Module):
    """A pyramid that is there already."""

    out_channels = CHANNELS

    def forward(self, levels: list[torch.Tensor]) -> list[torch.Tensor]:
        return levels


def levels() -> list[torch.Tensor]:
    return [
        recipe_normal(f"bfp_x{index}", (1, CHANNELS, *size), SEED)
        for index, size in enumerate(SIZES)
    ]


def fill(module: nn.Module, name: str) -> nn.Module:
    """Weights of the golden module: theirs is `conv_out` and wraps each layer in a `conv`."""
    for key, value in module.named_parameters():
        theirs = key.replace("out.", "conv_out.").replace("norm.", "conv.")
        layer, _, parameter = theirs.rpartition(".")
        theirs = theirs if layer.endswith("conv") else f"{layer}.conv.{parameter}"
        value.data = recipe_tensor(
            f"{PREFIXES.get(name, f'bfp_{name}')}.refine.{theirs}", tuple(value.shape), SEED
        )
    return module


@pytest.mark.parametrize(
    "name, refine",
    [
        ("None", nn.Identity()),
        ("conv", ConvNormAct(CHANNELS, CHANNELS, 3, make_norm_act("bias", slope=0.0))),
        ("non_local", NonLocal2d(CHANNELS)),
        ("two", nn.Sequential(NonLocal2d(CHANNELS), NonLocal2d(CHANNELS))),
    ],
)
def test_every_level_is_that_of_the_reference(name, refine):
    neck = BalancedPyramid(Levels(), fill(refine, name))
    for index, level in enumerate(neck(levels())):
        torch.testing.assert_close(
            level[0, ::4], GOLDEN[f"bfp_{name}_y{index}"], rtol=1e-4, atol=1e-5
        )


def test_a_non_local_block_adds_what_each_cell_reads_of_all_cells():
    torch.manual_seed(0)
    block = NonLocal2d(6, 4).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    layers = (block.theta, block.phi, block.g, block.out)
    (theta, phi, g, out) = ((layer.weight.flatten(1), layer.bias) for layer in layers)
    for image, found in zip(x.flatten(2), block(x).flatten(2), strict=True):
        for reader in range(12):
            wanted = theta[0] @ image[:, reader] + theta[1]
            powers = [
                float((wanted @ (phi[0] @ image[:, cell] + phi[1])).exp()) for cell in range(12)
            ]
            read = sum(
                power / sum(powers) * (g[0] @ image[:, cell] + g[1])
                for cell, power in enumerate(powers)
            )
            torch.testing.assert_close(found[:, reader], image[:, reader] + out[0] @ read + out[1])


@pytest.mark.parametrize("level", [0, 1, 2])
def test_levels_meet_at_one_size_and_are_given_back_at_their_own(level):
    sizes = ((9, 13), (5, 7), (3, 4))
    maps = [torch.randn(2, 3, *size, dtype=torch.float64) for size in sizes]

    def brought(features: torch.Tensor, size: tuple[int, int], *, is_finer: bool) -> torch.Tensor:
        result = features.new_zeros(*features.shape[:2], *size)
        height, width = features.shape[-2:]
        for row in range(size[0]):
            for column in range(size[1]):
                top, left = row * height // size[0], column * width // size[1]
                bottom = -(-(row + 1) * height // size[0])
                right = -(-(column + 1) * width // size[1])
                window = features[..., top:bottom, left:right]
                nearest = features[..., top, left]
                result[..., row, column] = window.amax((2, 3)) if is_finer else nearest
        return result

    mean = sum(
        brought(features, sizes[level], is_finer=index < level)
        for index, features in enumerate(maps)
    ) / len(maps)
    found = balanced(maps, nn.Tanh(), level)
    for index, (features, ours) in enumerate(zip(maps, found, strict=True)):
        shared = brought(mean.tanh(), sizes[index], is_finer=index >= level)
        torch.testing.assert_close(ours, features + shared)


def test_a_non_local_block_starts_as_nothing_and_takes_no_image():
    block = NonLocal2d(8, 4)
    x = torch.randn(2, 8, 3, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(x), x, rtol=0, atol=0)
    assert block(x[:0]).shape == (0, 8, 3, 5)


def test_a_level_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"must be in 0..4; got 5"):
        balanced(levels(), nn.Identity(), 5)
