"""Weights, images, objects and draws of the golden cases of mmdetection and its fork, made again.

A tensor depends on its name in their checkpoints, its shape and the seed of the case alone.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from seamless_pr.structures.image_batch import ImageBatch
from tests.support.golden import GOLDEN_FOLDER

# Gains beside that of He's initialisation; the first group by part of the name, the second by end.
_GAINS = {
    "lateral_convs": 0.7,
    "fpn_convs": 0.7,
    "rpn_reg": 0.3,
    "conv_offset": 0.5,
    "conv_mask": 0.5,
    "fc_mask_iou": 0.5,
}
_END_GAINS = {
    "theta.conv.weight": 0.25,
    "phi.conv.weight": 0.25,
    "conv_cls.weight": 0.8,
    "solo_cate.weight": 0.8,
    "conv_kernel.weight": 0.3,
    "solo_kernel.weight": 0.3,
    "fc_cls.weight": 0.3,
    "fc_reg.weight": 0.1,
    "rpn_cls.weight": 0.15,
}
_CATEGORY_PRIOR = 4.0


def _random(*words: object) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(":".join(map(str, words)).encode()))


def recipe_tensor(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """The parameter or buffer of this name in their network."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    random = _random(seed, name)
    if len(shape) == 1 or "channel_add_conv.1" in name:
        values = _vector(random, name, math.prod(shape))
    else:
        values = random.randn(math.prod(shape)) * np.sqrt(2.0 / math.prod(shape[1:]))
        for part, gain in _GAINS.items():
            values = values * gain if part in name else values
        for end, gain in _END_GAINS.items():
            values = values * gain if name.endswith(end) else values
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def _vector(random: np.random.RandomState, name: str, length: int) -> np.ndarray:
    kind = name.rsplit(".", 1)[-1]
    if "channel_add_conv.1" in name:
        return 0.8 + 0.4 * random.rand(length) if kind == "weight" else 0.1 * random.randn(length)
    if kind == "running_mean":
        return 0.1 * random.randn(length)
    if kind in ("running_var", "weight"):
        values = 0.8 + 0.4 * random.rand(length)
        return values * 0.3 if kind == "weight" and ".bn3." in name else values
    values = 0.05 * random.randn(length)
    if name.endswith(("conv_cls.bias", "solo_cate.bias")):
        values -= _CATEGORY_PRIOR
    return values * 6.0 if name.endswith("conv_offset.bias") else values


