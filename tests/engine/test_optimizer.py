from __future__ import annotations

import pytest
from torch import nn
from torch.optim import SGD, AdamW

from seamless_pr.engine.optimizer import make_optimizer, split_norm_parameters
from seamless_pr.structures.training_settings import OptimizerSettings


def test_scale_and_shift_of_norm_layers_have_their_own_decay() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.Linear(4, 2)
    )
    weights, norms = split_norm_parameters(network)
    assert [id(p) for p in weights] == [
        id(p) for index in (0, 3) for p in network[index].parameters()
    ]
    assert [id(p) for p in norms] == [
        id(p) for index in (1, 2) for p in network[index].parameters()
    ]
    optimizer = make_optimizer(network, OptimizerSettings(weight_decay=0.3, norm_weight_decay=0.2))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.2]


def test_frozen_and_shared_parameters_are_not_counted() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    second.bias.requires_grad_(False)
    weights, norms = split_norm_parameters(nn.Sequential(first, second))
    assert len(weights) == 2
    assert norms == []


def test_a_network_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="no trainable parameter"):
        make_optimizer(nn.ReLU(), OptimizerSettings())


def test_the_kind_chooses_the_optimizer() -> None:
    layer = nn.Linear(2, 2)
    assert isinstance(make_optimizer(layer, OptimizerSettings(kind="sgd")), SGD)
    assert isinstance(make_optimizer(layer, OptimizerSettings(kind="adamw")), AdamW)
    with pytest.raises(ValueError, match="'adam'"):
        make_optimizer(layer, OptimizerSettings(kind="adam"))
