"""The golden networks of mmdetection and its fork, built from settings, with seeded weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seamless_pr.build.networks import build_network
from seamless_pr.config.networks import (
    BalancedPyramidSettings,
    BiasSettings,
    FixedBatchNormSettings,
    FPNSettings,
    HTCSettings,
    MaskRCNNSettings,
    PointRendSettings,
    SoloV2Settings,
    TimmBackboneSettings,
    TwoBranchSettings,
)
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.models.instances import rpn
from seamless_pr.models.instances.rpn import RPNOutput, rpn_losses
from seamless_pr.models.networks.network import PixelNormalization
from seamless_pr.models.networks.two_branch import TwoBranchNet
from seamless_pr.structures.features import Features
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.kinds import Kinded
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import (
    BoxSettings,
    CoarseMaskSettings,
    ConvMaskSettings,
    PointSettings,
    RoISettings,
    RPNSettings,
)
from seamless_pr.weights.mmdetection import fit_mmdetection_weights, our_name
from tests.support.golden import golden_names, load_golden
from tests.support.mmdet_recipe import recipe_image, recipe_tensors

MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)
NO_CROWD_RULE = 2.0

RESNET = TimmBackboneSettings(name="resnet50", num_frozen=2)
RESNEXT = replace(RESNET, name="resnext101_64x4d")
RES2NET = replace(RESNET, name="res2net101d")
FPN = FPNSettings(activation="identity", extra="pool")
TWO_BLOCKS = BalancedPyramidSettings(activation="identity", extra="pool", num_refinements=2)

RPN = RPNSettings(
    anchor_ratios=(0.5, 1.0, 2.0),
    anchor_offset=0.0,
    pre_nms_test=1000,
    post_nms_test=200,
    nms_per_level=True,
    drop_empty=True,
    forced_iou=0.3,
    forces_equals=True,
    crowd_overlap=NO_CROWD_RULE,
    inside_only=False,
    num_samples=10**6,
    positive_fraction=1.0,
    box_loss_beta=0.0,
)
RPN_1 = replace(RPN, whole_pixels=True, drop_empty=False, inside_only=True, box_loss_beta=1 / 9)
ROI = RoISettings(sampler="aligned", level_epsilon=2.5e-7, size=7)
ROI_1 = replace(ROI, sampler="unaligned", num_samples=2)
BOX = BoxSettings(
    pooling=1,
    forces_best=True,
    crowd_overlap=NO_CROWD_RULE,
    num_samples=10**6,
    positive_fraction=1.0,
    box_loss_beta=0.0,
)
BOX_1 = replace(BOX, class_agnostic=True, whole_pixels=True, box_loss_beta=1.0)
COARSE = CoarseMaskSettings(conv_channels=256, roi_size=26)
COARSE_1 = replace(COARSE, mixes_first=True, background=True, whole_pixels=True)
POINTS = PointSettings(
    num_levels=5,
    num_train_points=576,
    subdivision_points=4900,
    start_size=52,
    output_size=416,
    train_on_predicted_boxes=False,
)
WINNER = PointRendSettings(rpn=RPN_1, roi=ROI_1, box=BOX_1, mask=COARSE_1, points=POINTS)
MODERN = PointRendSettings(rpn=RPN, roi=ROI, box=BOX, mask=COARSE, points=POINTS)
SMALL_GRID = replace(
    WINNER,
    mask=replace(COARSE_1, roi_size=14),
    points=PointSettings(num_levels=4, train_on_predicted_boxes=False),
)
CANDIDATE_5 = replace(
    WINNER,
    roi=replace(ROI_1, size=10, num_samples=0),
    box=replace(BOX_1, num_layers=4),
    mask=replace(COARSE_1, conv_channels=512, num_layers=4),
    points=replace(POINTS, hidden_channels=512, num_layers=5),
)
HTC = HTCSettings(
    rpn=replace(RPN, inside_only=True, inside_excludes_end=True, box_loss_beta=1 / 9),
    roi=ROI,
    box=replace(BOX, class_agnostic=True, box_loss_beta=1.0, score_threshold=1e-3),
    mask=ConvMaskSettings(roi_size=14),
    mask_scoring=True,
)
HTC_12_32 = replace(HTC, roi=replace(ROI, size=12), mask=ConvMaskSettings(roi_size=32))
HTC_1 = replace(
    HTC_12_32,
    rpn=RPN_1,
    roi=replace(ROI_1, size=12),
    box=replace(HTC.box, whole_pixels=True),
)
MASK_RCNN = MaskRCNNSettings(
    rpn=RPN, roi=ROI, box=BOX, mask=ConvMaskSettings(roi_size=14, targets="aligned")
)


@dataclass(frozen=True)
class MMDetCase:
    """A golden file and the network behind it.

    Attributes:
        file: name of the golden file.
        network: name of its list of weights.
        instances: settings of the branch.
        backbone, neck: of the trunk.
    """

    file: str
    network: str
    instances: Kinded = field(hash=False)
    backbone: TimmBackboneSettings = field(default=RESNET, hash=False)
    neck: FPNSettings = field(default=FPN, hash=False)

    @property
    def golden(self) -> dict[str, Tensor]:
        return load_golden(f"mmdet/{self.file}")

    @property
    def seed(self) -> int:
        return int(self.golden["seed"])

    @property
    def image_size(self) -> tuple[int, int]:
        height, width = self.golden["image_hw"].tolist()
        return height, width

    def build(self) -> TwoBranchNet:
        return mmdet_network(self)

    def batch(self) -> ImageBatch:
        image = recipe_image(*self.image_size, self.seed)
        return ImageBatch.from_images([image]).padded_to(32)

    @cache  # noqa: B019 - a handful of module-level cases.
    def features(self) -> Features:
        """Without gradient."""
        with torch.no_grad():
            return self.build().trunk(self.batch())


def empty_network(case: MMDetCase) -> TwoBranchNet:
    """The network on the meta device, all but its normalisation."""
    settings = TwoBranchSettings(
        backbone=case.backbone,
        norm_act=FixedBatchNormSettings(slope=0.0),
        head_norm_act=BiasSettings(slope=0.0),
        neck=case.neck,
        instances=case.instances,
        pixel_mean=MEAN,
        pixel_std=STD,
        size_divisor=32,
    )
    with torch.device("meta"):
        network = build_network(settings, load_label_space("future3d"))
    assert isinstance(network, TwoBranchNet)
    network.trunk.normalization = PixelNormalization(MEAN, STD)
    return network


@cache
def mmdet_network(case: MMDetCase) -> TwoBranchNet:
    """The golden network, imported; in evaluation mode."""
    network = empty_network(case)
    state, report = fit_mmdetection_weights(
        recipe_tensors(case.network, case.seed), network.state_dict()
    )
    report.check(case.network)
    network.load_state_dict(state, assign=True)
    return network.eval()


def statistics(x: Tensor) -> Tensor:
    """Mean, mean absolute and mean square, as stored."""
    x = x.double()
    return torch.stack([x.mean(), x.abs().mean(), x.square().mean()])


def check_proposals(found: Tensor, expected: Tensor) -> None:
    """The same boxes; a few of nearly equal scores may have changed places."""
    assert found.shape == expected.shape
    distance = (found[:, None] - expected[None]).abs().amax(2)
    # An object's box at a threshold may be missing on one side.
    assert float((distance.amin(0) > 5e-2).float().mean()) < 0.01
    moved = distance.diagonal() > 5e-2
    assert float(moved.float().mean()) < 0.02


def close(found: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def solo_settings(golden: Mapping[str, Tensor], **changes: Any) -> SoloV2Settings:
    """With the scale ranges of a golden training case."""
    ranges = tuple((float(low), float(high)) for low, high in golden["train_scale_ranges"])
    return SoloV2Settings(scale_ranges=ranges, **changes)


@contextmanager
def larger_by_the_last_bit(network: nn.Module) -> Iterator[None]:
    kept = [parameter.detach().clone() for parameter in network.parameters()]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1 + 2**-23)
    yield
    with torch.no_grad():
        for parameter, before in zip(network.parameters(), kept, strict=True):
            parameter.copy_(before)


def check_as_far_as_rounding(
    golden: Mapping[str, Tensor],
    rounded: Mapping[str, Tensor],
    exact: Mapping[str, Tensor],
    factor: float = 2,
) -> None:
    """Golden numbers are as far from float64 as ours of float32, after the last bit of all weights
    has changed; at most `factor` times as far.

    For networks in which rounding decides where deformable layers read.
    """
    for name, found in exact.items():
        expected = golden[name].double()
        by_rounding, golden_distance = (
            float((x.double() - found).square().mean()) ** 0.5 for x in (rounded[name], expected)
        )
        assert golden_distance <= factor * by_rounding, name


def box_target(boxes: Tensor, classes: Tensor, image_size: tuple[int, int]) -> PanopticTarget:
    """A target whose boxes are given, and not those of masks: golden objects overlap."""
    target = PanopticTarget(
        torch.zeros(image_size, dtype=torch.int32),
        classes.long(),
        torch.zeros(len(classes), dtype=torch.bool),
        load_label_space("future3d"),
    )
    # Cached properties: what is there already is not worked out.
    target.__dict__["boxes"] = boxes
    target.__dict__["object_indices"] = torch.arange(len(boxes))
    return target


def mask_targets(masks: Tensor, classes: Tensor) -> list[PanopticTarget]:
    """A target for each of [G, H, W] overlapping masks, as if it were in an image of its own."""
    return [
        PanopticTarget(
            mask.int(), classes[[index]].long(), torch.zeros(1).bool(), load_label_space("future3d")
        )
        for index, mask in enumerate(masks)
    ]


def image_per_object(features: Features, count: int) -> Features:
    """The features of one image, as those of `count` images."""
    levels = tuple(level.expand(count, -1, -1, -1) for level in features.levels)
    return Features(levels, features.strides)


def level_losses(
    case: MMDetCase,
    output: RPNOutput,
    anchors: Sequence[Tensor],
    target: PanopticTarget,
    settings: RPNSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Tensor, Tensor]:
    """What each level of anchors has in both losses of the proposal head, [L] each."""
    sizes = case.batch().image_sizes
    sample, found, count, first = rpn.sample_matches, [], 0, 0
    for level in anchors:
        last = first + len(level)

        def of_level(*arguments, first=first, last=last):
            rows = sample(*arguments)
            return tuple(row[(row >= first) & (row < last)] for row in rows)

        monkeypatch.setattr(rpn, "sample_matches", of_level)
        losses = rpn_losses(output, anchors, [target], sizes, settings, [torch.Generator()])
        found.append([loss.total.item() for loss in losses.values()])
        count += losses["rpn_box"].count
        first = last
    monkeypatch.undo()
    objectness, boxes = (torch.tensor(found, dtype=torch.float64) / count).unbind(1)
    return objectness, boxes


def check_levels(
    case: MMDetCase,
    output: RPNOutput,
    anchors: Sequence[Tensor],
    target: PanopticTarget,
    settings: RPNSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = level_losses(case, output, anchors, target, settings, monkeypatch)
    for name, sums in zip(("cls", "bbox"), losses, strict=True):
        expected = case.golden[f"train_loss_rpn_{name}_levels"]
        torch.testing.assert_close(sums, expected, rtol=5e-4, atol=1e-6)


def check_gradients(case: MMDetCase, network: TwoBranchNet, tolerance: float = 1e-3) -> None:
    """Norms of all gradients, and pieces of some, after a backward pass."""
    golden, parameters = case.golden, dict(network.named_parameters())
    names = golden_names(f"mmdet/{case.file}", "train_grad_names")
    for name, norm in zip(names, golden["train_grad_norms"].tolist(), strict=True):
        ours = our_name(name)
        assert ours is not None, name
        grad = parameters[ours].grad
        found = 0.0 if grad is None else float(grad.double().norm())
        assert found == pytest.approx(norm, rel=tolerance, abs=1e-7), name
    for key, expected in golden.items():
        if key.startswith("train_grad:"):
            ours = our_name(key.removeprefix("train_grad:"))
            assert ours is not None
            grad = parameters[ours].grad
            assert grad is not None
            piece = grad.flatten(1)[: len(expected), : expected.shape[1]]
            close(piece.to(expected), expected, tolerance * float(expected.abs().max()))
