"""Names of the released checkpoints."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from seamless_pr.build.configs import load_config
from seamless_pr.build.networks import build_network
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.weights.seamseg import our_name, our_tensor, seamseg_name

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "theirs, ours",
    [
        ("body.backbone.mod1.conv1.weight", "trunk.backbone.conv1.weight"),
        ("body.backbone.mod1.bn1.running_var", "trunk.backbone.bn1.running_var"),
        ("body.backbone.mod2.block1.convs.bn3.bias", "trunk.backbone.layer1.0.bn3.bias"),
        ("body.backbone.mod4.block23.convs.conv1.weight", "trunk.backbone.layer3.22.conv1.weight"),
        (
            "body.backbone.mod5.block1.proj_conv.weight",
            "trunk.backbone.layer4.0.downsample.0.weight",
        ),
        ("body.backbone.mod3.block1.proj_bn.weight", "trunk.backbone.layer2.0.downsample.1.weight"),
        ("body.fpn.lateral.3.bn.weight", "trunk.neck.lateral.3.norm.weight"),
        ("body.fpn.extra.1.conv.weight", "trunk.neck.extra.1.conv.weight"),
        ("rpn_head.conv_bbx.bias", "instances.rpn_head.box_deltas.bias"),
        ("roi_head.conv.bn4.weight", "instances.masks.head.convs.3.norm.weight"),
        ("sem_head.output.2.conv1_dil.weight", "semantics.head.mini_dls.2.conv_dilated.weight"),
        ("sem_head.output.0.bn2.bias", "semantics.head.mini_dls.0.mix.norm.bias"),
        ("sem_head.conv_sem.bias", "semantics.head.predictor.bias"),
    ],
)
def test_names_translate_both_ways(theirs, ours):
    assert our_name(theirs) == ours
    assert seamseg_name(ours) == theirs


@pytest.mark.parametrize(
    "name", ["body.backbone.fc.weight", "weight", "roi_head.conv.conv5.weight"]
)
def test_strange_names_have_no_counterpart(name):
    assert our_name(name) is None
    assert seamseg_name(name) is None


@pytest.mark.parametrize("dataset, num_keys", [("cityscapes", 488), ("vistas", 494)])
def test_every_key_of_the_released_networks_has_its_place_and_shape(dataset, num_keys):
    text = (ROOT / f"tests/golden/seamseg/STATE_DICT_{dataset}.txt").read_text()
    theirs = dict(line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    config = load_config(ROOT / f"configs/{dataset}/seamless_r50.yaml")
    with torch.device("meta"):
        network = build_network(config.model, load_label_space(config.data.label_space))
    ours = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert len(ours) == num_keys
    assert {our_name(name): ast.literal_eval(shape) for name, shape in theirs.items()} == ours


def test_box_deltas_change_the_order_of_their_rows_and_nothing_else_does():
    rows = torch.arange(8)
    key = "instances.rpn_head.box_deltas.bias"
    assert our_tensor(key, rows).tolist() == [1, 0, 3, 2, 5, 4, 7, 6]
    assert torch.equal(our_tensor(key, our_tensor(key, rows)), rows)
    assert our_tensor("instances.rpn_head.objectness.bias", rows) is rows
