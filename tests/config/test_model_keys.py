"""Every key of the model in a config changes what the network is, learns or predicts."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch

from seamless_pr.build.networks import build_network
from seamless_pr.config.schema import ModelConfig
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.training.losses import mean_losses

LABEL_SPACE = LabelSpace(
    "four",
    (
        Category(1, "road", False, (1, 1, 1), "flat"),
        Category(2, "sky", False, (2, 2, 2), "sky"),
        Category(3, "car", True, (3, 3, 3), "vehicle"),
        Category(4, "person", True, (4, 4, 4), "human"),
    ),
)
# A small network whose random weights find something everywhere.
BASE: dict[str, Any] = {
    "backbone.name": "resnet18",
    "backbone.options": {"channels": [8, 8, 16, 16]},
    "fpn.channels": 8,
    "box_head.hidden_channels": 16,
    "mask_head.hidden_channels": 8,
    "mask_head.coarse_hidden_channels": 16,
    "mask_head.point_channels": 8,
    "semantic_head.hidden_channels": 8,
    "semantic_head.point_channels": 8,
    "semantic_head.pooling_size": 4,
    "rpn.anchor_scale": 2.0,
    "rpn.pre_nms_train": 200,
    "rpn.post_nms_train": 60,
    "rpn.pre_nms_test": 100,
    "rpn.post_nms_test": 30,
    "rpn.num_samples": 32,
    "box.num_samples": 16,
    "box.positive_iou": 0.3,
    "box.max_detections": 10,
    "points.num_train_points": 36,
    "points.output_size": 56,
    "points.subdivision_points": 100,
    "semantic.subdivision_points": 64,
    "semantic.num_train_points": 50,
    "fusion.score_threshold": 0.2,
    "fusion.mask_threshold": 0.3,
    "fusion.stuff_area_fraction": 0.0,
}
CONV = {"mask_head.kind": "conv"}
FPN_SEMANTICS = {"semantic_head.kind": "fpn", "semantic_head.refinement": "none"}
NO_SEMANTIC_POINTS = {"semantic_head.refinement": "none"}
# No pyramid, and weights that show.
DEEPLAB = {
    "branches": "semantic",
    "backbone.name": "resnet50",
    "semantic_head.kind": "deeplab_v3",
    "semantic_head.norm_act.kind": "group_norm",
}
# Key -> another value, and what else must hold for the key to matter.
CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "branches": ("instance", {}),
    "backbone.name": ("resnet34", {}),
    "backbone.stride_in_1x1": (True, {"backbone.name": "resnet50"}),
    "backbone.output_stride": (16, DEEPLAB),
    "backbone.multi_grid": ((1, 2, 4), DEEPLAB),
    "backbone.options": ({"channels": [8, 8, 16, 24]}, {}),
    "backbone.num_frozen": (1, {}),
    "norm_act.kind": ("group_norm", {"head_norm_act.kind": "abn"}),
    "norm_act.slope": (0.1, {}),
    "norm_act.eps": (0.1, {}),
    "norm_act.momentum": (0.5, {}),
    "norm_act.sync": (False, {}),
    "norm_act.num_groups": (4, {"norm_act.kind": "group_norm"}),
    "head_norm_act.kind": ("bias", {}),
    "head_norm_act.slope": (0.1, {"head_norm_act.kind": "abn"}),
    "head_norm_act.eps": (0.1, {"head_norm_act.kind": "abn"}),
    "head_norm_act.momentum": (0.5, {"head_norm_act.kind": "abn"}),
    "head_norm_act.sync": (False, {"head_norm_act.kind": "abn"}),
    "head_norm_act.num_groups": (4, {"head_norm_act.kind": "group_norm"}),
    "fpn.channels": (16, {}),
    "fpn.num_extra_levels": (0, {}),
    "fpn.activation": ("identity", {}),
    "fpn.extra": ("pool", {}),
    "rpn_head.hidden_channels": (4, {}),
    "box_head.hidden_channels": (8, {}),
    "box_head.pooling": (1, {}),
    "mask_head.kind": ("conv", {}),
    "mask_head.hidden_channels": (4, CONV),
    "mask_head.norm_rois": ("sampled", CONV),
    "mask_head.coarse_hidden_channels": (8, {}),
    "mask_head.coarse_roi_size": (10, {}),
    "mask_head.point_channels": (4, {}),
    "mask_head.num_point_layers": (2, {}),
    "mask_head.coarse_each_layer": (False, {}),
    "semantic_head.kind": ("fpn", {}),
    "semantic_head.norm_act.kind": ("bias", {}),
    **{
        f"semantic_head.norm_act.{key}": (value, {"semantic_head.norm_act.kind": kind})
        for key, value, kind in (
            ("slope", 0.1, "abn"),
            ("eps", 0.1, "abn"),
            ("momentum", 0.5, "abn"),
            ("sync", False, "abn"),
            ("num_groups", 4, "group_norm"),
        )
    },
    "semantic_head.hidden_channels": (16, {}),
    "semantic_head.pooling_size": (2, {}),
    "semantic_head.first_level": (1, FPN_SEMANTICS),
    "semantic_head.refinement": ("none", {}),
    "semantic_head.point_channels": (4, {}),
    "semantic_head.num_point_layers": (2, {}),
    "semantic_head.coarse_each_layer": (True, {}),
    "rpn.anchor_scale": (3.0, {}),
    "rpn.anchor_ratios": ((1.0, 0.5), {}),
    "rpn.anchor_offset": (0.0, {}),
    "rpn.pre_nms_train": (20, {}),
    "rpn.post_nms_train": (10, {}),
    "rpn.pre_nms_test": (8, {}),
    "rpn.post_nms_test": (3, {}),
    "rpn.nms_threshold": (0.1, {}),
    "rpn.nms_per_level": (True, {"rpn.pre_nms_test": 5, "rpn.pre_nms_train": 5}),
    # Empty boxes lie outside of the padding that another image brings.
    "rpn.drop_empty": (True, {"rpn.pre_nms_train": 4000, "rpn.post_nms_train": 4000}),
    "rpn.positive_iou": (0.4, {}),
    "rpn.negative_iou": (0.05, {}),
    "rpn.crowd_overlap": (0.05, {"rpn.num_samples": 4000, "rpn.inside_only": False}),
    "rpn.inside_only": (False, {}),
    "rpn.num_samples": (8, {}),
    "rpn.positive_fraction": (0.1, {"rpn.positive_iou": 0.35}),
    "rpn.box_loss_beta": (1.0, {}),
    "roi.sampler": ("aligned", {}),
    "roi.canonical_size_pixels": (20.0, {}),
    "roi.canonical_level": (3, {"roi.canonical_size_pixels": 20.0}),
    "roi.level_epsilon": (1.0, {"roi.canonical_size_pixels": 20.0}),
    "roi.num_levels": (1, {"roi.canonical_size_pixels": 10.0}),
    "roi.size": (10, {}),
    "roi.mask_size": (7, CONV),
    "box.positive_iou": (0.6, {}),
    "box.crowd_overlap": (0.05, {"box.num_samples": 500, "rpn.post_nms_train": 500}),
    "box.num_samples": (8, {}),
    "box.positive_fraction": (0.05, {"box.positive_iou": 0.1}),
    "box.background_without_objects": (True, {}),
    "box.delta_weights": ((1.0, 1.0, 1.0, 1.0), {}),
    "box.box_loss_beta": (0.1, {}),
    "box.score_threshold": (0.36, {}),
    "box.nms_threshold": (0.1, {"box.max_detections": 60}),
    "box.max_detections": (2, {}),
    "points.num_train_points": (25, {}),
    "points.train_points": ("grid", {}),
    "points.oversample_ratio": (5.0, {}),
    "points.importance_fraction": (0.1, {}),
    "points.subdivision_points": (10, {}),
    "points.start_size": (0, {}),
    "points.output_size": (28, {}),
    "points.train_on_predicted_boxes": (False, {}),
    "semantic.loss": ("valid_mean", {}),
    "semantic.hard_pixel_fraction": (1.0, {}),
    "semantic.hard_point_fraction": (0.25, {}),
    "semantic.things": ("merged", {"fusion.semantic_things": "void"}),
    "semantic.upsample_to_input": (True, NO_SEMANTIC_POINTS),
    "semantic.num_train_points": (30, {}),
    "semantic.oversample_ratio": (5.0, {}),
    "semantic.importance_fraction": (0.1, {}),
    "semantic.subdivision_points": (1000, {}),
    "fusion.size": ("network", {}),
    "fusion.score_threshold": (0.9, {}),
    "fusion.overlap_threshold": (0.9, {"box.nms_threshold": 0.9}),
    "fusion.stuff_area_fraction": (0.2, {}),
    "fusion.stuff_area_pixels": (2000, {}),
    "fusion.mask_threshold": (0.4, {}),
    # The same probability everywhere: just reached, not exceeded.
    "fusion.mask_threshold_included": (
        True,
        {**CONV, "constant_masks": True, "fusion.mask_threshold": 0.5},
    ),
    "fusion.semantic_things": ("void", {}),
    "pixel_mean": ((0.1, 0.1, 0.1), {}),
    "pixel_std": ((0.1, 0.1, 0.1), {}),
    "size_divisor": (64, {}),
}
# Read by those who build the network, not by the network.
ELSEWHERE = {
    "backbone.weights": "tests/weights/test_imagenet.py",
    "global_loss_counts": "tests/training/test_losses.py",
}


def leaves(node: Any, prefix: str = "") -> list[str]:
    names: list[str] = []
    for entry in fields(node):
        value = getattr(node, entry.name)
        if is_dataclass(value):
            names += leaves(value, f"{prefix}{entry.name}.")
        else:
            names.append(prefix + entry.name)
    return names


def with_value(node: Any, key: str, value: Any) -> Any:
    name, _, rest = key.partition(".")
    return replace(node, **{name: with_value(getattr(node, name), rest, value) if rest else value})


def model_config(values: dict[str, Any]) -> ModelConfig:
    config = ModelConfig()
    for key, value in values.items():
        config = with_value(config, key, value)
    return config


def picture(seed: int, num_objects: int, size: tuple[int, int]) -> tuple[torch.Tensor, Any]:
    """Random pixels; sky over road, some objects, a group, a void stripe."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    id_map = torch.ones(size, dtype=torch.int32)
    id_map[height // 2 :] = 2
    classes, crowd = [1, 0], [False, False]
    for index in range(num_objects):
        top = int(torch.randint(0, height - 16, (), generator=generator))
        left = int(torch.randint(0, width - 16, (), generator=generator))
        id_map[top : top + 14, left : left + 12 + 4 * index] = len(classes) + 1
        classes.append(2 + index % 2)
        crowd.append(index == num_objects - 1)
    id_map[:2] = 0
    target = PanopticTarget(
        id_map, torch.tensor(classes), torch.tensor(crowd), LABEL_SPACE, str(seed)
    )
    return torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8), target


