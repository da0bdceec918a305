"""Names of the parameters of the released Seamless Scene Segmentation code (seamseg), and ours."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import Tensor

_BLOCK_PARTS = {"proj_conv": "downsample.0", "proj_bn": "downsample.1"}
_MINI_DL_PARTS = {
    "conv1_3x3": "conv_local",
    "conv1_dil": "conv_dilated",
    "conv1_glb": "conv_pooled",
    "bn1": "norm",
    "conv2": "mix.conv",
    "bn2": "mix.norm",
}
_RPN_PARTS = {"conv1": "conv", "bn1": "norm", "conv_obj": "objectness", "conv_bbx": "box_deltas"}
_BOX_LAYERS = {"fc": "fc", "bn": "norm"}
_BOX_PREDICTORS = {"roi_cls": "class_logits", "roi_bbx": "box_deltas"}


def _mask_layer(match: re.Match[str]) -> str:
    return f"mask_head.convs.{int(match[2]) - 1}.{'norm' if match[1] == 'bn' else 'conv'}."


def _block(match: re.Match[str]) -> str:
    stage, block, part = int(match[1]) - 1, int(match[2]) - 1, match[3]
    return f"backbone.layer{stage}.{block}.{_BLOCK_PARTS.get(part, part)}."


def _fpn(match: re.Match[str]) -> str:
    return f"fpn.{match[1]}.{match[2]}.{'norm' if match[3] == 'bn' else 'conv'}."


def _mini_dl(match: re.Match[str]) -> str:
    return f"semantic_head.mini_dls.{match[1]}.{_MINI_DL_PARTS[match[2]]}."


_RULES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"body\.backbone\.mod1\.(conv1|bn1)\.", lambda match: f"backbone.{match[1]}."),
    (r"body\.backbone\.mod(\d)\.block(\d+)\.(?:convs\.)?(\w+)\.", _block),
    (r"body\.fpn\.(lateral|output|extra)\.(\d)\.(conv|bn)\.", _fpn),
    (rf"sem_head\.output\.(\d)\.({'|'.join(_MINI_DL_PARTS)})\.", _mini_dl),
    (r"sem_head\.conv_sem\.", lambda match: "semantic_head.predictor."),
    (rf"rpn_head\.({'|'.join(_RPN_PARTS)})\.", lambda match: f"rpn_head.{_RPN_PARTS[match[1]]}."),
    (r"roi_head\.fc\.(fc|bn)(\d)\.", lambda match: f"box_head.{_BOX_LAYERS[match[1]]}{match[2]}."),
    (
        rf"roi_head\.({'|'.join(_BOX_PREDICTORS)})\.",
        lambda match: f"box_head.{_BOX_PREDICTORS[match[1]]}.",
    ),
    (r"roi_head\.conv\.(conv|bn)(\d)\.", _mask_layer),
    (r"roi_head\.conv\.conv_up\.", lambda match: "mask_head.upsample."),
    (r"roi_head\.conv\.bn_up\.", lambda match: "mask_head.upsample_norm."),
    (r"roi_head\.roi_msk\.", lambda match: "mask_head.predictor."),
)

# Parameters whose rows are box deltas: (dy, dx, dh, dw) there, (dx, dy, dw, dh) here.
_DELTA_LAYERS = ("rpn_head.box_deltas.", "box_head.box_deltas.")


def our_name(seamseg_name: str) -> str | None:
    """Our state_dict key of a parameter or buffer; None if there is no rule for it.

    Args:
        seamseg_name: key of the whole network, such as "body.fpn.lateral.0.bn.weight".
    """
    for pattern, rename in _RULES:
        match = re.match(pattern, seamseg_name)
        if match is not None:
            return rename(match) + seamseg_name[match.end() :]
    return None


def our_tensor(our_key: str, tensor: Tensor) -> Tensor:
    """The values of a parameter in our order; the map is its own inverse.

    Args:
        our_key: what `our_name` returned.
        tensor: the reference's values, or ours.
    """
    if our_key.startswith(_DELTA_LAYERS):
        return tensor.unflatten(0, (-1, 4))[:, [1, 0, 3, 2]].flatten(0, 1)
    return tensor
