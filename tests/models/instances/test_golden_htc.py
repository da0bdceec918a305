"""HTC against mmdetection 3.3 and against the class of the 3D-FUTURE winner's fork."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.config.networks import HTCSettings
from seamless_pr.models.instances import cascade, mask_iou
from seamless_pr.models.instances.cascade import CascadeFeatures, moved_boxes
from seamless_pr.models.instances.mask_iou import mask_iou_targets, visible_shares
from seamless_pr.models.instances.positive_rois import PositiveRoIs
from seamless_pr.models.instances.rpn import propose, rpn_losses
from seamless_pr.models.networks.two_branch import TwoBranchNet
from seamless_pr.ops.boxes import last_pixels
from seamless_pr.structures.instances import Instances
from tests.support.golden import every_golden_case, load_golden
from tests.support.mmdet_networks import (
    HTC,
    HTC_1,
    HTC_12_32,
    MMDetCase,
    box_target,
    check_gradients,
    check_levels,
    check_proposals,
    close,
    mask_targets,
    statistics,
)
from tests.support.mmdet_recipe import recipe_tensors, unpacked


def limited(settings: HTCSettings, file: str) -> HTCSettings:
    """With the numbers of a golden case."""
    golden = load_golden(f"mmdet/{file}")
    num_proposals = int(golden.get("num_proposals", len(golden["proposals"])))
    max_detections = int(golden.get("max_per_img", len(golden["det_boxes"])))
    return replace(
        settings,
        rpn=replace(settings.rpn, post_nms_test=num_proposals),
        box=replace(settings.box, max_detections=max_detections),
    )


R50_FILE, ROI_12_32_FILE = "htc_r50_190x250_s1", "htc_r50_roi12_32_150x210_s2"
FORK_FILE = "htc_winner_r50_roi12_32_131x181_s7"
R50 = MMDetCase(R50_FILE, "htc_scoring_r50", limited(HTC, R50_FILE))
ROI_12_32 = MMDetCase(
    ROI_12_32_FILE, "htc_scoring_r50_roi12_32", limited(HTC_12_32, ROI_12_32_FILE)
)
FORK = MMDetCase(FORK_FILE, "htc_winner_r50_roi12_32", limited(HTC_1, FORK_FILE))
pytestmark = pytest.mark.slow


def on_cases(*cases: MMDetCase):
    return pytest.mark.parametrize(
        "case",
        [
            pytest.param(case, id=case.file, marks=() if case is R50 else (every_golden_case,))
            for case in cases
        ],
    )


def ours(boxes: Tensor, case: MMDetCase) -> Tensor:
    return boxes + boxes.new_tensor([0, 0, 1, 1]) if case is FORK else boxes


def theirs(boxes: Tensor, case: MMDetCase) -> Tensor:
    return last_pixels(boxes) if case is FORK else boxes


@on_cases(R50, ROI_12_32, FORK)
def test_pyramid_proposals_and_boxes_of_every_stage(case):
    golden, branch = case.golden, case.build().instances
    assert [branch.roi.size, branch.mask_roi.size] == golden["roi_sizes"].tolist()
    features, batch = case.features(), case.batch()
    for number, level in enumerate(features.levels, start=2):
        if f"feat_p{number}_stat" in golden:
            stat = golden[f"feat_p{number}_stat"]
            torch.testing.assert_close(statistics(level), stat, rtol=1e-4, atol=1e-5)
        if f"feat_p{number}_ch64" in golden:
            close(level[0, ::64], golden[f"feat_p{number}_ch64"], 1e-4)
    with torch.no_grad():
        output, anchors = branch.score_anchors(features)
        for number, maps in enumerate(zip(output.objectness_logits, output.box_deltas), start=2):
            if f"rpn_logits_p{number}_stat" in golden:
                for name, x in zip(("logits", "deltas"), maps):
                    stat = golden[f"rpn_{name}_p{number}_stat"]
                    torch.testing.assert_close(statistics(x), stat, rtol=1e-4, atol=1e-5)
        (proposals,) = propose(output, anchors, batch.image_sizes, branch.rpn, training=False)
        check_proposals(theirs(proposals.boxes, case), golden["proposals"][:, :4])
        if "proposal_scores" in golden:
            close(proposals.logits.sigmoid(), golden["proposal_scores"], 1e-4)
        source = CascadeFeatures(features, None, batch.padded_size)
        boxes = [ours(golden["proposals"][:, :4], case)]
        for stage, settings in enumerate(branch.boxes):
            if f"stage{stage}_deltas" not in golden:
                break
            if stage:
                close(boxes[0], golden[f"stage{stage}_rois"], 1e-2)
            output = branch._box_output(stage, source, boxes)
            close(output.class_logits[:40], background_first(golden, stage), 1e-3)
            close(output.box_deltas[:, :4], golden[f"stage{stage}_deltas"], 1e-3)
            boxes = moved_boxes(output, boxes, batch.image_sizes, settings)
        proposals = [ours(golden["proposals"][:, :4], case)]
        (found,) = branch.detect_boxes(features, batch, proposals)
    # The fork leaves them class by class.
    found, best = found.best_first(), golden["det_scores"].argsort(descending=True, stable=True)
    close(found.scores, golden["det_scores"][best], 1e-4)
    assert found.thing_indices.tolist() == golden["det_classes"][best].tolist()
    close(theirs(found.require_boxes(), case), golden["det_boxes"][best], 1e-2)
    if "det_boxes_original" in golden:
        height, width = (golden["ori_hw"] / golden["image_hw"]).tolist()
        factors = torch.tensor([width, height, width, height])
        close(found.require_boxes() * factors, golden["det_boxes_original"][best], 1e-2)


def background_first(golden: dict[str, Tensor], stage: int) -> Tensor:
    return golden[f"stage{stage}_class_logits_first40"].roll(1, 1)


@on_cases(R50, ROI_12_32)
@pytest.mark.parametrize("name", ["", "fixed_"])
def test_masks_and_their_scores(case, name):
    golden, branch, batch = case.golden, case.build().instances, case.batch()
    boxes = golden["fixed_boxes" if name else "det_boxes"]
    classes = golden["fixed_classes" if name else "det_classes"].long()
    source = CascadeFeatures(case.features(), None, batch.padded_size)
    with torch.no_grad():
        roi_features = branch._pooled(source, [boxes], branch.mask_roi)
        if not name:
            close(roi_features[:2, ::64], golden["mask_roi_feat_first2_ch64"], 1e-3)
        own = branch.own_mask_logits(roi_features, classes)
        step = 2 if own.shape[-1] == 28 else 4
        for head, logits in enumerate(own):
            close(logits[:, 1::step, 1::step], golden[f"{name}mask_logits_head{head}_sub"], 1e-3)
        iou = branch.mask_iou(roi_features, own, classes)
    close(iou, golden[f"{name}mask_iou"], 1e-3)
    scores = golden["det_scores"] if not name else torch.ones(len(boxes))
    if not name:
        close(scores * iou, golden["final_scores_mask_scoring"], 1e-4)
    found = Instances(scores, classes, boxes)
    for average in (True, False):
        branch.average_masks = average
        with torch.no_grad():
            (masked,) = branch.add_masks(case.features(), batch, [found])
        branch.average_masks = True
        expected = unpacked(
            golden[f"{name}masks_{'mean' if average else 'last'}_packed"], int(golden["ori_hw"][1])
        )
        assert float((pasted(masked, case) != expected).float().mean()) < 1e-3


def pasted(found: Instances, case: MMDetCase) -> Tensor:
    size = tuple(case.golden.get("ori_hw", case.golden["image_hw"]).tolist())
    factors = [
        file / network for file, network in zip(size[::-1], case.image_size[::-1], strict=True)
    ]
    scaled = found.require_masks().scaled(*factors)
    masks = torch.zeros(len(found), *size, dtype=torch.bool)
    for index, mask in enumerate(masks):
        crop = scaled.crop(index, size, 0.5, includes_threshold=case is not FORK)
        mask[crop.window] = crop.mask
    return masks


@every_golden_case
def test_masks_of_the_fork():
    golden, branch, batch = FORK.golden, FORK.build().instances, FORK.batch()
    found = Instances(
        golden["det_scores"], golden["det_classes"].long(), ours(golden["det_boxes"], FORK)
    )
    with torch.no_grad():
        (masked,) = branch.add_masks(FORK.features(), batch, [found])
    expected = unpacked(golden["det_masks_packed"], FORK.image_size[1])
    assert float((pasted(masked, FORK) != expected).float().mean()) < 1e-3


@every_golden_case
def test_mask_scores_as_the_fork_publishes_them():
    """It scores each mask by the logits of the class before; its background is not imported."""
    golden, branch, batch = FORK.golden, FORK.build().instances, FORK.batch()
    weights = recipe_tensors(FORK.network, FORK.seed)
    source = CascadeFeatures(FORK.features(), None, batch.padded_size)
    classes = golden["det_classes"].long()
    hidden, every = None, []
    with torch.no_grad():
        roi_features = branch._pooled(source, [ours(golden["det_boxes"], FORK)], branch.mask_roi)
        for stage, head in enumerate(branch.mask_heads):
            hidden = head.hidden(roi_features, hidden)
            name = f"mask_head.{stage}.conv_logits"
            wide = head.upsample_norm(head.upsample(hidden))
            logits = F.conv2d(wide, weights[f"{name}.weight"], weights[f"{name}.bias"])
            stat = golden["mask_head_logits_stat"][stage]
            torch.testing.assert_close(statistics(logits), stat, rtol=1e-4, atol=1e-5)
            every.append(logits)
        before = torch.stack(every).mean(0)[torch.arange(len(classes)), classes]
        stat = golden["published_iou_input_stat"]
        torch.testing.assert_close(statistics(before), stat, rtol=1e-4, atol=1e-5)
        hidden = []
        hook = branch.mask_iou_head.predictor.register_forward_pre_hook(
            lambda _, inputs: hidden.append(inputs[0])
        )
        iou = branch.mask_iou_head(roi_features, before)[torch.arange(len(classes)), classes]
        hook.remove()
    close(golden["det_scores"] * iou, golden["published_mask_scores"], 1e-3)
    name = "mask_iou_head.fc_mask_iou"
    of_all = F.linear(hidden[0], weights[f"{name}.weight"], weights[f"{name}.bias"])
    stat = golden["published_iou_all_stat"]
    torch.testing.assert_close(statistics(of_all), stat, rtol=1e-4, atol=1e-5)


@on_cases(R50, ROI_12_32, FORK)
def test_losses_and_gradients(case, monkeypatch):
    golden, network = case.golden, case.build()
    means, seen = training_step(case, network, monkeypatch)
    for name, mean in means.items():
        expected = golden[f"train_{THEIR_NAMES[name]}"].item()
        assert mean.item() == pytest.approx(expected, rel=5e-4), name
    for stage in range(3):
        if f"train_s{stage}_mask_rois" in golden:
            close(seen["rois"][stage], golden[f"train_s{stage}_mask_rois"], 1e-2)
        if f"train_s{stage}_mask_matched" in golden:
            assert (
                seen["matched"][stage].tolist() == golden[f"train_s{stage}_mask_matched"].tolist()
            )
            bits = golden[f"train_s{stage}_mask_targets_packed"]
            wanted = seen["targets"][stage]
            differing = wanted.bool() != unpacked(bits, wanted.shape[-1])
            assert float(differing.float().mean()) < 1e-3
    close(seen["iou"][0], golden["train_mask_iou_target"], 1e-3)
    if "train_mask_iou_pred" in golden:
        classes = golden["train_classes"].long()[seen["matched"][2]]
        own = seen["predicted"][0][torch.arange(len(classes)), classes]
        close(own, golden["train_mask_iou_pred"], 1e-3)
    sum(means.values()).backward()
    check_gradients(case, network, 2e-3)


def training_step(
    case: MMDetCase, network: TwoBranchNet, monkeypatch
) -> tuple[dict[str, Tensor], dict[str, list]]:
    """Mean losses by name, weighed as theirs, and what the mask heads train on."""
    golden = case.golden
    branch, batch = network.instances, case.batch()
    network.zero_grad()
    bits = unpacked(golden["train_masks_packed"], case.image_size[1])
    objects = mask_targets(bits, golden["train_classes"])
    extents = torch.stack([target.boxes[0] for target in objects])
    seen: dict[str, list[Tensor]] = {"rois": [], "matched": [], "targets": []}

    def own_image(rois: PositiveRoIs) -> PositiveRoIs:
        """Golden objects overlap, so that each gets an image of its own."""
        matched = (rois.segment_ids - 1).long()
        return replace(
            rois,
            image_indices=matched,
            segment_ids=torch.ones_like(rois.segment_ids),
            segment_boxes=extents[matched],
        )

    make_targets = cascade.targets_of_masks

    def watched_targets(rois, _, size, **options):
        alone = own_image(rois)
        seen["rois"].append(rois.boxes)
        seen["matched"].append(alone.image_indices)
        seen["targets"].append(make_targets(alone, objects, size, **options))
        return seen["targets"][-1]

    def watched_shares(rois, _, **options):
        return visible_shares(own_image(rois), objects, **options)

    def watched_iou(*arguments):
        seen["iou"] = [mask_iou_targets(*arguments)]
        return seen["iou"][0]

    monkeypatch.setattr(cascade, "targets_of_masks", watched_targets)
    monkeypatch.setattr(mask_iou, "visible_shares", watched_shares)
    monkeypatch.setattr(mask_iou, "mask_iou_targets", watched_iou)
    hook = branch.mask_iou_head.register_forward_hook(
        lambda *call: seen.update(predicted=[call[-1].detach()])
    )
    target = box_target(
        ours(golden["train_boxes"], case), golden["train_classes"], batch.image_sizes[0]
    )
    features, generators = network.trunk(batch), [torch.Generator()]
    output, anchors = branch.score_anchors(features)
    losses = rpn_losses(output, anchors, [target], batch.image_sizes, branch.rpn, generators)
    losses |= branch.stage_losses(
        CascadeFeatures(features, None, batch.padded_size),
        [ours(golden["train_proposals"], case)],
        batch.image_sizes,
        [target],
        generators,
    )
    hook.remove()
    monkeypatch.undo()
    if case in (R50, ROI_12_32):
        check_levels(case, output, anchors, target, branch.rpn, monkeypatch)
    assert tuple(losses) == branch.loss_names
    means = {name: loss.total / loss.count for name, loss in losses.items()}
    for stage in range(3):
        for name in ("box_class", "box_delta", "mask"):
            means[f"{name}_{stage + 1}"] = means[f"{name}_{stage + 1}"] / 2**stage
    means["mask_iou"] = means["mask_iou"] * 0.5 / 4
    return means, seen


THEIR_NAMES = {
    "rpn_objectness": "loss_rpn_cls",
    "rpn_box": "loss_rpn_bbox",
    "mask_iou": "s2.loss_mask_iou",
    **{
        f"{ours_}_{stage + 1}": f"s{stage}.loss_{theirs_}"
        for stage in range(3)
        for ours_, theirs_ in (("box_class", "cls"), ("box_delta", "bbox"), ("mask", "mask"))
    },
}