@cache
def batch() -> tuple[ImageBatch, tuple[PanopticTarget, ...]]:
    (first, target), (second, empty) = picture(1, 5, (64, 100)), picture(2, 0, (48, 80))
    images = torch.zeros(2, 3, 64, 100, dtype=torch.uint8)
    images[0], images[1, :, :48, :80] = first, second
    return ImageBatch(images, ((64, 100), (48, 80))), (target, empty)


def fingerprint(values: dict[str, Any]) -> str:
    """Everything that can be seen of a network: its parts, losses, statistics and predictions."""
    values = dict(values)
    constant_masks = values.pop("constant_masks", False)
    torch.manual_seed(0)
    network = build_network(model_config(values), LABEL_SPACE)
    images, targets = batch()
    for name, parameter in network.named_parameters():
        if constant_masks and name.startswith("mask_head"):
            parameter.data.zero_()
        elif name in ("box_head.box_deltas.weight", "point_head.predictor.weight"):
            # Last layers start so small that no threshold would tell their outputs apart.
            parameter.data.mul_(30)
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(targets))]
    network.train()
    losses = mean_losses(
        network.losses(images, targets, generators), torch.device("cpu"), global_counts=True
    )
    sum(losses.values()).backward()
    seen: list[Any] = [
        [
            (name, module.sync)
            for name, module in network.named_modules()
            if hasattr(module, "sync")
        ],
        {name: loss.item() for name, loss in losses.items()},
        [(n, tuple(p.shape), p.requires_grad) for n, p in network.named_parameters()],
        [(name, value.double().sum().item()) for name, value in network.named_buffers()],
    ]
    for segmentation, found in network.eval().predict(images, [(90, 140), (50, 80)]):
        assert len(found) > 0 or network.box_head is None
        seen.append([segmentation.id_map.tolist(), str(segmentation)])
        seen.append([found.boxes.tolist(), found.scores.tolist(), found.mask_logits.sum().item()])
    return repr(seen)


@cache
def base_fingerprint(extra: tuple[tuple[str, Any], ...]) -> str:
    return fingerprint({**BASE, **dict(extra)})


def test_every_model_key_is_tested() -> None:
    assert sorted([*CHANGES, *ELSEWHERE]) == sorted(leaves(ModelConfig()))


@pytest.mark.parametrize("key", CHANGES)
def test_a_key_changes_something(key: str) -> None:
    value, extra = CHANGES[key]
    before = base_fingerprint(tuple(extra.items()))
    assert fingerprint({**BASE, **extra, key: value}) != before


def test_the_same_values_give_the_same_network() -> None:
    assert fingerprint(BASE) == fingerprint(BASE)
