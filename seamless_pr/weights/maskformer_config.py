"""The config of published MaskFormer weights, read off their names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from seamless_pr.weights.maskformer import weights_kind

_NO_DATA = {"json": "not known to imported weights", "images": "not known to imported weights"}
# Classes -> label space, and (shortest, longest) side of test images.
_DATASETS = {
    19: ("cityscapes", (1024, 2048)),
    65: ("vistas_v1_2", (2048, 2048)),
    133: ("coco_panoptic", (800, 1333)),
    150: ("ade20k", (512, 2048)),
}
# Without a table of their own here: COCO-Stuff-10K and ADE20K-Full.
_TEST_SIDES = {171: (640, 2560), 847: (512, 2048)}
_ADE_LARGE_SIDES = (640, 2560)
_COCO = "coco_panoptic"
_SWINS = {(96, 6): "swin_tiny", (96, 18): "swin_small", (128, 18): "swin_base"}
_SWINS |= {(192, 18): "swin_large"}
_PREDICTOR = "sem_seg_head.predictor."
_PIXELS = "sem_seg_head.pixel_decoder."
# Width of one head of the published attentions.
_HEAD_CHANNELS = 32


def maskformer_config_values(
    tensors: Mapping[str, Tensor], *, task: str | None = None, label_space: str | None = None
) -> dict[str, Any]:
    """A config, as nested values, that rebuilds the network of published weights.

    What weights do not tell is that of the published models: COCO networks and those with an
    encoder in the pixel decoder are panoptic, all others semantic.

    Args:
        tensors: as `original_names` gives them.
        task: "semantic", "panoptic" or "general" instead of the published one.
        label_space: instead of the one with this number of classes.

    Raises:
        ValueError: another network, or a number of classes that no dataset here has.
    """
    kind = weights_kind(tensors)
    num_classes = _num_classes(tensors, kind)
    name, sides = _DATASETS.get(num_classes, (label_space, _TEST_SIDES.get(num_classes)))
    name = label_space or name
    if name is None or sides is None:
        raise ValueError(
            f"the weights have {num_classes} classes; expected those of Cityscapes (19), Vistas "
            "(65), COCO (133) or ADE20K (150); give a file with their categories"
        )
    backbone = _backbone_values(tensors)
    has_encoder = f"{_PIXELS}input_proj.weight" in tensors
    is_panoptic = kind == "maskformer" and (has_encoder or num_classes == 133)
    if num_classes == 150 and (has_encoder or backbone["name"] in ("swin_base", "swin_large")):
        sides = _ADE_LARGE_SIDES
    pads = kind == "maskformer" and num_classes != 133
    model: dict[str, Any] = {
        "kind": "maskformer" if kind == "maskformer" else "per_pixel",
        "backbone": backbone,
        "pixel_decoder": _pixel_decoder_values(tensors),
        # Windows and patches of Swin pad by themselves.
        "size_divisor": 32 if pads else 1,
    }
    if kind != "per_pixel":
        model["queries"] = _query_values(tensors, with_number=kind == "maskformer")
    if kind == "maskformer":
        task = task or ("panoptic" if is_panoptic else "semantic")
        model["losses"] = {"targets": "classes" if task == "semantic" else "segments"}
        model["fusion"] = {"task": task, "object_threshold": 0.8 if num_classes == 133 else 0.7}
    data = {
        "label_space": name,
        "shortest_side_pixels": sides[0],
        "longest_side_pixels": sides[1],
        "rounded_sides": True,
        "train": _NO_DATA,
        "val": _NO_DATA,
    }
    return {"model": model, "data": data, "loss_weights": _loss_weights(kind, tensors)}


def _num_classes(tensors: Mapping[str, Tensor], kind: str) -> int:
    if kind == "maskformer":
        return len(tensors[f"{_PREDICTOR}class_embed.bias"]) - 1
    layer = "weight" if kind == "per_pixel" else "query_embed.weight"
    return len(tensors[_PREDICTOR + layer])


def _backbone_values(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    if "backbone.patch_embed.proj.weight" in tensors:
        channels = len(tensors["backbone.patch_embed.proj.weight"])
        blocks = _count(tensors, r"backbone\.layers\.2\.blocks\.(\d+)\.norm1\.weight")
        if (channels, blocks) not in _SWINS:
            raise ValueError(
                f"the weights are of a Swin of {channels} channels with {blocks} blocks in its "
                "third stage; expected one of the published ones: T, S, B or L"
            )
        return {"kind": "swin", "name": _SWINS[channels, blocks]}
    num_blocks = [
        _count(tensors, rf"backbone\.res{stage}\.(\d+)\.conv1\.weight") for stage in range(2, 6)
    ]
    if 0 in num_blocks:
        raise ValueError("the weights have no backbone that is known here: ResNet or Swin")
    values: dict[str, Any] = {"kind": "timm", "name": f"resnet{2 + 3 * sum(num_blocks)}"}
    if "backbone.stem.conv3.weight" in tensors:
        values["options"] = {"stem_type": "deep", "stem_width": 64}
        values["multi_grid"] = [1, 2, 4]
    return values


def _pixel_decoder_values(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    mask_channels, channels = tensors[f"{_PIXELS}mask_features.weight"].shape[:2]
    values = {"kind": "fpn", "channels": channels, "mask_channels": mask_channels}
    if f"{_PIXELS}input_proj.weight" not in tensors:
        return values
    encoder = f"{_PIXELS}transformer.encoder.layers"
    return {
        **values,
        "kind": "transformer",
        "encoder": {
            "num_layers": _count(tensors, re.escape(encoder) + r"\.(\d+)\.norm1\.weight"),
            "num_heads": max(1, channels // _HEAD_CHANNELS),
            "hidden_channels": len(tensors[f"{encoder}.0.linear1.weight"]),
        },
    }


def _query_values(tensors: Mapping[str, Tensor], *, with_number: bool) -> dict[str, Any]:
    num_queries, channels = tensors[f"{_PREDICTOR}query_embed.weight"].shape
    decoder = f"{_PREDICTOR}transformer.decoder.layers"
    values = {
        "channels": channels,
        "num_layers": _num_layers(tensors),
        "num_heads": max(1, channels // _HEAD_CHANNELS),
        "hidden_channels": len(tensors[f"{decoder}.0.linear1.weight"]),
    }
    return values | ({"num_queries": num_queries} if with_number else {})


def _num_layers(tensors: Mapping[str, Tensor]) -> int:
    decoder = re.escape(f"{_PREDICTOR}transformer.decoder.layers")
    return _count(tensors, decoder + r"\.(\d+)\.norm3\.weight")


def _loss_weights(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, float]:
    weights = {"query_class": 1.0, "mask_focal": 20.0, "mask_dice": 1.0}
    if kind != "maskformer":
        weights = {"semantic": 1.0}
    if kind == "per_pixel":
        return weights
    earlier = range(_num_layers(tensors) - 1)
    return weights | {
        f"{name}_{layer}": weight for layer in earlier for name, weight in weights.items()
    }


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    matches = (re.fullmatch(pattern, name) for name in tensors)
    return max((int(match[1]) + 1 for match in matches if match), default=0)
