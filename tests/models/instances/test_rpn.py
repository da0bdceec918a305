"""Region proposals: anchors, selection and losses."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.layers.abn import make_norm_act
from seamless_pr.models.instances.rpn import (
    RPNHead,
    RPNOutput,
    fixed_proposals,
    generate_anchors,
    propose,
    rpn_losses,
)
from seamless_pr.ops.boxes import box_iou, clip_boxes, encode_boxes
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import RPNSettings
from tests.support.golden import load_golden, x_first_channels, xyxy

CITYSCAPES = RPNSettings()
VISTAS = RPNSettings(anchor_scale=2.0, anchor_ratios=(0.2, 0.5, 1.0, 2.0, 5.0))
LABEL_SPACE = LabelSpace(
    "toy", (Category(7, "road", False, (128, 64, 128)), Category(26, "car", True, (0, 0, 142)))
)
IMAGE_SIZE = (64, 96)
FEATURE_SIZES = ((16, 24), (8, 12))
# Small anchors, so that most of them lie inside the toy image.
TOY = RPNSettings(anchor_scale=3.0, num_samples=64)


def anchors_of(settings: RPNSettings) -> tuple[Tensor, ...]:
    return generate_anchors(FEATURE_SIZES, (4, 8), settings)


def random_output(num_images: int = 1, seed: int = 0) -> RPNOutput:
    generator = torch.Generator().manual_seed(seed)
    logits, deltas = [], []
    for height, width in FEATURE_SIZES:
        logits.append(torch.randn(num_images, 3, height, width, generator=generator))
        deltas.append(torch.randn(num_images, 12, height, width, generator=generator) * 0.2)
    return RPNOutput(
        tuple(level.requires_grad_() for level in logits),
        tuple(level.requires_grad_() for level in deltas),
    )


def street(*cars: tuple[int, int, int, int], crowd: tuple[int, ...] = ()) -> PanopticTarget:
    """Road, and cars as rectangles (x0, y0, x1, y1); `crowd` are positions among the cars."""
    id_map = torch.ones(IMAGE_SIZE, dtype=torch.int32)
    for index, (x0, y0, x1, y1) in enumerate(cars):
        id_map[y0:y1, x0:x1] = index + 2
    is_crowd = torch.tensor([False] + [index in crowd for index in range(len(cars))])
    return PanopticTarget(id_map, torch.tensor([0] + [1] * len(cars)), is_crowd, LABEL_SPACE)


def losses(output: RPNOutput, targets: list[PanopticTarget], seed: int = 0) -> dict[str, LossSum]:
    generators = [torch.Generator().manual_seed(seed + index) for index in range(len(targets))]
    sizes = [IMAGE_SIZE] * len(targets)
    return rpn_losses(output, anchors_of(TOY), targets, sizes, TOY, generators)


@pytest.mark.parametrize(
    ("key", "settings"), [("anchors_s8_3x4", CITYSCAPES), ("anchors_vistas_s8_3x4", VISTAS)]
)
def test_anchors_are_the_references(key: str, settings: RPNSettings) -> None:
    (anchors,) = generate_anchors([(3, 4)], [8], settings)
    torch.testing.assert_close(anchors, xyxy(load_golden("seamseg/ops")[key]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "image_size", "strides", "settings"),
    [
        ("city_s7_201x333", (201, 333), (4, 8, 16, 32, 64), CITYSCAPES),
        ("vistas_s8_160x250", (160, 250), (4, 8, 16, 32, 64, 128), VISTAS),
    ],
)
def test_proposals_are_the_references(
    case: str, image_size: tuple[int, int], strides: tuple[int, ...], settings: RPNSettings
) -> None:
    golden = load_golden(f"seamseg/{case}")
    levels = range(len(strides))
    output = RPNOutput(
        tuple(golden[f"rpn_obj{level}"] for level in levels),
        tuple(x_first_channels(golden[f"rpn_bbx{level}"]) for level in levels),
    )
    sizes = [(logits.shape[2], logits.shape[3]) for logits in output.objectness_logits]
    anchors = generate_anchors(sizes, strides, settings)
    (proposals,) = propose(output, anchors, [image_size], settings, training=False)
    torch.testing.assert_close(proposals.boxes, xyxy(golden["proposals_0"]), rtol=0, atol=1e-3)


def test_head_gives_one_logit_and_four_deltas_per_anchor_on_every_level() -> None:
    head = RPNHead(8, 5, make_norm_act("abn"), hidden_channels=6)
    output = head([torch.randn(2, 8, 9, 7), torch.randn(2, 8, 5, 4)])
    assert [tuple(level.shape) for level in output.objectness_logits] == [
        (2, 5, 9, 7),
        (2, 5, 5, 4),
    ]
    assert [tuple(level.shape) for level in output.box_deltas] == [(2, 20, 9, 7), (2, 20, 5, 4)]


def test_full_size_head_has_the_references_number_of_parameters() -> None:
    head = RPNHead(256, 3, make_norm_act("inplace_abn"))
    assert sum(parameter.numel() for parameter in head.parameters()) == 594_191


def test_predictors_start_near_zero_and_the_convolution_keeps_the_variance() -> None:
    head = RPNHead(32, 15, make_norm_act("abn"), hidden_channels=64)
    for predictor, outputs in ((head.objectness, 15), (head.box_deltas, 60)):
        expected = 0.01 * math.sqrt(2 / (64 + outputs))
        assert float(predictor.weight.detach().std()) == pytest.approx(expected, rel=0.1)
        assert not predictor.bias.any()
    # Xavier: 2 over both fans; a leaky rectifier of slope s takes away (1 + s^2) / 2.
    expected = math.sqrt(2 / (1 + 0.01**2)) * math.sqrt(2 / (9 * (32 + 64)))
    assert float(head.conv.weight.detach().std()) == pytest.approx(expected, rel=0.02)


def test_proposals_point_where_the_single_confident_anchor_points() -> None:
    logits = [torch.full((1, 3, *size), -5.0) for size in FEATURE_SIZES]
    deltas = [torch.zeros(1, 12, *size) for size in FEATURE_SIZES]
    # Anchor 2 (ratio 2: height = 2 width) in row 3, column 5 at stride 8 moves half its width.
    logits[1][0, 2, 3, 5] = 4.0
    deltas[1][0, 2 * 4, 3, 5] = 0.5
    output = RPNOutput(tuple(logits), tuple(deltas))
    (proposals,) = propose(output, anchors_of(TOY), [IMAGE_SIZE], TOY, training=False)
    width, height = 24 / 2**0.5, 24 * 2**0.5
    center_x, center_y = 5.5 * 8 + width / 2, 3.5 * 8
    expected = [
        center_x - width / 2,
        center_y - height / 2,
        center_x + width / 2,
        center_y + height / 2,
    ]
    assert proposals.boxes[0].tolist() == pytest.approx(expected, abs=1e-4)
    assert proposals.logits[0] == 4


def test_training_and_testing_keep_their_own_numbers() -> None:
    settings = replace(
        TOY,
        pre_nms_train=50,
        post_nms_train=20,
        pre_nms_test=30,
        post_nms_test=7,
        nms_threshold=1.0,
    )
    for training, expected in ((True, 20), (False, 7)):
        (proposals,) = propose(
            random_output(), anchors_of(TOY), [IMAGE_SIZE], settings, training=training
        )
        assert len(proposals) == expected
        assert torch.equal(proposals.logits, proposals.logits.sort(descending=True).values)


def test_selection_per_level_lets_every_level_take_part() -> None:
    output = random_output()
    loud = RPNOutput(
        (output.objectness_logits[0] + 100, output.objectness_logits[1]), output.box_deltas
    )
    settings = replace(TOY, pre_nms_test=10, post_nms_test=15, nms_threshold=1.0)
    together = propose(loud, anchors_of(TOY), [IMAGE_SIZE], settings, training=False)[0]
    per_level = replace(settings, nms_per_level=True)
    apart = propose(loud, anchors_of(TOY), [IMAGE_SIZE], per_level, training=False)[0]
    assert (together.logits > 50).all()
    assert ((apart.logits > 50).sum(), (apart.logits < 50).sum()) == (10, 5)


def test_proposals_stay_inside_the_valid_pixels_of_their_own_image() -> None:
    sizes = [(40, 96), (64, 50)]
    for proposals, (height, width) in zip(
        propose(random_output(2), anchors_of(TOY), sizes, TOY, training=True), sizes, strict=True
    ):
        assert (proposals.boxes >= 0).all()
        assert proposals.boxes[:, 2].max() == width
        assert proposals.boxes[:, 3].max() == height


def test_boxes_that_clipping_empties_are_left_out_on_demand() -> None:
    logits = [torch.full((1, 3, *size), -5.0) for size in FEATURE_SIZES]
    deltas = [torch.zeros(1, 12, *size) for size in FEATURE_SIZES]
    # Best: an anchor that goes far to the left, then one that goes far up, then one that stays.
    for score, (row, column), channel in ((3.0, (3, 5), 0), (2.0, (4, 6), 1), (1.0, (4, 5), 0)):
        logits[1][0, 0, row, column] = score
        deltas[1][0, channel, row, column] = -10.0 if score > 1 else 0.0
    output = RPNOutput(tuple(logits), tuple(deltas))
    for drop_empty, first in ((False, 3.0), (True, 1.0)):
        settings = replace(TOY, drop_empty=drop_empty)
        (found,) = propose(output, anchors_of(TOY), [IMAGE_SIZE], settings, training=False)
        assert found.logits[0] == first
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        assert (sides > 0).all() or not drop_empty


@pytest.mark.parametrize("drop_empty", [False, True])
@pytest.mark.parametrize("nms_per_level", [False, True])
@pytest.mark.parametrize("whole_pixels", [False, True])
def test_fixed_shapes_hold_the_same_proposals(
    whole_pixels: bool, nms_per_level: bool, drop_empty: bool
) -> None:
    settings = replace(
        TOY,
        nms_threshold=0.4,
        pre_nms_test=60,
        post_nms_test=25,
        whole_pixels=whole_pixels,
        nms_per_level=nms_per_level,
        drop_empty=drop_empty,
    )
    output, sizes = random_output(2), [(40, 96), (30, 50)]
    anchors = anchors_of(settings)
    expected = propose(output, anchors, sizes, settings, training=False)
    fixed = fixed_proposals(output, anchors, sizes, settings)
    assert fixed.boxes.shape[0] == fixed.valid.shape[0] == 2
    assert fixed.converged.all()
    for boxes, valid, proposals in zip(fixed.boxes, fixed.valid, expected, strict=True):
        torch.testing.assert_close(boxes[valid], proposals.boxes, rtol=0, atol=0)


def test_labels_and_targets_of_a_whole_image_are_the_references() -> None:
    golden = load_golden("seamseg/train_city_s5_256x512_evalbn")
    categories = [Category(index, str(index), index >= 11, (0, 0, 0)) for index in range(19)]
    target = PanopticTarget(
        golden["msk0"].int(),
        golden["cat0"][1:].long(),
        golden["iscrowd0"][1:].bool(),
        LabelSpace("cityscapes", tuple(categories)),
    )
    sizes = [(64, 128), (32, 64), (16, 32), (8, 16), (4, 8)]
    anchors = generate_anchors(sizes, (4, 8, 16, 32, 64), CITYSCAPES)
    generator = torch.Generator().manual_seed(0)
    output = RPNOutput(
        tuple(torch.randn(1, 3, *size, generator=generator) for size in sizes),
        tuple(torch.randn(1, 12, *size, generator=generator) for size in sizes),
    )
    everything = replace(CITYSCAPES, num_samples=10_000_000)
    actual = rpn_losses(output, anchors, [target], [(256, 512)], everything, [generator])

    labels, positives = golden["rpn_obj_lbl"][0], golden["rpn_pos_idx0"]
    used = labels >= 0
    flat_logits = torch.cat([x.movedim(1, -1).flatten() for x in output.objectness_logits])
    expected_objectness = F.binary_cross_entropy_with_logits(
        flat_logits[used], labels[used].float(), reduction="sum"
    )
    flat_deltas = torch.cat([x.movedim(1, -1).reshape(-1, 4) for x in output.box_deltas])
    error = (flat_deltas[positives] - xyxy(golden["rpn_pos_bbx_lbl0"])).abs()
    expected_box = torch.where(error < 1 / 9, 4.5 * error**2, error - 1 / 18).sum()
    assert actual["rpn_objectness"].count == actual["rpn_box"].count == used.sum()
    torch.testing.assert_close(actual["rpn_objectness"].total, expected_objectness)
    torch.testing.assert_close(actual["rpn_box"].total, expected_box)


def on_levels(flat: Tensor) -> tuple[Tensor, ...]:
    """[P, n] in the order of the anchors -> [1, A * n, h, w] per level."""
    counts = [height * width * 3 for height, width in FEATURE_SIZES]
    return tuple(
        part.reshape(1, *size, -1).movedim(-1, 1)
        for part, size in zip(flat.split(counts), FEATURE_SIZES, strict=True)
    )


def test_perfect_predictions_cost_nothing() -> None:
    target = street((10, 10, 40, 30), (50, 20, 80, 55))
    anchors = torch.cat(anchors_of(TOY))
    # Only the forced anchors show objects, and whatever does not overlap at all is background.
    settings = replace(TOY, positive_iou=1.0, negative_iou=1e-9, num_samples=10_000)
    boxes = target.boxes[target.object_indices]
    inside = (clip_boxes(anchors, IMAGE_SIZE) == anchors).all(1)
    best = (box_iou(anchors, boxes) * inside[:, None]).argmax(0)
    logits, deltas = torch.full((len(anchors), 1), -50.0), torch.zeros(len(anchors), 4)
    logits[best], deltas[best] = 50.0, encode_boxes(anchors[best], boxes)
    output = RPNOutput(on_levels(logits), on_levels(deltas))
    actual = rpn_losses(
        output, anchors_of(TOY), [target], [IMAGE_SIZE], settings, [torch.Generator()]
    )
    assert actual["rpn_objectness"].total == pytest.approx(0, abs=1e-6)
    assert actual["rpn_box"].total == pytest.approx(0, abs=1e-6)
    (proposals,) = propose(output, anchors_of(TOY), [IMAGE_SIZE], TOY, training=False)
    assert box_iou(proposals.boxes[:2], boxes).max(0).values.min() > 0.999


def test_losses_add_up_over_images() -> None:
    output, targets = random_output(2), [street((10, 10, 40, 30)), street((50, 20, 80, 55))]
    together = losses(output, targets)
    for name, loss in together.items():
        parts = []
        for image, target in enumerate(targets):
            alone = RPNOutput(
                tuple(level[image : image + 1] for level in output.objectness_logits),
                tuple(level[image : image + 1] for level in output.box_deltas),
            )
            parts.append(losses(alone, [target], seed=image)[name])
        torch.testing.assert_close(loss.total, parts[0].total + parts[1].total)
        assert loss.count == parts[0].count + parts[1].count == 128


@pytest.mark.parametrize("kind", ["no object", "only crowd", "only void"])
def test_images_without_objects_teach_background_only(kind: str) -> None:
    target = street((20, 20, 50, 50), crowd=(0,)) if kind == "only crowd" else street()
    if kind == "only void":
        none = torch.zeros(0, dtype=torch.int64)
        void = torch.zeros(IMAGE_SIZE, dtype=torch.int32)
        target = PanopticTarget(void, none, none.bool(), LABEL_SPACE)
    output = random_output()
    actual = losses(output, [target])
    assert actual["rpn_objectness"].count == 64
    assert actual["rpn_objectness"].total > 0
    assert actual["rpn_box"].total == 0
    sum(loss.total for loss in actual.values()).backward()
    gradients = [level.grad for level in output.objectness_logits + output.box_deltas]
    assert all(gradient is not None for gradient in gradients)
    assert not any(level.grad.any() for level in output.box_deltas)


def test_no_usable_anchor_gives_a_loss_of_zero_with_a_gradient() -> None:
    output = random_output()
    settings = replace(TOY, anchor_scale=100.0)
    actual = rpn_losses(
        output, anchors_of(settings), [street()], [IMAGE_SIZE], settings, [torch.Generator()]
    )
    assert all(loss.total == 0 and loss.count == 0 for loss in actual.values())
    sum(loss.total for loss in actual.values()).backward()
    assert output.objectness_logits[0].grad is not None


def test_half_precision_predictions_give_single_precision_losses_and_boxes() -> None:
    output = random_output()
    half = RPNOutput(
        tuple(level.bfloat16() for level in output.objectness_logits),
        tuple(level.bfloat16() for level in output.box_deltas),
    )
    actual = losses(half, [street((10, 10, 40, 30))])
    assert all(loss.total.dtype == torch.float32 for loss in actual.values())
    (proposals,) = propose(half, anchors_of(TOY), [IMAGE_SIZE], TOY, training=False)
    assert proposals.boxes.dtype == proposals.logits.dtype == torch.float32


def test_one_stride_per_level_is_needed() -> None:
    with pytest.raises(ValueError, match="2 feature sizes but 1 strides"):
        generate_anchors(FEATURE_SIZES, (4,), TOY)
