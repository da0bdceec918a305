"""Seeded weights and images of the golden MaskFormer cases.

Every tensor depends on the seed, its original name and its shape alone.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "golden" / "maskformer"


def shapes_of(state_dict: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a file of lines "name (d0, d1)"."""
    shapes = {}
    for line in (FOLDER / state_dict).read_text(encoding="utf-8").splitlines():
        name, _, shape = line.partition("#")[0].strip().partition(" ")
        if name:
            numbers = shape.strip("() ").split(",")
            shapes[name] = tuple(int(number) for number in numbers if number.strip())
    return shapes


def seeded_weights(seed: int, state_dict: str) -> dict[str, Tensor]:
    """All tensors of a golden network under its original names."""
    return {name: seeded_tensor(seed, name, shape) for name, shape in shapes_of(state_dict).items()}


def seeded_tensor(seed: int, name: str, shape: tuple[int, ...]) -> Tensor:
    """One tensor in float32, as the golden numbers were made with it."""
    layer, _, kind = name.rpartition(".")
    if kind == "relative_position_index":
        return _relative_positions(math.isqrt(shape[0]))
    if kind == "empty_weight":
        return torch.tensor([1.0] * (shape[0] - 1) + [0.1])
    drawn = _draws(seed, name, shape)
    if kind in ("running_mean", "running_var"):
        values = 0.1 * drawn if kind == "running_mean" else np.exp(0.2 * drawn)
    elif len(shape) == 1 and kind in ("weight", "bias") and _is_norm(layer):
        values = _norm_values(layer, kind, drawn)
    elif kind == "relative_position_bias_table":
        values = 0.5 * drawn
    elif kind == "weight" and layer.endswith("query_embed"):
        values = 1.5 * drawn
    elif len(shape) == 1:
        values = _bias_values(seed, layer, drawn)
    else:
        values = _matrix_values(layer, kind, drawn)
    return torch.from_numpy(values.astype(np.float32))


