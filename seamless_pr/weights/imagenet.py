"""ImageNet weights for backbones: torchvision, timm, the authors of Swin, seamseg's converter."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from seamless_pr.weights.key_report import KeyReport, fit_keys
from seamless_pr.weights.seamseg import our_name
from seamless_pr.weights.swin import fit_swin

# Layers that classify whole images, under the names that torchvision and timm give them.
_CLASSIFIERS = ("fc.", "head.fc.", "classifier.")
# What a config may build into a network whose weights are those of the plain one; it starts as if
# it were not there.
BUILT_IN = ("*.conv_offset.*", "*.se.conv_mask.*", "*.se.transform.*")
_SEAMSEG_STEM = "mod1."
_SWIN_PATCHES = "patch_embed."


def fit_backbone(
    source: Mapping[str, Tensor], backbone: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], KeyReport]:
    """Weights of an ImageNet network for a backbone, values untouched.

    The classifier is left out. Norm weights may be negative: in-place ABN uses their magnitude, as
    the released Seamless code did with the same files.

    Args:
        source: names and tensors of the file.
        backbone: `state_dict` of the backbone (timm's names, which for a ResNet are torchvision's).

    Returns:
        A complete state dict of the backbone, and the report, to be checked by the caller.
    """
    if any(name.startswith(_SWIN_PATCHES) for name in backbone):
        return fit_swin(source, backbone)
    is_seamseg = any(name.startswith(_SEAMSEG_STEM) for name in source)
    features = {name: t for name, t in source.items() if not name.startswith(_CLASSIFIERS)}
    return fit_keys(features, backbone, _from_seamseg if is_seamseg else _unchanged)


def _unchanged(name: str) -> str:
    return name


def _from_seamseg(name: str) -> str | None:
    ours = our_name(f"body.backbone.{name}")
    return None if ours is None else ours.removeprefix("trunk.backbone.")
