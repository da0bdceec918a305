"""Backbones of timm whose norm + activation pairs are replaced by one injected layer.

Letters: N images, C channels, H, W image size.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn

from seamless_pr.layers.abn import NormActFactory
from seamless_pr.layers.batch_norm import TrainedBatchNorm
from seamless_pr.layers.recomputation import recomputed
from seamless_pr.models.backbones.block_graphs import cut_into_blocks
from seamless_pr.models.backbones.norm_replacement import (
    keep_outputs,
    modules_by_stage,
    replace_norms,
    replace_relus,
    trace,
)
from seamless_pr.models.backbones.stage_extras import StageExtras, add_extras
from seamless_pr.structures.faults import first_line
from seamless_pr.structures.settings import MAX_LAYERS

STRIDES = (4, 8, 16, 32)
SUPPORTED_FAMILIES = "BatchNorm + ReLU families (resnet, resnext, res2net, regnet, ...)"
# Of timm's factory: what reads files or loads weights; a config may come with a file of somebody.
_LOADING = frozenset(
    ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict",
     "checkpoint_path", "cache_dir")
)  # fmt: skip
# Gates of attention blocks are no activations of a norm and stay what they are.
OTHER_ACTIVATIONS = {
    *(
        "SiLU",
        "Swish",
        "SwishMe",
        "GELU",
        "GELUTanh",
        "QuickGELU",
        "ELU",
        "CELU",
        "SELU",
        "PReLU",
        "ReLU6",
    ),
    *(
        "LeakyReLU",
        "Mish",
        "MishMe",
        "Hardswish",
        "HardSwish",
        "HardSwishMe",
        "HardMish",
        "HardMishMe",
        "Tanh",
    ),
}


class TimmBackbone(nn.Module):
    """Stages at strides 4, 8, 16, 32 of a timm network of the BatchNorm + ReLU families.

    Every BatchNorm2d followed by a ReLU becomes `norm_act(C, "leaky_relu")`, every other one (the
    last norm of a residual block, the shortcut's) `norm_act(C, "identity")`; the ReLUs that are
    left, those after a sum, become leaky ReLUs. Parameters keep timm's names, without the
    classifier. Norms start with weight 1 everywhere, also where timm starts at 0: the in-place
    layer divides by it.

    `forward`: [N, 3, H, W] normalised images -> c2, c3, c4, c5: [N, C_l, ceil(H / s), ceil(W / s)]
    for s in `strides`, C_l in `out_channels`.

    With an `output_stride` of 16 or 8 the last stages keep that resolution and their 3x3
    convolutions are dilated instead (DeepLab). No weight depends on it: with those of a network of
    stride 16 one of stride 8 computes the same in every second cell.

    Args:
        name: timm model, such as "resnet50".
        norm_act: makes the norm + activation layers.
        stride_in_1x1: halve the resolution in the first convolution of a bottleneck block, as the
            original ResNets and the MSRA weights do, not in its 3x3 convolution.
        output_stride: of c5; 32, 16 or 8.
        multi_grid: dilations of the blocks of c5, in cells of stride 32 (DeepLabV3: 1, 2, 4);
            empty: timm's, where the first block is dilated as the stage before.
        extras: deformable convolutions and global context in chosen stages.
        checkpointing: in training only what residual blocks pass on is kept; the rest is computed
            again in the backward pass.
        timm_options: for timm.create_model; small networks: `channels`, `stem_width`, `layers`, ...

    Raises:
        ValueError: timm has no such network, or it has no BatchNorm2d, another activation than
            ReLU, or no maps at these strides; `multi_grid` is not one number per block;
            `checkpointing` with norms of another package.
    """

    def __init__(
        self,
        name: str,
        norm_act: NormActFactory,
        *,
        stride_in_1x1: bool = False,
        output_stride: int = STRIDES[-1],
        multi_grid: Sequence[int] = (),
        extras: StageExtras | None = None,
        checkpointing: bool = False,
        **timm_options: Any,
    ) -> None:
        super().__init__()
        _check_name(name)
        if output_stride != STRIDES[-1]:
            timm_options["output_stride"] = output_stride
        network = _create(name, timm_options)
        if multi_grid:
            cells = [dilation * STRIDES[-1] // output_stride for dilation in multi_grid]
            _dilate_last_stage(name, network, cells)
        if stride_in_1x1:
            _move_strides(name, network)
        _check_family(name, network)
        if extras is not None:
            add_extras(name, network, extras)
        feature_info: Any = network.feature_info
        self.strides = tuple(min(stride, output_stride) for stride in STRIDES)
        feature_indices = _stage_indices(name, feature_info.reduction(), self.strides)
        channels = feature_info.channels()
        self.name = name
        self.out_channels = tuple(channels[index] for index in feature_indices)
        graph_module = trace(name, network)
        replace_norms(graph_module, norm_act)
        replace_relus(graph_module)
        self._stage_modules = modules_by_stage(graph_module.graph, feature_indices)
        keep_outputs(graph_module, feature_indices)
        # Only the forward code is taken from the traced module; the layers are registered here so
        # that their names stay timm's own. The list hides it from nn.Module.
        for child_name, child in graph_module.named_children():
            self.add_module(child_name, child)
        self._traced = [graph_module]
        if checkpointing:
            _check_norms(name, graph_module)
        self._blocks = cut_into_blocks(graph_module) if checkpointing else []

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if not self._blocks or not torch.is_grad_enabled():
            return tuple(self._traced[0](images))
        features, x = [], images
        for block in self._blocks:
            *found, x = recomputed(block, x)
            features += found
        return tuple(features)

    def freeze(self, num_stages: int) -> None:
        """Stops the training of the first parts: 1 = stem, 2 = stem and c2, ..., 5 = all.

        Convolutions and affine parameters of the norms get no gradient; running statistics still
        move in training mode.
        """
        if not 0 <= num_stages <= len(self._stage_modules):
            raise ValueError(
                f"num_stages must be in 0..{len(self._stage_modules)} (0 = none, 1 = stem); "
                f"got {num_stages}"
            )
        for names in self._stage_modules[:num_stages]:
            for name in names:
                self.get_submodule(name).requires_grad_(False)


def _check_name(name: str) -> None:
    if not timm.is_model(name):
        similar = difflib.get_close_matches(name, timm.list_models())
        raise ValueError(
            f"timm {timm.__version__} has no network '{name}'; similar names: {', '.join(similar)}"
        )


def _create(name: str, timm_options: dict[str, Any]) -> nn.Module:
    if loading := sorted(_LOADING & timm_options.keys()):
        raise ValueError(
            f"the options of backbone '{name}' may not name files or weights, as "
            f"{', '.join(loading)} do; leave them out: a config has 'weights' for that"
        )
    for option in ("layers", "depths"):
        depths = timm_options.get(option, ())
        if isinstance(depths, (list, tuple)) and any(
            isinstance(depth, int) and depth > MAX_LAYERS for depth in depths
        ):
            raise ValueError(
                f"the option '{option}' of backbone '{name}' names {max(depths)}; a stage has at "
                f"most {MAX_LAYERS} blocks"
            )
    try:
        with warnings.catch_warnings():
            # What follows says what is wrong with a layer without channels.
            warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
            return timm.create_model(name, pretrained=False, features_only=True, **timm_options)
    except Exception as error:  # timm's networks raise whatever an option leads them to.
        raise ValueError(
            f"timm cannot make backbone '{name}' with the options {timm_options}: "
            f"{first_line(error)}; "
            "see timm.list_models() for the names"
        ) from error


def _move_strides(name: str, network: nn.Module) -> None:
    """Moves the stride of every bottleneck block from its 3x3 to its first 1x1 convolution."""
    num_moved = 0
    for module in network.modules():
        first, second = getattr(module, "conv1", None), getattr(module, "conv2", None)
        if not (isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)):
            continue
        if first.kernel_size == (1, 1) and second.stride != (1, 1):
            first.stride, second.stride = second.stride, first.stride
            num_moved += 1
    if num_moved == 0:
        raise ValueError(
            f"backbone '{name}' has no bottleneck block whose 3x3 convolution has a stride; "
            "leave out stride_in_1x1"
        )


def _dilate_last_stage(name: str, network: nn.Module, dilations: Sequence[int]) -> None:
    """Dilates the 3x3 convolutions of the last stage, block by block."""
    feature_info: Any = network.feature_info
    blocks = list(network.get_submodule(feature_info.module_name()[-1]).children())
    if len(blocks) != len(dilations):
        raise ValueError(
            f"multi_grid needs a number for each of the {len(blocks)} blocks of the last stage of "
            f"backbone '{name}'; got {len(dilations)} numbers"
        )
    for block, dilation in zip(blocks, dilations):
        for module in block.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.dilation = module.padding = (dilation, dilation)


def _check_family(name: str, network: nn.Module) -> None:
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        raise ValueError(
            f"backbone '{name}' has no BatchNorm2d whose place the in-place norm could take; "
            f"choose a network of the {SUPPORTED_FAMILIES}"
        )
    others = sorted({type(module).__name__ for module in network.modules()} & OTHER_ACTIVATIONS)
    if others:
        raise ValueError(
            f"backbone '{name}' uses {', '.join(others)}; only ReLU has a counterpart here; "
            f"choose a network of the {SUPPORTED_FAMILIES}"
        )


def _check_norms(name: str, network: nn.Module) -> None:
    """A second pass must not move statistics."""
    for module in network.modules():
        if hasattr(module, "momentum") and not isinstance(module, TrainedBatchNorm):
            raise ValueError(
                f"backbone '{name}' has norms of another package ({type(module).__name__}), whose "
                "statistics checkpointing would move twice; choose the built-in kind or leave out "
                "checkpointing"
            )


def _stage_indices(name: str, found: list[int], strides: tuple[int, ...]) -> list[int]:
    """Indices of c2..c5 among maps of the strides `found`."""
    if found[-len(strides) :] == list(strides):
        return list(range(len(found) - len(strides), len(found)))
    missing = [stride for stride in strides if stride not in found]
    if missing or len(set(strides)) < len(strides):
        raise ValueError(
            f"backbone '{name}' has feature maps at strides {found}; expected {strides}; "
            f"{missing or 'some of them'} are missing; choose another one"
        )
    return [len(found) - 1 - found[::-1].index(stride) for stride in strides]
