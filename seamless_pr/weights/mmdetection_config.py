"""The config of a network of mmdetection, read off the names and shapes of its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from seamless_pr.weights.mmdetection import naming, version
from seamless_pr.weights.mmdetection_inputs import TheirInputs

Shapes = Mapping[str, tuple[int, ...]]

# Above any share: crowd regions are no reason to leave anchors and proposals out.
_NO_CROWD_RULE = 2.0
_NO_DATA = {"json": "not known to imported weights", "images": "not known to imported weights"}
# Thing classes -> label space, (shortest, longest) side of test images.
_DATASETS = {
    80: ("coco_panoptic", (800, 1333)),
    34: ("future3d", (1400, 1400)),
    8: ("cityscapes", (1024, 2048)),
}
_BOX_LOSSES = ("rpn_objectness", "rpn_box", "box_class", "box_delta")
# By the channels of an offset for each of 9 taps.
_DEFORMABLE = {18: "v1", 27: "v2"}
_STAGES = ("c2", "c3", "c4", "c5")
_GRID_OF_START = 4
_SEMANTICS = {
    "kind": "panoptic_fpn",
    "norm_act": {"kind": "group_norm", "slope": 0.0, "num_groups": 32},
    "loss": "valid_mean",
    "things": "merged",
    "upsample_to_input": True,
}
_PANOPTIC_FUSION = {"semantic_things": "void", "stuff_area_pixels": 4096, "score_threshold": 0.6}


def config_values(
    tensors: Mapping[str, Tensor], inputs: TheirInputs | None = None
) -> dict[str, Any]:
    """A config, as nested values, that rebuilds the network of a checkpoint of mmdetection.

    Backbone, neck, branch, widths, version and dataset are read off the names and shapes; the rest
    is what the stock configurations of that version have in common (version 1: those of the
    3D-FUTURE winner). HTC's masks are the mean of all heads', as in versions 1 and 2. Panoptic FPN
    lays its objects as there, but for their suppression between classes, which is left out.

    Args:
        tensors: names and tensors of the file.
        inputs: what it reads; None: RGB with ImageNet's statistics, as most do.

    Raises:
        ValueError: another architecture, or a number of classes of no known dataset.
    """
    renamed = naming(tensors)
    names = {name: ours for name in tensors if (ours := renamed(name)) is not None}
    shapes = {ours: tuple(tensors[name].shape) for name, ours in names.items()}
    if "trunk.backbone.layer1.0.conv1.weight" not in shapes:
        raise ValueError(
            f"{len(shapes)} of {len(tensors)} names are known; expected a network of mmdetection "
            "on ResNet, ResNeXt or Res2Net with Mask R-CNN, Panoptic FPN, PointRend, HTC or SOLOv2"
        )
    is_first = version(tensors) == 1
    instances, losses, num_things = _branch(shapes, is_first)
    if num_things not in _DATASETS:
        raise ValueError(
            f"the weights have {num_things} thing classes; expected one of {sorted(_DATASETS)} "
            "(Cityscapes, 3D-FUTURE, COCO)"
        )
    label_space, (shortest, longest) = _DATASETS[num_things]
    inputs = inputs or TheirInputs()
    backbone = _backbone(shapes, is_official="backbone.bn1.weight" in tensors)
    model: dict[str, Any] = {
        "kind": "two_branch",
        "backbone": backbone | {"stride_in_1x1": inputs.stride_in_1x1},
        "norm_act": {"kind": "fixed_batch_norm", "slope": 0.0},
        "head_norm_act": {"kind": "bias", "slope": 0.0},
        "neck": _neck(shapes),
        "instances": instances,
        "fusion": {"mask_threshold_included": not is_first and instances["kind"] != "solov2"},
        "size_divisor": 32,
        "pixel_mean": tuple(value / 255 for value in inputs.mean),
        "pixel_std": tuple(value / 255 for value in inputs.std),
    }
    if "semantics.head.predictor.weight" in shapes:
        model |= {"semantics": _SEMANTICS, "fusion": model["fusion"] | _PANOPTIC_FUSION}
        losses["semantic"] = 0.5
    data = {
        "label_space": label_space,
        "shortest_side_pixels": shortest,
        "longest_side_pixels": longest,
        "train": _NO_DATA,
        "val": _NO_DATA,
    }
    return {"model": model, "data": data, "loss_weights": losses}


def _backbone(shapes: Shapes, *, is_official: bool) -> dict[str, Any]:
    prefix = "trunk.backbone."
    blocks: dict[str, int] = {}
    for name in shapes:
        if match := re.fullmatch(rf"{re.escape(prefix)}layer(\d)\.(\d+)\.conv1\.weight", name):
            blocks[match[1]] = max(blocks.get(match[1], 0), int(match[2]) + 1)
    has_bottlenecks = f"{prefix}layer1.0.conv3.weight" in shapes
    depth = 2 + (3 if has_bottlenecks else 2) * sum(blocks.values())
    values: dict[str, Any] = {"name": f"resnet{depth}", "num_frozen": 2}
    if f"{prefix}layer1.0.convs.0.weight" in shapes:
        # The original and mmdetection 1.x name the stem otherwise; only they pool in C2.
        values |= {"name": f"res2net{depth}d", "pools_split_of_c2": is_official}
    else:
        outputs, inputs = shapes[f"{prefix}layer1.0.conv2.weight"][:2]
        if inputs < outputs:
            values["name"] = f"resnext{depth}_{outputs // inputs}x{inputs}d"
    offsets = _stages_with(shapes, r"conv_offset\.weight")
    if offsets:
        (channels,) = {shape[0] for shape in offsets.values()}
        values |= {"deformable": _DEFORMABLE[channels], "deformable_stages": tuple(offsets)}
    contexts = _stages_with(shapes, r"se\.transform\.0\.weight")
    if contexts:
        hidden, width = next(iter(contexts.values()))[:2]
        values |= {"context_ratio": hidden / width, "context_stages": tuple(contexts)}
    return values


def _stages_with(shapes: Shapes, part: str) -> dict[str, tuple[int, ...]]:
    """Stage name -> shape of one parameter of that name in it, of the stages that have one."""
    found = {}
    for index, stage in enumerate(_STAGES, start=1):
        pattern = re.compile(rf"trunk\.backbone\.layer{index}\..*{part}")
        if matches := [shape for name, shape in shapes.items() if pattern.fullmatch(name)]:
            found[stage] = matches[0]
    return found


def _neck(shapes: Shapes) -> dict[str, Any]:
    values: dict[str, Any] = {"kind": "fpn", "activation": "identity", "extra": "pool"}
    blocks = {
        name.split(".")[3]
        for name in shapes
        if re.match(r"trunk\.neck\.refine\.(.+\.)?theta", name)
    }
    if blocks:
        num_blocks = sum(block.isdigit() for block in blocks) or 1
        values |= {"kind": "bfp", "num_refinements": num_blocks}
    return values


def _branch(shapes: Shapes, is_first: bool) -> tuple[dict[str, Any], dict[str, float], int]:
    """Settings of the instance branch, weights of its losses, and its number of thing classes."""
    if "instances.head.category_logits.weight" in shapes:
        return _solov2(shapes)
    if "instances.box_heads.0.class_logits.weight" in shapes:
        return _htc(shapes, is_first)
    values = _two_stage(shapes, "instances.box_head", is_first)
    num_things = shapes["instances.box_head.class_logits.weight"][0] - 1
    if "instances.masks.point_head.predictor.weight" in shapes:
        values |= {"kind": "point_rend", **_point_rend(shapes, num_things, is_first)}
        masks: tuple[str, ...] = ("mask_coarse", "mask_point")
    else:
        values |= {"kind": "mask_rcnn", "mask": {"roi_size": 14, "targets": "aligned"}}
        masks = ("mask",)
    return values, dict.fromkeys((*_BOX_LOSSES, *masks), 1.0), num_things


def _two_stage(shapes: Shapes, head: str, is_first: bool) -> dict[str, Any]:
    pool_inputs = shapes[f"{head}.fc1.weight"][1]
    size = round((pool_inputs / shapes["instances.rpn_head.conv.weight"][1]) ** 0.5)
    is_agnostic = shapes[f"{head}.box_deltas.weight"][0] == 4
    num_layers = sum(bool(re.fullmatch(rf"{head}\.fc\d\.weight", name)) for name in shapes)
    rpn = {
        "anchor_ratios": (0.5, 1.0, 2.0),
        "anchor_offset": 0.0,
        "whole_pixels": is_first,
        "pre_nms_train": 2000,
        "post_nms_train": 2000 if is_first else 1000,
        "pre_nms_test": 1000,
        "post_nms_test": 1000,
        "nms_per_level": True,
        "drop_empty": not is_first,
        "forced_iou": 0.3,
        "forces_equals": True,
        "inside_only": is_first or is_agnostic,
        "inside_excludes_end": not is_first,
        "crowd_overlap": _NO_CROWD_RULE,
        "box_loss_beta": 1 / 9 if is_first or is_agnostic else 0.0,
    }
    roi: dict[str, Any] = {"sampler": "aligned", "level_epsilon": 2.5e-7, "size": size}
    if is_first:
        # The winner's 10x10 boxes take as many samples as they cover cells.
        roi |= {"sampler": "unaligned", "num_samples": 0 if size == 10 else 2}
    box = {
        "pooling": 1,
        "num_layers": num_layers,
        "hidden_channels": shapes[f"{head}.fc1.weight"][0],
        "class_agnostic": is_agnostic,
        "forces_best": True,
        "background_without_objects": True,
        "crowd_overlap": _NO_CROWD_RULE,
        "box_loss_beta": 1.0 if is_first or is_agnostic else 0.0,
        "whole_pixels": is_first,
    }
    return {"rpn": rpn, "roi": roi, "box": box}


def _point_rend(shapes: Shapes, num_things: int, is_first: bool) -> dict[str, Any]:
    coarse = "instances.masks.coarse_head."
    mixes = f"{coarse}mix.weight" in shapes
    inputs = shapes[f"{coarse}mix.weight" if mixes else f"{coarse}reduce.weight"][1]
    num_levels = inputs // shapes["instances.rpn_head.conv.weight"][1]
    width = shapes[f"{coarse}reduce.weight"][0]
    hidden, cells = shapes[f"{coarse}fc1.weight"]
    side = round((cells / width) ** 0.5)
    num_fcs = sum(bool(re.fullmatch(rf"{re.escape(coarse)}fc\d\.weight", name)) for name in shapes)
    points = "instances.masks.point_head."
    is_fine = side > 7
    return {
        "mask": {
            "hidden_channels": hidden,
            "num_layers": num_fcs,
            "conv_channels": width,
            "mixes_first": mixes,
            "background": shapes[f"{points}predictor.bias"][0] == num_things + 1,
            "whole_pixels": is_first,
            "roi_size": 2 * side,
        },
        "points": {
            "hidden_channels": shapes[f"{points}layers.0.weight"][0],
            "num_layers": sum(
                bool(re.fullmatch(rf"{re.escape(points)}layers\.\d\.weight", name))
                for name in shapes
            ),
            "num_levels": num_levels,
            "num_train_points": 576 if is_fine else 196,
            "subdivision_points": 4900 if is_fine else 784,
            "start_size": _GRID_OF_START * side,
            "output_size": 32 * side,
            "train_on_predicted_boxes": False,
        },
    }


def _htc(shapes: Shapes, is_first: bool) -> tuple[dict[str, Any], dict[str, float], int]:
    num_things = shapes["instances.box_heads.0.class_logits.weight"][0] - 1
    values = _two_stage(shapes, "instances.box_heads.0", is_first)
    values["box"]["score_threshold"] = 1e-3
    has_scores = "instances.mask_iou_head.predictor.weight" in shapes
    roi_size = 14
    if has_scores:
        convs = shapes["instances.mask_iou_head.convs.3.weight"][0]
        roi_size = 2 * round((shapes["instances.mask_iou_head.fcs.0.weight"][1] / convs) ** 0.5)
    context = shapes.get("instances.context.predictor.weight")
    values |= {
        "kind": "htc",
        "mask": {"roi_size": roi_size},
        "mask_scoring": has_scores,
        "context": context is not None,
        "context_classes": None if context is None else context[0],
    }
    losses = dict.fromkeys(_BOX_LOSSES[:2], 1.0)
    for stage, weight in enumerate((1.0, 0.5, 0.25), start=1):
        losses |= {f"{name}_{stage}": weight for name in ("box_class", "box_delta", "mask")}
    if has_scores:
        losses["mask_iou"] = 0.125
    if context is not None:
        losses["context"] = 0.2
    return values, losses, num_things


def _solov2(shapes: Shapes) -> tuple[dict[str, Any], dict[str, float], int]:
    head = "instances.head."
    num_things, hidden = shapes[f"{head}category_logits.weight"][:2]
    offset = shapes.get(f"{head}category_tower.0.conv.conv_offset.weight")
    values = {
        "kind": "solov2",
        "hidden_channels": hidden,
        "feature_channels": shapes[f"{head}mask_feature.prediction.conv.weight"][1],
        "kernel_channels": shapes[f"{head}kernels.weight"][0],
        "deformable": "none" if offset is None else _DEFORMABLE[offset[0]],
    }
    return values, {"solo_mask": 3.0, "solo_category": 1.0}, num_things
