"""Box, RoI, mask and point operations against mmdetection 3.3 and against its version 1.

Version 1 counts pixels: its boxes end at the index of their last pixel. Ours end where that pixel
does; with one added, all its formulas are ours.
"""

from __future__ import annotations

import zlib

import pytest
import torch

from seamless_pr.models.instances.coarse_masks import box_grid_features
from seamless_pr.models.instances.rpn import generate_anchors
from seamless_pr.models.instances.solo_targets import focal_loss_sum
from seamless_pr.ops.boxes import box_area, box_iou, clip_boxes, decode_boxes, encode_boxes
from seamless_pr.ops.mask_targets import mask_targets
from seamless_pr.ops.masks import BoxMasks, PixelBoxMasks, paste_mask
from seamless_pr.ops.points import PointReader, regular_grid
from seamless_pr.ops.roi_sampling import align_rois, roi_levels
from seamless_pr.structures.settings import RoISettings, RPNSettings
from tests.support.golden import GOLDEN_FOLDER, load_golden
from tests.support.mmdet_recipe import (
    recipe_batch,
    recipe_image,
    recipe_normal,
    recipe_objects,
    recipe_uniform,
    unpacked,
)

MMDET, WINNER = load_golden("mmdet/ops_mmdet3"), load_golden("mmdet/ops_winner")
SEED, SIZE, MASK_SIZE = 20, (95, 97), (97, 113)
BOXES = MMDET["nms_boxes"]
PIXEL = torch.tensor([0.0, 0.0, 1.0, 1.0])
READINGS = pytest.mark.parametrize(
    "golden, prefix, offset", [(MMDET, "", 0), (WINNER, "v1_", 1)], ids=["modern", "version 1"]
)


FILES_WITH_IMAGES = sorted(
    path.stem
    for path in (GOLDEN_FOLDER / "mmdet").glob("*.npz")
    if "image_crc32" in load_golden(f"mmdet/{path.stem}")
)


@pytest.mark.parametrize("name", FILES_WITH_IMAGES)
def test_images_of_the_golden_cases_are_made_again_to_the_last_bit(name):
    golden = load_golden(f"mmdet/{name}")
    height, width = golden["image_hw"].tolist()
    image = recipe_image(height, width, int(golden["seed"]))
    pixels = image.permute(1, 2, 0).contiguous().numpy().tobytes()
    assert zlib.crc32(pixels) == int(golden["image_crc32"])
    batch = recipe_batch(height, width, int(golden["seed"]))
    assert batch.padded_size == tuple(golden["padded_hw"].tolist())


@READINGS
def test_overlaps(golden, prefix, offset):
    boxes = BOXES + offset * PIXEL
    found = box_iou(boxes[:30], boxes[30:])
    torch.testing.assert_close(found, golden[f"{prefix}iou_30x30"], rtol=1e-5, atol=1e-6)
    # Over the area of the first alone, as crowds are: the same intersection.
    areas = box_area(boxes)
    common = found / (1 + found) * (areas[:30, None] + areas[None, 30:])
    expected = golden[f"{prefix}iof_30x30"]
    torch.testing.assert_close(common / areas[:30, None], expected, rtol=1e-4, atol=1e-5)


@READINGS
@pytest.mark.parametrize("std", [1.0, 0.1, 0.05, 0.033])
def test_decoding_and_encoding(golden, prefix, offset, std):
    key = f"{prefix}decode_{std}"
    if key not in golden:
        pytest.skip("not in this file")
    # 0.1 stands for (0.1, 0.1, 0.2, 0.2), and so on; 0.033 for the published third stage.
    sides = {1.0: 1.0, 0.033: 0.067}.get(std, 2 * std)
    weights = (1 / std, 1 / std, 1 / sides, 1 / sides)
    boxes = BOXES + offset * PIXEL
    deltas = recipe_normal("deltas", (30, 4), SEED, 1.5)
    decoded = clip_boxes(decode_boxes(boxes[:30], deltas, weights), SIZE, keeps_pixel=bool(offset))
    torch.testing.assert_close(decoded - offset * PIXEL, golden[key], rtol=1e-4, atol=2e-3)
    encoded = encode_boxes(boxes[:30], boxes[30:], weights)
    torch.testing.assert_close(encoded, golden[f"{prefix}encode_{std}"], rtol=1e-4, atol=1e-4)


