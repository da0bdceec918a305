"""Global context against mmdetection's numbers and its definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from seamless_pr.layers.global_context import GlobalContext
from tests.support.golden import load_golden
from tests.support.mmdet_recipe import recipe_normal, recipe_tensor

SEED = 20
GOLDEN = load_golden("mmdet/ops_mmdet3")


@pytest.mark.parametrize("name, ratio", [("gc4", 1 / 4), ("gc16", 1 / 16)])
def test_result_and_gradient_are_those_of_mmdetection(name, ratio):
    block = GlobalContext(64, ratio)
    block.load_state_dict(
        {
            key: recipe_tensor(
                f"{name}.{key.replace('transform', 'channel_add_conv')}", tuple(value.shape), SEED
            )
            for key, value in block.state_dict().items()
        }
    )
    x = recipe_normal("gc_x", (2, 64, 7, 9), SEED).requires_grad_()
    y = block(x)
    torch.testing.assert_close(y, GOLDEN[f"{name}_y"], rtol=1e-4, atol=1e-5)
    y.backward(recipe_normal("gc_dy", (2, 64, 7, 9), SEED))
    torch.testing.assert_close(x.grad, GOLDEN[f"{name}_dx"], rtol=1e-4, atol=1e-5)


def test_every_cell_gets_the_same_sum_of_cells():
    torch.manual_seed(0)
    block = GlobalContext(12, 1 / 4).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, 12, 5, 2, dtype=torch.float64)
    weights = [parameter.detach() for parameter in block.parameters()]
    mask, mask_bias, first, first_bias, scale, shift, last, last_bias = weights
    for image, found in zip(x, block(x), strict=True):
        cells = image.flatten(1).t()
        logits = [float(mask.flatten() @ cell + mask_bias) for cell in cells]
        total = sum(math.exp(logit) for logit in logits)
        shares = [math.exp(logit) / total for logit in logits]
        context = sum(share * cell for share, cell in zip(shares, cells, strict=True))
        hidden = first.flatten(1) @ context + first_bias
        mean = hidden.mean()
        deviation = ((hidden - mean).square().mean() + 1e-5).sqrt()
        hidden = ((hidden - mean) / deviation * scale.flatten() + shift.flatten()).clamp(min=0)
        added = last.flatten(1) @ hidden + last_bias
        torch.testing.assert_close(found, image + added[:, None, None])


def test_at_first_it_changes_nothing_and_no_image_gives_no_map():
    block = GlobalContext(32)
    x = torch.randn(2, 32, 3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(x), x, rtol=0, atol=0)
    assert block(x[:0]).shape == (0, 32, 3, 4)


def test_a_bottleneck_without_channels_is_refused():
    with pytest.raises(ValueError, match=r"ratio 0\.0625 leaves no channel of 8"):
        GlobalContext(8)
