"""Measures how much memory activations take until the backward pass, by kind of norm layer.

    python tools/measure/measure_abn_memory.py --backbone resnet50 --size 512 1024

Counts the bytes that autograd keeps (each storage once, parameters and buffers left out) for one
forward pass in training mode, so the numbers are exact and the same on every device.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from seamless_pr.layers.abn import NormActFactory, make_norm_act
from seamless_pr.models.backbones.timm_backbone import TimmBackbone
from seamless_pr.models.necks.fpn import FPN
from seamless_pr.models.semantics.mini_dl import MiniDLHead

FPN_CHANNELS = 256
NUM_CLASSES = 19


class BatchNormReLU(nn.Sequential):
    """What a network without in-place norms has: BatchNorm2d, then LeakyReLU in place."""

    def __init__(self, num_features: int, activation: str = "leaky_relu") -> None:
        super().__init__(nn.BatchNorm2d(num_features))
        if activation == "leaky_relu":
            self.append(nn.LeakyReLU(0.01, inplace=True))


def saved_bytes(function: Callable[[], object], excluded: Iterable[Tensor] = ()) -> int:
    """Bytes that autograd keeps after running a function.

    Args:
        function: runs a forward pass; its result must stay alive inside it no longer than needed.
        excluded: tensors whose storages do not count, such as parameters and the input.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in excluded}
    # The saved tensors are held, so that no address is used twice.
    kept: dict[int, Tensor] = {}

    def remember(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in known:
            kept.setdefault(address, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        result = function()
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del result
    return total


class Trunk(nn.Module):
    """The parts whose norms are measured."""

    def __init__(self, backbone: str, norm_act: NormActFactory) -> None:
        super().__init__()
        self.backbone = TimmBackbone(backbone, norm_act)
        self.fpn = FPN(self.backbone.out_channels, FPN_CHANNELS, norm_act)
        self.semantic_head = MiniDLHead(FPN_CHANNELS, NUM_CLASSES, norm_act)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.semantic_head(self.fpn(self.backbone(images)))
        return logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet50", help="timm model")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 512), help="height and width")
    arguments = parser.parse_args()
    images = torch.randn(1, 3, *arguments.size)
    kinds: dict[str, NormActFactory] = {
        "BatchNorm2d + LeakyReLU in place": BatchNormReLU,
        "plain twin (ABN)": make_norm_act("abn"),
        "in-place ABN": make_norm_act("inplace_abn"),
    }
    print(
        f"| MiB kept for backward, {arguments.backbone} | backbone | with FPN and semantic head |"
    )
    print("|---|---|---|")
    for name, norm_act in kinds.items():
        trunk = Trunk(arguments.backbone, norm_act)
        excluded = [images, *trunk.parameters(), *trunk.buffers()]
        backbone_bytes = saved_bytes(partial(trunk.backbone, images), excluded)
        trunk_bytes = saved_bytes(partial(trunk, images), excluded)
        print(f"| {name} | {backbone_bytes / 2**20:.1f} | {trunk_bytes / 2**20:.1f} |")


if __name__ == "__main__":
    main()
