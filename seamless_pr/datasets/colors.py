"""Changes of an image's colours for training; amounts come from numbers in [0, 1)."""

from __future__ import annotations

import math
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
_SSD_HUE = 18
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

    Contrast comes before or after saturation and hue.

    Args:
        image: [3, H, W] uint8 RGB.
        draws: `NUM_SSD_DRAWS` numbers in [0, 1): whether and how much for each of the four, and the
            order.
    """
    *changes, order = draws
    offset, contrast, saturation = (
        low + (high - low) * amount if switch < 0.5 else neutral
        for switch, amount, (low, high), neutral in zip(
            changes[::2],
            changes[1::2],
            (_SSD_BRIGHTNESS, _SSD_CONTRAST, _SSD_SATURATION),
            (0.0, 1.0, 1.0),
        )
    )
    switch, amount = changes[-2:]
    shift = math.floor((2 * _SSD_HUE + 1) * amount) - _SSD_HUE if switch < 0.5 else 0
    pixels = image.as_subclass(torch.Tensor).permute(1, 2, 0).contiguous().numpy()
    pixels = ssd_colors(pixels, offset, contrast, saturation, shift, contrast_first=order < 0.5)
    return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1).contiguous())


def ssd_colors(
    pixels: NDArray[np.uint8],
    offset: float,
    contrast: float,
    saturation: float,
    shift: int,
    *,
    contrast_first: bool,
) -> NDArray[np.uint8]:
    """One change of colours as SSD makes it; after each step levels are whole numbers again.

    Fractions are cut off, as in the code that published networks were trained with.

    Args:
        pixels: [H, W, 3] RGB.
        offset: added to all levels.
        contrast: multiplies the levels themselves.
        saturation: multiplies the saturation (HSV).
        shift: added to the hue, in steps of two degrees.
        contrast_first: contrast before saturation and hue, not after.
    """
    pixels = _look_up(pixels, _table(_LEVELS + offset))
    contrast_table = _table(_LEVELS * contrast)
    if contrast_first:
        pixels = _look_up(pixels, contrast_table)
    if saturation != 1:
        pixels = _change_hsv(pixels, saturations=_table(_LEVELS * saturation))
    if shift != 0:
        pixels = _change_hsv(pixels, hues=_table((_LEVELS + shift) % _NUM_HUES))
    if not contrast_first:
        pixels = _look_up(pixels, contrast_table)
    return pixels


def _change_hsv(
    pixels: NDArray[np.uint8],
    hues: NDArray[np.uint8] | None = None,
    saturations: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Replaces hues or saturations by what a table says; the others stay."""
    same = _table(_LEVELS)
    tables = np.stack(
        [same if hues is None else hues, same if saturations is None else saturations, same], -1
    )
    changed = _look_up(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV), np.uint8), tables[None])
    return np.asarray(cv2.cvtColor(changed, cv2.COLOR_HSV2RGB), np.uint8)


def _look_up(pixels: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.LUT(pixels, table), np.uint8)


def _table(values: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.uint8]:
    """What each of the 256 levels becomes."""
    return np.clip(values, 0, 255).astype(np.uint8)
