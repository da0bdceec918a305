"""Golden cases in which rounding decides where deformable layers read.

Their Res2Nets have random weights: what float32 leaves of C3 changes C4 by a tenth of its size (see
the golden cases of backbones). So golden numbers, of float32 too, are held against our float64:
they may be twice as far from it as our float32 is once all weights have changed by their last bit.
Their backbones are compared with a plain reading in float64, and their heads with plain readings
and other golden cases, without this allowance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from seamless_pr.models.instances.cascade import CascadeFeatures, moved_boxes
from seamless_pr.models.instances.coarse_masks import box_grid_features
from seamless_pr.models.instances.mask_iou import mask_iou_targets, visible_shares
from seamless_pr.models.instances.positive_rois import PositiveRoIs, targets_of_masks
from seamless_pr.models.instances.rpn import RPNOutput, propose
from seamless_pr.models.networks.two_branch import TwoBranchNet
from seamless_pr.ops.boxes import box_iou
from seamless_pr.ops.roi_sampling import pool_rois
from seamless_pr.structures.features import Features
from seamless_pr.structures.instances import Instances
from seamless_pr.weights.mmdetection import our_name
from tests.models.instances import test_golden_htc as htc
from tests.models.instances import test_golden_mmdet_point_rend as point_rend
from tests.models.instances.test_golden_mmdet_point_rend import FIFTH
from tests.support.golden import every_golden_case, golden_names
from tests.support.mmdet_networks import (
    HTC_12_32,
    RES2NET,
    MMDetCase,
    box_target,
    check_as_far_as_rounding,
    close,
    larger_by_the_last_bit,
    level_losses,
    mask_targets,
    statistics,
)
from tests.support.mmdet_recipe import unpacked

REPORT_FILE = "htc_report_res2net101_dcn_gc_roi12_32_109x141_s14"
REPORT = MMDetCase(
    REPORT_FILE,
    "htc_report_res2net101_dcn_gc_roi12_32",
    htc.limited(HTC_12_32, REPORT_FILE),
    replace(RES2NET, deformable="v1", context_ratio=1 / 16, pools_split_of_c2=False),
)
# Larger layers take no gradient: in float64 they would need 4 GiB, and golden cases of other
# backbones have them.
LARGEST_LAYER = 2**22
pytestmark = [pytest.mark.slow, every_golden_case]


@dataclass
class Numbers:
    """What a network says, beside what the golden file says; by the same names.

    Attributes:
        found, golden: numbers.
        boxes, golden_boxes: [R, 4] in any order.
    """

    found: dict[str, Tensor] = field(default_factory=dict)
    golden: dict[str, Tensor] = field(default_factory=dict)
    boxes: dict[str, Tensor] = field(default_factory=dict)
    golden_boxes: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, found: Tensor, golden: Tensor) -> None:
        assert found.shape == golden.shape, name
        self.found[name], self.golden[name] = found.detach(), golden

    def add_boxes(self, name: str, found: Tensor, golden: Tensor) -> None:
        self.boxes[name], self.golden_boxes[name] = found, golden

    def add_maps(self, features: Features, output: RPNOutput, golden: Mapping[str, Tensor]) -> None:
        """Statistics of pyramid and proposal head, as shares of their size."""
        maps = {"feat": features.levels, "rpn_logits": output.objectness_logits}
        maps["rpn_deltas"] = output.box_deltas
        named = {
            f"{name}_p{number}_stat": level
            for name, levels in maps.items()
            for number, level in enumerate(levels, start=2)
        }
        sizes = {name: golden[name][[1, 1, 2]] for name in named}
        self.add(
            "statistics",
            torch.stack([statistics(level) / sizes[name] for name, level in named.items()]),
            torch.stack([golden[name] / sizes[name] for name in named]),
        )


def check(rounded: Numbers, exact: Numbers, factor: float = 2) -> None:
    check_as_far_as_rounding(exact.golden, rounded.found, exact.found, factor)
    for name, boxes in exact.boxes.items():
        by_rounding, golden = (
            missing(boxes, others) for others in (rounded.boxes[name], exact.golden_boxes[name])
        )
        assert golden <= 2 * by_rounding + 2 / len(boxes), name


def missing(boxes: Tensor, others: Tensor) -> float:
    """Share of boxes that nearly none of the others is."""
    best = box_iou(boxes.double(), others.double()).amax(1)
    return float((best < 0.9).double().mean())


def mask_bits(golden: Mapping[str, Tensor], name: str) -> Tensor:
    return unpacked(golden[name], int(golden["ori_hw"][1])).float()


def fifth_numbers(network: TwoBranchNet, monkeypatch) -> Numbers:
    golden, branch, batch = FIFTH.golden, network.instances, FIFTH.batch()
    numbers = Numbers()
    with torch.no_grad():
        features = network.trunk(batch)
        dtype = features.levels[0].dtype
        for number, level in enumerate(features.levels, start=2):
            channels = golden[f"feat_p{number}_ch64"]
            numbers.add(f"feat_p{number}_ch64", level[0, :: 256 // len(channels)], channels)
        output, anchors = branch.score_anchors(features)
        numbers.add_maps(features, output, golden)
        (proposed,) = propose(output, anchors, batch.image_sizes, branch.rpn, training=False)
        scored = golden["proposals"]
        # How many are left after suppression is decided by rounding, too.
        best = proposed.logits[:50].sigmoid()
        numbers.add("proposal_scores", best, scored[:50, 4])
        numbers.add_boxes("proposals", point_rend.theirs(proposed.boxes, FIFTH), scored[:, :4])
        proposals = point_rend.ours(scored[:, :4], FIFTH)
        pooled = pool_rois(features.levels, [proposals], batch.padded_size, branch.roi)
        boxes_of = branch.box_head(pooled)
        first = boxes_of.class_logits[:40]
        numbers.add("class_logits_first40", first, golden["class_logits_first40"])
        numbers.add("box_deltas", boxes_of.box_deltas[:, :4], golden["box_deltas"])
        found = point_rend.original_detections(FIFTH, branch, boxes_of, proposals)
        numbers.add("det_scores", found.scores, golden["det_scores"])
        found_boxes = point_rend.theirs(found.require_boxes(), FIFTH)
        numbers.add_boxes("det_boxes", found_boxes, golden["det_boxes_original"])
        boxes, classes = golden["fixed_boxes"].to(dtype), golden["fixed_classes"].long()
        images = torch.zeros(len(boxes), dtype=torch.int64)
        reader, head = branch.masks.reader(features), branch.masks.coarse_head
        grid = box_grid_features(reader, boxes, images, head.roi_size)
        coarse = head(grid)
        numbers.add(
            "fixed_coarse_input_first2_ch160",
            grid[:2, ::160],
            golden["fixed_coarse_input_first2_ch160"],
        )
        size = golden["fixed_coarse_input_stat"][[1, 1, 2]]
        numbers.add(
            "fixed_coarse_input_stat",
            statistics(grid) / size,
            golden["fixed_coarse_input_stat"] / size,
        )
        numbers.add(
            "fixed_coarse_logits_first3", coarse[:3, ::3], golden["fixed_coarse_logits_first3"]
        )
        own = coarse[torch.arange(len(boxes)), classes + 1]
        numbers.add("fixed_coarse_logits_cls", own, golden["fixed_coarse_logits_cls"])
    add_refined(numbers, network, "fixed", point_rend.ours(boxes, FIFTH), classes, monkeypatch)
    rows = golden["mask_of_detection"].long()
    boxes = golden["det_boxes_original"][rows] * golden["scale_factor"].float()
    classes = golden["det_classes"][rows].long()
    boxes = point_rend.ours(boxes, FIFTH).to(dtype)
    add_refined(numbers, network, "det", boxes, classes, monkeypatch)
    return numbers


def add_refined(
    numbers: Numbers,
    network: TwoBranchNet,
    name: str,
    boxes: Tensor,
    classes: Tensor,
    monkeypatch,
) -> None:
    """Masks of boxes; of the fixed ones the points of every step, too."""
    golden = FIFTH.golden
    found, steps, computed = point_rend.rendered(FIFTH, boxes, classes, monkeypatch, network)
    logits = found.require_masks().logits
    step = int(golden[f"{name}_refined_sub_step"])
    expected = golden[f"{name}_refined_logits_cls_sub"]
    numbers.add(f"{name}_refined_logits_cls_sub", logits[:, 1::step, 1::step], expected)
    stat = golden[f"{name}_refined_stat"]
    size = stat[[1, 1, 2]]
    numbers.add(f"{name}_refined_stat", statistics(logits) / size, stat / size)
    pasted = point_rend.pasted(found, FIFTH).float()
    numbers.add(f"{name}_masks", pasted, mask_bits(golden, f"{name}_masks_packed"))
    if name == "det":
        return
    side = round((computed[0].shape[0] // len(boxes)) ** 0.5)
    every = [torch.arange(side**2).expand(len(boxes), -1), *(indices for _, indices in steps)]
    for number, (indices, values) in enumerate(zip(every, computed, strict=True)):
        cells = (side * 2**number) ** 2
        # Chosen cells as maps: 1 where a cell is chosen.
        chosen = torch.zeros(2, cells).scatter_(1, indices[:2], 1.0)
        theirs = golden[f"fixed_step{number}_point_indices_sorted_first2"].long()
        expected = torch.zeros(2, cells).scatter_(1, theirs, 1.0)
        numbers.add(f"step {number} chosen", chosen, expected)
        own = values.unflatten(0, indices.shape)
        own = own[torch.arange(len(boxes)), :, classes + 1]
        theirs = golden[f"fixed_step{number}_point_index_every16"].long()
        expected = golden[f"fixed_step{number}_point_logits_cls_every16"]
        # Cells that both chose; the others are said above.
        ours = torch.full((len(boxes), cells), torch.nan, dtype=own.dtype)
        ours = ours.scatter_(1, indices, own).gather(1, theirs)
        is_shared = ~ours.isnan()
        numbers.add(
            f"step {number} logits",
            torch.where(is_shared, ours, 0),
            torch.where(is_shared, expected, 0),
        )


def test_the_fifth_candidate_is_as_far_from_float64_as_our_float32(monkeypatch):
    network = FIFTH.build()
    with larger_by_the_last_bit(network):
        rounded = fifth_numbers(network, monkeypatch)
    check(rounded, fifth_numbers(network.double(), monkeypatch))


def report_numbers(network: TwoBranchNet) -> Numbers:
    golden, branch, batch = REPORT.golden, network.instances, REPORT.batch()
    numbers = Numbers()
    with torch.no_grad():
        features = network.trunk(batch)
        dtype = features.levels[0].dtype
        numbers.add("feat_p4_ch64", features.levels[2][0, ::64], golden["feat_p4_ch64"])
        output, anchors = branch.score_anchors(features)
        numbers.add_maps(features, output, golden)
        (proposed,) = propose(output, anchors, batch.image_sizes, branch.rpn, training=False)
        numbers.add("proposal_scores", proposed.logits.sigmoid(), golden["proposal_scores"])
        numbers.add_boxes("proposals", proposed.boxes, golden["proposals"])
        source = CascadeFeatures(features, None, batch.padded_size)
        for stage, settings in enumerate(branch.boxes):
            rois = [golden[f"stage{stage}_rois" if stage else "proposals"].to(dtype)]
            of_boxes = branch._box_output(stage, source, rois)
            first = of_boxes.class_logits[:40].roll(-1, 1)
            name = f"stage{stage}_class_logits_first40"
            numbers.add(name, first, golden[name])
            name = f"stage{stage}_deltas"
            numbers.add(name, of_boxes.box_deltas[:, :4], golden[name])
            if stage < 2:
                (moved,) = moved_boxes(of_boxes, rois, batch.image_sizes, settings)
                numbers.add(f"stage{stage + 1}_rois", moved, golden[f"stage{stage + 1}_rois"])
        (found,) = branch.detect_boxes(features, batch, [golden["proposals"]])
        numbers.add("det_scores", found.best_first().scores, golden["det_scores"])
        numbers.add_boxes("det_boxes", found.require_boxes(), golden["det_boxes"])
        for name in ("", "fixed_"):
            add_masks(numbers, name, network, source)
    return numbers


def add_masks(numbers: Numbers, name: str, network: TwoBranchNet, source: CascadeFeatures) -> None:
    """Masks and mask scores of the golden boxes of this name."""
    golden, branch = REPORT.golden, network.instances
    boxes = golden["fixed_boxes" if name else "det_boxes"]
    classes = golden["fixed_classes" if name else "det_classes"].long()
    roi_features = branch._pooled(source, [boxes], branch.mask_roi)
    own = branch.own_mask_logits(roi_features, classes)
    for head, logits in enumerate(own):
        key = f"{name}mask_logits_head{head}_sub"
        numbers.add(key, logits[:, 1::4, 1::4], golden[key])
    iou = branch.mask_iou(roi_features, own, classes)
    numbers.add(f"{name}mask_iou", iou, golden[f"{name}mask_iou"])
    if not name:
        key = "mask_roi_feat_first2_ch64"
        numbers.add(key, roi_features[:2, ::64], golden[key])
        scores = golden["det_scores"] * iou
        numbers.add("final scores", scores, golden["final_scores_mask_scoring"])
    for kind in ("mean", "last"):
        branch.average_masks = kind == "mean"
        found = Instances(torch.ones(len(boxes)), classes, boxes)
        (masked,) = branch.add_masks(source.features, REPORT.batch(), [found])
        branch.average_masks = True
        bits = mask_bits(golden, f"{name}masks_{kind}_packed")
        numbers.add(f"{name}masks_{kind}", htc.pasted(masked, REPORT).float(), bits)


def test_the_reports_htc_is_as_far_from_float64_as_our_float32():
    network = REPORT.build()
    with larger_by_the_last_bit(network):
        rounded = report_numbers(network)
    check(rounded, report_numbers(network.double()))
    height, width = (REPORT.golden["ori_hw"] / REPORT.golden["image_hw"]).tolist()
    scaled = REPORT.golden["det_boxes"] * torch.tensor([width, height, width, height])
    close(scaled, REPORT.golden["det_boxes_original"], 1e-3)


def golden_rois(stage: int) -> tuple[PositiveRoIs, list]:
    """The boxes on which the golden masks of a stage train, and their objects."""
    golden = REPORT.golden
    bits = unpacked(golden["train_masks_packed"], REPORT.image_size[1])
    targets = mask_targets(bits, golden["train_classes"])
    matched = golden[f"train_s{stage}_mask_matched"].long()
    extents = torch.stack([target.boxes[0] for target in targets])
    rois = PositiveRoIs(
        golden[f"train_s{stage}_mask_rois"],
        matched,
        golden["train_classes"][matched].long(),
        torch.ones(len(matched), dtype=torch.int32),
        extents[matched],
    )
    return rois, targets


@pytest.mark.parametrize("stage", range(3))
def test_mask_targets_of_the_reports_boxes_are_those_of_mmdetection(stage):
    rois, targets = golden_rois(stage)
    size = 2 * HTC_12_32.mask.roi_size
    wanted = targets_of_masks(rois, targets, size, whole_pixels=False).bool()
    expected = unpacked(REPORT.golden[f"train_s{stage}_mask_targets_packed"], size)
    assert float((wanted != expected).float().mean()) < 1e-3


def report_training(network: TwoBranchNet, monkeypatch) -> Numbers:
    """Losses as shares of the golden ones, gradients, and scores of the golden boxes' masks."""
    golden, branch, batch = REPORT.golden, network.instances, REPORT.batch()
    numbers = Numbers()
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.numel() <= LARGEST_LAYER)
    means, seen = htc.training_step(REPORT, network, monkeypatch)
    expected = {name: golden[f"train_{htc.THEIR_NAMES[name]}"] for name in means}
    shares = torch.stack([means[name].double() / value for name, value in expected.items()])
    numbers.add("losses", shares, torch.ones_like(shares))
    for stage, rois in enumerate(seen["rois"]):
        numbers.add_boxes(f"rois {stage}", rois, golden[f"train_s{stage}_mask_rois"])
    sum(means.values()).backward()
    add_gradients(numbers, network)
    rois, targets = golden_rois(2)
    size = 2 * HTC_12_32.mask.roi_size
    with torch.no_grad():
        features = network.trunk(batch)
        target = box_target(golden["train_boxes"], golden["train_classes"], batch.image_sizes[0])
        of_levels = level_losses(
            REPORT, *branch.score_anchors(features), target, branch.rpn, monkeypatch
        )
        for name, sums in zip(("cls", "bbox"), of_levels, strict=True):
            expected = golden[f"train_loss_rpn_{name}_levels"]
            numbers.add(f"rpn {name}", sums, expected)
        source = CascadeFeatures(features, None, batch.padded_size)
        roi_features = branch._pooled(source, [rois.boxes], branch.mask_roi)
        rows = torch.arange(len(rois))
        own = branch._stage_mask_logits(roi_features, 2)[rows, rois.thing_indices]
        predicted = branch.mask_iou_head(roi_features, own)[rows, rois.thing_indices]
    wanted = targets_of_masks(rois, targets, size, whole_pixels=False)
    iou = mask_iou_targets(own, wanted, visible_shares(rois, targets))
    numbers.add("predicted IoU", predicted, golden["train_mask_iou_pred"])
    numbers.add("IoU", iou, golden["train_mask_iou_target"])
    return numbers


