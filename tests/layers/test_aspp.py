"""ASPP against its parts, written down one by one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.layers.abn import make_norm_act
from seamless_pr.layers.aspp import ASPP

RELU = make_norm_act("batch_norm", slope=0.0)


def random_aspp(**options) -> ASPP:
    torch.manual_seed(0)
    aspp = ASPP(6, 4, RELU, dilations=(2, 3), **options).double().eval()
    for module in aspp.modules():
        if hasattr(module, "running_mean"):
            nn.init.normal_(module.running_mean)
    nn.init.normal_(aspp.conv_pooled.bias)
    return aspp


def features(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 6, height, width, generator=generator, dtype=torch.float64)


def obvious(aspp: ASPP, x: Tensor, window: tuple[int, int]) -> Tensor:
    """The average first, as the paper says it; no dropout."""
    views = [aspp.views[0].norm(F.conv2d(x, aspp.views[0].conv.weight))]
    for view, dilation in zip(aspp.views[1:], (2, 3), strict=True):
        weight = view.conv.weight
        views.append(view.norm(F.conv2d(x, weight, padding=dilation, dilation=dilation)))
    means = F.relu(aspp.conv_pooled(F.avg_pool2d(x, window, stride=1)))
    views.append(F.interpolate(means, x.shape[-2:], mode="bilinear"))
    return aspp.mix.norm(F.conv2d(torch.cat(views, 1), aspp.mix.conv.weight))


@pytest.mark.parametrize("pooling_size, window", [(5, (5, 5)), (9, (9, 9)), (99, (9, 13))])
def test_four_views_are_normalised_and_mixed(pooling_size, window):
    aspp, x = random_aspp(pooling_size=pooling_size), features(9, 13)
    torch.testing.assert_close(aspp(x), obvious(aspp, x, window))


def test_dropout_is_for_training_only():
    aspp, x = random_aspp(dropout=0.5), features(20, 20)
    full = aspp(x)
    aspp.dropout.train()
    dropped = aspp(x)
    is_kept = dropped != 0
    torch.testing.assert_close(dropped[is_kept], 2 * full[is_kept])
    assert 0.45 < (~is_kept[full != 0]).double().mean() < 0.55


def test_every_parameter_gets_a_gradient_also_from_a_single_cell():
    aspp = random_aspp().train()
    for size in ((8, 9), (1, 1)):
        aspp.zero_grad()
        aspp(features(*size)).square().sum().backward()
        assert all(parameter.grad is not None for parameter in aspp.parameters())
