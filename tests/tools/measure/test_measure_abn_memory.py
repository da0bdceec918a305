"""In-place ABN keeps one activation tensor per norm + activation pair, by measurement."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from seamless_pr.layers.abn import ABN, InPlaceABN
from seamless_pr.models.backbones.timm_backbone import TimmBackbone
from tools.measure.measure_abn_memory import BatchNormReLU, saved_bytes

CHANNELS = 8
ACTIVATION_BYTES = 2 * CHANNELS * 32 * 32 * 4
# mean, variance and scale of a layer: vectors of C numbers
SMALL = 20 * CHANNELS * 4


def norm_then_activation(num_features: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(num_features), nn.LeakyReLU(0.01))


def kept_activations(norm_act, num_pairs: int) -> float:
    """Activation tensors that a chain of (1x1 convolution, norm, activation) keeps."""
    layers: list[nn.Module] = []
    for _ in range(num_pairs):
        layers += [nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False), norm_act(CHANNELS)]
    chain = nn.Sequential(*layers)
    x = torch.randn(2, CHANNELS, 32, 32)
    excluded: list[Tensor] = [x, *chain.parameters(), *chain.buffers()]
    kept = saved_bytes(lambda: chain(x), excluded)
    return (kept - kept % ACTIVATION_BYTES) / ACTIVATION_BYTES + (
        kept % ACTIVATION_BYTES > num_pairs * SMALL
    )


@pytest.mark.parametrize("num_pairs", [1, 4])
def test_in_place_layer_keeps_one_tensor_per_norm_and_activation(num_pairs):
    assert kept_activations(InPlaceABN, num_pairs) == num_pairs
    assert kept_activations(BatchNormReLU, num_pairs) == 2 * num_pairs


@pytest.mark.parametrize("norm_act", [norm_then_activation, ABN])
def test_out_of_place_layers_keep_three_but_for_the_last_output(norm_act):
    assert kept_activations(norm_act, num_pairs=4) == 3 * 4 - 1


def test_a_residual_backbone_keeps_less_than_two_thirds():
    # Per block: an activation and the sum before the last one, against the outputs of both
    # convolutions and of both norms.
    images = torch.randn(1, 3, 64, 64)
    kept = []
    for norm_act in (BatchNormReLU, InPlaceABN):
        backbone = TimmBackbone("resnet18", norm_act)
        excluded = [images, *backbone.parameters(), *backbone.buffers()]
        kept.append(saved_bytes(partial(backbone, images), excluded))
    assert 0.5 < kept[1] / kept[0] < 0.65
