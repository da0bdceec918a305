"""Mask scoring against mmdetection's numbers, and where nothing is to be scored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.models.instances.mask_iou import (
    MaskIoUHead,
    mask_iou_loss,
    mask_iou_targets,
    visible_shares,
)
from seamless_pr.models.instances.positive_rois import PositiveRoIs, targets_of_masks
from tests.support.golden import load_golden
from tests.support.mmdet_networks import mask_targets
from tests.support.mmdet_recipe import recipe_normal, recipe_objects, recipe_tensor

SEED, SIZE = 20, (97, 113)
GOLDEN = load_golden("mmdet/ops_mmdet3")


def golden_case(
    side: int, golden: dict[str, Tensor] = GOLDEN
) -> tuple[Tensor, Tensor, PositiveRoIs, list]:
    logits = recipe_normal(f"iou{side}_logits", (12, 2 * side, 2 * side), SEED, 2.0)
    logits = 4 * F.avg_pool2d(logits[:, None], 5, stride=1, padding=2)[:, 0]
    objects = recipe_objects(*SIZE, 4, 34, SEED)
    targets = mask_targets(objects.masks, objects.classes)
    matched = golden["mt_matched"]
    boxes, ids = golden["mt_proposals"], torch.ones(12, dtype=torch.int32)
    extents = torch.stack([target.boxes[0] for target in targets])[matched]
    # The matched object is also the class, in the golden case.
    return (
        logits,
        recipe_normal(f"iou{side}_x", (12, 16, side, side), SEED),
        PositiveRoIs(boxes, matched, matched, ids, extents),
        targets,
    )


@pytest.mark.parametrize("side", [14, 32])
def test_iou_targets_and_loss_are_those_of_mmdetection(side):
    from seamless_pr.ops.mask_targets import aligned_mask_targets

    logits, features, rois, targets = golden_case(side)
    head = MaskIoUHead(16, 34, side, conv_channels=16, hidden_channels=32)
    head.load_state_dict(
        {
            key: recipe_tensor(
                f"iou{side}.{key.replace('predictor', 'fc_mask_iou')}", tuple(value.shape), SEED
            )
            for key, value in head.state_dict().items()
        }
    )
    predicted = head(features, logits)
    torch.testing.assert_close(predicted, GOLDEN[f"maskiou{side}_y"], rtol=1e-4, atol=1e-4)
    wanted = torch.zeros_like(logits)
    for index, target in enumerate(targets):
        row = torch.nonzero(rois.image_indices == index).flatten()
        wanted[row] = aligned_mask_targets(
            target.id_map, rois.segment_ids[row], rois.boxes[row], rois.segment_boxes[row], 2 * side
        )
    shares = visible_shares(rois, targets)
    found = mask_iou_targets(logits, wanted, shares)
    torch.testing.assert_close(found, GOLDEN[f"maskiou{side}_targets"], rtol=1e-3, atol=1e-4)
    loss = mask_iou_loss(predicted, logits, wanted, rois, targets)["mask_iou"]
    # The golden loss includes its weight.
    mean = 0.5 * loss.total.item() / loss.count
    assert mean == pytest.approx(GOLDEN[f"maskiou{side}_loss"].item(), rel=1e-3)


def test_iou_targets_of_whole_pixels_are_those_of_version_1():
    golden = load_golden("mmdet/ops_winner")
    logits, _, rois, targets = golden_case(14, golden)
    wanted = targets_of_masks(rois, targets, 28, whole_pixels=True)
    shares = visible_shares(rois, targets, whole_pixels=True)
    found = mask_iou_targets(logits, wanted, shares)
    torch.testing.assert_close(found, golden["v1_maskiou14_targets"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("whole_pixels", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_iou_targets_and_loss_are_those_of_a_plain_loop(seed, whole_pixels):
    """Of two images; boxes reach beyond them, are empty, or miss their object."""
    random = np.random.default_rng(seed)
    masks = [random.random((23, 31)) < 0.4, np.ones((23, 31), bool)]
    targets = mask_targets(torch.from_numpy(np.stack(masks)).byte(), torch.tensor([0, 1]))
    corners = np.sort(random.uniform(0, [[33], [25]], (9, 2, 2)), axis=2)
    boxes = corners.transpose(0, 2, 1).reshape(9, 4)
    boxes[0, 2:], boxes[1, 2] = boxes[0, :2], boxes[1, 0] + 0.2
    images = np.arange(9) % 2
    logits, wanted = random.normal(size=(9, 8, 8)), random.random((9, 8, 8)) < 0.5
    # Nothing wanted, and nothing predicted either.
    wanted[2:4], logits[3] = False, 0.4
    predicted = random.normal(size=(9, 2))
    rows = torch.from_numpy(images)
    rois = PositiveRoIs(
        torch.from_numpy(boxes).float(), rows, rows, torch.ones(9).int(), torch.zeros(9, 4)
    )
    loss = mask_iou_loss(
        torch.from_numpy(predicted),
        torch.from_numpy(logits),
        torch.from_numpy(wanted.astype(np.float64)),
        rois,
        targets,
        whole_pixels=whole_pixels,
    )["mask_iou"]
    total, count = 0.0, 0
    for row, (x0, y0, x1, y1) in enumerate(boxes.astype(np.float32).astype(int).tolist()):
        mask = masks[images[row]]
        if whole_pixels:
            inside = mask[y0 : y1 + 1, x0 : x1 + 1].sum()
        else:
            x0, x1, y0, y1 = min(x0, 31), min(x1, 31), min(y0, 23), min(y1, 23)
            inside = mask[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)].sum()
        share = inside / (mask.sum() + 1e-7)
        drawn = logits[row] > 0.5
        common = (drawn & wanted[row]).sum()
        union = drawn.sum() + wanted[row].sum() / (share + 1e-7) - common
        if common > 0:
            total += (predicted[row, images[row]] - common / union) ** 2
            count += 1
    assert loss.count == count > 3
    assert loss.total.item() == pytest.approx(total, rel=1e-4)


def test_nothing_predicted_of_nothing_is_not_counted_and_no_box_costs_nothing():
    empty = torch.zeros(1, 4, 4)
    wanted = mask_iou_targets(empty - 1, empty, torch.ones(1))
    assert not bool(wanted > 0)
    head = MaskIoUHead(3, 2, 2, conv_channels=4, hidden_channels=4)
    none = torch.zeros(0, dtype=torch.int64)
    rois = PositiveRoIs(torch.zeros(0, 4), none, none, none.int(), torch.zeros(0, 4))
    predicted = head(torch.zeros(0, 3, 2, 2), torch.zeros(0, 4, 4))
    assert predicted.shape == (0, 2)
    loss = mask_iou_loss(predicted, empty[:0], empty[:0], rois, [])["mask_iou"]
    assert loss.total.item() == loss.count == 0
    loss.total.backward()
    assert head.predictor.weight.grad is not None