def _draws(seed: int, key: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    state = np.random.RandomState(zlib.crc32(f"{seed}/{key}".encode()))
    return state.standard_normal(math.prod(shape)).reshape(shape)


def _is_norm(layer: str) -> bool:
    return ".norm" in layer or "norm" in layer.rpartition(".")[2]


def _norm_values(layer: str, kind: str, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    if kind == "bias":
        return 0.1 * drawn
    # The last norm of a residual block is small, so that deep networks keep their scale.
    is_last = layer.startswith("backbone.res") and layer.endswith("conv3.norm")
    return (1 + 0.1 * drawn) * (0.4 if is_last else 1.0)


def _bias_values(seed: int, layer: str, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    if layer.endswith("class_embed"):
        values = 0.5 * drawn
        values[-1] += 13.0
        return values
    if layer.endswith(("mask_features", "mask_embed.layers.2")):
        # One direction in both, with opposite signs: most mask logits are negative.
        shared = _draws(seed, "shared mask bias", drawn.shape)
        sign = 1 if layer.endswith("mask_features") else -1
        return 0.05 * drawn + sign * 2.5 * shared / np.linalg.norm(shared)
    return 0.1 * drawn


# (end of the layer's name, gain over 1 / sqrt(fan in)); the first that fits.
_GAINS = (
    ("multihead_attn.out_proj", 1.5),
    ("linear2", 0.5),
    ("mlp.fc2", 0.5),
    ("attn.proj", 0.5),
    ("class_embed", 6.0),
    ("mask_embed.layers.2", 0.8),
    ("sem_seg_head.predictor", 3.0),
    ("mask_features", 0.8),
)


def _matrix_values(layer: str, kind: str, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    in_pixel_decoder = "pixel_decoder" in layer
    gain: float | NDArray[np.float64] = math.sqrt(2)
    if kind == "in_proj_weight" or layer.endswith("attn.qkv"):
        gain = np.repeat([1.5, 1.5, 1.0], len(drawn) // 3)[:, None]
    elif layer.endswith("self_attn.out_proj"):
        gain = 0.4 if in_pixel_decoder else 1.0
    elif layer.endswith("input_proj"):
        gain = 3.0 if in_pixel_decoder else 1.0
    else:
        gain = next((number for end, number in _GAINS if layer.endswith(end)), gain)
    fan_axes = tuple(range(1, drawn.ndim))
    values = drawn * gain / np.sqrt(math.prod(drawn.shape[1:]))
    return values - values.mean(axis=fan_axes, keepdims=True)


def _relative_positions(window: int) -> Tensor:
    rows, columns = (axis.ravel() for axis in np.indices((window, window)))
    down, right = (axis[:, None] - axis[None, :] + window - 1 for axis in (rows, columns))
    return torch.from_numpy(down * (2 * window - 1) + right)


def load_arrays(name: str) -> Mapping[str, NDArray]:
    """All arrays of one golden file."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


def drawn_image(seed: int, height: int, width: int) -> Tensor:
    """[3, H, W] uint8: waves, then ellipses and rectangles with stripes, then noise."""
    state = np.random.RandomState(20011 + seed)
    y, x = (axis.astype(np.float64) for axis in np.mgrid[0:height, 0:width])
    image = np.full((height, width, 3), 0.45)
    for _ in range(5):
        waves_down, waves_right = state.uniform(0.5, 5.0, 2)
        phase = state.uniform(0, 2 * np.pi, 3)
        angle = 2 * np.pi * (waves_down * y / height + waves_right * x / width)
        image += state.uniform(0.05, 0.15) * np.sin(angle[..., None] + phase)
    for index in range(18):
        row, column = state.uniform(0, height), state.uniform(0, width)
        side = np.exp(state.uniform(np.log(12.0), np.log(0.5 * max(height, width))))
        aspect = np.exp(state.uniform(-0.8, 0.8))
        tall, wide = side * np.sqrt(aspect) / 2, side / np.sqrt(aspect) / 2
        color, contrast = state.uniform(0, 1, 3), state.uniform(0, 0.2)
        period = state.uniform(4, 24)
        if index % 2:
            inside = ((y - row) / tall) ** 2 + ((x - column) / wide) ** 2 <= 1
        else:
            inside = (np.abs(y - row) <= tall) & (np.abs(x - column) <= wide)
        stripes = contrast * np.sin(2 * np.pi * (x + y)[..., None] / period)
        image = np.where(inside[..., None], color + stripes, image)
    image += state.normal(0, 0.02, image.shape)
    pixels = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def drawn_queries(
    seed: int, size: tuple[int, int], num_queries: int, num_classes: int, num_objects: int
) -> tuple[Tensor, Tensor]:
    """Class logits [Q, K + 1] and mask logits [Q, h, w] as of a trained network."""
    height, width = size
    state = np.random.RandomState(50021 + seed)
    y, x = (axis.astype(np.float64) for axis in np.mgrid[0:height, 0:width])
    classes = state.normal(0, 1.0, (num_queries, num_classes + 1))
    level = state.normal(-4.0, 0.5, (num_queries, 1, 1))
    down = state.uniform(0.5, 3, (num_queries, 1, 1)) * y / height
    right = state.uniform(0.5, 3, (num_queries, 1, 1)) * x / width
    phase = state.uniform(0, 6.28, (num_queries, 1, 1))
    masks = level + 0.8 * np.sin(2 * np.pi * (down + right) + phase)
    classes[:, -1] += 7.0
    chosen = state.permutation(num_queries)[:num_objects]
    palette = state.choice(num_classes, min(6, num_classes), replace=False)
    for index, query in enumerate(chosen):
        train_id = int(palette[state.randint(len(palette))])
        classes[query, -1] -= 7.0
        classes[query, train_id] += (10.0, 6.5, 4.5, 3.0)[index % 4]
        row, column = (state.uniform(0.1, 0.9) * length for length in size)
        tall, wide = (state.uniform(0.1, 0.3) * length for length in size)
        distance = np.sqrt(((y - row) / tall) ** 2 + ((x - column) / wide) ** 2)
        blob = np.clip(8.0 * (1.0 - distance), -9.0, 7.0) + 0.3 * np.sin(x / 3.0 + query)
        masks[query] = blob + state.normal(0, 0.05, size)
        if index == num_objects - 1:
            # This one reaches a half nowhere.
            masks[query] = np.minimum(masks[query], -0.05)
    return torch.from_numpy(classes.astype(np.float32)), torch.from_numpy(masks.astype(np.float32))
