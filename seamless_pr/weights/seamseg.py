"""Names of the parameters of the released Seamless Scene Segmentation code (seamseg), and ours."""

from __future__ import annotations

import re
from collections.abc import Callable

_BLOCK_PARTS = {"proj_conv": "downsample.0", "proj_bn": "downsample.1"}
_MINI_DL_PARTS = {
    "conv1_3x3": "conv_local",
    "conv1_dil": "conv_dilated",
    "conv1_glb": "conv_pooled",
    "bn1": "norm",
    "conv2": "mix.conv",
    "bn2": "mix.norm",
}


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
)


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
