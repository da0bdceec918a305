"""Configs of published semantic models: pairs differ in PointRend alone; DeepLab has its layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from seamless_pr.build.configs import load_config
from seamless_pr.build.networks import build_network
from seamless_pr.config.load import config_differences
from seamless_pr.datasets.label_spaces import load_label_space

CONFIGS = Path(__file__).parents[2] / "configs/cityscapes"


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
    assert different.pop("loss_weights.semantic_point") == (None, 1.0)
    # Points refine logits to the network input, so nothing else brings them there.
    assert different.pop("model.semantics.upsample_to_input") == (True, False)
    assert different["model.semantics.points.num_layers"] == (None, 3)
    assert all(key.startswith("model.semantics.points.") for key in different)


def test_deeplab_is_a_resnet_103_of_stride_16_with_points_on_its_first_stage() -> None:
    config = load_config(CONFIGS / "deeplab_v3_pointrend_r103.yaml")
    with torch.device("meta"):
        net = build_network(config.model, load_label_space("cityscapes"))
    convs = {name: m for name, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    stem = [conv for name, conv in convs.items() if name.startswith("trunk.backbone.conv1.")]
    assert [(conv.in_channels, conv.out_channels, conv.stride[0]) for conv in stem] == [
        (3, 64, 2),
        (64, 64, 1),
        (64, 128, 1),
    ]
    in_backbone = [name for name in convs if name.startswith("trunk.backbone.")]
    # 103 layers without those of the shortcuts, one of which is the classifier.
    assert sum("downsample" not in name for name in in_backbone) == 102
    dilations = {n: conv.dilation[0] for n, conv in convs.items() if conv.dilation[0] > 1}
    assert dilations == {
        **{f"trunk.backbone.layer4.{block}.conv2": 2 ** (block + 1) for block in range(3)},
        **{f"semantics.head.aspp.views.{i}.conv": 6 * i for i in (1, 2, 3)},
    }
    assert net.trunk.backbone.out_channels == (256, 512, 1024, 2048)
    assert net.trunk.strides == (4, 8, 16, 16)
    inputs = [layer.in_features for layer in net.semantics.point_head.layers]
    assert inputs == [256 + 19] * 3


def test_separate_networks_have_the_settings_of_the_joint_one() -> None:
    for dataset in ("cityscapes", "idd", "vistas"):
        joint, separate = (
            load_config(CONFIGS.parent / dataset / f"{name}_r50.yaml")
            for name in ("seamless", "separate")
        )
        assert config_differences(joint, separate) == {"model.kind": ("two_branch", "separate")}


@pytest.mark.parametrize(
    "name, num_frozen, norm_decay, numbers",
    [
        ("frozen", 2, 1e-4, "PQ 59.8 (stuff 63.6, things 54.6), PQ† 59.0, AP 33.0, mIoU 76.2"),
        ("unfrozen", 0, 0.0, "PQ 60.2 (stuff 63.6, things 55.6), PQ† 59.6, AP 33.3, mIoU 74.9"),
    ],
)
def test_the_variants_of_table_1_have_their_own_numbers(
    name: str, num_frozen: int, norm_decay: float, numbers: str
) -> None:
    path = CONFIGS / f"seamless_r50_{name}.yaml"
    config = load_config(path)
    assert config.model.backbone.num_frozen == num_frozen
    assert config.optimizer.norm_weight_decay == norm_decay
    assert f"Expected: {numbers}" in path.read_text(encoding="utf-8")
