"""Every key of the model in a config changes what the network is, learns or predicts."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from seamless_pr.config.networks import TwoBranchSettings
from tests.support.model_keys import fingerprint, keys_of_classes

# A small network whose random weights find something everywhere.
RPN = {
    "anchor_scale": 2.0,
    "pre_nms_train": 200,
    "post_nms_train": 60,
    "pre_nms_test": 100,
    "post_nms_test": 30,
    "num_samples": 32,
}
BOX = {"hidden_channels": 16, "num_samples": 16, "positive_iou": 0.3, "max_detections": 10}
POINT_REND: dict[str, Any] = {
    "kind": "point_rend",
    "rpn": RPN,
    "box": BOX,
    "mask": {"hidden_channels": 16},
    "points": {
        "hidden_channels": 8,
        "num_train_points": 36,
        "output_size": 56,
        "subdivision_points": 100,
    },
}
MASK_RCNN = {"kind": "mask_rcnn", "rpn": RPN, "box": BOX, "mask": {"hidden_channels": 8}}
POINTS = {"hidden_channels": 8, "subdivision_points": 64, "num_train_points": 50}
MINI_DL = {"kind": "mini_dl", "hidden_channels": 8, "pooling_size": 4, "points": POINTS}
BASE: dict[str, Any] = {
    "kind": "two_branch",
    "backbone": {"name": "resnet18", "options": {"channels": [8, 8, 16, 16]}},
    "neck": {"channels": 8},
    "instances": POINT_REND,
    "semantics": MINI_DL,
    "fusion": {"score_threshold": 0.2, "mask_threshold": 0.3, "stuff_area_fraction": 0.0},
}
CONV = {**BASE, "instances": MASK_RCNN}
BALANCED = {
    **BASE,
    "neck": {"kind": "bfp", "channels": 8, "refine": "conv", "num_refinements": 1, "level": 2},
}
IMPLICIT = {
    **BASE,
    "instances": {
        "kind": "implicit_point_rend",
        "rpn": RPN,
        "box": BOX,
        "mask": {"hidden_channels": 8},
        "points": {"hidden_channels": 4, "num_train_points": 20, "output_size": 56},
    },
}
HTC = {
    **BASE,
    "instances": {
        "kind": "htc",
        "rpn": RPN,
        "box": {**BOX, "class_agnostic": True},
        "mask": {"hidden_channels": 8},
    },
}
# Cells of a small pyramid, of which many are found.
SOLO = {
    **BASE,
    "instances": {
        "kind": "solov2",
        "grid_sizes": [12, 10, 8, 6, 4],
        "scale_ranges": [[1, 14], [10, 20], [14, 40], [30, 80], [60, 200]],
        "hidden_channels": 8,
        "feature_channels": 8,
        "kernel_channels": 8,
        "score_threshold": 0.005,
        "min_score": 0.0,
        "centre_fraction": 0.5,
        "norm_act": {"kind": "group_norm", "num_groups": 2},
    },
}
PIXELS = {**BASE, "semantics": {**MINI_DL, "points": None}}
SUMMED = {**BASE, "semantics": {"kind": "panoptic_fpn", "hidden_channels": 8}}
# No neck, and weights that show.
DEEPLAB = {
    **BASE,
    "backbone": {"name": "resnet50", "options": {"channels": [8, 8, 16, 16]}, "output_stride": 32},
    "neck": None,
    "instances": None,
    "semantics": {
        "kind": "deeplab",
        "hidden_channels": 8,
        "pooling_size": 4,
        "norm_act": {"kind": "group_norm"},
    },
}
SWIN: dict[str, Any] = {
    **BASE,
    "backbone": {
        "kind": "swin",
        "channels": 8,
        "depths": [1, 1, 2, 1],
        "num_heads": [1, 2, 2, 4],
        "window_size": 4,
    },
}
LARGE_SWIN = {**BASE, "backbone": {"kind": "swin", "channels": 8, "num_heads": [1, 2, 2, 4]}}


def with_norm(kind: str) -> dict[str, Any]:
    return {**BASE, "norm_act": {"kind": kind}}


# `Class.key` -> (network, what else must hold for the key to matter, the change).
CHANGES: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "TwoBranchSettings.backbone": (BASE, (), "backbone.name=resnet34"),
    "TwoBranchSettings.norm_act": (BASE, ("head_norm_act.kind=abn",), "norm_act.kind=group_norm"),
    "TwoBranchSettings.head_norm_act": (BASE, (), "head_norm_act.kind=bias"),
    "TwoBranchSettings.instances": (BASE, (), "instances=null"),
    "TwoBranchSettings.semantics": (BASE, (), "semantics=null"),
    "TwoBranchSettings.pixel_mean": (BASE, (), "pixel_mean=[0.1, 0.1, 0.1]"),
    "TwoBranchSettings.pixel_std": (BASE, (), "pixel_std=[0.1, 0.1, 0.1]"),
    "TwoBranchSettings.size_divisor": (BASE, (), "size_divisor=64"),
    "TimmBackboneSettings.name": (BASE, (), "backbone.name=resnet34"),
    "TimmBackboneSettings.stride_in_1x1": (
        BASE,
        ("backbone.name=resnet50",),
        "backbone.stride_in_1x1=true",
    ),
    "TimmBackboneSettings.output_stride": (DEEPLAB, (), "backbone.output_stride=16"),
    "TimmBackboneSettings.multi_grid": (DEEPLAB, (), "backbone.multi_grid=[1, 2, 4]"),
    "TimmBackboneSettings.deformable": (BASE, (), "backbone.deformable=v1"),
    "TimmBackboneSettings.deformable_stages": (
        BASE,
        ("backbone.deformable=v2",),
        "backbone.deformable_stages=[c5]",
    ),
    "TimmBackboneSettings.context_ratio": (BASE, (), "backbone.context_ratio=0.25"),
    "TimmBackboneSettings.context_stages": (
        BASE,
        ("backbone.context_ratio=0.25",),
        "backbone.context_stages=[c5]",
    ),
    "TimmBackboneSettings.pools_split_of_c2": (
        BASE,
        ("backbone.name=res2net50d",),
        "backbone.pools_split_of_c2=false",
    ),
    "TimmBackboneSettings.options": (BASE, (), "backbone.options.channels=[8, 8, 16, 24]"),
    "TimmBackboneSettings.num_frozen": (BASE, (), "backbone.num_frozen=1"),
    "SwinBackboneSettings.name": (LARGE_SWIN, (), "backbone.name=swin_small"),
    "SwinBackboneSettings.channels": (SWIN, (), "backbone.channels=16"),
    "SwinBackboneSettings.depths": (SWIN, (), "backbone.depths=[1, 1, 3, 1]"),
    "SwinBackboneSettings.num_heads": (SWIN, (), "backbone.num_heads=[2, 2, 2, 4]"),
    "SwinBackboneSettings.window_size": (SWIN, (), "backbone.window_size=3"),
    "SwinBackboneSettings.drop_path": (SWIN, (), "backbone.drop_path=0.9"),
    "SwinBackboneSettings.num_frozen": (SWIN, (), "backbone.num_frozen=2"),
    "ABNSettings.slope": (BASE, (), "norm_act.slope=0.1"),
    "ABNSettings.eps": (BASE, (), "norm_act.eps=0.1"),
    "ABNSettings.momentum": (BASE, (), "norm_act.momentum=0.5"),
    "ABNSettings.sync": (BASE, (), "norm_act.sync=false"),
    "BatchNormSettings.slope": (with_norm("batch_norm"), (), "norm_act.slope=0.1"),
    "BatchNormSettings.eps": (with_norm("batch_norm"), (), "norm_act.eps=0.1"),
    "BatchNormSettings.momentum": (with_norm("batch_norm"), (), "norm_act.momentum=0.5"),
    "BatchNormSettings.sync": (with_norm("batch_norm"), (), "norm_act.sync=false"),
    "FrozenBatchNormSettings.slope": (with_norm("frozen_batch_norm"), (), "norm_act.slope=0.1"),
    "FrozenBatchNormSettings.eps": (with_norm("frozen_batch_norm"), (), "norm_act.eps=0.1"),
    "FixedBatchNormSettings.slope": (with_norm("fixed_batch_norm"), (), "norm_act.slope=0.1"),
    "FixedBatchNormSettings.eps": (with_norm("fixed_batch_norm"), (), "norm_act.eps=0.1"),
    "GroupNormSettings.slope": (with_norm("group_norm"), (), "norm_act.slope=0.1"),
    "GroupNormSettings.eps": (with_norm("group_norm"), (), "norm_act.eps=0.1"),
    "GroupNormSettings.num_groups": (with_norm("group_norm"), (), "norm_act.num_groups=4"),
    "BiasSettings.slope": (BASE, ("head_norm_act.kind=bias",), "head_norm_act.slope=0.1"),
    "FPNSettings.channels": (BASE, (), "neck.channels=16"),
    "FPNSettings.num_extra_levels": (BASE, (), "neck.num_extra_levels=0"),
    "FPNSettings.activation": (BASE, (), "neck.activation=identity"),
    "FPNSettings.extra": (BASE, (), "neck.extra=pool"),
    "BalancedPyramidSettings.refine": (BALANCED, (), "neck.refine=none"),
    "BalancedPyramidSettings.num_refinements": (BALANCED, (), "neck.num_refinements=2"),
    "BalancedPyramidSettings.level": (BALANCED, (), "neck.level=0"),
    "RPNSettings.whole_pixels": (BASE, (), "instances.rpn.whole_pixels=true"),
    "RPNSettings.forced_iou": (BASE, (), "instances.rpn.forced_iou=0.9"),
    "RPNSettings.inside_excludes_end": (
        BASE,
        ("instances.rpn.num_samples=4000",),
        "instances.rpn.inside_excludes_end=true",
    ),
    "RPNSettings.hidden_channels": (BASE, (), "instances.rpn.hidden_channels=4"),
    "RPNSettings.anchor_scale": (BASE, (), "instances.rpn.anchor_scale=3.0"),
    "RPNSettings.anchor_ratios": (BASE, (), "instances.rpn.anchor_ratios=[1.0, 0.5]"),
    "RPNSettings.anchor_offset": (BASE, (), "instances.rpn.anchor_offset=0.0"),
    "RPNSettings.pre_nms_train": (BASE, (), "instances.rpn.pre_nms_train=20"),
    "RPNSettings.post_nms_train": (BASE, (), "instances.rpn.post_nms_train=10"),
    "RPNSettings.pre_nms_test": (BASE, (), "instances.rpn.pre_nms_test=10"),
    "RPNSettings.post_nms_test": (BASE, (), "instances.rpn.post_nms_test=5"),
    "RPNSettings.nms_threshold": (BASE, (), "instances.rpn.nms_threshold=0.2"),
    "RPNSettings.nms_per_level": (
        BASE,
        ("instances.rpn.pre_nms_test=5", "instances.rpn.pre_nms_train=5"),
        "instances.rpn.nms_per_level=true",
    ),
    # Empty boxes lie outside of the padding that another image brings.
    "RPNSettings.drop_empty": (
        BASE,
        ("instances.rpn.pre_nms_train=4000", "instances.rpn.post_nms_train=4000"),
        "instances.rpn.drop_empty=true",
    ),
    "RPNSettings.positive_iou": (BASE, (), "instances.rpn.positive_iou=0.4"),
    "RPNSettings.negative_iou": (BASE, (), "instances.rpn.negative_iou=0.05"),
    "RPNSettings.crowd_overlap": (
        BASE,
        ("instances.rpn.num_samples=4000", "instances.rpn.inside_only=false"),
        "instances.rpn.crowd_overlap=0.05",
    ),
    "RPNSettings.inside_only": (BASE, (), "instances.rpn.inside_only=false"),
    "RPNSettings.num_samples": (BASE, (), "instances.rpn.num_samples=8"),
    "RPNSettings.positive_fraction": (
        BASE,
        ("instances.rpn.positive_iou=0.35",),
        "instances.rpn.positive_fraction=0.1",
    ),
    "RPNSettings.box_loss_beta": (BASE, (), "instances.rpn.box_loss_beta=1.0"),
    "RoISettings.sampler": (BASE, (), "instances.roi.sampler=aligned"),
    "RoISettings.num_samples": (
        BASE,
        ("instances.roi.sampler=aligned",),
        "instances.roi.num_samples=3",
    ),
    "RoISettings.canonical_size_pixels": (BASE, (), "instances.roi.canonical_size_pixels=20.0"),
    "RoISettings.canonical_level": (
        BASE,
        ("instances.roi.canonical_size_pixels=20.0",),
        "instances.roi.canonical_level=3",
    ),
    "RoISettings.level_epsilon": (
        BASE,
        ("instances.roi.canonical_size_pixels=20.0",),
        "instances.roi.level_epsilon=1.0",
    ),
    "RoISettings.num_levels": (
        BASE,
        ("instances.roi.canonical_size_pixels=10.0",),
        "instances.roi.num_levels=1",
    ),
    "RoISettings.size": (BASE, (), "instances.roi.size=10"),
    "BoxSettings.hidden_channels": (BASE, (), "instances.box.hidden_channels=8"),
    "BoxSettings.num_layers": (BASE, (), "instances.box.num_layers=3"),
    "BoxSettings.class_agnostic": (BASE, (), "instances.box.class_agnostic=true"),
    "BoxSettings.forces_best": (
        BASE,
        ("instances.box.positive_iou=0.05", "instances.box.num_samples=4000"),
        "instances.box.forces_best=true",
    ),
    "BoxSettings.pooling": (BASE, (), "instances.box.pooling=1"),
    "BoxSettings.positive_iou": (BASE, (), "instances.box.positive_iou=0.6"),
    "BoxSettings.crowd_overlap": (
        BASE,
        ("instances.box.num_samples=500", "instances.rpn.post_nms_train=500"),
        "instances.box.crowd_overlap=0.05",
    ),
    "BoxSettings.num_samples": (BASE, (), "instances.box.num_samples=8"),
    "BoxSettings.positive_fraction": (
        BASE,
        ("instances.box.positive_iou=0.1",),
        "instances.box.positive_fraction=0.05",
    ),
    "BoxSettings.background_without_objects": (
        BASE,
        (),
        "instances.box.background_without_objects=true",
    ),
    "BoxSettings.delta_weights": (BASE, (), "instances.box.delta_weights=[1, 1, 1, 1]"),
    "BoxSettings.box_loss_beta": (BASE, (), "instances.box.box_loss_beta=0.1"),
    "BoxSettings.score_threshold": (BASE, (), "instances.box.score_threshold=0.342"),
    "BoxSettings.nms_threshold": (
        BASE,
        ("instances.box.max_detections=60",),
        "instances.box.nms_threshold=0.1",
    ),
    "BoxSettings.max_detections": (BASE, (), "instances.box.max_detections=2"),
    "ConvMaskSettings.hidden_channels": (CONV, (), "instances.mask.hidden_channels=4"),
    "ConvMaskSettings.norm_rois": (CONV, (), "instances.mask.norm_rois=sampled"),
    "ConvMaskSettings.targets": (CONV, (), "instances.mask.targets=aligned"),
    "ConvMaskSettings.roi_size": (CONV, (), "instances.mask.roi_size=7"),
    "CoarseMaskSettings.hidden_channels": (BASE, (), "instances.mask.hidden_channels=8"),
    "CoarseMaskSettings.num_layers": (BASE, (), "instances.mask.num_layers=3"),
    "CoarseMaskSettings.conv_channels": (BASE, (), "instances.mask.conv_channels=4"),
    "CoarseMaskSettings.mixes_first": (BASE, (), "instances.mask.mixes_first=true"),
    "CoarseMaskSettings.background": (BASE, (), "instances.mask.background=true"),
    "CoarseMaskSettings.whole_pixels": (BASE, (), "instances.mask.whole_pixels=true"),
    "CoarseMaskSettings.roi_size": (BASE, (), "instances.mask.roi_size=10"),
    "PointSettings.hidden_channels": (BASE, (), "instances.points.hidden_channels=4"),
    "PointSettings.num_layers": (BASE, (), "instances.points.num_layers=2"),
    "PointSettings.coarse_each_layer": (BASE, (), "instances.points.coarse_each_layer=false"),
    "PointSettings.num_levels": (BASE, (), "instances.points.num_levels=3"),
    "PointSettings.num_train_points": (BASE, (), "instances.points.num_train_points=25"),
    "PointSettings.train_points": (BASE, (), "instances.points.train_points=grid"),
    "PointSettings.oversample_ratio": (BASE, (), "instances.points.oversample_ratio=5.0"),
    "PointSettings.importance_fraction": (BASE, (), "instances.points.importance_fraction=0.1"),
    "PointSettings.subdivision_points": (BASE, (), "instances.points.subdivision_points=10"),
    "PointSettings.start_size": (BASE, (), "instances.points.start_size=0"),
    "PointSettings.output_size": (BASE, (), "instances.points.output_size=28"),
    "PointSettings.train_on_predicted_boxes": (
        BASE,
        (),
        "instances.points.train_on_predicted_boxes=false",
    ),
    "WeightHeadSettings.hidden_channels": (IMPLICIT, (), "instances.mask.hidden_channels=6"),
    "WeightHeadSettings.num_layers": (IMPLICIT, (), "instances.mask.num_layers=1"),
    "WeightHeadSettings.roi_size": (IMPLICIT, (), "instances.mask.roi_size=10"),
    "ImplicitPointSettings.hidden_channels": (IMPLICIT, (), "instances.points.hidden_channels=6"),
    "ImplicitPointSettings.num_layers": (IMPLICIT, (), "instances.points.num_layers=2"),
    "ImplicitPointSettings.num_levels": (IMPLICIT, (), "instances.points.num_levels=2"),
    "ImplicitPointSettings.num_train_points": (
        IMPLICIT,
        (),
        "instances.points.num_train_points=10",
    ),
    "ImplicitPointSettings.subdivision_points": (
        IMPLICIT,
        (),
        "instances.points.subdivision_points=10",
    ),
    "ImplicitPointSettings.start_size": (
        IMPLICIT,
        ("instances.points.subdivision_points=10",),
        "instances.points.start_size=14",
    ),
    "ImplicitPointSettings.output_size": (IMPLICIT, (), "instances.points.output_size=28"),
    "ImplicitPointSettings.train_on_predicted_boxes": (
        IMPLICIT,
        (),
        "instances.points.train_on_predicted_boxes=false",
    ),
    "HTCSettings.stage_ious": (HTC, (), "instances.stage_ious=[0.1, 0.2, 0.3]"),
    "HTCSettings.stage_delta_weights": (
        HTC,
        (),
        "instances.stage_delta_weights=[[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]",
    ),
    "HTCSettings.average_masks": (HTC, (), "instances.average_masks=false"),
    "HTCSettings.mask_scoring": (HTC, (), "instances.mask_scoring=true"),
    "HTCSettings.context": (HTC, (), "instances.context=true"),
    "HTCSettings.context_classes": (
        HTC,
        ("instances.context=true",),
        "instances.context_classes=9",
    ),
    "HTCSettings.shares_semantics": (HTC, (), "instances.shares_semantics=true"),
    "SoloV2Settings.grid_sizes": (SOLO, (), "instances.grid_sizes=[12, 10, 8, 6, 5]"),
    "SoloV2Settings.hidden_channels": (SOLO, (), "instances.hidden_channels=16"),
    "SoloV2Settings.feature_channels": (SOLO, (), "instances.feature_channels=16"),
    "SoloV2Settings.kernel_channels": (SOLO, (), "instances.kernel_channels=16"),
    "SoloV2Settings.deformable": (SOLO, (), "instances.deformable=v2"),
    "SoloV2Settings.norm_act": (SOLO, (), "instances.norm_act=null"),
    "SoloSettings.scale_ranges": (
        SOLO,
        (),
        "instances.scale_ranges=[[1, 14], [10, 20], [30, 40], [30, 80], [60, 200]]",
    ),
    "SoloSettings.centre_fraction": (SOLO, (), "instances.centre_fraction=0.1"),
    "SoloSettings.dice_normalisation": (
        SOLO,
        ("instances.centre_fraction=1.0", "instances.grid_sizes=[3, 3, 3, 3, 3]"),
        "instances.dice_normalisation=masks",
    ),
    "SoloSettings.objects_per_cell": (SOLO, (), "instances.objects_per_cell=last"),
    "SoloSettings.focal_alpha": (SOLO, (), "instances.focal_alpha=0.5"),
    "SoloSettings.focal_gamma": (SOLO, (), "instances.focal_gamma=1.0"),
    "SoloSettings.score_threshold": (SOLO, (), "instances.score_threshold=0.01"),
    "SoloSettings.mask_threshold": (SOLO, (), "instances.mask_threshold=0.45"),
    "SoloSettings.max_before_nms": (SOLO, (), "instances.max_before_nms=5"),
    "SoloSettings.max_detections": (SOLO, (), "instances.max_detections=3"),
    "SoloSettings.nms_kernel": (SOLO, (), "instances.nms_kernel=linear"),
    "SoloSettings.nms_sigma": (SOLO, (), "instances.nms_sigma=1.0"),
    "SoloSettings.min_score": (SOLO, (), "instances.min_score=0.003"),
    "SemanticLossSettings.loss": (BASE, (), "semantics.loss=valid_mean"),
    "SemanticLossSettings.hard_pixel_fraction": (BASE, (), "semantics.hard_pixel_fraction=1.0"),
    "SemanticLossSettings.things": (
        BASE,
        ("fusion.semantic_things=void",),
        "semantics.things=merged",
    ),
    "SemanticSettings.points": (BASE, (), "semantics.points=null"),
    "SemanticSettings.upsample_to_input": (PIXELS, (), "semantics.upsample_to_input=true"),
    "SemanticSettings.norm_act": (BASE, (), "semantics.norm_act.kind=bias"),
    "MiniDLSettings.hidden_channels": (BASE, (), "semantics.hidden_channels=16"),
    "MiniDLSettings.pooling_size": (BASE, (), "semantics.pooling_size=2"),
    "PanopticFPNSettings.hidden_channels": (SUMMED, (), "semantics.hidden_channels=16"),
    "PanopticFPNSettings.first_level": (SUMMED, (), "semantics.first_level=1"),
    "DeepLabSettings.hidden_channels": (DEEPLAB, (), "semantics.hidden_channels=16"),
    "DeepLabSettings.pooling_size": (DEEPLAB, (), "semantics.pooling_size=1"),
    "SemanticPointSettings.hidden_channels": (BASE, (), "semantics.points.hidden_channels=4"),
    "SemanticPointSettings.num_layers": (BASE, (), "semantics.points.num_layers=2"),
    "SemanticPointSettings.coarse_each_layer": (
        BASE,
        (),
        "semantics.points.coarse_each_layer=true",
    ),
    "SemanticPointSettings.residual": (BASE, (), "semantics.points.residual=true"),
    "SemanticPointSettings.pixel_window": (BASE, (), "semantics.points.pixel_window=3"),
    "SemanticPointSettings.uncertainty": (
        BASE,
        (),
        "semantics.points.uncertainty=probabilities",
    ),
    "SemanticPointSettings.only_where_surer": (
        BASE,
        ("semantics.points.subdivision_points=1000",),
        "semantics.points.only_where_surer=true",
    ),
    "SemanticPointSettings.num_train_points": (BASE, (), "semantics.points.num_train_points=30"),
    "SemanticPointSettings.hard_point_fraction": (
        BASE,
        (),
        "semantics.points.hard_point_fraction=0.25",
    ),
    "SemanticPointSettings.oversample_ratio": (BASE, (), "semantics.points.oversample_ratio=5.0"),
    "SemanticPointSettings.importance_fraction": (
        BASE,
        (),
        "semantics.points.importance_fraction=0.1",
    ),
    "SemanticPointSettings.subdivision_points": (
        BASE,
        (),
        "semantics.points.subdivision_points=1000",
    ),
    "FusionSettings.size": (BASE, (), "fusion.size=network"),
    "FusionSettings.score_threshold": (BASE, (), "fusion.score_threshold=0.9"),
    "FusionSettings.overlap_threshold": (
        BASE,
        ("instances.box.nms_threshold=0.9",),
        "fusion.overlap_threshold=0.9",
    ),
    "FusionSettings.stuff_area_fraction": (BASE, (), "fusion.stuff_area_fraction=0.2"),
    "FusionSettings.stuff_area_pixels": (BASE, (), "fusion.stuff_area_pixels=2000"),
    "FusionSettings.mask_threshold": (BASE, (), "fusion.mask_threshold=0.4"),
    # The same probability everywhere: just reached, not exceeded.
    "FusionSettings.mask_threshold_included": (
        CONV,
        ("constant_masks", "fusion.mask_threshold=0.5"),
        "fusion.mask_threshold_included=true",
    ),
    "FusionSettings.semantic_things": (BASE, (), "fusion.semantic_things=void"),
}
ELSEWHERE = {
    # Random objects have no equal anchors, and random boxes stay in the image.
    "RPNSettings.forces_equals": "tests/ops/test_matching.py",
    "BoxSettings.whole_pixels": "tests/models/instances/test_box_branch.py",
    # Seen by gradients alone.
    "SemanticPointSettings.shared_gradient": "tests/models/semantics/test_points.py",
    # Seen by memory alone.
    "TimmBackboneSettings.checkpointing": "tests/models/backbones/test_timm_backbone.py",
    "SwinBackboneSettings.checkpointing": "tests/models/backbones/test_swin.py",
    # Read by those who build the network, not by the network.
    "TimmBackboneSettings.weights": "tests/weights/test_imagenet.py",
    "SwinBackboneSettings.weights": "tests/models/backbones/test_swin.py",
    # Null goes with another kind of semantics only.
    "TwoBranchSettings.neck": "tests/config/test_recipe_configs.py",
}


def seen(model: dict[str, Any], extra: tuple[str, ...], *change: str) -> str:
    overrides = [override for override in extra if override != "constant_masks"]
    return fingerprint(model, [*overrides, *change], constant_masks=len(overrides) < len(extra))


@cache
def seen_before(key: str) -> str:
    model, extra, _ = CHANGES[key]
    return seen(model, extra)


def test_every_model_key_is_tested() -> None:
    known = set(keys_of_classes(TwoBranchSettings))
    assert sorted(known - {*CHANGES, *ELSEWHERE}) == []
    assert sorted({*CHANGES, *ELSEWHERE} - known) == []


@pytest.mark.parametrize("key", CHANGES)
def test_a_key_changes_something(key: str) -> None:
    model, extra, change = CHANGES[key]
    first = next(name for name, entry in CHANGES.items() if entry[:2] == (model, extra))
    assert seen(model, extra, change) != seen_before(first)


def test_the_same_values_give_the_same_network() -> None:
    assert fingerprint(BASE, []) == fingerprint(BASE, [])
