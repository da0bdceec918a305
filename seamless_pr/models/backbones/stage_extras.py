"""What may be built into the blocks of a timm ResNet: deformable convolutions, global context.

The changes are made to timm's own modules, before `TimmBackbone` replaces their norms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from seamless_pr.layers.deformable import DeformableConv2d
from seamless_pr.layers.global_context import GlobalContext

# Stages are named after the strides that they end at: c2 is stride 4.
STAGE_NAMES = ("c2", "c3", "c4", "c5")


@dataclass(frozen=True)
class StageExtras:
    """Changes to the residual blocks.

    Attributes:
        deformable: "none", "v1" or "v2": the 3x3 convolutions of all blocks of the named stages
            become deformable, those with a stride among them.
        deformable_stages, context_stages: any of "c2", "c3", "c4", "c5".
        context_ratio: width of a global context block after the last norm of each block, in its
            channels; 0: none.
        pools_split_of_c2: in the first block of c2 of a Res2Net, the last split passes the 3x3
            average pooling as in the later stages (the original and its ImageNet weights); False:
            it does not (networks trained with mmdetection 2.x and 3.x).
    """

    deformable: str = "none"
    deformable_stages: Sequence[str] = ("c3", "c4", "c5")
    context_ratio: float = 0.0
    context_stages: Sequence[str] = ("c3", "c4", "c5")
    pools_split_of_c2: bool = True

    def __post_init__(self) -> None:
        for name in (*self.deformable_stages, *self.context_stages):
            if name not in STAGE_NAMES:
                raise ValueError(f"stages are {', '.join(STAGE_NAMES)}; got '{name}'")


def add_extras(name: str, network: nn.Module, extras: StageExtras) -> None:
    """Builds the extras into a network of timm, in place.

    Args:
        name: of the network, for messages.
        network: as timm makes it with `features_only`.
        extras: what to add.

    Raises:
        ValueError: the blocks of the network have no place for one of the extras.
    """
    if extras.deformable != "none":
        for stage in extras.deformable_stages:
            _deform(name, network, stage, extras.deformable)
    if extras.context_ratio:
        for stage in extras.context_stages:
            _add_context(name, network, stage, extras.context_ratio)
    if not extras.pools_split_of_c2:
        _remove_pool(name, network)


def _blocks(network: nn.Module, stage: str) -> Iterator[nn.Module]:
    info: Any = network.feature_info
    names = info.module_name()[-len(STAGE_NAMES) :]
    yield from network.get_submodule(names[STAGE_NAMES.index(stage)]).children()


def _deform(name: str, network: nn.Module, stage: str, kind: str) -> None:
    found = [
        (block, path, module)
        for block in _blocks(network, stage)
        for path, module in block.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    ]
    if not found:
        raise ValueError(
            f"stage {stage} of backbone '{name}' has no 3x3 convolution that could be deformable"
        )
    for block, path, module in found:
        block.set_submodule(path, DeformableConv2d.in_place_of(module, kind))


def _add_context(name: str, network: nn.Module, stage: str, ratio: float) -> None:
    for block in _blocks(network, stage):
        # timm's place for attention: after the last norm, before the sum.
        norm = getattr(block, "bn3", getattr(block, "bn2", None))
        if not hasattr(block, "se") or norm is None:
            raise ValueError(
                f"the blocks of backbone '{name}' have no place for a global context; choose a "
                "network of the resnet, resnext or res2net family"
            )
        if isinstance(block.se, nn.Module):
            raise ValueError(
                f"the blocks of backbone '{name}' have an attention of their own; choose a "
                "network without, or set context_ratio to 0"
            )
        block.se = GlobalContext(norm.num_features, ratio)


def _remove_pool(name: str, network: nn.Module) -> None:
    first = next(_blocks(network, STAGE_NAMES[0]))
    if not isinstance(getattr(first, "pool", None), nn.Module):
        raise ValueError(
            f"backbone '{name}' pools no split in its first block; pools_split_of_c2 is for "
            "networks of the res2net family"
        )
    first.pool = nn.Identity()
