"""Settings of detectron2's ResNet-FPN networks, read off the names and shapes of their weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from seamless_pr.weights.detectron2 import num_things, our_shapes

_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
_MSRA_STD = (1 / 255, 1 / 255, 1 / 255)
_RESNEXT_STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)
# Above any share: crowd regions are no reason to leave anchors and proposals out.
_NO_CROWD_RULE = 2.0

_BOX_LOSSES = ("rpn_objectness", "rpn_box", "box_class", "box_delta")
_MASK_LOSSES = {
    "mask_rcnn": {"mask": 1.0},
    "point_rend": {"mask_coarse": 1.0, "mask_point": 1.0},
    "implicit_point_rend": {"mask_point": 1.0, "mask_weights": 1e-5},
}
_NO_DATA = {"json": "not known to imported weights", "images": "not known to imported weights"}
# Label space, (thing classes, semantic outputs), and (shortest, longest) side of test images.
_DATASETS = (
    ("cityscapes", ((8, 0), (0, 19)), (1024, 2048)),
    ("coco_panoptic", ((80, 0), (80, 54)), (800, 1333)),
)

_RPN_VALUES = {
    "anchor_ratios": (0.5, 1.0, 2.0),
    "anchor_offset": 0.0,
    "pre_nms_train": 2000,
    "post_nms_train": 1000,
    "pre_nms_test": 1000,
    "post_nms_test": 1000,
    "nms_per_level": True,
    "drop_empty": True,
    "inside_only": False,
    "crowd_overlap": _NO_CROWD_RULE,
    "box_loss_beta": 0.0,
}
_ROI_VALUES = {"sampler": "aligned", "level_epsilon": 1e-8, "size": 7}
_BOX_VALUES = {
    "pooling": 1,
    "background_without_objects": True,
    "crowd_overlap": _NO_CROWD_RULE,
    "box_loss_beta": 0.0,
}


def zoo_config_values(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """A config, as nested values, that rebuilds the network of a zoo checkpoint.

    Depth and kind of the backbone, the branches, their heads and the dataset are read off the names
    and shapes; the rest is what all these networks have in common in detectron2.

    Raises:
        ValueError: not a network on ResNet-FPN, without a branch that is known here, or with
            numbers of classes that belong to neither COCO nor Cityscapes.
    """
    shapes = our_shapes(tensors)
    has_instances = "instances.box_head.fc1.weight" in shapes
    has_semantics = "semantics.head.predictor.weight" in shapes
    if "trunk.backbone.layer1.0.conv2.weight" not in shapes or not (has_instances or has_semantics):
        raise ValueError(
            f"{len(shapes)} of {len(tensors)} names are known; expected a detectron2 network on "
            "ResNet-FPN with boxes (PointRend, Mask R-CNN, Panoptic FPN) or a SemanticFPN head"
        )
    model = _trunk_values(shapes)
    losses: dict[str, float] = {}
    if has_instances:
        model["instances"] = _instance_values(shapes)
        model["fusion"] = {"mask_threshold_included": True}
        losses |= dict.fromkeys(_BOX_LOSSES, 1.0)
        losses |= _MASK_LOSSES[model["instances"]["kind"]]
    if has_semantics:
        model["semantics"] = _semantic_values(shapes)
        # A class map: no region is too small.
        model.setdefault("fusion", {"stuff_area_fraction": 0.0})
        losses["semantic"] = 1.0
        if model["semantics"].get("points") is not None:
            model["semantics"]["points"] |= {"subdivision_points": 8192}
            losses["semantic_point"] = 1.0
    if has_instances and has_semantics:
        model["semantics"]["things"] = "merged"
        model["fusion"] |= {"semantic_things": "void", "stuff_area_pixels": 4096}
        losses["semantic"] = 0.5
    return {"model": model, "data": _data_values(shapes), "loss_weights": losses}


def _trunk_values(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    return {
        "kind": "two_branch",
        "backbone": _backbone_values(shapes),
        "norm_act": {"kind": "frozen_batch_norm", "slope": 0.0},
        "head_norm_act": {"kind": "bias", "slope": 0.0},
        "neck": {"kind": "fpn", "activation": "identity", "extra": "pool"},
        "size_divisor": 32,
        "pixel_mean": _MEAN,
        "pixel_std": _RESNEXT_STD if _is_resnext(shapes) else _MSRA_STD,
    }


def _instance_values(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    values = {"rpn": dict(_RPN_VALUES), "roi": dict(_ROI_VALUES), "box": dict(_BOX_VALUES)}
    if "instances.masks.point_head.frequencies" in shapes:
        return {"kind": "implicit_point_rend", **values}
    if "instances.masks.point_head.predictor.weight" in shapes:
        return {"kind": "point_rend", **values}
    return {"kind": "mask_rcnn", **values, "mask": {"roi_size": 14, "targets": "aligned"}}


def _semantic_values(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    refines = "semantics.point_head.predictor.weight" in shapes
    return {
        "kind": "panoptic_fpn",
        "norm_act": {"kind": "group_norm", "slope": 0.0, "num_groups": 32},
        "loss": "valid_mean",
        **({"points": {}} if refines else {"upsample_to_input": True}),
    }


def _data_values(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    num_thing_classes = num_things(shapes)
    num_outputs = shapes.get("semantics.head.predictor.bias", (0,))[0]
    for name, classes, (shortest, longest) in _DATASETS:
        if (num_thing_classes, num_outputs) in classes:
            return {
                "label_space": name,
                "shortest_side_pixels": shortest,
                "longest_side_pixels": longest,
                "train": _NO_DATA,
                "val": _NO_DATA,
            }
    raise ValueError(
        f"the weights have {num_thing_classes} thing classes and {num_outputs} semantic outputs; "
        "expected those of COCO or Cityscapes"
    )


def _is_resnext(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    # A grouped convolution sees a share of its inputs only.
    outputs, inputs = shapes["trunk.backbone.layer1.0.conv2.weight"][:2]
    return inputs < outputs


def _backbone_values(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    pattern = re.compile(r"trunk\.backbone\.layer(\d)\.(\d+)\.conv1\.weight")
    blocks: dict[str, int] = {}
    for name in shapes:
        if match := pattern.fullmatch(name):
            blocks[match[1]] = max(blocks.get(match[1], 0), int(match[2]) + 1)
    depth = 2 + 3 * sum(blocks.values())
    resnext = _is_resnext(shapes)
    name = f"resnext{depth}_32x8d" if resnext else f"resnet{depth}"
    # Networks for semantics alone train from the stem on.
    num_frozen = 2 if num_things(shapes) else 0
    return {"name": name, "stride_in_1x1": not resnext, "num_frozen": num_frozen}
