"""Weights of mmdetection under our names."""

from __future__ import annotations

import re

_STEM = re.compile(r"stem\.(\d)\.")
# Positions of the last norm in the two layouts of a three-convolution stem.
_STEM_PARTS = {"7": "bn1."}
_BLOCK_PARTS = {
    ".context_block.conv_mask.": ".se.conv_mask.",
    ".context_block.channel_add_conv.": ".se.transform.",
}


def our_backbone_name(name: str) -> str:
    """Our name, below the backbone, of a parameter of one of their ResNets.

    Res2Net's stem is `stem.*` in mmdetection 2.x and 3.x, and as ours in 1.x and the original.
    """
    if match := _STEM.match(name):
        return _STEM_PARTS.get(match[1], f"conv1.{match[1]}.") + name[match.end() :]
    for theirs, ours in _BLOCK_PARTS.items():
        name = name.replace(theirs, ours)
    return name
