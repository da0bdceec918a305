"""The point MLP, and what the options of detectron2's networks change."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.layers import point_head as point_heads
from seamless_pr.layers.abn import make_norm_act
from seamless_pr.layers.point_head import PointHead
from seamless_pr.models.backbones.timm_backbone import TimmBackbone
from seamless_pr.models.instances import point_rend
from seamless_pr.models.instances.point_rend import CoarseMaskHead
from seamless_pr.models.instances.two_stage import PositiveRoIs
from seamless_pr.models.necks.fpn import FPN
from seamless_pr.models.semantics.panoptic_fpn import SemanticFPNHead
from seamless_pr.models.semantics.pixels import (
    num_semantic_classes,
    semantic_labels,
    semantic_loss,
)
from seamless_pr.models.semantics.points import semantic_point_loss
from seamless_pr.ops.points import PointReader, uncertain_coords
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import (
    PointSettings,
    SemanticLossSettings,
    SemanticPointSettings,
)

SPACE = LabelSpace(
    "street",
    tuple(
        Category(index, name, is_thing, (0, 0, 0))
        for index, (name, is_thing) in enumerate(
            [("road", False), ("sky", False), ("car", True), ("person", True)]
        )
    ),
)


def concatenated(head: PointHead, fine: Tensor, coarse: Tensor) -> Tensor:
    """The point MLP as the paper draws it."""
    hidden = fine
    for layer in head.layers:
        assert isinstance(layer, nn.Linear)
        inputs = torch.cat([hidden, coarse], 1)[:, : layer.in_features]
        hidden = F.relu(layer(inputs))
    return head.predictor(torch.cat([hidden, coarse], 1)[:, : head.predictor.in_features])


@pytest.mark.parametrize("block_points", [1024, 2])
@pytest.mark.parametrize("each_layer", [True, False])
def test_the_point_head_equals_layers_on_concatenated_inputs(
    each_layer: bool, block_points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(point_heads, "CPU_BLOCK_POINTS", block_points)
    generator = torch.Generator().manual_seed(0)
    head = PointHead(6, 3, hidden_channels=8, coarse_each_layer=each_layer)
    for parameter in head.parameters():
        nn.init.normal_(parameter, generator=generator)
    fine, coarse = torch.randn(5, 6, generator=generator), torch.randn(5, 3, generator=generator)
    expected_fine, expected_coarse = (x.clone().requires_grad_() for x in (fine, coarse))
    fine.requires_grad_()
    coarse.requires_grad_()
    found, expected = head(fine, coarse), concatenated(head, expected_fine, expected_coarse)
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(fine.grad, expected_fine.grad, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(coarse.grad, expected_coarse.grad, rtol=1e-4, atol=1e-3)


def test_masks_of_a_batch_are_those_of_its_images_and_no_detection_gives_no_mask() -> None:
    torch.manual_seed(0)
    coarse_head, point_head = CoarseMaskHead(8, 3, hidden_channels=16), PointHead(8, 3)
    for parameter in (coarse_head.prediction.weight, point_head.predictor.weight):
        nn.init.normal_(parameter)
    fine_map, size = torch.randn(3, 8, 12, 16), (48, 64)
    boxes = torch.tensor([[3.0, 4.0, 40.0, 30.0], [20.5, 10.0, 60.0, 47.0], [0.0, 0.0, 9.0, 48.0]])
    found = Instances(torch.ones(3), torch.tensor([2, 0, 1]), boxes)
    per_image = [found.select(torch.tensor(rows, dtype=torch.int64)) for rows in ([0], [], [1, 2])]
    settings = PointSettings(subdivision_points=50, start_size=7, output_size=28)
    reader = PointReader((fine_map,), (size,))
    masks = point_rend.point_mask_logits(coarse_head, point_head, reader, per_image, settings)
    assert [tuple(mask.shape) for mask in masks] == [(1, 28, 28), (0, 28, 28), (2, 28, 28)]
    for index, instances in enumerate(per_image):
        single = PointReader((fine_map[index : index + 1],), (size,))
        (alone,) = point_rend.point_mask_logits(
            coarse_head, point_head, single, [instances], settings
        )
        torch.testing.assert_close(masks[index], alone, rtol=1e-4, atol=1e-4)


def test_the_point_head_trains_in_half_precision() -> None:
    head = PointHead(6, 3, hidden_channels=8)
    nn.init.normal_(head.predictor.weight)
    fine, coarse = torch.randn(5, 6, requires_grad=True), torch.randn(5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(fine, coarse)
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), head(fine, coarse), rtol=0.1, atol=0.1)
    logits.sum().backward()
    assert fine.grad is not None


def test_frozen_batch_norm_has_nothing_to_train_and_is_plain_batch_norm() -> None:
    layer = make_norm_act("frozen_batch_norm", slope=0.0)(3)
    assert list(layer.parameters()) == []
    for buffer in layer.buffers():
        buffer.uniform_(0.5, 2.0)
    layer.weight[0] = -1.0
    x = torch.randn(2, 3, 4, 5)
    expected = F.relu(
        F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)
    )
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    torch.testing.assert_close(layer.train()(x), expected)
    assert all(torch.equal(buffer, before[name]) for name, buffer in layer.named_buffers())


def test_a_layer_that_is_only_a_bias_decays_like_weights() -> None:
    layer = make_norm_act("bias")(2, "identity")
    nn.init.constant_(layer.bias, 3.0)
    assert torch.equal(layer(torch.ones(1, 2, 1, 1)), torch.full((1, 2, 1, 1), 4.0))
    assert torch.equal(layer(torch.ones(1, 2)), torch.full((1, 2), 4.0))
    # The optimiser knows norms by this attribute.
    assert not hasattr(layer, "num_features")


def test_layers_that_invert_their_activation_refuse_a_relu() -> None:
    with pytest.raises(ValueError, match="slope must be positive"):
        make_norm_act("inplace_abn", slope=0.0)(4)
    with pytest.raises(ValueError, match="0 or more"):
        make_norm_act("bias", slope=-1.0)(4)


def test_pooled_levels_of_the_pyramid_are_every_second_cell() -> None:
    fpn = FPN([2, 3], 4, make_norm_act("bias"), 2, activation="identity", extra="pool")
    levels = fpn([torch.randn(1, 2, 8, 8), torch.randn(1, 3, 4, 4)])
    assert [tuple(level.shape[-2:]) for level in levels] == [(8, 8), (4, 4), (2, 2), (1, 1)]
    torch.testing.assert_close(levels[2], levels[1][..., ::2, ::2])
    torch.testing.assert_close(levels[3], levels[2][..., ::2, ::2])
    assert any(level.min() < 0 for level in levels)
    with pytest.raises(ValueError, match="extra must be one of"):
        FPN([2], 4, make_norm_act("bias"), extra="stride")


def test_the_stride_moves_into_the_first_convolution_of_a_block() -> None:
    small = {"channels": (8, 16, 24, 32), "stem_width": 8, "layers": (1, 1, 1, 1)}
    norm_act = make_norm_act("frozen_batch_norm", slope=0.0)
    strides = {}
    for in_1x1 in (False, True):
        backbone = TimmBackbone("resnet50", norm_act, stride_in_1x1=in_1x1, **small)
        block = backbone.get_submodule("layer2.0")
        strides[in_1x1] = (block.conv1.stride, block.conv2.stride)
        assert [stage.shape[-1] for stage in backbone(torch.zeros(1, 3, 64, 64))] == [16, 8, 4, 2]
    assert strides == {False: ((1, 1), (2, 2)), True: ((2, 2), (1, 1))}
    with pytest.raises(ValueError, match="no bottleneck block"):
        TimmBackbone("resnet18", norm_act, stride_in_1x1=True)


@pytest.mark.parametrize("first_level, sides", [(0, (17, 9, 5, 3)), (1, (17, 9, 5, 3))])
def test_the_semantic_fpn_head_adds_levels_of_any_size(first_level: int, sides) -> None:
    head = SemanticFPNHead(
        4,
        3,
        make_norm_act("group_norm", slope=0.0, num_groups=32),
        hidden_channels=8,
        first_level=first_level,
        num_levels=4 - first_level,
    )
    levels = [torch.randn(2, 4, side, side + 1, requires_grad=True) for side in sides]
    logits = head(levels)
    assert logits.shape == (2, 3, sides[first_level], sides[first_level] + 1)
    logits.sum().backward()
    assert [level.grad is not None for level in levels] == [
        index >= first_level for index in range(4)
    ]
    assert [len(branch) for branch in head.branches] == [1, 1, 2, 3][: 4 - first_level]
    with pytest.raises(ValueError, match="expected at least 4 levels"):
        head(levels[:3])


def test_batches_are_padded_to_a_multiple_once() -> None:
    batch = ImageBatch.from_images([torch.ones(3, 33, 64, dtype=torch.uint8)])
    padded = batch.padded_to(32)
    assert padded.padded_size == (64, 64)
    assert padded.image_sizes == ((33, 64),)
    assert int(padded.images.sum()) == 3 * 33 * 64
    assert padded.padded_to(32) is padded


def target_of(rows: list[list[int]]) -> PanopticTarget:
    """Train id + 1 per pixel, 0 void."""
    id_map = torch.tensor(rows, dtype=torch.int32)
    return PanopticTarget(id_map, torch.arange(4), torch.zeros(4, dtype=torch.bool), SPACE)


def test_all_things_can_be_one_class_after_the_stuff() -> None:
    target = target_of([[1, 2, 3], [4, 0, 2]])
    merged = SemanticLossSettings(things="merged")
    assert semantic_labels(target, merged_things=True).tolist() == [[0, 1, 2], [2, 255, 1]]
    assert semantic_labels(target, merged_things=False).tolist() == [[0, 1, 2], [3, 255, 1]]
    assert num_semantic_classes(SPACE, merged) == 3
    assert num_semantic_classes(SPACE, SemanticLossSettings()) == 4


def test_the_mean_of_valid_pixels_is_that_of_cross_entropy_over_the_batch() -> None:
    targets = [target_of([[1, 2], [0, 3]]), target_of([[0, 0], [4, 0]])]
    logits = torch.randn(2, 4, 2, 2, requires_grad=True)
    settings = SemanticLossSettings(loss="valid_mean")
    loss = semantic_loss(logits, targets, [(2, 2), (2, 2)], (2, 2), settings)["semantic"]
    labels = torch.stack([target.semantic_map for target in targets])
    expected = F.cross_entropy(logits, labels, ignore_index=255)
    assert loss.count == 4
    torch.testing.assert_close(loss.total / loss.count, expected)


# Table 4 of the paper: the training strategies, as (oversample_ratio, importance_fraction).
STRATEGIES = {"uniform": (1, 0.0), "mildly biased": (3, 0.75), "heavily biased": (10, 1.0)}


def test_the_papers_strategies_are_settings_ordered_by_their_bias() -> None:
    shares = {}
    for name, (ratio, fraction) in STRATEGIES.items():
        generator = torch.Generator().manual_seed(1)

        def draw(count: int, generator: torch.Generator = generator) -> Tensor:
            return torch.rand(4, count, 2, generator=generator)

        # The boundary is the vertical line in the middle.
        coords = uncertain_coords(
            lambda points: -(points[..., 0] - 0.5).abs(), 4, 196, ratio, fraction, draw
        )
        assert coords.shape == (4, 196, 2)
        shares[name] = float(((coords[..., 0] - 0.5).abs() < 0.05).float().mean())
    # One tenth of the area; 147 of 588 candidates, of which a tenth is near, and 49 free ones; the
    # best 196 of 1960.
    assert shares["uniform"] == pytest.approx(0.1, abs=0.04)
    assert shares["mildly biased"] == pytest.approx(0.325, abs=0.05)
    assert shares["heavily biased"] > 0.9


def grid_losses(monkeypatch, num_points: int) -> list[Tensor]:
    """The points at which the mask losses read, with a regular grid demanded."""
    seen: list[Tensor] = []
    gather = point_rend.gather_point_features

    def watched(reader: PointReader, coarse: Tensor, coords: Tensor, *rest):
        seen.append(coords)
        return gather(reader, coarse, coords, *rest)

    monkeypatch.setattr(point_rend, "gather_point_features", watched)
    box = torch.tensor([[1.0, 1.0, 7.0, 7.0]])
    one = torch.ones(1, dtype=torch.int64)
    rois = PositiveRoIs(box, 0 * one, 0 * one, 3 * one.int(), box)
    settings = PointSettings(num_train_points=num_points, train_points="grid")
    point_rend.point_mask_losses(
        CoarseMaskHead(4, 2, hidden_channels=8),
        PointHead(4, 2, hidden_channels=8),
        PointReader((torch.randn(1, 4, 2, 2),), ((8, 8),)),
        rois,
        [target_of([[3] * 8] * 8)],
        settings,
        [torch.Generator()],
    )
    return seen


def test_training_points_may_be_a_regular_grid(monkeypatch) -> None:
    (coords,) = grid_losses(monkeypatch, 4)
    assert coords.tolist() == [[[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]]
    with pytest.raises(
        ValueError, match=r"must be a square for 'train_points: grid'; got 5; use 4 or 9"
    ):
        grid_losses(monkeypatch, 5)


class AlwaysFirstClass(nn.Module):
    """A point head that sees class 0 at every point, with one certainty per image."""

    def __init__(self, certainty: Tensor) -> None:
        super().__init__()
        self.certainty = certainty

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        logits = torch.zeros_like(coarse)
        logits[:, 0] = self.certainty.repeat_interleave(len(coarse) // len(self.certainty))
        return logits


def test_only_the_hardest_points_of_each_image_count_if_wanted() -> None:
    # A quarter of the first image is class 1 and hard; the second has void and the easy class.
    certainty = torch.tensor([2.0, 3.0])
    first = [[2] * 4 + [1] * 12] * 16
    second = [[0] * 8 + [1] * 8] * 16

    def loss(fraction: float) -> LossSum:
        settings = SemanticPointSettings(
            num_train_points=2000, importance_fraction=0.0, hard_point_fraction=fraction
        )
        return semantic_point_loss(
            AlwaysFirstClass(certainty),
            torch.zeros(2, 4, 8, 8),
            torch.zeros(2, 4, 8, 8),
            [target.semantic_map for target in (target_of(first), target_of(second))],
            (16, 16),
            settings,
            [torch.Generator().manual_seed(seed) for seed in range(2)],
        )["semantic_point"]

    easy = torch.log1p(3 * torch.exp(-certainty))
    hard = easy[0] + certainty[0]
    every = loss(1.0)
    assert every.count == pytest.approx(3000, abs=100)
    expected = float(500 * hard + 1500 * easy[0] + 1000 * easy[1])
    assert float(every.total) == pytest.approx(expected, rel=0.05)
    few = loss(0.1)
    assert few.count == pytest.approx(300, abs=10)
    torch.testing.assert_close(few.total, 200 * hard + (few.count - 200) * easy[1])
