"""Weights of detectron2's model zoo under our names: PointRend, Mask R-CNN, Panoptic FPN.

Our network reads RGB and keeps the background class first, so the first convolution and the class
predictors change their order on the way; everything else only changes its name.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seamless_pr.weights.key_report import KeyReport, fit_keys
from seamless_pr.weights.tensor_files import read_pickled

# All that a pickle of numpy arrays in plain containers refers to; old files say numpy.core.
_SAFE_GLOBALS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
}
_NUMPY_CORE = np.ndarray.__reduce__(np.zeros(0))[0].__module__.rpartition(".")[0]

# Constants of the network that older versions stored as well.
_CONSTANTS = re.compile(r"pixel_mean|pixel_std|.*\.cell_anchors\.\d+|.*\.num_batches_tracked")

_BLOCK_PARTS = {
    "shortcut.norm.": "downsample.1.",
    "shortcut.": "downsample.0.",
    "conv1.norm.": "bn1.",
    "conv1.": "conv1.",
    "conv2.norm.": "bn2.",
    "conv2.": "conv2.",
    "conv3.norm.": "bn3.",
    "conv3.": "conv3.",
}
_RPN_PARTS = {"objectness_logits": "objectness", "anchor_deltas": "box_deltas"}
_BOX_PREDICTORS = {"cls_score": "class_logits", "bbox_pred": "box_deltas"}
_COARSE_PARTS = {
    "reduce_spatial_dim_conv": "reduce",
    "coarse_mask_fc1": "fc1",
    "coarse_mask_fc2": "fc2",
    "fc1": "fc1",
    "fc2": "fc2",
    "prediction": "prediction",
}


def _biased(layer: str, kind: str, norm: str = "norm") -> str:
    """Our convolutions carry no bias of their own; the layer behind them does."""
    return f"{norm}.bias" if kind == "bias" else f"{layer}.weight"


def _block(match: re.Match[str]) -> str:
    part = _BLOCK_PARTS[match[3]]
    return f"backbone.layer{int(match[1]) - 1}.{match[2]}.{part}"


def _fpn(match: re.Match[str]) -> str:
    return f"fpn.{match[1]}.{int(match[2]) - 2}.{_biased('conv', match[3])}"


def _fc(match: re.Match[str]) -> str:
    return f"box_head.{_biased(f'fc{match[1]}', match[2], f'norm{match[1]}')}"


def _mask_conv(match: re.Match[str]) -> str:
    return f"mask_head.convs.{int(match[1]) - 1}.{_biased('conv', match[2])}"


def _point_layer(head: str) -> Callable[[re.Match[str]], str]:
    return lambda match: f"{head}.layers.{int(match[1]) - 1}."


def _semantic_block(match: re.Match[str]) -> str:
    # Odd positions of the sequence are the upsamplings between the blocks.
    part = "norm." if match[3] else "conv."
    return f"semantic_head.branches.{int(match[1]) - 2}.{int(match[2]) // 2}.{part}"


# Older files keep both mask heads beside each other under roi_heads.
_COARSE = r"roi_heads\.(?:mask_head\.coarse_head|mask_coarse_head)\."
_POINT = r"roi_heads\.(?:mask_head\.point_head|mask_point_head)\."
_SEMANTIC = r"sem_seg_head\.(?:coarse_sem_seg_head\.)?"

_RULES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"backbone\.bottom_up\.stem\.conv1\.norm\.", lambda match: "backbone.bn1."),
    (r"backbone\.bottom_up\.stem\.conv1\.", lambda match: "backbone.conv1."),
    (
        r"backbone\.bottom_up\.res([2-5])\.(\d+)\.((?:shortcut|conv[1-3])\.(?:norm\.)?)",
        _block,
    ),
    (r"backbone\.fpn_(lateral|output)([2-5])\.(weight|bias)", _fpn),
    (
        r"proposal_generator\.rpn_head\.conv\.(weight|bias)",
        lambda match: f"rpn_head.{_biased('conv', match[1])}",
    ),
    (
        rf"proposal_generator\.rpn_head\.({'|'.join(_RPN_PARTS)})\.",
        lambda match: f"rpn_head.{_RPN_PARTS[match[1]]}.",
    ),
    (r"roi_heads\.box_head\.fc([12])\.(weight|bias)", _fc),
    (
        rf"roi_heads\.box_predictor\.({'|'.join(_BOX_PREDICTORS)})\.",
        lambda match: f"box_head.{_BOX_PREDICTORS[match[1]]}.",
    ),
    (r"roi_heads\.mask_head\.mask_fcn([1-4])\.(weight|bias)", _mask_conv),
    (
        r"roi_heads\.mask_head\.deconv\.(weight|bias)",
        lambda match: f"mask_head.{_biased('upsample', match[1], 'upsample_norm')}",
    ),
    (r"roi_heads\.mask_head\.predictor\.", lambda match: "mask_head.predictor."),
    (
        rf"{_COARSE}({'|'.join(_COARSE_PARTS)})\.",
        lambda match: f"mask_head.{_COARSE_PARTS[match[1]]}.",
    ),
    (rf"{_POINT}fc(\d+)\.", _point_layer("point_head")),
    (rf"{_POINT}predictor\.", lambda match: "point_head.predictor."),
    (r"sem_seg_head\.point_head\.fc(\d+)\.", _point_layer("semantic_point_head")),
    (r"sem_seg_head\.point_head\.predictor\.", lambda match: "semantic_point_head.predictor."),
    (rf"{_SEMANTIC}p([2-5])\.(\d)\.(norm\.)?", _semantic_block),
    (rf"{_SEMANTIC}predictor\.", lambda match: "semantic_head.predictor."),
)


def read_zoo_file(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint: .pkl as in the model zoo, or .pth as detectron2 trains.

    Nothing but arrays and plain containers is read: a pickle that refers to anything else is
    refused before any of it runs.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or foreign objects in it; the message names both.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist")
    if path.suffix == ".pkl":
        content = _read_pickle(path)
    elif path.suffix == ".pth":
        content = read_pickled(path)
    else:
        raise ValueError(f"{path} must be a .pkl (model zoo) or .pth file; got '{path.suffix}'")
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} must hold named arrays; got {type(content).__name__}")
    tensors = {}
    for name, value in content.items():
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(np.ascontiguousarray(value))
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{path}: '{name}' must be an array; got {type(value).__name__}; is this a "
                "checkpoint of detectron2?"
            )
        tensors[str(name)] = value
    return tensors


class _ArrayUnpickler(pickle.Unpickler):
    """Knows numpy arrays and containers; everything else in a pickle is an error."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")
        if (module, name) not in _SAFE_GLOBALS:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return super().find_class(module.replace("numpy._core", _NUMPY_CORE), name)


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        try:
            # Zoo files were written by Python 2, whose texts are bytes.
            return _ArrayUnpickler(file, encoding="latin1").load()
        except Exception as error:  # Unpickling raises a dozen unrelated types on damaged files.
            raise ValueError(
                f"{path} is not a pickle of numpy arrays in plain containers: {error}; nothing of "
                "it was loaded; give a file of the model zoo"
            ) from error


