"""Weights of detectron2's model zoo under our names: PointRend, Mask R-CNN, Panoptic FPN.

Our network reads RGB and keeps the background class first, so the first convolution and the class
predictors change their order on the way; everything else only changes its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seamless_pr.weights.array_pickles import StoredArray, read_array_pickle
from seamless_pr.weights.key_report import KeyReport, fit_keys
from seamless_pr.weights.tensor_files import plain_tensors, read_pickled

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
    return f"trunk.backbone.layer{int(match[1]) - 1}.{match[2]}.{part}"


def _fpn(match: re.Match[str]) -> str:
    return f"trunk.neck.{match[1]}.{int(match[2]) - 2}.{_biased('conv', match[3])}"


def _fc(match: re.Match[str]) -> str:
    return f"instances.box_head.{_biased(f'fc{match[1]}', match[2], f'norm{match[1]}')}"


def _mask_conv(match: re.Match[str]) -> str:
    return f"instances.masks.head.convs.{int(match[1]) - 1}.{_biased('conv', match[2])}"


def _point_layer(head: str) -> Callable[[re.Match[str]], str]:
    return lambda match: f"{head}.layers.{int(match[1]) - 1}."


def _semantic_block(match: re.Match[str]) -> str:
    # Odd positions of the sequence are the upsamplings between the blocks.
    part = "norm." if match[3] else "conv."
    return f"semantics.head.branches.{int(match[1]) - 2}.{int(match[2]) // 2}.{part}"


# Older files keep both mask heads beside each other under roi_heads.
_COARSE = r"roi_heads\.(?:mask_head\.coarse_head|mask_coarse_head)\."
_POINT = r"roi_heads\.(?:mask_head\.point_head|mask_point_head)\."
_SEMANTIC = r"sem_seg_head\.(?:coarse_sem_seg_head\.)?"

_RULES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"backbone\.bottom_up\.stem\.conv1\.norm\.", lambda match: "trunk.backbone.bn1."),
    (r"backbone\.bottom_up\.stem\.conv1\.", lambda match: "trunk.backbone.conv1."),
    (
        r"backbone\.bottom_up\.res([2-5])\.(\d+)\.((?:shortcut|conv[1-3])\.(?:norm\.)?)",
        _block,
    ),
    (r"backbone\.fpn_(lateral|output)([2-5])\.(weight|bias)", _fpn),
    (
        r"proposal_generator\.rpn_head\.conv\.(weight|bias)",
        lambda match: f"instances.rpn_head.{_biased('conv', match[1])}",
    ),
    (
        rf"proposal_generator\.rpn_head\.({'|'.join(_RPN_PARTS)})\.",
        lambda match: f"instances.rpn_head.{_RPN_PARTS[match[1]]}.",
    ),
    (r"roi_heads\.box_head\.fc([12])\.(weight|bias)", _fc),
    (
        rf"roi_heads\.box_predictor\.({'|'.join(_BOX_PREDICTORS)})\.",
        lambda match: f"instances.box_head.{_BOX_PREDICTORS[match[1]]}.",
    ),
    (r"roi_heads\.mask_head\.mask_fcn([1-4])\.(weight|bias)", _mask_conv),
    (
        r"roi_heads\.mask_head\.deconv\.(weight|bias)",
        lambda match: f"instances.masks.head.{_biased('upsample', match[1], 'upsample_norm')}",
    ),
    (r"roi_heads\.mask_head\.predictor\.", lambda match: "instances.masks.head.predictor."),
    (
        rf"{_COARSE}({'|'.join(_COARSE_PARTS)})\.",
        lambda match: f"instances.masks.coarse_head.{_COARSE_PARTS[match[1]]}.",
    ),
    (
        rf"roi_heads\.mask_head\.parameter_head\.({'|'.join(_COARSE_PARTS)})\.",
        lambda match: f"instances.masks.weight_head.{_COARSE_PARTS[match[1]]}.",
    ),
    (
        rf"{_POINT}positional_encoding_gaussian_matrix",
        lambda match: "instances.masks.point_head.frequencies",
    ),
    (rf"{_POINT}fc(\d+)\.", _point_layer("instances.masks.point_head")),
    (rf"{_POINT}predictor\.", lambda match: "instances.masks.point_head.predictor."),
    (r"sem_seg_head\.point_head\.fc(\d+)\.", _point_layer("semantics.point_head")),
    (r"sem_seg_head\.point_head\.predictor\.", lambda match: "semantics.point_head.predictor."),
    (rf"{_SEMANTIC}p([2-5])\.(\d)\.(norm\.)?", _semantic_block),
    (rf"{_SEMANTIC}predictor\.", lambda match: "semantics.head.predictor."),
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
        if isinstance(value, StoredArray):
            value = torch.from_numpy(np.ascontiguousarray(value.array))
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{path}: '{name}' must be an array; got {type(value).__name__}; is this a "
                "checkpoint of detectron2?"
            )
        tensors[str(name)] = value
    return plain_tensors(tensors, path)


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        try:
            return read_array_pickle(file)
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
    if our_key == "trunk.backbone.conv1.weight":
        return tensor.flip(1)
    if our_key.startswith("instances.box_head.class_logits."):
        return tensor.roll(1, 0)
    if merged_things and our_key.startswith("semantics.head.predictor."):
        return tensor.roll(-1, 0)
    is_point_layer = our_key.startswith(("instances.masks.point_head.", "semantics.point_head."))
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
    shapes = our_shapes(weights)
    merged = num_things(shapes) > 0
    return fit_keys(
        weights, network, our_name, lambda name, t: our_tensor(name, t, merged_things=merged)
    )


def our_shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes of a zoo checkpoint's tensors under our names; names without a rule are left out.

    Raises:
        ValueError: a part of the network is there twice, in two layouts of names.
    """
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


def num_things(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Thing classes of the network with these shapes; 0 without instance branch."""
    return shapes.get("instances.box_head.class_logits.bias", (1,))[0] - 1
