"""Plain batch norm with activation against torch.nn; over workers: test_batch_statistics.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seamless_pr.layers.abn import ABN, InPlaceABN
from seamless_pr.layers.batch_norm import BatchNormAct


def random_pair(slope: float) -> tuple[BatchNormAct, nn.Sequential]:
    """The layer and torch's own, with negative weights too."""
    generator = torch.Generator().manual_seed(0)
    theirs = nn.Sequential(nn.BatchNorm2d(5), nn.LeakyReLU(slope))
    for tensor in (theirs[0].weight, theirs[0].bias, theirs[0].running_mean):
        tensor.data.copy_(torch.randn(5, generator=generator))
    ours = BatchNormAct(5, slope=slope)
    ours.load_state_dict(theirs[0].state_dict())
    return ours, theirs


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("slope", [0.0, 0.01])
def test_numbers_and_gradients_are_those_of_torch(training, slope):
    ours, theirs = (module.train(training) for module in random_pair(slope))
    x = torch.randn(3, 5, 6, 4, generator=torch.Generator().manual_seed(1))
    results = []
    for module in (ours, theirs):
        leaf = x.clone().requires_grad_()
        output = module(leaf)
        output.square().sum().backward()
        parameters = [parameter.grad for parameter in module.parameters()]
        results.append([output.detach(), leaf.grad, *parameters, *module.buffers()])
    torch.testing.assert_close(*results)


def test_an_empty_batch_passes_and_changes_no_statistics():
    layer = random_pair(0.0)[0]
    mean = layer.running_mean.clone()
    x = torch.zeros(0, 5, 2, 2, requires_grad=True)
    output = layer(x)
    output.sum().backward()
    assert output.shape == x.shape
    assert layer.weight.grad.eq(0).all()
    assert layer.running_mean.equal(mean)
    assert layer.num_batches_tracked == 0


def test_a_single_element_is_its_own_mean():
    layer = random_pair(0.01)[0]
    layer.activation, layer.slope = "identity", 1.0
    output = layer(torch.randn(1, 5))
    torch.testing.assert_close(output, layer.bias[None], atol=1e-4, rtol=0)


def test_half_precision_stays():
    layer = random_pair(0.0)[0]
    assert layer(torch.randn(2, 5, 3, 3).bfloat16()).dtype == torch.bfloat16
    assert layer(torch.randn(1, 5).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("layer", [BatchNormAct, ABN])
def test_one_value_a_channel_trains_beside_larger_levels_of_a_pyramid(layer: type) -> None:
    torch.manual_seed(0)
    norm, twin = layer(4), InPlaceABN(4)
    levels = [torch.randn(1, 4, 5, 5), torch.randn(1, 4, 1, 1)]
    for network in (norm, twin):
        network.weight.data.fill_(1 - network.eps if isinstance(network, ABN) else 1)
        sum(network(level * 1).square().sum() for level in levels).backward()
    torch.testing.assert_close(norm.weight.grad, twin.weight.grad)
    torch.testing.assert_close(norm.bias.grad, twin.bias.grad)
    torch.testing.assert_close(norm.running_mean, twin.running_mean)
