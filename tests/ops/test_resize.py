"""Sizes and pixels of resized images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from seamless_pr.ops.resize import resampled_valid, resize_as_pillow, resize_image, resized_size
from tests.support.maskformer_golden import load_arrays


@pytest.mark.parametrize(
    ("size", "shortest", "longest", "expected"),
    [
        ((1024, 2048), 512, None, (512, 1024)),
        ((2048, 1024), 512, None, (1024, 512)),
        ((1024, 2048), 1024, 4096, (1024, 2048)),
        ((100, 1000), 200, 1500, (150, 1500)),
        ((100, 1000), 200, 2000, (200, 2000)),
        ((201, 333), 400, None, (400, 662)),  # 662.7 is rounded down
        ((1, 5000), 16, 64, (1, 64)),  # 0.01 rows become one
    ],
)
def test_shorter_side_is_reached_unless_the_longer_one_meets_its_cap(
    size: tuple[int, int], shortest: int, longest: int | None, expected: tuple[int, int]
) -> None:
    assert resized_size(size, shortest, longest) == expected


def test_asked_side_is_exact_for_every_input_size() -> None:
    for side in range(1, 700):
        assert resized_size((side, 2 * side), 100) == (100, 200)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        resized_size((0, 5), 10)
    with pytest.raises(ValueError, match="must be positive"):
        resized_size((5, 5), 0)


def test_images_do_not_grow_beyond_what_pictures_may_have() -> None:
    message = "20 x 30 pixels would grow to 6000 x 9000, more than 52000000 .* lower shortest_side"
    with pytest.raises(ValueError, match=message):
        resized_size((20, 30), 6000)
    assert resized_size((20, 30), 6000, 8000) == (5333, 8000)
    # What is as large already has been let in on purpose.
    assert resized_size((20_000, 30_000), 20_000) == (20_000, 30_000)


@pytest.mark.parametrize("size", [(37, 61), (150, 200)])
def test_pixels_agree_with_pillow(size: tuple[int, int]) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (75, 120, 3)).astype(np.uint8)
    resized = resize_image(torch.from_numpy(pixels).permute(2, 0, 1), size)
    expected = Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR)
    assert resized.dtype == torch.uint8
    difference = np.abs(resized.permute(1, 2, 0).numpy().astype(int) - np.asarray(expected))
    assert difference.max() <= 1


def test_image_of_the_right_size_is_not_touched() -> None:
    image = torch.zeros(3, 8, 9, dtype=torch.uint8)
    assert resize_image(image, (8, 9)) is image


@pytest.mark.parametrize("size", [(61, 87), (23, 33)])
def test_pillows_own_resizing_is_that_of_published_evaluations(size):
    arrays = load_arrays("ops")
    image = torch.from_numpy(arrays["resize_image_in"]).permute(2, 0, 1)
    expected = torch.from_numpy(arrays[f"resize_image_{size[0]}x{size[1]}"]).permute(2, 0, 1)
    assert torch.equal(resize_as_pillow(image, size), expected)
    assert (resize_image(image, size).int() - expected.int()).abs().max() <= 1


def test_rounded_sides_are_those_of_detectron2():
    for height, width, shortest, longest, *expected in load_arrays("ops")["shortest_edge_table"]:
        found = resized_size((height, width), shortest, longest, rounded=True)
        assert list(found) == expected, (height, width)


def test_maps_of_a_padded_image_are_read_at_a_grid_over_its_valid_part():
    maps = torch.rand(2, 16, 24)
    same = resampled_valid(maps, (64, 96), (64, 96), (16, 24))
    torch.testing.assert_close(same, maps)
    mirrored = resampled_valid(maps.flip(-1), (64, 96), (64, 96), (16, 24), flip=True)
    torch.testing.assert_close(mirrored, maps)
    # A ramp over 96 columns, of which 80 are valid: the columns' centres.
    ramp = (torch.arange(24.0) * 4 + 2).expand(1, 16, 24)
    read = resampled_valid(ramp, (64, 96), (64, 80), (8, 10))
    torch.testing.assert_close(read[0, 0], torch.arange(10.0) * 8 + 4)
    assert resampled_valid(maps[:0], (64, 96), (64, 80), (8, 10)).shape == (0, 8, 10)
