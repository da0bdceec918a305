"""Names of the parameters of the released Seamless Scene Segmentation code (seamseg), and ours."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from torch import Tensor

# More than any published network has; the tables are written out up to here.
_MAX_BLOCKS = 64
_MAX_LEVELS = 8
_NUM_STAGES = 4

_CONV_NORM = {"conv": "conv", "bn": "norm"}
_BLOCK = {"proj_conv": "downsample.0", "proj_bn": "downsample.1"} | {
    f"convs.{kind}{index}": f"{kind}{index}" for kind in ("conv", "bn") for index in (1, 2, 3)
}
_RPN_HEAD = {"conv1": "conv", "bn1": "norm", "conv_obj": "objectness", "conv_bbx": "box_deltas"}
_MINI_DL = {
    "conv1_3x3": "conv_local",
    "conv1_dil": "conv_dilated",
    "conv1_glb": "conv_pooled",
    "bn1": "norm",
    "conv2": "mix.conv",
    "bn2": "mix.norm",
}
_HEADS = {
    "roi_head.fc.fc1": "instances.box_head.fc1",
    "roi_head.fc.bn1": "instances.box_head.norm1",
    "roi_head.fc.fc2": "instances.box_head.fc2",
    "roi_head.fc.bn2": "instances.box_head.norm2",
    "roi_head.roi_cls": "instances.box_head.class_logits",
    "roi_head.roi_bbx": "instances.box_head.box_deltas",
    "roi_head.conv.conv_up": "instances.masks.head.upsample",
    "roi_head.conv.bn_up": "instances.masks.head.upsample_norm",
    "roi_head.roi_msk": "instances.masks.head.predictor",
    "sem_head.conv_sem": "semantics.head.predictor",
}

# Parameters whose rows are box deltas: (dy, dx, dh, dw) there, (dx, dy, dw, dh) here.
_DELTA_LAYERS = ("instances.rpn_head.box_deltas.", "instances.box_head.box_deltas.")


def our_name(seamseg_name: str) -> str | None:
    """Our state_dict key of a parameter or buffer; None if there is none.

    Args:
        seamseg_name: key of the whole network, such as "body.fpn.lateral.0.bn.weight".
    """
    return _translated(seamseg_name, _our_modules())


def seamseg_name(our_key: str) -> str | None:
    """seamseg's key of one of our parameters or buffers; None if it has no such layer."""
    return _translated(our_key, {ours: theirs for theirs, ours in _our_modules().items()})


def our_tensor(our_key: str, tensor: Tensor) -> Tensor:
    """The values of a parameter in our order; the map is its own inverse.

    Args:
        our_key: what `our_name` returned.
        tensor: the reference's values, or ours.
    """
    if our_key.startswith(_DELTA_LAYERS):
        return tensor.unflatten(0, (-1, 4))[:, [1, 0, 3, 2]].flatten(0, 1)
    return tensor


def _translated(name: str, modules: dict[str, str]) -> str | None:
    module, _, parameter = name.rpartition(".")
    return f"{modules[module]}.{parameter}" if module in modules else None


@cache
def _our_modules() -> dict[str, str]:
    """Every layer's name in seamseg -> its name here."""
    return {**_HEADS, **dict(_backbone()), **dict(_pyramid()), **dict(_repeated_heads())}


def _backbone() -> Iterator[tuple[str, str]]:
    for part in ("conv1", "bn1"):
        yield f"body.backbone.mod1.{part}", f"trunk.backbone.{part}"
    for stage in range(1, _NUM_STAGES + 1):
        for block in range(_MAX_BLOCKS):
            for theirs, ours in _BLOCK.items():
                yield (
                    f"body.backbone.mod{stage + 1}.block{block + 1}.{theirs}",
                    f"trunk.backbone.layer{stage}.{block}.{ours}",
                )


def _pyramid() -> Iterator[tuple[str, str]]:
    for kind in ("lateral", "output", "extra"):
        for level in range(_MAX_LEVELS):
            for theirs, ours in _CONV_NORM.items():
                yield f"body.fpn.{kind}.{level}.{theirs}", f"trunk.neck.{kind}.{level}.{ours}"


def _repeated_heads() -> Iterator[tuple[str, str]]:
    for theirs, ours in _RPN_HEAD.items():
        yield f"rpn_head.{theirs}", f"instances.rpn_head.{ours}"
    for index in range(_NUM_STAGES):
        for theirs, ours in _CONV_NORM.items():
            yield f"roi_head.conv.{theirs}{index + 1}", f"instances.masks.head.convs.{index}.{ours}"
        for theirs, ours in _MINI_DL.items():
            yield f"sem_head.output.{index}.{theirs}", f"semantics.head.mini_dls.{index}.{ours}"
