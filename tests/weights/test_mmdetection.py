"""Checkpoints of mmdetection: configs read off them, complete matches, order of classes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.networks import build_network
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.weights.key_report import KeyReport
from seamless_pr.weights.mmdetection import (
    fit_mmdetection_weights,
    naming,
    our_name,
    our_tensor,
    version,
)
from seamless_pr.weights.mmdetection_config import config_values
from tests.support.mmdet_recipe import recipe_shapes

NETWORKS = {
    "mask_rcnn_r50": ("resnet50", "mask_rcnn", 2),
    "pointrend_mmdet3_r50_p2p6": ("resnet50", "point_rend", 2),
    "pointrend_winner_r50": ("resnet50", "point_rend", 1),
    "pointrend_winner_r50_p2p5_grid14": ("resnet50", "point_rend", 1),
    "pointrend_winner_res2net101_bfp2_roi10": ("res2net101d", "point_rend", 1),
    "htc_scoring_r50_roi12_32": ("resnet50", "htc", 2),
    "htc_winner_r50_roi12_32": ("resnet50", "htc", 1),
    "htc_report_res2net101_dcn_gc_roi12_32": ("res2net101d", "htc", 2),
    "solov2_r50": ("resnet50", "solov2", 2),
    "solov2_report_x101_dcn_gc": ("resnext101_64x4d", "solov2", 2),
}


def empty_tensors(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def imported(tensors: Mapping[str, Tensor]):
    config = config_from_dict(config_values(tensors), "test")
    with torch.device("meta"):
        network = build_network(config.model, load_label_space(config.data.label_space))
    return config, fit_mmdetection_weights(tensors, network.state_dict())[1]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_config_read_off_the_weights_fits_them_completely(name):
    backbone, kind, of_version = NETWORKS[name]
    tensors = empty_tensors(recipe_shapes(name))
    config, report = imported(tensors)
    report.check(name)
    assert (config.model.backbone.name, config.model.instances.kind) == (backbone, kind)
    assert version(tensors) == of_version
    numerics = getattr(config.model.instances, "box", None)
    assert numerics is None or numerics.whole_pixels == (of_version == 1)


def test_what_names_cannot_say_is_read_off_shapes():
    fifth = imported(empty_tensors(recipe_shapes("pointrend_winner_res2net101_bfp2_roi10")))[0]
    model = fifth.model
    assert (model.neck.kind, model.neck.num_refinements) == ("bfp", 2)
    assert (model.backbone.deformable, model.backbone.pools_split_of_c2) == ("v1", True)
    assert (model.instances.roi.size, model.instances.box.num_layers) == (10, 4)
    mask, points = model.instances.mask, model.instances.points
    assert (mask.roi_size, mask.num_layers, mask.conv_channels, mask.background) == (
        *(26, 4, 512, True),
    )
    assert (points.num_levels, points.num_layers, points.hidden_channels) == (5, 5, 512)
    assert (points.start_size, points.output_size) == (52, 416)
    solo = imported(empty_tensors(recipe_shapes("solov2_report_x101_dcn_gc")))[0].model
    assert solo.instances.deformable == solo.backbone.deformable == "v2"
    assert solo.backbone.context_ratio == 1 / 16
    assert solo.backbone.deformable_stages == ("c3", "c4", "c5")


def panoptic_fpn_tensors() -> dict[str, Tensor]:
    """Mask R-CNN of a golden case for COCO, with the semantic head as in their class."""
    shapes = {}
    for name, shape in recipe_shapes("mask_rcnn_r50").items():
        counts = {35: 81, 34: 80, 136: 320}
        is_predictor = name.rsplit(".", 1)[0].endswith(("fc_cls", "fc_reg", "conv_logits"))
        shapes[name] = (counts[shape[0]], *shape[1:]) if is_predictor else shape
    for level, convs in enumerate((1, 1, 2, 3)):
        for conv in range(convs):
            layer = f"semantic_head.conv_upsample_layers.{level}.conv.{conv}"
            shapes[f"{layer}.conv.weight"] = (128, 128 if conv else 256, 3, 3)
            shapes |= {f"{layer}.gn.{kind}": (128,) for kind in ("weight", "bias")}
    shapes["semantic_head.conv_logits.weight"] = (54, 128, 1, 1)
    shapes["semantic_head.conv_logits.bias"] = (54,)
    return empty_tensors(shapes)


def test_panoptic_fpn_is_mask_rcnn_and_a_semantic_head_with_all_things_last():
    tensors = panoptic_fpn_tensors()
    config, report = imported(tensors)
    report.check("panoptic_fpn")
    assert config.data.label_space == "coco_panoptic"
    assert config.model.instances.kind == "mask_rcnn"
    assert (config.model.semantics.kind, config.model.semantics.things) == (
        *("panoptic_fpn", "merged"),
    )
    assert config.model.fusion.stuff_area_pixels == 4096
    assert config.loss_weights["semantic"] == 0.5
    # Stuff in the order of its ids, then things: as ours, nothing moves.
    logits = torch.arange(54.0)
    assert torch.equal(our_tensor("semantics.head.predictor.bias", logits, 2), logits)
    # Of HTC, version 1, the same name is another layer.
    assert our_name("semantic_head.conv_logits.bias") == "instances.context.predictor.bias"
    assert naming(tensors)("semantic_head.conv_logits.bias") == "semantics.head.predictor.bias"


def test_the_names_of_solov2s_authors_are_those_of_mmdetection():
    theirs = {
        "bbox_head.cate_convs.0.conv.weight": "mask_head.cls_convs.0.conv.weight",
        "bbox_head.kernel_convs.3.gn.bias": "mask_head.kernel_convs.3.gn.bias",
        "bbox_head.solo_cate.bias": "mask_head.conv_cls.bias",
        "bbox_head.solo_kernel.weight": "mask_head.conv_kernel.weight",
        "mask_feat_head.convs_all_levels.2.conv1.conv.weight": (
            "mask_head.mask_feature_head.convs_all_levels.2.conv1.conv.weight"
        ),
        "mask_feat_head.conv_pred.0.gn.weight": ("mask_head.mask_feature_head.conv_pred.gn.weight"),
    }
    for released, mmdetection in theirs.items():
        assert our_name(released) == our_name(mmdetection) is not None


def test_the_background_comes_first_and_has_no_mask():
    rows = torch.arange(4.0)[:, None]
    key = "instances.box_head.class_logits.weight"
    assert our_tensor(key, rows, 1).flatten().tolist() == [0, 1, 2, 3]
    assert our_tensor(key, rows, 2).flatten().tolist() == [3, 0, 1, 2]
    for key in (
        "instances.masks.head.predictor.weight",
        "instances.mask_heads.2.predictor.bias",
        "instances.mask_iou_head.predictor.weight",
    ):
        assert our_tensor(key, rows, 1).flatten().tolist() == [1, 2, 3]
        assert our_tensor(key, rows, 2).flatten().tolist() == [0, 1, 2, 3]
    deltas = torch.arange(12.0)[:, None]
    key = "instances.box_head.box_deltas.weight"
    assert our_tensor(key, deltas, 1).flatten().tolist() == list(range(4, 12))
    assert len(our_tensor(key, deltas[:4], 1)) == 4
    assert our_tensor("instances.rpn_head.box_deltas.weight", deltas, 1) is deltas


def test_half_precision_becomes_float32_and_strangers_are_named():
    shapes = recipe_shapes("solov2_r50")
    tensors = {
        name: torch.zeros(shape, dtype=torch.half)
        for name, shape in shapes.items()
        if name.startswith("mask_head.conv_kernel")
    }
    network = {"instances.head.kernels.weight": torch.zeros(256, 512, 3, 3)}
    state, report = fit_mmdetection_weights(tensors, network)
    assert state["instances.head.kernels.weight"].dtype == torch.float32
    assert report.left_over == ("mask_head.conv_kernel.bias",)
    assert isinstance(report, KeyReport)
    with pytest.raises(ValueError, match="expected a network of mmdetection"):
        config_values({"stem.weight": torch.zeros(1)})
    shapes = {
        name: (5, *shape[1:]) if "conv_cls" in name else shape for name, shape in shapes.items()
    }
    with pytest.raises(ValueError, match="5 thing classes; expected one of"):
        config_values(empty_tensors(shapes))
