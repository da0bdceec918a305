"""ImageNet weights for Swin: files of its authors, of timm and of torchvision."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from seamless_pr.weights.key_report import KeyReport, fit_keys

# The classifier with the norm before it, and constants.
_UNUSED = re.compile(
    r"norm\.(weight|bias)|head\..*|.*\.relative_position_index|.*\.attn_mask|"
    r".*\.num_batches_tracked"
)
# Norms of the stages' outputs, which networks that classify do not have.
_OUTPUT_NORM = re.compile(r"norm[0-3]\.(weight|bias)")
_TORCHVISION_MLP = {"0": "fc1", "3": "fc2"}


def fit_swin(
    source: Mapping[str, Tensor], backbone: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], KeyReport]:
    """Weights of an ImageNet Swin for a `SwinTransformer`; its output norms keep their start.

    Args:
        source: names and tensors of the file, in the layout of the authors, timm or torchvision.
        backbone: `state_dict` of the backbone.

    Returns:
        A complete state dict of the backbone, and the report, to be checked by the caller.
    """
    weights = {name: tensor for name, tensor in source.items() if not _UNUSED.fullmatch(name)}
    norms = {name: tensor for name, tensor in backbone.items() if _OUTPUT_NORM.fullmatch(name)}
    if any(_OUTPUT_NORM.fullmatch(name) for name in weights):
        norms = {}
    rest = {name: tensor for name, tensor in backbone.items() if name not in norms}
    state, report = fit_keys(weights, rest, _renaming(weights))
    return {name: (norms | state)[name] for name in backbone}, report


def _renaming(names: Mapping[str, Tensor]) -> Callable[[str], str]:
    if "features.0.0.weight" in names:
        return _from_torchvision
    if "layers.0.downsample.norm.weight" in names:
        return lambda name: name
    return _from_timm


def _from_timm(name: str) -> str:
    """timm merges patches at the start of a stage, the authors at the end of the one before."""
    return re.sub(
        r"layers\.(\d)\.downsample\.",
        lambda match: f"layers.{int(match[1]) - 1}.downsample.",
        name,
    )


def _from_torchvision(name: str) -> str:
    """Patches, then blocks and mergings in turn, are one sequence."""
    match = re.fullmatch(r"features\.(\d)\.(.*)", name)
    if match is None:
        return name
    place, rest = int(match[1]), match[2]
    if place == 0:
        return f"patch_embed.{'proj' if rest.startswith('0.') else 'norm'}.{rest[2:]}"
    stage = (place - 1) // 2
    if place % 2 == 0:
        return f"layers.{stage}.downsample.{rest}"
    rest = re.sub(r"mlp\.([03])\.", lambda part: f"mlp.{_TORCHVISION_MLP[part[1]]}.", rest)
    return f"layers.{stage}.blocks.{rest}"
