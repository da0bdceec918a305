"""DeepLabV3: its head, and networks without a pyramid at output strides 16 and 8."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seamless_pr.build.networks import build_network
from seamless_pr.config.networks import (
    BatchNormSettings,
    DeepLabSettings,
    TimmBackboneSettings,
    TwoBranchSettings,
)
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.layers.abn import make_norm_act
from seamless_pr.models.networks.two_branch import TwoBranchNet
from seamless_pr.models.semantics.deeplab import DeepLabV3Head
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import SemanticPointSettings

CITYSCAPES = load_label_space("cityscapes")
SIZE = (64, 128)


def network(output_stride: int = 16, *, refines: bool = True) -> TwoBranchNet:
    torch.manual_seed(0)
    options = {
        "channels": [8, 16, 24, 32],
        "layers": [1, 1, 2, 3],
        "stem_type": "deep",
        "stem_width": 8,
    }
    model = TwoBranchSettings(
        backbone=TimmBackboneSettings(
            output_stride=output_stride, multi_grid=(1, 2, 4), options=options
        ),
        norm_act=BatchNormSettings(slope=0.0),
        neck=None,
        semantics=DeepLabSettings(
            hidden_channels=8,
            pooling_size=4,
            points=SemanticPointSettings(hidden_channels=8) if refines else None,
        ),
        size_divisor=32,
    )
    net = build_network(model, CITYSCAPES)
    assert isinstance(net, TwoBranchNet)
    return net


def batch() -> ImageBatch:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, 3, *SIZE), generator=generator, dtype=torch.uint8)
    return ImageBatch(images, (SIZE, (60, 100)))


def test_dilations_and_windows_are_those_of_stride_16_in_pixels():
    for stride, dilations, window in (
        (32, [3, 6, 9], 24),
        (16, [6, 12, 18], 48),
        (8, [12, 24, 36], 96),
    ):
        aspp = DeepLabV3Head(4, 3, make_norm_act(), hidden_channels=2, stride=stride).aspp
        assert [view.conv.dilation[0] for view in aspp.views[1:]] == dilations
        assert aspp.pooling_size == window


def test_a_head_at_stride_8_sees_what_it_sees_at_stride_16():
    torch.manual_seed(0)
    coarse, fine = (
        DeepLabV3Head(4, 3, make_norm_act(), hidden_channels=8, stride=stride).eval()
        for stride in (16, 8)
    )
    fine.load_state_dict(coarse.state_dict())
    stage = torch.randn(1, 4, 20, 24)
    doubled = stage.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(fine([doubled])[..., ::2, ::2], coarse([stage]))


def test_the_stem_has_three_convolutions_and_no_pyramid_follows():
    net = network()
    assert not list(net.trunk.neck.parameters())
    stem = net.trunk.backbone.get_submodule("conv1").modules()
    convolutions = [layer for layer in stem if isinstance(layer, nn.Conv2d)]
    assert [(conv.out_channels, conv.in_channels) for conv in convolutions] == [
        (8, 3),
        (8, 8),
        (16, 8),
    ]
    # Points read the first stage.
    assert net.semantics.point_head.layers[0].in_features == net.trunk.backbone.out_channels[0] + 19


def test_weights_of_stride_16_give_logits_of_twice_the_resolution_at_stride_8():
    coarse, fine = network(16, refines=False).eval(), network(8, refines=False).eval()
    fine.load_state_dict(coarse.state_dict())
    with torch.no_grad():
        stages = [net.trunk(batch()).levels[-1] for net in (coarse, fine)]
        logits = [
            net.semantics.logits(net.trunk(batch()), SIZE).shape[-2:] for net in (coarse, fine)
        ]
    assert logits == [(4, 8), (8, 16)]
    assert [net.semantics.head.aspp.views[1].conv.dilation for net in (coarse, fine)] == [
        (6, 6),
        (12, 12),
    ]
    torch.testing.assert_close(stages[1][..., ::2, ::2], stages[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_points_refine_logits_to_the_input(output_stride):
    net = network(output_stride).eval()
    with torch.no_grad():
        logits = net.semantics.logits(net.trunk(batch()), SIZE)
    assert logits.shape == (2, CITYSCAPES.num_classes, *SIZE)
    sizes = [(128, 256), (60, 100)]
    for prediction, size in zip(net.predict(batch(), sizes), sizes, strict=True):
        assert prediction.require_panoptic().image_size == size
        assert prediction.semantic_map.shape == size
        assert prediction.instances is None


def test_every_weight_learns():
    net = network()
    target = [
        PanopticTarget(
            torch.ones(size, dtype=torch.int32),
            torch.tensor([3]),
            torch.zeros(1, dtype=torch.bool),
            CITYSCAPES,
        )
        for size in batch().image_sizes
    ]
    losses = net.losses(batch(), target, [torch.Generator().manual_seed(i) for i in range(2)])
    assert set(losses) == {"semantic", "semantic_point"}
    sum(loss.total for loss in losses.values()).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
