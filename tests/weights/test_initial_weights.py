"""Starting from the weights of another run, with some parts at random."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from seamless_pr.build.networks import build_network
from seamless_pr.build.runs import load_initial_weights
from seamless_pr.config.schema import InitialWeightsConfig, ModelConfig
from seamless_pr.datasets.label_spaces import load_label_space
from tests.support.snapshots import tiny_seamless_config

SPACE = load_label_space("cityscapes")


def network(mask_kind: str, seed: int) -> nn.Module:
    model: ModelConfig = tiny_seamless_config().model
    torch.manual_seed(seed)
    mask_head = replace(model.mask_head, kind=mask_kind, hidden_channels=8)
    return build_network(replace(model, mask_head=mask_head), SPACE)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    path = tmp_path / "trained.safetensors"
    save_file(network("conv", seed=1).state_dict(), path)
    return path


def test_all_weights_are_those_of_the_file(trained: Path):
    net = network("conv", seed=2)
    load_initial_weights(net, InitialWeightsConfig(str(trained)))
    for name, tensor in network("conv", seed=1).state_dict().items():
        assert torch.equal(net.state_dict()[name], tensor), name


def test_random_parts_keep_their_own_weights_and_all_others_are_those_of_the_file(trained: Path):
    net = network("conv", seed=2)
    load_initial_weights(net, InitialWeightsConfig(str(trained), ("mask_head", "semantic_head")))
    ours, theirs = network("conv", seed=2).state_dict(), network("conv", seed=1).state_dict()
    for name, tensor in net.state_dict().items():
        is_random = name.startswith(("mask_head.", "semantic_head."))
        assert torch.equal(tensor, (ours if is_random else theirs)[name]), name
    assert not torch.equal(
        ours["mask_head.convs.0.conv.weight"], theirs["mask_head.convs.0.conv.weight"]
    )


def test_a_random_part_may_be_another_one_than_in_the_file(trained: Path):
    net = network("point_rend", seed=2)
    load_initial_weights(net, InitialWeightsConfig(str(trained), ("mask_head", "point_head")))
    expected = network("conv", seed=1).state_dict()["box_head.fc1.weight"]
    assert torch.equal(net.state_dict()["box_head.fc1.weight"], expected)


def test_differences_outside_of_the_random_parts_are_all_named(trained: Path):
    net = network("point_rend", seed=2)
    with pytest.raises(ValueError, match=r"trained(.|\n)*missing in the file: point_head\."):
        load_initial_weights(net, InitialWeightsConfig(str(trained), ("mask_head",)))


def test_a_misspelt_part_is_named_with_those_there_are(trained: Path):
    initial = InitialWeightsConfig(str(trained), ("mask_haed",))
    with pytest.raises(ValueError, match=r"names mask_haed, but the parts of .* mask_head"):
        load_initial_weights(network("conv", seed=2), initial)
