"""Changes of an image's colours for training; amounts come from numbers in [0, 1)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as transforms

# Liu et al., SSD: Single Shot MultiBox Detector; the amounts of its code.
_SSD_BRIGHTNESS = (-32.0, 32.0)
_SSD_CONTRAST = (0.5, 1.5)
_SSD_SATURATION = (0.5, 1.5)
_SSD_HUE = (-18.0, 18.0)
NUM_SSD_DRAWS = 9
# OpenCV's hues of 8-bit images: half degrees.
_NUM_HUES = 180
_LEVELS = np.arange(256)


def change_colors(image: tv_tensors.Image, factors: Sequence[float]) -> tv_tensors.Image:
    """Multiplies brightness, contrast and saturation, in this order, by the three factors."""
    brightness, contrast, saturation = factors
    image = transforms.adjust_brightness(image, brightness)
    image = transforms.adjust_contrast(image, contrast)
    return transforms.adjust_saturation(image, saturation)


def change_colors_as_ssd(image: tv_tensors.Image, draws: Sequence[float]) -> tv_tensors.Image:
    """Changes brightness, contrast, saturation and hue, each in half of the images, as SSD does.

    Brightness is added, contrast multiplies the values themselves, saturation and hue change in the
    HSV space. Contrast comes before or after the last two.

    Args:
        image: [3, H, W] uint8 RGB.
        draws: `NUM_SSD_DRAWS` numbers in [0, 1): whether and how much for each of the four, and the
            order.
    """
    *changes, order = draws
    offset, contrast, saturation, shift = (
        low + (high - low) * amount if switch < 0.5 else neutral
        for switch, amount, (low, high), neutral in zip(
            changes[::2],
            changes[1::2],
            (_SSD_BRIGHTNESS, _SSD_CONTRAST, _SSD_SATURATION, _SSD_HUE),
            (0.0, 1.0, 1.0, 0.0),
            strict=True,
        )
    )
    pixels = image.as_subclass(torch.Tensor).permute(1, 2, 0).contiguous().numpy()
    pixels = _look_up(pixels, _table(_LEVELS + offset))
    contrast_table = _table(_LEVELS * contrast)
    if order < 0.5:
        pixels = _look_up(pixels, contrast_table)
    pixels = _change_hsv(pixels, saturation, shift)
    if order >= 0.5:
        pixels = _look_up(pixels, contrast_table)
    return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1).contiguous())


def _change_hsv(pixels: NDArray[np.uint8], saturation: float, shift: float) -> NDArray[np.uint8]:
    if saturation == 1 and shift == 0:
        return pixels
    hues = _table((_LEVELS + round(shift)) % _NUM_HUES)
    tables = np.stack([hues, _table(_LEVELS * saturation), _table(_LEVELS)], axis=-1)
    changed = _look_up(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV), np.uint8), tables[None])
    return np.asarray(cv2.cvtColor(changed, cv2.COLOR_HSV2RGB), np.uint8)


def _look_up(pixels: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.LUT(pixels, table), np.uint8)


def _table(values: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.uint8]:
    """What each of the 256 levels becomes."""
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