def our_name(zoo_name: str) -> str | None:
    """Our state_dict key of a parameter or buffer; None if there is no rule for it.

    Accepts the three layouts that PointRend's mask heads have had: `roi_heads.mask_coarse_head`
    (until November 2020), `mask_head.coarse_head.coarse_mask_fc1` (until April 2021) and
    `mask_head.coarse_head.fc1`.
    """
    for pattern, rename in _RULES:
        match = re.match(pattern, zoo_name)
        if match is not None:
            return rename(match) + zoo_name[match.end() :]
    return None


def our_tensor(our_key: str, tensor: Tensor, *, merged_things: bool = False) -> Tensor:
    """The values of a parameter in our order and shape.

    Args:
        our_key: what `our_name` returned.
        tensor: the zoo's values.
        merged_things: the semantic predictor has one class for all things, first (Panoptic FPN).
    """
    if our_key == "backbone.conv1.weight":
        return tensor.flip(1)
    if our_key.startswith("box_head.class_logits."):
        return tensor.roll(1, 0)
    if merged_things and our_key.startswith("semantic_head.predictor."):
        return tensor.roll(-1, 0)
    is_point_layer = our_key.startswith(("point_head.", "semantic_point_head."))
    return tensor.squeeze(2) if is_point_layer and tensor.ndim == 3 else tensor


def fit_zoo_weights(
    tensors: Mapping[str, Tensor], network: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], KeyReport]:
    """Weights of a zoo checkpoint for a network made from `zoo_config_values`.

    Args:
        tensors: names and tensors of the file; constants that older versions stored are left out.
        network: `state_dict` of the network.

    Returns:
        A complete state dict, and the report, to be checked by the caller.

    Raises:
        ValueError: a part of the network is there twice, in two layouts of names.
    """
    weights = {name: t.float() for name, t in tensors.items() if not _CONSTANTS.fullmatch(name)}
    shapes = _our_shapes(weights)
    merged = _num_things(shapes) > 0
    return fit_keys(
        weights, network, our_name, lambda name, t: our_tensor(name, t, merged_things=merged)
    )


def _our_shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, tensor in weights.items():
        ours = our_name(name)
        if ours is None:
            continue
        if ours in shapes:
            raise ValueError(
                f"'{name}' is in the file a second time, under another layout of names; remove one"
            )
        shapes[ours] = tuple(tensor.shape)
    return shapes


