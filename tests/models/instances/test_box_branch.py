"""Box branch: sampled RoIs, losses and detections."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.layers.abn import make_norm_act
from seamless_pr.models.instances.box_branch import (
    BoxHead,
    BoxOutput,
    SampledRoIs,
    box_losses,
    detect_boxes,
    fixed_detections,
    regressed_boxes,
    sample_proposals,
)
from seamless_pr.models.instances.rpn import FixedProposals, Proposals
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import BoxSettings
from tests.support.golden import load_golden, xyxy

SETTINGS = BoxSettings()
LABEL_SPACE = LabelSpace(
    "toy",
    (
        Category(7, "road", False, (128, 64, 128)),
        Category(24, "person", True, (220, 20, 60)),
        Category(26, "car", True, (0, 0, 142)),
    ),
)
PERSON, CAR = 1, 2
IMAGE_SIZE = (60, 80)


def street(*objects: tuple[int, int, int, int, int], crowd: tuple[int, ...] = ()) -> PanopticTarget:
    """Road, and rectangles (train id, x0, y0, x1, y1); `crowd` are positions among them."""
    id_map = torch.ones(IMAGE_SIZE, dtype=torch.int32)
    for index, (_, x0, y0, x1, y1) in enumerate(objects):
        id_map[y0:y1, x0:x1] = index + 2
    return PanopticTarget(
        id_map,
        torch.tensor([0] + [train_id for train_id, *_ in objects]),
        torch.tensor([False] + [index in crowd for index in range(len(objects))]),
        LABEL_SPACE,
    )


def proposals_of(*boxes: tuple[float, float, float, float]) -> Proposals:
    return Proposals(torch.tensor(boxes).reshape(-1, 4), torch.zeros(len(boxes)))


def sample(
    proposals: Proposals, target: PanopticTarget, settings: BoxSettings = SETTINGS, seed: int = 0
) -> SampledRoIs:
    return sample_proposals(proposals, target, settings, torch.Generator().manual_seed(seed))


def output_of(probs: list[list[float]], deltas: Tensor | None = None) -> BoxOutput:
    """Predictions with these class probabilities (background first)."""
    logits = torch.tensor(probs).log()
    num_things = logits.shape[1] - 1
    return BoxOutput(logits, torch.zeros(len(logits), 4 * num_things) if deltas is None else deltas)


def random_output(num_rois: int) -> BoxOutput:
    generator = torch.Generator().manual_seed(0)
    return BoxOutput(
        torch.randn(num_rois, 3, generator=generator).requires_grad_(),
        torch.randn(num_rois, 8, generator=generator).requires_grad_(),
    )


def test_sampled_rois_are_the_references() -> None:
    golden = load_golden("seamseg/train_city_s5_256x512_evalbn")
    categories = [Category(index, str(index), index >= 11, (0, 0, 0)) for index in range(19)]
    target = PanopticTarget(
        golden["msk0"].int(),
        golden["cat0"][1:].long(),
        golden["iscrowd0"][1:].bool(),
        LabelSpace("cityscapes", tuple(categories)),
    )
    proposals = Proposals(xyxy(golden["proposals0"]), torch.zeros(1000))
    rois = sample(proposals, target, replace(SETTINGS, num_samples=10_000_000))
    # The reference numbers the objects, we number all segments.
    positions = {int(segment): index for index, segment in enumerate(target.object_indices)}
    positions[-1] = -1
    matches = [positions[int(segment)] for segment in rois.matched_segment]
    rows = [
        (match, *xyxy(box).tolist(), thing + 1)
        for match, box, thing in zip(matches, rois.boxes, rois.thing_indices.tolist(), strict=True)
    ]
    golden_columns = (golden["roi_match0"], golden["roi_proposals0"], golden["roi_cls_lbl0"])
    expected = [
        (match, *box.tolist(), label)
        for match, box, label in zip(
            golden_columns[0].tolist(), golden_columns[1], golden_columns[2].tolist(), strict=True
        )
    ]
    torch.testing.assert_close(
        torch.tensor(sorted(rows)), torch.tensor(sorted(expected)), rtol=0, atol=1e-4
    )
    assert rois.num_objects == len(golden["roi_bbx_lbl0"])


@pytest.mark.parametrize(
    ("case", "image_size", "max_detections"),
    [("city_s7_201x333", (201, 333), 100), ("vistas_s8_160x250", (160, 250), 256)],
)
def test_detections_are_the_references(
    case: str, image_size: tuple[int, int], max_detections: int
) -> None:
    golden = load_golden(f"seamseg/{case}")
    output = BoxOutput(golden["roi_cls_logits"], xyxy(golden["roi_bbx_logits"]).flatten(1))
    settings = replace(SETTINGS, max_detections=max_detections)
    (found,) = detect_boxes(output, [xyxy(golden["proposals_0"])], [image_size], settings)
    torch.testing.assert_close(found.boxes, xyxy(golden["bbx_pred_0"]), rtol=0, atol=1e-3)
    torch.testing.assert_close(found.scores, golden["obj_pred_0"], rtol=0, atol=1e-6)
    assert torch.equal(found.thing_indices, golden["cls_pred_0"].long())


def test_full_size_head_has_the_references_number_of_parameters() -> None:
    head = BoxHead(256, 8, make_norm_act("inplace_abn"))
    assert sum(parameter.numel() for parameter in head.parameters()) == 13_939_753


@pytest.mark.parametrize("kind", ["abn", "inplace_abn"])
@pytest.mark.parametrize("num_rois", [0, 1, 5])
def test_head_works_on_any_number_of_rois(kind: str, num_rois: int) -> None:
    head = BoxHead(4, 2, make_norm_act(kind), hidden_channels=8, roi_size=6)
    features = torch.randn(num_rois, 4, 6, 6, requires_grad=True)
    output = head(features)
    assert output.class_logits.shape == (num_rois, 3)
    assert output.box_deltas.shape == (num_rois, 8)
    (output.class_logits.sum() + output.box_deltas.sum()).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_head_needs_a_roi_size_that_its_pooling_divides() -> None:
    with pytest.raises(ValueError, match=r"multiple of pooling \(2\); got 7"):
        BoxHead(4, 2, make_norm_act("abn"), roi_size=7)


def test_objects_themselves_are_rois_and_come_first() -> None:
    target = street((CAR, 10, 10, 30, 30), (PERSON, 40, 10, 50, 40))
    rois = sample(proposals_of((0, 40, 9, 50), (11, 10, 30, 30)), target)
    assert rois.boxes.tolist() == [
        [10, 10, 30, 30],
        [40, 10, 50, 40],
        [11, 10, 30, 30],
        [0, 40, 9, 50],
    ]
    assert rois.matched_segment.tolist() == [1, 2, 1, -1]
    assert rois.thing_indices.tolist() == [1, 0, 1, -1]
    assert (len(rois), rois.num_objects) == (4, 3)


def test_at_most_a_quarter_of_the_rois_are_objects() -> None:
    target = street((CAR, 10, 10, 30, 30))
    near = [(10.0, 10.0, 30.0, 30 - 0.1 * index) for index in range(40)]
    far = [(50.0, 10.0, 70.0, 30 - 0.1 * index) for index in range(60)]
    rois = sample(proposals_of(*near, *far), target, replace(SETTINGS, num_samples=32))
    assert (rois.num_objects, len(rois)) == (8, 32)
    again = sample(proposals_of(*near, *far), target, replace(SETTINGS, num_samples=32))
    assert torch.equal(rois.boxes, again.boxes)


@pytest.mark.parametrize("crowd", [(), (0,)])
def test_images_without_objects_give_background_only_on_demand(crowd: tuple[int, ...]) -> None:
    target = street((CAR, 10, 10, 30, 30), crowd=crowd) if crowd else street()
    proposals = proposals_of((50, 10, 70, 30), (10, 10, 28, 30))
    rois = sample(proposals, target)
    assert rois.boxes.shape == (0, 4)
    assert rois.matched_segment.dtype == rois.thing_indices.dtype == torch.int64
    rois = sample(proposals, target, replace(SETTINGS, background_without_objects=True))
    # The proposal in the crowd is not background.
    assert len(rois) == (1 if crowd else 2)
    assert rois.num_objects == 0


def test_each_object_takes_its_best_proposal_on_demand() -> None:
    target = street((CAR, 10, 10, 50, 30), (PERSON, 30, 10, 60, 30))
    # IoU with the visible 20x20 of the car and with the 30x20 of the person: 0.57 and 0.63.
    proposals = proposals_of((12, 10, 61, 30), (20, 10, 60, 30))
    own, taken = {}, {}
    for forces in (False, True):
        rois = sample(proposals, target, replace(SETTINGS, positive_iou=0.3, forces_best=forces))
        found = dict(zip(map(tuple, rois.boxes.tolist()), rois.matched_segment.tolist()))
        own[forces] = [found[10, 10, 30, 30], found[30, 10, 60, 30]]
        taken[forces] = [found.get(tuple(box)) for box in proposals.boxes.tolist()]
    assert own == {False: [1, 2], True: [1, 2]}
    assert taken[False] == [2, 2]
    assert taken[True] == [1, 2]


def test_losses_are_the_formulas_of_the_papers() -> None:
    targets = [street((CAR, 10, 10, 30, 30)), street((PERSON, 40, 10, 50, 40))]
    sampled = [
        sample(proposals_of((14, 10, 34, 30), (50, 40, 60, 50)), targets[0]),
        sample(proposals_of((0, 0, 9, 9)), targets[1]),
    ]
    output = random_output(5)
    losses = box_losses(output, sampled, targets, SETTINGS)
    # The car itself, one 4 px (a fifth of the width) to the right of it, background;
    # in the second image the person and background.
    labels = torch.tensor([2, 2, 0, 1, 0])
    expected_class = F.nll_loss(output.class_logits.log_softmax(1), labels, reduction="sum")
    own_deltas = output.box_deltas.detach()
    errors = torch.stack([own_deltas[0, 4:], own_deltas[1, 4:], own_deltas[3, :4]])
    errors[1, 0] += 10 * 0.2
    errors = errors.abs()
    expected_delta = torch.where(errors < 1, 0.5 * errors**2, errors - 0.5).sum()
    torch.testing.assert_close(losses["box_class"].total, expected_class)
    torch.testing.assert_close(losses["box_delta"].total, expected_delta)
    assert losses["box_class"].count == losses["box_delta"].count == 5


def test_no_rois_cost_exactly_nothing_and_keep_a_gradient() -> None:
    target = street()
    output = random_output(0)
    losses = box_losses(output, [sample(proposals_of(), target)], [target], SETTINGS)
    assert all(loss.total == 0 and loss.count == 0 for loss in losses.values())
    sum(loss.total for loss in losses.values()).backward()
    assert output.class_logits.grad is not None
    assert output.box_deltas.grad is not None


def test_background_alone_costs_no_box_loss() -> None:
    target = street()
    settings = replace(SETTINGS, background_without_objects=True)
    rois = sample(proposals_of((0, 0, 9, 9)), target, settings)
    output = random_output(1)
    losses = box_losses(output, [rois], [target], settings)
    assert losses["box_class"].total > 0
    assert losses["box_delta"].total == 0
    sum(loss.total for loss in losses.values()).backward()
    assert not output.box_deltas.grad.any()


def test_half_precision_predictions_give_single_precision_losses() -> None:
    target = street((CAR, 10, 10, 30, 30))
    output = random_output(1)
    half = BoxOutput(output.class_logits.bfloat16(), output.box_deltas.bfloat16())
    losses = box_losses(half, [sample(proposals_of(), target)], [target], SETTINGS)
    assert all(loss.total.dtype == torch.float32 for loss in losses.values())


def test_predictions_for_other_rois_are_an_error() -> None:
    target = street((CAR, 10, 10, 30, 30))
    with pytest.raises(ValueError, match="1 sampled RoIs but predictions for 3"):
        box_losses(random_output(3), [sample(proposals_of(), target)], [target], SETTINGS)


def test_detections_move_by_the_deltas_of_their_own_class() -> None:
    deltas = torch.zeros(1, 8)
    deltas[0, 4:] = torch.tensor([10 * 0.5, 0, 5 * math.log(2), 0])
    boxes = torch.tensor([[20.0, 20, 30, 40]])
    (found,) = detect_boxes(output_of([[0.1, 0.3, 0.6]], deltas), [boxes], [IMAGE_SIZE], SETTINGS)
    assert found.thing_indices.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([0.3, 0.6])
    expected = torch.tensor([[20.0, 20, 30, 40], [20, 20, 40, 40]])
    torch.testing.assert_close(found.boxes, expected)
    moved = regressed_boxes(
        boxes.expand(2, 4), deltas.expand(2, 8), torch.tensor([0, 1]), [IMAGE_SIZE] * 2, SETTINGS
    )
    torch.testing.assert_close(moved, expected)


def test_scores_must_exceed_the_threshold_and_boxes_must_not_be_empty() -> None:
    settings = replace(SETTINGS, score_threshold=0.25)
    boxes = torch.tensor([[0.0, 0, 9, 9], [20, 20, 29, 29], [90, 0, 99, 9]])
    output = output_of([[0.5, 0.25, 0.25], [0.4, 0.2, 0.4], [0.1, 0.1, 0.8]])
    (found,) = detect_boxes(output, [boxes], [IMAGE_SIZE], settings)
    # The first only equals the threshold, the third lies outside the image.
    assert found.boxes.tolist() == [[20, 20, 29, 29]]
    assert found.thing_indices.tolist() == [1]


def test_boxes_outside_of_the_image_keep_a_pixel_on_demand() -> None:
    # Moved far to the right of an image of 50 columns.
    output = BoxOutput(torch.tensor([[0.0, 5.0]]), torch.tensor([[100.0, 0, 0, 0]]))
    box = torch.tensor([[10.0, 10, 20, 20]])
    for whole_pixels, expected in ((False, []), (True, [[49.0, 10, 50, 20]])):
        settings = BoxSettings(whole_pixels=whole_pixels)
        (found,) = detect_boxes(output, [box], [(40, 50)], settings)
        assert found.require_boxes().tolist() == expected


def test_a_class_agnostic_head_of_any_depth_repeats_its_box() -> None:
    head = BoxHead(
        4, 3, make_norm_act("bias"), 8, roi_size=2, pooling=1, num_layers=4, class_agnostic=True
    )
    assert [name for name, _ in head.named_children() if name.startswith("fc")] == [
        *("fc1", "fc2", "fc3", "fc4"),
    ]
    deltas = head(torch.randn(5, 4, 2, 2)).box_deltas.unflatten(1, (3, 4))
    torch.testing.assert_close(deltas, deltas[:, :1].expand(-1, 3, -1))


def test_only_the_best_of_all_classes_are_kept_when_there_are_too_many() -> None:
    boxes = torch.tensor([[0.0, 0, 9, 9], [20, 20, 29, 29], [40, 20, 49, 29]])
    output = output_of([[0.2, 0.2, 0.6], [0.1, 0.4, 0.5], [0.2, 0.7, 0.1]])
    (all_found,) = detect_boxes(output, [boxes], [IMAGE_SIZE], SETTINGS)
    assert all_found.thing_indices.tolist() == [0, 0, 0, 1, 1, 1]
    (found,) = detect_boxes(output, [boxes], [IMAGE_SIZE], replace(SETTINGS, max_detections=3))
    assert found.scores.tolist() == pytest.approx([0.7, 0.6, 0.5])
    assert found.thing_indices.tolist() == [0, 1, 1]


def test_images_keep_their_own_boxes_and_sizes() -> None:
    boxes = [torch.zeros(0, 4), torch.tensor([[10.0, 10, 70, 50]]), torch.tensor([[1.0, 1, 70, 5]])]
    output = output_of([[0.5, 0.5], [0.5, 0.5]])
    found = detect_boxes(output, boxes, [IMAGE_SIZE, (40, 50), (60, 60)], SETTINGS)
    assert [len(one) for one in found] == [0, 1, 1]
    assert found[1].boxes.tolist() == [[10, 10, 50, 40]]
    assert found[2].boxes.tolist() == [[1, 1, 60, 5]]


def test_no_proposals_give_no_detections_of_the_right_types() -> None:
    output = BoxOutput(torch.zeros(0, 3), torch.zeros(0, 8))
    (found,) = detect_boxes(output, [torch.zeros(0, 4)], [IMAGE_SIZE], SETTINGS)
    assert found.boxes.shape == (0, 4)
    assert found.scores.dtype == torch.float32
    assert found.thing_indices.dtype == torch.int64
    none = torch.zeros(0, dtype=torch.int64)
    assert regressed_boxes(found.boxes, torch.zeros(0, 8), none, [], SETTINGS).shape == (0, 4)


@pytest.mark.parametrize("whole_pixels", [False, True])
def test_fixed_shapes_hold_the_same_detections(whole_pixels: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(2, 40, 2, generator=generator) * torch.tensor([70.0, 50.0])
    boxes = torch.cat([corners, corners + 5 + torch.rand(2, 40, 2, generator=generator) * 25], -1)
    logits = torch.randn(80, 3, generator=generator) * 2
    deltas = torch.randn(80, 8, generator=generator) * 2
    valid = torch.rand(2, 40, generator=generator) < 0.8
    sizes = [IMAGE_SIZE, (45, 50)]
    settings = replace(
        SETTINGS,
        score_threshold=0.3,
        nms_threshold=0.3,
        max_detections=12,
        whole_pixels=whole_pixels,
    )
    proposals = FixedProposals(boxes, valid, torch.tensor([True, False]))
    found = fixed_detections(BoxOutput(logits, deltas), proposals, sizes, settings)
    rows = valid.flatten()
    some = BoxOutput(logits[rows], deltas[rows])
    expected = detect_boxes(some, [b[v] for b, v in zip(boxes, valid)], sizes, settings)
    assert found.counts is not None
    assert found.converged is not None
    assert found.converged.tolist() == [True, False]
    assert found.counts.tolist() == [len(one) for one in expected]
    for ours, theirs, count in zip(found.instances, expected, found.counts.tolist(), strict=True):
        assert len(ours) == settings.max_detections
        assert count > 0
        order = theirs.scores.argsort(descending=True)
        assert torch.equal(ours.scores[:count], theirs.scores[order])
        assert torch.equal(ours.thing_indices[:count], theirs.thing_indices[order])
        assert torch.equal(ours.require_boxes()[:count], theirs.require_boxes()[order])


def test_fixed_scores_of_half_precision_are_in_single() -> None:
    boxes = torch.tensor([[[10.0, 10, 30, 30]]])
    proposals = FixedProposals(boxes, torch.ones(1, 1, dtype=torch.bool), torch.tensor([True]))
    half = BoxOutput(torch.tensor([[0.1, 1.3, 0.2]]).bfloat16(), torch.zeros(1, 8).bfloat16())
    (found,) = fixed_detections(half, proposals, [IMAGE_SIZE], SETTINGS).instances
    assert found.scores.dtype == torch.float32
    assert float(found.scores[0]) == float(half.class_logits[0].float().softmax(0)[1])
