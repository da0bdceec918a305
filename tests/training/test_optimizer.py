from __future__ import annotations

import pytest
from torch import nn
from torch.optim import SGD, AdamW

from seamless_pr.structures.training_settings import AdamWSettings, SGDSettings
from seamless_pr.training.optimizer import make_optimizer, split_norm_parameters
from seamless_pr.training.schedule import set_lr


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
    optimizer = make_optimizer(network, SGDSettings(weight_decay=0.3, norm_weight_decay=0.2))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.2]


def named_network() -> nn.Module:
    head = nn.ModuleDict({"aspp": nn.Conv2d(4, 4, 1), "predictor": nn.Conv2d(4, 2, 1)})
    trunk = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    return nn.ModuleDict({"trunk": trunk, "head": head})


def test_parts_learn_at_multiples_of_the_rate_and_inner_parts_at_their_own() -> None:
    network = named_network()
    settings = SGDSettings(lr_multipliers={"head.predictor": 3.0, "head": 10.0})
    optimizer = make_optimizer(network, settings)
    set_lr(optimizer, 0.5)
    rate_of = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    rates = {name: rate_of[parameter] for name, parameter in network.named_parameters()}
    assert rates == {
        **{f"trunk.{name}": 0.5 for name in ("0.weight", "0.bias", "1.weight", "1.bias")},
        **{f"head.aspp.{name}": 5.0 for name in ("weight", "bias")},
        **{f"head.predictor.{name}": 1.5 for name in ("weight", "bias")},
    }


def test_norms_of_a_faster_part_keep_their_decay() -> None:
    settings = SGDSettings(norm_weight_decay=0.2, lr_multipliers={"trunk": 2.0})
    groups = make_optimizer(named_network(), settings).param_groups
    found = [(group["weight_decay"], group["lr_multiplier"]) for group in groups]
    assert found == [(1e-4, 2.0), (1e-4, 1.0), (0.2, 2.0)]


def test_a_part_that_the_network_lacks_is_named() -> None:
    with pytest.raises(ValueError, match=r"names neck, but the parts .* are trunk, head"):
        make_optimizer(named_network(), SGDSettings(lr_multipliers={"neck": 2.0}))


def test_frozen_and_shared_parameters_are_not_counted() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    second.bias.requires_grad_(False)
    weights, norms = split_norm_parameters(nn.Sequential(first, second))
    assert len(weights) == 2
    assert norms == []


def test_a_network_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="no trainable parameter"):
        make_optimizer(nn.ReLU(), SGDSettings())


def test_the_kind_chooses_the_optimizer() -> None:
    layer = nn.Linear(2, 2)
    assert isinstance(make_optimizer(layer, SGDSettings()), SGD)
    assert isinstance(make_optimizer(layer, AdamWSettings()), AdamW)
