"""Res2Net v1b with deformable convolutions and global context, read off the names of its weights.

One function, no module: blocks as the papers draw them, in mmdetection's names (both stems). It
shares torchvision's deformable convolution with the library, which has golden cases of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import deform_conv2d

_STEMS = (
    (("stem.0", "stem.1"), ("stem.3", "stem.4"), ("stem.6", "stem.7")),
    (("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1")),
)


def res2net_stages(image: Tensor, weights: Mapping[str, Tensor], *, pools_c2: bool) -> list[Tensor]:
    """Maps C2 to C5 of [N, 3, H, W]; norms by their stored statistics."""

    def conv(x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
        if f"{name}.conv_offset.weight" in weights:
            offset = conv(x, f"{name}.conv_offset", stride, padding)
            return deform_conv2d(x, offset, weight, bias, stride=stride, padding=padding)
        return F.conv2d(x, weight, bias, stride, padding)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance, scale, shift = (
            weights[f"{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    def context(x: Tensor, name: str) -> Tensor:
        attention = conv(x, f"{name}.conv_mask").flatten(1).softmax(1)
        mean = torch.einsum("ncp,np->nc", x.flatten(2), attention)[..., None, None]
        hidden = conv(mean, f"{name}.channel_add_conv.0").flatten(1)
        hidden = hidden - hidden.mean(1, keepdim=True)
        hidden = hidden / (hidden.square().mean(1, keepdim=True) + 1e-5).sqrt()
        scale, shift = (weights[f"{name}.channel_add_conv.1.{part}"] for part in ("weight", "bias"))
        hidden = F.relu(hidden[..., None, None] * scale + shift)
        return x + conv(hidden, f"{name}.channel_add_conv.3")

    def block(x: Tensor, name: str, stride: int, *, is_first: bool, pools: bool) -> Tensor:
        splits = F.relu(norm(conv(x, f"{name}.conv1"), f"{name}.bn1")).chunk(4, 1)
        seen: list[Tensor] = []
        for index, split in enumerate(splits[:3]):
            # The first block of a stage has no chain from split to split.
            inputs = split if is_first or not seen else split + seen[-1]
            hidden = conv(inputs, f"{name}.convs.{index}", stride, 1)
            seen.append(F.relu(norm(hidden, f"{name}.bns.{index}")))
        seen.append(F.avg_pool2d(splits[3], 3, stride, 1) if pools else splits[3])
        x_out = norm(conv(torch.cat(seen, 1), f"{name}.conv3"), f"{name}.bn3")
        if f"{name}.context_block.conv_mask.weight" in weights:
            x_out = context(x_out, f"{name}.context_block")
        if is_first:
            x = F.avg_pool2d(x, stride, stride, ceil_mode=True, count_include_pad=False)
            x = norm(conv(x, f"{name}.downsample.1"), f"{name}.downsample.2")
        return F.relu(x_out + x)

    (stem,) = (stem for stem in _STEMS if f"{stem[0][0]}.weight" in weights)
    x = image
    for index, (name, norm_name) in enumerate(stem):
        x = F.relu(norm(conv(x, name, 1 if index else 2, 1), norm_name))
    x = F.max_pool2d(x, 3, 2, 1)
    stages = []
    for stage in range(1, 5):
        number = 0
        while f"layer{stage}.{number}.conv1.weight" in weights:
            is_first = number == 0
            stride = 2 if is_first and stage > 1 else 1
            pools = is_first and (stage > 1 or pools_c2)
            name = f"layer{stage}.{number}"
            x = block(x, name, stride, is_first=is_first, pools=pools)
            number += 1
        stages.append(x)
    return stages
