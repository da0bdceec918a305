"""Starting from the weights of another run, with some parts at random."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from seamless_pr.build.networks import build_network
from seamless_pr.build.weights import class_tensors, load_initial_weights, refuse_other_classes
from seamless_pr.config.networks import PointRendSettings
from seamless_pr.config.schema import InitialWeightsConfig
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.training.checkpoints import save_weights
from tests.support.snapshots import tiny_seamless_config

SPACE = load_label_space("cityscapes")


def network(mask_kind: str, seed: int) -> nn.Module:
    model = tiny_seamless_config().model
    if mask_kind == "point_rend":
        instances = PointRendSettings(rpn=model.instances.rpn, box=model.instances.box)
        model = replace(model, instances=instances)
    torch.manual_seed(seed)
    return build_network(model, SPACE)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    path = tmp_path / "trained.safetensors"
    save_file(network("conv", seed=1).state_dict(), path)
    return path


def initial(trained: Path, *random_parts: str) -> InitialWeightsConfig:
    return InitialWeightsConfig(file=str(trained), random_parts=random_parts)


def test_all_weights_are_those_of_the_file(trained: Path):
    net = network("conv", seed=2)
    load_initial_weights(net, InitialWeightsConfig(file=str(trained)))
    for name, tensor in network("conv", seed=1).state_dict().items():
        assert torch.equal(net.state_dict()[name], tensor), name


def test_random_parts_keep_their_own_weights_and_all_others_are_those_of_the_file(trained: Path):
    net = network("conv", seed=2)
    load_initial_weights(
        net, InitialWeightsConfig(file=str(trained), random_parts=("instances.masks", "semantics"))
    )
    ours, theirs = network("conv", seed=2).state_dict(), network("conv", seed=1).state_dict()
    for name, tensor in net.state_dict().items():
        is_random = name.startswith(("instances.masks.", "semantics."))
        assert torch.equal(tensor, (ours if is_random else theirs)[name]), name
    assert not torch.equal(
        ours["instances.masks.head.convs.0.conv.weight"],
        theirs["instances.masks.head.convs.0.conv.weight"],
    )


def test_a_random_part_may_be_another_one_than_in_the_file(trained: Path):
    net = network("point_rend", seed=2)
    load_initial_weights(net, initial(trained, "instances.masks"))
    expected = network("conv", seed=1).state_dict()["instances.box_head.fc1.weight"]
    assert torch.equal(net.state_dict()["instances.box_head.fc1.weight"], expected)


def test_differences_outside_of_the_random_parts_are_all_named(trained: Path):
    net = network("point_rend", seed=2)
    with pytest.raises(ValueError, match=r"trained(.|\n)*missing in the file: instances.masks\."):
        load_initial_weights(net, initial(trained, "semantics"))


def test_a_misspelt_part_is_named_with_those_there_are(trained: Path):
    misspelt = initial(trained, "instances.maks")
    with pytest.raises(ValueError, match=r"names instances\.maks, but .* instances\.masks"):
        load_initial_weights(network("conv", seed=2), misspelt)


def test_weights_of_other_classes_start_at_random_or_are_refused_with_both_readings(tmp_path: Path):
    path = tmp_path / "trained.safetensors"
    model, net = tiny_seamless_config().model, network("conv", seed=1)
    stuff, things = SPACE.categories[: SPACE.num_stuff], SPACE.categories[SPACE.num_stuff :]
    # As many classes of each kind, so that every tensor fits.
    turned = LabelSpace("turned", (*stuff[1:], stuff[0], *things))
    save_weights(path, net.state_dict(), {"label_space": turned.to_dict()})
    with pytest.raises(ValueError) as error:
        refuse_other_classes(initial(path, "instances"), model, SPACE)
    message = str(error.value)
    assert (
        f"class 0 is '{stuff[1].name}' (stuff) there and '{stuff[0].name}' (stuff) here" in message
    )
    assert f"({len(stuff)} differ)" in message
    assert message.endswith("[semantics.head.predictor], or whole parts that hold these")
    refuse_other_classes(initial(path, "instances", "semantics.head.predictor"), model, SPACE)
    refuse_other_classes(initial(path, "instances", "semantics"), model, SPACE)
    # Numbers and colours are no classes, and a file that tells no classes has none to compare.
    save_weights(path, net.state_dict(), {"label_space": SPACE.to_dict()})
    refuse_other_classes(initial(path), model, SPACE)
    save_weights(path, net.state_dict(), {})
    refuse_other_classes(initial(path), model, turned)


def test_a_class_less_is_a_difference_too(tmp_path: Path):
    path = tmp_path / "trained.safetensors"
    fewer = LabelSpace("fewer", SPACE.categories[:-1])
    save_weights(path, {}, {"label_space": fewer.to_dict()})
    with pytest.raises(ValueError, match=r"class 18 is none there and 'bicycle' \(a thing\) here"):
        refuse_other_classes(initial(path), tiny_seamless_config().model, SPACE)


def test_what_depends_on_the_classes_is_found_without_touching_the_random_numbers():
    before = torch.random.get_rng_state()
    names = class_tensors(tiny_seamless_config().model, SPACE)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert {name.rpartition(".")[0] for name in names} == {
        "instances.box_head.box_deltas",
        "instances.box_head.class_logits",
        "instances.masks.head.predictor",
        "semantics.head.predictor",
    }