@READINGS
def test_anchors(golden, prefix, offset):
    settings = RPNSettings(
        anchor_ratios=(0.5, 1.0, 2.0), anchor_offset=0.0, whole_pixels=bool(offset)
    )
    strides = (4, 8, 16, 32, 64)
    cells = torch.stack(generate_anchors([(1, 1)] * 5, strides, settings)) - offset * PIXEL
    torch.testing.assert_close(cells, golden[f"{prefix}base_anchors"], rtol=1e-6, atol=1e-5)
    (level,) = generate_anchors([(2, 3)], [8], settings)
    torch.testing.assert_close(
        level - offset * PIXEL, golden[f"{prefix}anchors_s8_2x3"], rtol=1e-6, atol=1e-5
    )


def test_a_flip_mirrors_the_edges():
    flipped = WINNER["v1_flip_w97"] + PIXEL
    boxes = BOXES[:8] + PIXEL
    expected = torch.stack([97 - boxes[:, 2], boxes[:, 1], 97 - boxes[:, 0], boxes[:, 3]], 1)
    torch.testing.assert_close(flipped, expected, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize(
    "golden, key, settings",
    [
        (MMDET, "roi_aligned_adaptive", RoISettings(sampler="aligned", size=7)),
        (MMDET, "roi_aligned_2", RoISettings(sampler="aligned", size=7, num_samples=2)),
        (WINNER, "v1_roi_samples2", RoISettings(sampler="unaligned", size=7, num_samples=2)),
        (WINNER, "v1_roi_samples0", RoISettings(sampler="unaligned", size=7)),
        (WINNER, "v1_roi10_adaptive", RoISettings(sampler="unaligned", size=10)),
    ],
)
def test_roi_pooling_and_its_gradient(golden, key, settings):
    features = recipe_normal("roi_x", (2, 3, 19, 23), SEED).requires_grad_()
    rois = golden["roi_rois"].clone()
    if golden is WINNER:
        rois[:, 1:] += PIXEL
    pooled = align_rois(features, rois, 0.25, settings)
    torch.testing.assert_close(pooled, golden[f"{key}_y"], rtol=1e-4, atol=1e-5)
    if f"{key}_dx" in golden:
        pooled.backward(recipe_normal("roi_dy", (8, 3, 7, 7), SEED))
        torch.testing.assert_close(features.grad, golden[f"{key}_dx"], rtol=1e-4, atol=1e-5)


def test_pooling_with_a_smallest_box_is_that_of_boxes_of_at_least_a_cell():
    """A third form of mmcv, which no system here uses."""
    features = recipe_normal("roi_x", (2, 3, 19, 23), SEED).requires_grad_()
    rois = MMDET["roi_rois"].clone()
    is_large = ((rois[:, 3:] - rois[:, 1:3]) >= 4).all(1)
    assert is_large.tolist() == [False, *[True] * 7]
    rois[:, 3:] = torch.maximum(rois[:, 3:], rois[:, 1:3] + 4)
    found = align_rois(features, rois, 0.25, RoISettings(sampler="unaligned", size=7))
    torch.testing.assert_close(found, MMDET["roi_plain_adaptive_y"], rtol=1e-4, atol=1e-5)
    found.backward(recipe_normal("roi_dy", (8, 3, 7, 7), SEED))
    torch.testing.assert_close(features.grad, MMDET["roi_plain_adaptive_dx"], rtol=1e-4, atol=1e-5)


def test_a_regular_grid_of_points_of_boxes():
    level, rois = recipe_normal("roi_x", (2, 3, 19, 23), SEED), MMDET["simple_roi_rois"]
    reader = PointReader.of_levels([level], [4])
    found = box_grid_features(reader, rois[:, 1:], rois[:, 0].long(), 14)
    torch.testing.assert_close(found, MMDET["simple_roi_align_14"], rtol=1e-4, atol=2e-5)


@READINGS
def test_levels_of_boxes(golden, prefix, offset):
    boxes = MMDET["level_rois"][:, 1:] + offset * PIXEL
    found = roi_levels(boxes, RoISettings(level_epsilon=2.5e-7))
    assert found.tolist() == golden[f"{prefix}level_of_roi"].tolist()


@pytest.mark.parametrize("size", [7, 13, 28, 64])
@READINGS
def test_mask_targets(golden, prefix, offset, size):
    if f"{prefix}mask_target_{size}_packed" not in golden:
        pytest.skip("not in this file")
    objects = recipe_objects(*MASK_SIZE, 4, 34, SEED)
    if "mt_masks_packed" in golden:
        assert torch.equal(objects.masks.bool(), unpacked(golden["mt_masks_packed"], MASK_SIZE[1]))
    ones = torch.ones(1, dtype=torch.int32)
    rows = []
    for box, match in zip(golden["mt_proposals"], golden["mt_matched"].tolist(), strict=True):
        mask = objects.masks[match].int()
        y, x = mask.nonzero(as_tuple=True)
        extent = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])[None]
        rows.append(mask_targets(mask, ones, box[None], extent, size, whole_pixels=bool(offset)))
    expected = unpacked(golden[f"{prefix}mask_target_{size}_packed"], size)
    assert int((torch.cat(rows).bool() != expected).sum()) <= 1