def add_gradients(numbers: Numbers, network: TwoBranchNet) -> None:
    golden, parameters = REPORT.golden, dict(network.named_parameters())
    norms, expected = [], []
    largest = float(golden["train_grad_norms"].max())
    theirs = golden_names(f"mmdet/{REPORT.file}", "train_grad_names")
    for name, norm in zip(theirs, golden["train_grad_norms"].tolist(), strict=True):
        parameter = parameters[our_name(name) or ""]
        if parameter.requires_grad:
            assert parameter.grad is not None or norm == 0, name
            norms.append(0.0 if parameter.grad is None else float(parameter.grad.double().norm()))
            expected.append(norm)
    assert len(norms) > 400
    # As orders of magnitude; of some, such as biases before a softmax, only rounding is left.
    least = 1e-6 * largest
    numbers.add(
        "gradient norms",
        torch.tensor(norms).clamp(min=least).log(),
        torch.tensor(expected).clamp(min=least).log(),
    )
    for key, piece in golden.items():
        if key.startswith("train_grad:"):
            grad = parameters[our_name(key.removeprefix("train_grad:")) or ""].grad
            assert grad is not None, key
            numbers.add(key, grad.flatten(1)[: len(piece), : piece.shape[1]], piece)
    network.zero_grad()


def test_the_training_of_the_reports_htc_is_as_far_from_float64(monkeypatch):
    network = REPORT.build().float()
    with larger_by_the_last_bit(network):
        rounded = report_training(network, monkeypatch)
    # Some are few: five levels, eleven losses.
    check(rounded, report_training(network.double(), monkeypatch), factor=3)
