"""Configs of published semantic models: pairs differ in PointRend alone; DeepLab has its layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from seamless_pr.build.networks import build_model
from seamless_pr.config.load import config_differences, load_config
from seamless_pr.datasets.label_spaces import load_label_space

CONFIGS = Path(__file__).parents[2] / "configs/cityscapes"
# Settings of the points and of their loss.
OF_POINT_REND = {
    "model.semantic_head.refinement",
    "model.semantic_head.coarse_each_layer",
    "model.semantic.num_train_points",
    "loss_weights.semantic_point",
}


@pytest.mark.parametrize(
    "without, refined",
    [
        ("deeplab_v3_r103", "deeplab_v3_pointrend_r103"),
        ("semantic_fpn_r101", "semantic_fpn_pointrend_r101"),
        ("semantic_fpn_p3_r101", "semantic_fpn_p3_pointrend_r101"),
    ],
)
def test_a_pair_differs_in_point_rend_alone(without: str, refined: str) -> None:
    pair = (load_config(CONFIGS / f"{name}.yaml") for name in (without, refined))
    different = config_differences(*pair)
    assert different["model.semantic_head.refinement"] == ("none", "point_rend")
    assert different.keys() <= OF_POINT_REND


def test_deeplab_is_a_resnet_103_of_stride_16_with_points_on_its_first_stage() -> None:
    config = load_config(CONFIGS / "deeplab_v3_pointrend_r103.yaml")
    with torch.device("meta"):
        net = build_model(config.model, load_label_space("cityscapes"))
    convs = {name: m for name, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    stem = [conv for name, conv in convs.items() if name.startswith("backbone.conv1.")]
    assert [(conv.in_channels, conv.out_channels, conv.stride[0]) for conv in stem] == [
        (3, 64, 2),
        (64, 64, 1),
        (64, 128, 1),
    ]
    in_backbone = [name for name in convs if name.startswith("backbone.")]
    # 103 layers without those of the shortcuts, one of which is the classifier.
    assert sum("downsample" not in name for name in in_backbone) == 102
    dilations = {n: conv.dilation[0] for n, conv in convs.items() if conv.dilation[0] > 1}
    assert dilations == {
        **{f"backbone.layer4.{block}.conv2": 2 ** (block + 1) for block in range(3)},
        **{f"semantic_head.aspp.views.{i}.conv": 6 * i for i in (1, 2, 3)},
    }
    assert net.backbone.out_channels == (256, 512, 1024, 2048)
    assert net.level_strides[:4] == (4, 8, 16, 16)
    assert net.semantic_point_head is not None
    inputs = [layer.in_features for layer in net.semantic_point_head.layers]
    assert inputs == [256 + 19] * 3
