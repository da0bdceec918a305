"""DeepLabV3: its head, and networks without a pyramid at output strides 16 and 8."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seamless_pr.build.networks import build_model
from seamless_pr.config.schema import (
    BackboneConfig,
    ModelConfig,
    NormActConfig,
    SemanticHeadConfig,
)
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.layers.abn import make_norm_act
from seamless_pr.models.networks.two_branch import PanopticNet
from seamless_pr.models.semantics.deeplab import DeepLabV3Head
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.panoptic_target import PanopticTarget

CITYSCAPES = load_label_space("cityscapes")
SIZE = (64, 128)


def network(output_stride: int = 16, refinement: str = "point_rend") -> PanopticNet:
    torch.manual_seed(0)
    options = {
        "channels": [8, 16, 24, 32],
        "layers": [1, 1, 2, 3],
        "stem_type": "deep",
        "stem_width": 8,
    }
    model = ModelConfig(
        branches="semantic",
        backbone=BackboneConfig(
            "resnet50", output_stride=output_stride, multi_grid=(1, 2, 4), options=options
        ),
        norm_act=NormActConfig("batch_norm", slope=0.0),
        semantic_head=SemanticHeadConfig(
            kind="deeplab_v3",
            hidden_channels=8,
            pooling_size=4,
            refinement=refinement,
            point_channels=8,
        ),
        size_divisor=32,
    )
    return build_model(model, CITYSCAPES)


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
    assert net.fpn is None
    stem = net.backbone.get_submodule("conv1").modules()
    convolutions = [layer for layer in stem if isinstance(layer, nn.Conv2d)]
    assert [(conv.out_channels, conv.in_channels) for conv in convolutions] == [
        (8, 3),
        (8, 8),
        (16, 8),
    ]
    # Points read the first stage.
    assert net.semantic_point_head.layers[0].in_features == net.backbone.out_channels[0] + 19


def test_weights_of_stride_16_give_logits_of_twice_the_resolution_at_stride_8():
    coarse, fine = network(16, "none").eval(), network(8, "none").eval()
    fine.load_state_dict(coarse.state_dict())
    with torch.no_grad():
        stages = [net.features(batch())[-1] for net in (coarse, fine)]
        logits = [
            net.semantic_logits(net.features(batch()), SIZE).shape[-2:] for net in (coarse, fine)
        ]
    assert logits == [(4, 8), (8, 16)]
    assert [net.semantic_head.aspp.views[1].conv.dilation for net in (coarse, fine)] == [
        (6, 6),
        (12, 12),
    ]
    torch.testing.assert_close(stages[1][..., ::2, ::2], stages[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_points_refine_logits_to_the_input(output_stride):
    net = network(output_stride).eval()
    with torch.no_grad():
        logits = net.semantic_logits(net.features(batch()), SIZE)
    assert logits.shape == (2, CITYSCAPES.num_classes, *SIZE)
    for segmentation, detections in net.predict(batch(), [(128, 256), (60, 100)]):
        assert segmentation.id_map.shape in ((128, 256), (60, 100))
        assert len(detections) == 0


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
