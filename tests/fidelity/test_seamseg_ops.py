"""Single operations beside the reference: every case of ops.npz.

The unit tests of each operation read the same numbers; here their differences are measured.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from seamless_pr.models.fusion.by_score import fuse
from seamless_pr.models.instances.rpn import generate_anchors
from seamless_pr.models.semantics.pixels import semantic_loss
from seamless_pr.ops.boxes import box_iou, crowd_overlap, decode_boxes, encode_boxes, nms
from seamless_pr.ops.masks import BoxMasks
from seamless_pr.ops.matching import assign_anchors
from seamless_pr.ops.roi_sampling import pool_rois, roi_levels, sample_rois
from seamless_pr.ops.window_mean import window_mean
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import (
    BoxSettings,
    FusionSettings,
    RoISettings,
    RPNSettings,
    SemanticLossSettings,
)
from tests.support.golden import load_golden, xyxy
from tests.support.golden_network import relative_difference

GOLDEN = load_golden("seamseg/ops")
BOXES = xyxy(GOLDEN["nms_bbx"])
ROUNDING = 1e-6
# The reference adds up to 4096 values one after the other.
LONG_SUM = 3e-6


def label_space(num_stuff: int, num_things: int) -> LabelSpace:
    kinds = [False] * num_stuff + [True] * num_things
    return LabelSpace(
        "ops", tuple(Category(i + 1, f"{i}", k, (0, 0, 0)) for i, k in enumerate(kinds))
    )


@pytest.mark.parametrize("padding", ["border", "zero"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_roi_sampling(mode, padding, agree):
    boxes, images = xyxy(GOLDEN["roi_bbx"]), GOLDEN["roi_idx"]
    sampled = sample_rois(GOLDEN["roi_x"], boxes, images, (6, 9), mode, padding)
    key = f"roi_{mode}_{padding}"
    agree(f"ops/{key}", relative_difference(sampled, GOLDEN[key]), ROUNDING)


def test_gradient_of_roi_sampling(agree):
    features = GOLDEN["roi_x"].clone().requires_grad_()
    sampled = sample_rois(features, xyxy(GOLDEN["roi_bbx"]), GOLDEN["roi_idx"], (6, 9))
    sampled.backward(GOLDEN["roi_dy"])
    assert features.grad is not None
    agree("ops/roi_dx", relative_difference(features.grad, GOLDEN["roi_dx"]), ROUNDING)


def test_roi_coordinates_at_an_odd_size(agree):
    boxes, images = xyxy(GOLDEN["rois_bbx"]), GOLDEN["rois_idx"]
    height, width = GOLDEN["rois_img_size"].tolist()
    per_image = [boxes[images == image] for image in range(2)]
    pooled = pool_rois([GOLDEN["roi_x"]], per_image, (height, width), RoISettings(num_levels=1))
    expected = GOLDEN["rois_out"][images.argsort(stable=True)]
    agree("ops/rois_out", relative_difference(pooled, expected), ROUNDING)


def test_levels_of_boxes(agree):
    levels = roi_levels(xyxy(GOLDEN["level_bbx"]), RoISettings())
    agree("ops/level_out (boxes)", int((levels != GOLDEN["level_out"]).sum()), 0)


@pytest.mark.parametrize(
    "key, threshold, kept", [("5_-1", 0.5, None), ("7_-1", 0.7, None), ("7_50", 0.7, 50)]
)
def test_suppression(key, threshold, kept, agree):
    ours = nms(BOXES, GOLDEN["nms_scores"], threshold, kept)
    assert len(ours) == len(GOLDEN[f"nms_{key}"])
    agree(f"ops/nms_{key} (boxes)", int((ours != GOLDEN[f"nms_{key}"]).sum()), 0)


def test_boxes(agree):
    first, second = BOXES[:50], BOXES[50:100]
    deltas = encode_boxes(first, second)
    agree("ops/calc_shift", relative_difference(deltas, xyxy(GOLDEN["calc_shift"])), ROUNDING)
    moved = decode_boxes(first, xyxy(GOLDEN["shift_in"]))
    agree("ops/shift_out", relative_difference(moved, xyxy(GOLDEN["shift_out"])), ROUNDING)
    agree("ops/ious", relative_difference(box_iou(first, second), GOLDEN["ious"]), ROUNDING)
    # An empty box has no share of crowd pixels: 0 / 0 there, 0 here; neither reaches a threshold.
    share = GOLDEN["mask_overlap"].nan_to_num(nan=0.0)
    ours = crowd_overlap(BOXES, GOLDEN["mo_mask"])
    agree("ops/mask_overlap", relative_difference(ours, share), ROUNDING)


def test_extents_of_segments(agree):
    ids = GOLDEN["eb_mask"].int()
    num_segments = len(GOLDEN["extract_boxes"])
    things = torch.zeros(num_segments, dtype=torch.int64)
    # Rows of the reference start with void; ours start with the first segment.
    target = PanopticTarget(ids, things, things.bool(), label_space(1, 1))
    expected = xyxy(GOLDEN["extract_boxes"])[1:]
    agree("ops/extract_boxes", float((target.boxes[: num_segments - 1] - expected).abs().max()), 0)


@pytest.mark.parametrize(
    "key, scale, ratios",
    [
        ("anchors_s8_3x4", 8.0, (1.0, 0.5, 2.0)),
        ("anchors_vistas_s8_3x4", 2.0, (0.2, 0.5, 1.0, 2.0, 5.0)),
    ],
)
def test_anchors(key, scale, ratios, agree):
    settings = RPNSettings(anchor_scale=scale, anchor_ratios=ratios)
    (anchors,) = generate_anchors([(3, 4)], [8], settings)
    agree(f"ops/{key}", relative_difference(anchors, xyxy(GOLDEN[key])), ROUNDING)


@pytest.mark.parametrize("image", [0, 1])
def test_matching_of_anchors(image, agree):
    with_objects = (xyxy(GOLDEN["am_gt"]), (75, 118), GOLDEN["am_crowd"])
    gt_boxes, size, crowd = [with_objects, (torch.zeros(0, 4), (80, 120), None)][image]
    matches = assign_anchors(
        xyxy(GOLDEN["am_anchors"]),
        gt_boxes,
        size,
        crowd,
        positive_iou=0.7,
        negative_iou=0.3,
        max_crowd_overlap=0.7,
    )
    different = int((matches != GOLDEN["am_match"][image]).sum())
    agree(f"ops/am_match, image {image} (anchors)", different, 0)


@pytest.mark.parametrize(
    "key, beta", [("sl1_s1", BoxSettings().box_loss_beta), ("sl1_s3", RPNSettings().box_loss_beta)]
)
def test_smooth_l1_of_the_default_settings(key, beta, agree):
    x = GOLDEN["sl1_x"]
    ours = F.smooth_l1_loss(x, torch.zeros_like(x), reduction="none", beta=beta)
    agree(f"ops/{key}", relative_difference(ours, GOLDEN[key]), ROUNDING)


@pytest.mark.parametrize("key, fraction", [("ohem_25", 0.25), ("ohem_none", 1.0)])
def test_hard_pixel_mining(key, fraction, agree):
    total = torch.zeros(())
    for index in range(2):
        logits, classes = GOLDEN[f"ohem_logits{index}"][None], GOLDEN[f"ohem_gt{index}"]
        target = semantic_target(classes, num_classes=logits.shape[1])
        size = target.image_size
        settings = SemanticLossSettings(hard_pixel_fraction=fraction)
        total += semantic_loss(logits, [target], [size], size, settings)["semantic"].total
    agree(f"ops/{key}", relative_difference(total / 2, GOLDEN[key]), ROUNDING)


@pytest.mark.parametrize("size", ["90x75", "40x70", "17x20"])
def test_wide_window_of_the_semantic_branch(size, agree):
    pooled = window_mean(GOLDEN[f"minidl_x_{size}"], 64)
    key = f"minidl_pool_{size}"
    agree(f"ops/{key}", relative_difference(pooled, GOLDEN[key]), LONG_SUM)


@pytest.mark.parametrize("prefix, num_rows", [("pp", 7), ("pp0", 0)])
def test_fusion(prefix, num_rows, agree):
    boxes, scores, things, masks = (
        GOLDEN[f"pp_{name}"][:num_rows] for name in ("bbx", "obj", "cls", "msk")
    )
    found = Instances(scores, things, xyxy(boxes), BoxMasks(masks, xyxy(boxes)))
    settings = FusionSettings(stuff_area_pixels=400)
    result = fuse(GOLDEN["pp_sem"], found, label_space(4, 3), settings)
    assert [s.train_id for s in result.segments] == GOLDEN[f"{prefix}_out_cat"][1:].tolist()
    different = int((result.id_map != GOLDEN[f"{prefix}_out_msk"]).sum())
    agree(f"ops/{prefix}_out_msk (pixels)", different, 0)


def semantic_target(classes: torch.Tensor, num_classes: int) -> PanopticTarget:
    """One segment per class; 255 is void."""
    ids = torch.where(classes == 255, 0, classes + 1).int()
    train_ids = torch.arange(num_classes)
    is_crowd = torch.zeros(num_classes, dtype=torch.bool)
    return PanopticTarget(ids, train_ids, is_crowd, label_space(num_classes, 0))
