"""Layers of norm and activation without batch statistics."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seamless_pr.layers.abn import make_norm_act


def test_frozen_batch_norm_has_nothing_to_train_and_is_plain_batch_norm() -> None:
    layer = make_norm_act("frozen_batch_norm", slope=0.0)(3)
    assert list(layer.parameters()) == []
    for buffer in layer.buffers():
        buffer.uniform_(0.5, 2.0)
    layer.weight[0] = -1.0
    x = torch.randn(2, 3, 4, 5)
    expected = F.relu(
        F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)
    )
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    torch.testing.assert_close(layer.train()(x), expected)
    assert all(torch.equal(buffer, before[name]) for name, buffer in layer.named_buffers())


def test_a_layer_that_is_only_a_bias_decays_like_weights() -> None:
    layer = make_norm_act("bias")(2, "identity")
    nn.init.constant_(layer.bias, 3.0)
    assert torch.equal(layer(torch.ones(1, 2, 1, 1)), torch.full((1, 2, 1, 1), 4.0))
    assert torch.equal(layer(torch.ones(1, 2)), torch.full((1, 2), 4.0))
    # The optimiser knows norms by this attribute.
    assert not hasattr(layer, "num_features")


def test_layers_that_invert_their_activation_refuse_a_relu() -> None:
    with pytest.raises(ValueError, match="slope must be positive"):
        make_norm_act("inplace_abn", slope=0.0)(4)
    with pytest.raises(ValueError, match="0 or more"):
        make_norm_act("bias", slope=-1.0)(4)
