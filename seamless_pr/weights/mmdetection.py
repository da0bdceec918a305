"""Weights of mmdetection under our names: its ResNets, pyramids and SOLOv2."""

from __future__ import annotations

import re
from collections.abc import Callable

_STEM = re.compile(r"stem\.(\d)\.")
# The last norm of a stem of three convolutions stands outside of it in the other layout.
_STEM_PARTS = {"7": "bn1."}
_BLOCK_PARTS = {
    ".context_block.conv_mask.": ".se.conv_mask.",
    ".context_block.channel_add_conv.": ".se.transform.",
}
_SOLO_TOWERS = {"cls_convs": "category_tower", "kernel_convs": "kernel_tower"}
_SOLO_PREDICTORS = {"conv_cls": "category_logits", "conv_kernel": "kernels"}


def our_backbone_name(name: str) -> str:
    """Our name, below the backbone, of a parameter of one of their ResNets.

    Res2Net's stem is `stem.*` in mmdetection 2.x and 3.x, and as ours in 1.x and the original.
    """
    if match := _STEM.match(name):
        return _STEM_PARTS.get(match[1], f"conv1.{match[1]}.") + name[match.end() :]
    for theirs, ours in _BLOCK_PARTS.items():
        name = name.replace(theirs, ours)
    return name


def _biased(layer: str, rest: str, norm: str = "norm") -> str:
    """Our convolutions carry no bias of their own; the layer behind them does."""
    return f"{norm}.bias" if rest == "bias" else f"{layer}.{rest}"


def _normed(prefix: str, rest: str) -> str:
    """A convolution with group norm: `conv.*` and `gn.*`, theirs; `conv.*` and `norm.*`, ours."""
    part, _, parameter = rest.partition(".")
    return f"{prefix}.{'norm' if part == 'gn' else part}.{parameter}"


_MASK_FEATURE = r"mask_head\.mask_feature_head\."
_RULES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"backbone\.(.+)", lambda match: f"trunk.backbone.{our_backbone_name(match[1])}"),
    (
        r"neck\.lateral_convs\.(\d)\.conv\.(.+)",
        lambda match: f"trunk.neck.lateral.{match[1]}.{_biased('conv', match[2])}",
    ),
    (
        r"neck\.fpn_convs\.(\d)\.conv\.(.+)",
        lambda match: f"trunk.neck.output.{match[1]}.{_biased('conv', match[2])}",
    ),
    (
        r"mask_head\.(cls_convs|kernel_convs)\.(\d)\.(.+)",
        lambda match: _normed(f"instances.head.{_SOLO_TOWERS[match[1]]}.{match[2]}", match[3]),
    ),
    (
        r"mask_head\.(conv_cls|conv_kernel)\.(.+)",
        lambda match: f"instances.head.{_SOLO_PREDICTORS[match[1]]}.{match[2]}",
    ),
    (
        rf"{_MASK_FEATURE}convs_all_levels\.(\d)\.conv(\d)\.(.+)",
        lambda match: _normed(
            f"instances.head.mask_feature.levels.{match[1]}.{match[2]}", match[3]
        ),
    ),
    (
        rf"{_MASK_FEATURE}conv_pred\.(.+)",
        lambda match: _normed("instances.head.mask_feature.prediction", match[1]),
    ),
)


def our_name(name: str) -> str | None:
    """Our state_dict key of a parameter or buffer; None if there is no rule for it."""
    for pattern, rename in _RULES:
        if match := re.fullmatch(pattern, name):
            return rename(match)
    return None