def _num_things(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return shapes.get("box_head.class_logits.bias", (1,))[0] - 1


# Settings of detectron2's ResNet-FPN networks, as values of the `model` group of a config.

_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
_MSRA_STD = (1 / 255, 1 / 255, 1 / 255)
_RESNEXT_STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)
# Above any share: crowd regions are no reason to leave anchors and proposals out.
_NO_CROWD_RULE = 2.0

_BOX_LOSSES = ("rpn_objectness", "rpn_box", "box_class", "box_delta")
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
_ROI_VALUES = {"sampler": "aligned", "level_epsilon": 1e-8, "size": 7, "mask_size": 14}
_BOX_VALUES = {
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
    shapes = _our_shapes(tensors)
    has_instances = "box_head.fc1.weight" in shapes
    has_semantics = "semantic_head.predictor.weight" in shapes
    if "backbone.layer1.0.conv2.weight" not in shapes or not (has_instances or has_semantics):
        raise ValueError(
            f"{len(shapes)} of {len(tensors)} names are known; expected a detectron2 network on "
            "ResNet-FPN with boxes (PointRend, Mask R-CNN, Panoptic FPN) or a SemanticFPN head"
        )
    model = _trunk_values(shapes)
    losses: dict[str, float] = {}
    if has_instances:
        model |= _instance_values(shapes)
        masks = ("mask",) if model["mask_head"]["kind"] == "conv" else ("mask_coarse", "mask_point")
        losses |= dict.fromkeys((*_BOX_LOSSES, *masks), 1.0)
    if has_semantics:
        model |= _semantic_values(shapes)
        losses["semantic"] = 1.0
        if model["semantic_head"]["refinement"] == "point_rend":
            losses["semantic_point"] = 1.0
    if has_instances and has_semantics:
        model["branches"] = "both"
        model["semantic"]["things"] = "merged"
        model["fusion"] = {
            "mask_threshold_included": True,
            "semantic_things": "void",
            "stuff_area_pixels": 4096,
        }
        losses["semantic"] = 0.5
    return {"model": model, "data": _data_values(shapes), "loss_weights": losses}


def _trunk_values(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    return {
        "backbone": _backbone_values(shapes),
        "norm_act": {"kind": "frozen_batch_norm", "slope": 0.0, "sync": False},
        "head_norm_act": {"kind": "bias", "slope": 0.0, "sync": False},
        "fpn": {"activation": "identity", "extra": "pool"},
        "size_divisor": 32,
        "pixel_mean": _MEAN,
        "pixel_std": _RESNEXT_STD if _is_resnext(shapes) else _MSRA_STD,
    }


def _instance_values(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    is_point_rend = "point_head.predictor.weight" in shapes
    return {
        "branches": "instance",
        "rpn": dict(_RPN_VALUES),
        "roi": dict(_ROI_VALUES),
        "box": dict(_BOX_VALUES),
        "box_head": {"pooling": 1},
        "mask_head": {"kind": "point_rend" if is_point_rend else "conv"},
        "fusion": {"mask_threshold_included": True},
    }


def _semantic_values(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    refines = "semantic_point_head.predictor.weight" in shapes
    return {
        "branches": "semantic",
        "semantic_head": {
            "kind": "fpn",
            "refinement": "point_rend" if refines else "none",
            "norm_act": {"kind": "group_norm", "slope": 0.0, "num_groups": 32, "sync": False},
        },
        "semantic": {"loss": "valid_mean", "upsample_to_input": True},
        # A class map: no region is too small.
        "fusion": {"stuff_area_fraction": 0.0},
    }


def _data_values(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    num_things = _num_things(shapes)
    num_outputs = shapes.get("semantic_head.predictor.bias", (0,))[0]
    for name, classes, (shortest, longest) in _DATASETS:
        if (num_things, num_outputs) in classes:
            return {
                "label_space": name,
                "shortest_side_pixels": shortest,
                "longest_side_pixels": longest,
                "train": _NO_DATA,
                "val": _NO_DATA,
            }
    raise ValueError(
        f"the weights have {num_things} thing classes and {num_outputs} semantic outputs; expected "
        "those of COCO or Cityscapes"
    )


def _is_resnext(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    # A grouped convolution sees a share of its inputs only.
    outputs, inputs = shapes["backbone.layer1.0.conv2.weight"][:2]
    return inputs < outputs


def _backbone_values(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    pattern = re.compile(r"backbone\.layer(\d)\.(\d+)\.conv1\.weight")
    blocks: dict[str, int] = {}
    for name in shapes:
        if match := pattern.fullmatch(name):
            blocks[match[1]] = max(blocks.get(match[1], 0), int(match[2]) + 1)
    depth = 2 + 3 * sum(blocks.values())
    resnext = _is_resnext(shapes)
    name = f"resnext{depth}_32x8d" if resnext else f"resnet{depth}"
    # Networks for semantics alone train from the stem on.
    num_frozen = 2 if _num_things(shapes) else 0
    return {"name": name, "stride_in_1x1": not resnext, "num_frozen": num_frozen}
