"""Changes of colours against numbers worked out by hand."""

from __future__ import annotations

import colorsys
from collections import Counter

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from seamless_pr.datasets.colors import NUM_SSD_DRAWS, change_colors_as_ssd, ssd_colors
from tests.support.maskformer_golden import load_arrays

# Switched off, whatever the amount.
OFF = [0.9, 0.3]
FIRST, LAST = [0.0], [0.9]
# The last but one is so red that a shift carries its hue over the end of the circle.
PIXELS = [[200, 100, 50], [0, 255, 0], [90, 90, 90], [255, 255, 255], [255, 40, 0], [0, 0, 0]]


def changed(*draws: list[float]) -> list[list[int]]:
    """The pixels after a change; draws are brightness, contrast, saturation, hue, order."""
    image = tv_tensors.Image(torch.tensor(PIXELS, dtype=torch.uint8).t()[:, :, None])
    numbers = [number for draw in draws for number in draw]
    assert len(numbers) == NUM_SSD_DRAWS
    result = change_colors_as_ssd(image, numbers)
    assert isinstance(result, tv_tensors.Image)
    assert result.dtype == torch.uint8
    return result[:, :, 0].t().tolist()


@pytest.mark.parametrize("order", [FIRST, LAST])
def test_without_a_change_the_pixels_stay(order) -> None:
    assert changed(OFF, OFF, OFF, OFF, order) == PIXELS


def test_brightness_is_added_and_clipped() -> None:
    # 0.75 of -32 .. 32 is 16.
    assert changed([0.0, 0.75], OFF, OFF, OFF, FIRST) == [
        [min(value + 16, 255) for value in pixel] for pixel in PIXELS
    ]


@pytest.mark.parametrize("order", [FIRST, LAST])
def test_contrast_multiplies_the_values(order) -> None:
    # 0.25 of 0.5 .. 1.5 is 0.75.
    assert changed(OFF, [0.0, 0.25], OFF, OFF, order) == [
        [int(0.75 * value) for value in pixel] for pixel in PIXELS
    ]


@pytest.mark.parametrize("amount, degrees", [(0.75, 18), (0.25, -18)])
def test_saturation_and_hue_change_in_hsv_and_grey_stays(amount: float, degrees: float) -> None:
    # Half the saturation; 9 of 180 steps of hue are 18 degrees.
    found = changed(OFF, OFF, [0.0, 0.0], [0.0, amount], FIRST)
    for pixel, result in zip(PIXELS, found, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in pixel))
        expected = colorsys.hsv_to_rgb((hue + degrees / 360) % 1, saturation / 2, value)
        # OpenCV rounds hue to two degrees and saturation to 1 / 255.
        assert result == pytest.approx([255 * channel for channel in expected], abs=3)


def test_contrast_before_the_change_of_saturation_clips_other_values_than_after() -> None:
    draws = OFF, [0.0, 0.99], [0.0, 0.0], OFF
    assert changed(*draws, FIRST) != changed(*draws, LAST)


def test_each_change_happens_in_half_of_the_images() -> None:
    for index in range(4):
        before, after = ([OFF] * 4 for _ in range(2))
        before[index], after[index] = [0.5, 0.0], [0.499, 0.0]
        assert changed(*before, FIRST) == PIXELS
        assert changed(*after, FIRST) != PIXELS


@pytest.mark.parametrize(("contrast_first", "key"), [(True, "first"), (False, "last")])
def test_changes_are_those_of_the_code_that_published_networks_were_trained_with(
    contrast_first, key
) -> None:
    arrays = load_arrays("ops")
    offset, contrast, saturation, shift = arrays["jitter_parameters"].tolist()
    found = ssd_colors(
        arrays["jitter_in"],
        offset,
        contrast,
        saturation,
        int(shift),
        contrast_first=contrast_first,
    )
    assert np.array_equal(found, arrays[f"jitter_out_contrast_{key}"])


def test_every_shift_of_the_hue_is_drawn_equally_often() -> None:
    # Full red: its hue is 0, and a step of the hue is visible.
    red = tv_tensors.Image(torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None])
    seen = [
        tuple(change_colors_as_ssd(red, [*[0.9] * 6, 0.0, draw / 370, 0.0]).flatten().tolist())
        for draw in range(370)
    ]
    counts = Counter(seen)
    assert len(counts) == 37
    assert set(counts.values()) == {10}
