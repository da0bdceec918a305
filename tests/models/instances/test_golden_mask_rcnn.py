"""Mask R-CNN of mmdetection 3.3: detections, masks, losses and gradients."""

from __future__ import annotations

import pytest
import torch

from seamless_pr.models.instances.box_branch import box_losses, detect_boxes, sample_proposals
from seamless_pr.models.instances.mask_rcnn import mask_loss
from seamless_pr.models.instances.positive_rois import PositiveRoIs
from seamless_pr.models.instances.rpn import Proposals, propose, rpn_losses
from seamless_pr.ops.roi_sampling import pool_rois
from seamless_pr.structures.instances import Instances
from tests.support.fixed_path import check_fixed_path
from tests.support.mmdet_networks import (
    MASK_RCNN,
    MMDetCase,
    box_target,
    check_gradients,
    check_proposals,
    close,
    mask_targets,
    statistics,
)
from tests.support.mmdet_recipe import unpacked

CASE = MMDetCase("mask_rcnn_r50_135x201_s9", "mask_rcnn_r50", MASK_RCNN)
GOLDEN = CASE.golden
pytestmark = pytest.mark.slow


def test_pyramid_and_proposals():
    features, branch = CASE.features(), CASE.build().instances
    for number, level in enumerate(features.levels, start=2):
        stat = GOLDEN[f"feat_p{number}_stat"]
        torch.testing.assert_close(statistics(level), stat, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        output, anchors = branch.score_anchors(features)
        (proposals,) = propose(
            output, anchors, CASE.batch().image_sizes, branch.rpn, training=False
        )
    check_proposals(proposals.boxes, GOLDEN["proposals"])
    close(proposals.logits.sigmoid(), GOLDEN["proposal_scores"], 1e-4)


def test_detections():
    batch, branch = CASE.batch(), CASE.build().instances
    proposals = [GOLDEN["proposals"]]
    with torch.no_grad():
        pooled = pool_rois(CASE.features().levels, proposals, batch.padded_size, branch.roi)
        (found,) = detect_boxes(branch.box_head(pooled), proposals, batch.image_sizes, branch.box)
    close(found.scores, GOLDEN["det_scores"], 1e-4)
    assert found.thing_indices.tolist() == GOLDEN["det_classes"].tolist()
    close(found.require_boxes(), GOLDEN["det_boxes"], 1e-2)


def test_masks_of_fixed_boxes():
    boxes = GOLDEN["fixed_boxes"]
    instances = Instances(torch.ones(len(boxes)), GOLDEN["fixed_classes"].long(), boxes)
    with torch.no_grad():
        (found,) = CASE.build().instances.add_masks(CASE.features(), CASE.batch(), [instances])
    masks = found.require_masks()
    close(masks.logits, GOLDEN["fixed_mask_logits_cls"], 1e-3)
    height, width = GOLDEN["ori_hw"].tolist()
    assert (height, width) == CASE.image_size
    pasted = torch.zeros(len(boxes), height, width, dtype=torch.bool)
    for index, mask in enumerate(pasted):
        crop = masks.crop(index, (height, width), 0.5, includes_threshold=True)
        mask[crop.window] = crop.mask
    differing = pasted != unpacked(GOLDEN["fixed_masks_packed"], width)
    assert float(differing.float().mean()) < 1e-4


def test_the_prediction_of_fixed_shapes_is_the_one_step_by_step():
    ((expected, moved),) = check_fixed_path(
        CASE.build(), CASE.batch(), [CASE.image_size], CASE.features()
    )
    assert expected.require_panoptic().segments
    assert moved <= 3


def test_losses_and_gradients():
    network = CASE.build()
    network.zero_grad()
    branch, batch = network.instances, CASE.batch()
    features = network.trunk(batch)
    target = box_target(GOLDEN["train_boxes"], GOLDEN["train_classes"], batch.image_sizes[0])
    output, anchors = branch.score_anchors(features)
    generators = [torch.Generator()]
    losses = rpn_losses(output, anchors, [target], batch.image_sizes, branch.rpn, generators)
    proposals = GOLDEN["train_proposals"]
    rois = sample_proposals(
        Proposals(proposals, torch.zeros(len(proposals))), target, branch.box, generators[0]
    )
    pooled = pool_rois(features.levels, [rois.boxes], batch.padded_size, branch.roi)
    losses |= box_losses(branch.box_head(pooled), [rois], [target], branch.box)
    boxes = rois.boxes[: rois.num_objects]
    matched = rois.matched_segment[: rois.num_objects]
    masks = branch.masks
    pooled = pool_rois(features.levels, [boxes], batch.padded_size, masks.roi)
    # Golden objects overlap, so that each gets an image of its own.
    targets = mask_targets(
        unpacked(GOLDEN["train_masks_packed"], CASE.image_size[1]), GOLDEN["train_classes"]
    )
    losses |= mask_loss(
        masks.head(pooled),
        PositiveRoIs(
            boxes,
            matched,
            rois.thing_indices[: len(matched)],
            torch.ones(len(matched), dtype=torch.int32),
            torch.stack([target.boxes[0] for target in targets])[matched],
        ),
        targets,
        aligned=masks.aligned_targets,
    )
    names = {"rpn_objectness": "rpn_cls", "rpn_box": "rpn_bbox", "box_class": "cls"}
    names |= {"box_delta": "bbox", "mask": "mask"}
    means = {name: loss.total / loss.count for name, loss in losses.items()}
    assert means.keys() == names.keys()
    for name, theirs in names.items():
        expected = float(GOLDEN[f"train_loss_{theirs}"])
        assert means[name].item() == pytest.approx(expected, rel=1e-4), name
    sum(means.values()).backward()
    check_gradients(CASE, network)
