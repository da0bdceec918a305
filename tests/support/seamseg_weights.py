"""Seeded weights of the golden networks: made again from their names with numpy alone."""

from __future__ import annotations

import ast
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

STATE_DICT_FOLDER = Path(__file__).parents[1] / "golden" / "seamseg"
IMAGE_MEAN = (0.41738699, 0.45732192, 0.46886091)
IMAGE_STD = (0.25685097, 0.26509955, 0.29067996)

LEAKY_GAIN = math.sqrt(2 / (1 + 0.01**2))
# Weight gain and standard deviation of the bias.
PREDICTORS = {
    "rpn_head.conv_obj": (2.0, 0.5),
    "rpn_head.conv_bbx": (0.6, 0.4),
    "roi_head.roi_cls": (1.4, 0.5),
    "roi_head.roi_bbx": (1.5, 0.3),
    "roi_head.roi_msk": (5.0, 0.8),
    "sem_head.conv_sem": (4.0, 0.5),
}
# Factors of norm weights that keep activations in range; the first match counts.
NORM_FACTORS = (
    (".convs.bn3.", 0.4),
    ("fpn.output.1.", 1.6),
    ("fpn.output.2.", 3.0),
    ("fpn.output.3.", 5.0),
    ("fpn.extra.0.", 6.0),
    ("fpn.extra.1.", 4.0),
)


def seeded_tensor(seed: int, name: str, shape: tuple[int, ...]) -> Tensor:
    """The parameter or buffer of this seamseg name in the golden network of this seed."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    random = np.random.RandomState(zlib.crc32(f"{seed}/{name}".encode()))
    values = random.standard_normal(math.prod(shape)).reshape(shape)
    module, kind = name.rsplit(".", 1)
    values = _scaled(values, module, kind)
    if len(shape) > 1:
        values = values - values.mean(axis=_fan_in_axes(module, shape), keepdims=True)
    return torch.from_numpy(np.ascontiguousarray(values.astype(np.float32)))


def seeded_state_dict(seed: int, network: str) -> dict[str, Tensor]:
    """All weights of the "cityscapes" or "vistas" network under seamseg's names."""
    text = (STATE_DICT_FOLDER / f"STATE_DICT_{network}.txt").read_text()
    entries = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return {name: seeded_tensor(seed, name, ast.literal_eval(shape)) for name, shape in entries}


def normalized(image: Tensor) -> Tensor:
    """uint8 [H, W, 3] -> float32 [1, 3, H, W], in the reference's order of operations."""
    pixels = image.permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGE_MEAN, IMAGE_STD))
    return ((pixels - mean) / std).contiguous()


def _scaled(values: np.ndarray, module: str, kind: str) -> np.ndarray:
    if kind == "running_mean":
        return 0.1 * values
    if kind == "running_var":
        return np.exp(0.2 * values)
    fan_in = math.prod(values.shape[axis] for axis in _fan_in_axes(module, values.shape))
    if module in PREDICTORS:
        gain, bias_std = PREDICTORS[module]
        return values * bias_std if kind == "bias" else values * gain / math.sqrt(fan_in)
    if values.ndim == 1 and kind == "bias":
        return 0.1 * values
    if values.ndim == 1:
        # 2.3 % of the norm weights are negative, to tell |weight| from weight.
        sign = np.where(values < -2.0, -1.0, 1.0)
        factor = next((factor for part, factor in NORM_FACTORS if part in module + "."), 1.0)
        return (1.0 + 0.1 * np.clip(values, -2.0, 2.0)) * sign * factor
    # A transposed convolution of stride 2 with a 2x2 kernel adds up its input channels only.
    inputs = values.shape[0] if ".conv_up" in module else fan_in
    return values * LEAKY_GAIN / math.sqrt(inputs)


def _fan_in_axes(module: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (0, 2, 3) if ".conv_up" in module else tuple(range(1, len(shape)))
