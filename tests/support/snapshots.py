"""Snapshots of the released Seamless code, of networks small enough for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from seamless_pr.build.networks import build_network
from seamless_pr.config.networks import MaskRCNNSettings
from seamless_pr.config.schema import Config
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.models.networks.two_branch import TwoBranchNet
from seamless_pr.structures.settings import ConvMaskSettings
from seamless_pr.weights.seamseg import our_tensor, seamseg_name
from seamless_pr.weights.seamseg_snapshot import Snapshot, write_snapshot
from tests.support.tiny_checkpoint import tiny_config
from tests.support.tiny_run import POINT_REND_LOSSES

SEAMLESS_LOSSES = (*POINT_REND_LOSSES[:4], "mask", "semantic")

# What the released Cityscapes configuration says where it differs from the defaults of its code.
CONFIG_INI = """
[body]
body = resnet50
normalization_mode = syncbn
body_params = {}
[fpn]
extra_scales = 2
out_strides = (4, 8, 16, 32, 64, 128)
[rpn]
# a comment
anchor_ratios = (0.2, 0.5, 1, 2, 5)
anchor_scale = 2
num_post_nms_val = 300
min_size = 0
sigma = 3.
[roi]
max_predictions = 256
[sem]
pooling_size = (32, 32)
ohem = .25
[general]
min_stuff_area = 2048
[dataloader]
shortest_size = 1920
longest_max_size = 2304
rgb_mean = (0.4, 0.5, 0.6)
coco_gt =
"""


def tiny_seamless_config() -> Config:
    """The tiny network with the heads of the released code."""
    config = tiny_config()
    instances = config.model.instances
    model = replace(
        config.model,
        instances=MaskRCNNSettings(
            rpn=instances.rpn, box=instances.box, mask=ConvMaskSettings(hidden_channels=16)
        ),
        semantics=replace(config.model.semantics, points=None),
    )
    return replace(config, model=model, loss_weights=dict.fromkeys(SEAMLESS_LOSSES, 1.0))


def tiny_network(seed: int = 0) -> TwoBranchNet:
    torch.manual_seed(seed)
    network = build_network(tiny_seamless_config().model, load_label_space("cityscapes"))
    assert isinstance(network, TwoBranchNet)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    return network


def write_tiny_snapshot(path: Path, *, counters: bool = True, config: str = "") -> TwoBranchNet:
    """Writes the snapshot of `tiny_network` and returns the network."""
    path.parent.mkdir(parents=True, exist_ok=True)
    network = tiny_network()
    weights = {
        str(seamseg_name(name)): our_tensor(name, tensor)
        for name, tensor in network.state_dict().items()
        if counters or not name.endswith("num_batches_tracked")
    }
    write_snapshot(path, Snapshot(weights, config))
    return network