@READINGS
def test_pasted_masks(golden, prefix, offset):
    logits = recipe_uniform("paste_prob", (4, 1, 28, 28), SEED)[:, 0].logit()
    kind = PixelBoxMasks if offset else BoxMasks
    masks = kind(logits, golden[f"{prefix}paste_boxes"])
    expected = unpacked(golden[f"{prefix}paste_packed"], MASK_SIZE[1])
    for index, mask in enumerate(expected):
        crop = masks.crop(index, MASK_SIZE, 0.5, includes_threshold=not offset)
        found = torch.zeros(MASK_SIZE, dtype=torch.bool)
        found[crop.window] = crop.mask
        assert int((found != mask).sum()) <= 2


def test_probabilities_of_a_pasted_mask():
    probs = recipe_uniform("paste_prob", (4, 1, 28, 28), SEED)[1, 0]
    values, (top, left) = MMDET["paste_values_1"], MMDET["paste_origin_1"].tolist()
    box = MMDET["paste_boxes"][1].tolist()
    for threshold in (0.5, 0.6, 0.7, 0.8):
        crop = paste_mask(probs, box, MASK_SIZE, threshold)
        found = torch.zeros(MASK_SIZE, dtype=torch.bool)
        found[crop.window] = crop.mask
        region = found[top : top + values.shape[0], left : left + values.shape[1]]
        assert torch.equal(region, values > threshold)
        assert found.sum() == region.sum() > 0


def test_the_grid_of_points():
    torch.testing.assert_close(regular_grid(26), WINNER["points_grid_26"])


def test_uncertain_cells_of_a_grid():
    uncertainty = recipe_normal("unc", (3, 13, 13), SEED).flatten(1)
    chosen = uncertainty.topk(40).indices.sort(1).values
    assert chosen.tolist() == WINNER["grid_point_indices_sorted"].tolist()
    torch.testing.assert_close(regular_grid(13)[chosen], WINNER["grid_point_coords_by_index"])


def test_the_focal_loss_and_its_gradient():
    logits = recipe_normal("focal_logits", (50, 34), SEED, 2.0).requires_grad_()
    labels = MMDET["focal_labels"].long()
    loss = focal_loss_sum(logits, torch.where(labels == 34, -1, labels), 0.25, 2.0) / 7
    torch.testing.assert_close(loss.double(), MMDET["focal_loss"][0], rtol=1e-4, atol=0)
    loss.backward()
    torch.testing.assert_close(logits.grad, MMDET["focal_grad"], rtol=1e-3, atol=1e-6)