def recipe_image(height: int, width: int, seed: int) -> Tensor:
    """uint8 [3, height, width] RGB: waves, blocks and noise."""
    random = np.random.RandomState(1000 + seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    pixels = np.zeros((height, width, 3))
    for channel in range(3):
        waves = np.zeros((height, width))
        for _ in range(6):
            fx, fy = random.uniform(0.005, 0.08), random.uniform(0.005, 0.08)
            phase = random.uniform(0, 6.28)
            waves += random.uniform(10, 30) * np.sin(fx * x + fy * y + phase)
        pixels[..., channel] = 120 + waves
    for _ in range(25):
        block_height = random.randint(10, max(11, height // 3))
        block_width = random.randint(10, max(11, width // 4))
        top, left = random.randint(0, height - block_height), random.randint(0, width - block_width)
        window = pixels[top : top + block_height, left : left + block_width]
        window += random.uniform(-70, 70, 3)
    pixels += random.randn(height, width, 3) * 6
    pixels = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def recipe_batch(height: int, width: int, seed: int) -> ImageBatch:
    """The image of a case as a batch of one, padded to multiples of 32."""
    return ImageBatch.from_images([recipe_image(height, width, seed)]).padded_to(32)


@dataclass(frozen=True)
class Objects:
    """Ground truth of a case: fractional boxes [G, 4], classes [G], masks [G, H, W] uint8."""

    boxes: Tensor
    classes: Tensor
    masks: Tensor


def recipe_objects(height: int, width: int, count: int, num_classes: int, seed: int) -> Objects:
    """Ellipses with a bite taken out, from small to most of the image."""
    random = np.random.RandomState(2000 + seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64) + 0.5
    boxes = np.zeros((count, 4), np.float32)
    masks = np.zeros((count, height, width), np.uint8)
    for index in range(count):
        share = 0.12 + 0.7 * (index / max(1, count - 1))
        box_width = max(8.0, width * share * random.uniform(0.6, 1.1))
        box_height = max(8.0, height * share * random.uniform(0.6, 1.1))
        box_width, box_height = min(box_width, width - 2.0), min(box_height, height - 2.0)
        left, top = random.uniform(0, width - box_width), random.uniform(0, height - box_height)
        boxes[index] = left, top, left + box_width, top + box_height
        u, v = (x - left) / box_width * 2 - 1, (y - top) / box_height * 2 - 1
        bite_u, bite_v = random.uniform(-0.5, 0.5), random.uniform(-0.5, 0.5)
        bite = (u - bite_u) ** 2 + (v - bite_v) ** 2 < 0.12
        masks[index] = (u * u + v * v < 1) & ~bite
    classes = random.randint(0, num_classes, count).astype(np.int64)
    return Objects(torch.from_numpy(boxes), torch.from_numpy(classes), torch.from_numpy(masks))


def recipe_proposals(boxes: Tensor, height: int, width: int, count: int, seed: int) -> Tensor:
    """[count, 4] inside the image: jittered copies of the boxes, the last quarter anywhere."""
    random = np.random.RandomState(3000 + seed)
    limits = np.array([width, height])
    num_near = count - count // 4
    rows = np.zeros((count, 4), np.float32)
    for index in range(count):
        if index < num_near:
            box = boxes[index % len(boxes)].double().numpy().copy()
            jitter = 0.02 + 0.25 * (index // len(boxes)) / max(1, num_near // len(boxes))
            size = box[2:] - box[:2]
            box = box + random.uniform(-jitter, jitter, 4) * np.tile(size, 2)
        else:
            corners = np.sort(random.uniform(0, 1, (2, 2)), axis=0)
            box = corners.reshape(4) * np.tile(limits, 2)
        box = np.clip(box, 0, np.tile(limits, 2))
        box[2:] = np.maximum(box[2:], box[:2] + 6)
        box[:2] -= np.maximum(0, box[2:] - limits)
        box[2:] = np.minimum(box[2:], limits)
        rows[index] = box
    return torch.from_numpy(rows)


def recipe_uniform(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Numbers in [0, 1) that take the place of the draw `name`."""
    return torch.from_numpy(_random(seed, "draw", name).rand(*shape).astype(np.float32))


def recipe_normal(name: str, shape: tuple[int, ...], seed: int, scale: float = 1.0) -> Tensor:
    """Normal numbers: the input `name` of a single operation."""
    values = _random(seed, "normal", name).randn(*shape) * scale
    return torch.from_numpy(values.astype(np.float32))


def unpacked(bits: Tensor, width: int) -> Tensor:
    """Masks whose last axis was packed into bytes, [..., width] bool."""
    values = np.unpackbits(bits.numpy(), axis=-1, count=width)
    return torch.from_numpy(values.astype(bool))


@cache
def _state_dicts() -> dict[str, dict[str, tuple[int, ...]]]:
    path = GOLDEN_FOLDER / "mmdet" / "state_dicts.txt.gz"
    networks: dict[str, dict[str, tuple[int, ...]]] = {}
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        name, _, sides = line.partition(" ")
        if name == "#":
            networks[sides] = {}
            continue
        newest = networks[next(reversed(networks))]
        newest[name] = tuple(int(side) for side in sides.split(",") if side)
    return networks


def recipe_shapes(network: str) -> dict[str, tuple[int, ...]]:
    """Their names and shapes of the weights of a golden network."""
    return _state_dicts()[network]


def recipe_tensors(network: str, seed: int) -> dict[str, Tensor]:
    """All weights of a golden network under their names."""
    shapes = recipe_shapes(network)
    return {name: recipe_tensor(name, shape, seed) for name, shape in shapes.items()}


def normalized(image: Tensor, padded_size: tuple[int, int] | None = None) -> Tensor:
    """uint8 [3, H, W] -> what their networks read: float32 [1, 3, h, w], zeros in the padding."""
    mean = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
    std = torch.tensor([58.395, 57.12, 57.375])[:, None, None]
    height, width = image.shape[1:]
    bottom, right = -height % 32, -width % 32
    if padded_size is not None:
        bottom, right = padded_size[0] - height, padded_size[1] - width
    return torch.nn.functional.pad((image.float() - mean) / std, (0, right, 0, bottom))[None]
