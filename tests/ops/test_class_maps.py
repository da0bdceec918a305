"""Class maps against resized logits."""

import pytest
import torch
import torch.nn.functional as F

from seamless_pr.ops.class_maps import best_classes, resample_grid, resampled_classes
from seamless_pr.ops.fixed_shapes import fixed_shapes
from tests.support.smooth_logits import smooth_logits


def assert_classes_match(classes, logits):
    """Equal wherever the two best logits differ by more than rounding."""
    top = logits.topk(2, dim=0)
    decided = top.values[0] - top.values[1] > 1e-5
    assert decided.float().mean() > 0.99
    assert torch.equal(classes[decided].long(), top.indices[0][decided])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [1, 3, 4])
def test_classes_equal_those_of_resized_logits(seed, scale):
    logits = smooth_logits(seed)
    size = (13 * scale, 17 * scale)
    resized = F.interpolate(logits[None], size=size, mode="bilinear")[0]
    grid = resample_grid((13, 17), size, size, size)
    assert_classes_match(resampled_classes(logits, grid), resized)


@pytest.mark.parametrize("output_size", [(52, 68), (31, 90), (5, 9), (13, 200)])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_classes_between_cells_are_those_of_computing_all_pixels(output_size, noise):
    """To the bit, at larger and smaller sizes, from any layout and arithmetic of the network."""
    generator = torch.Generator().manual_seed(3)
    logits = smooth_logits(3) + noise * torch.randn(7, 13, 17, generator=generator)
    grid = resample_grid((13, 17), (26, 34), (25, 30), output_size)
    with fixed_shapes():
        expected = resampled_classes(logits, grid)
    assert torch.equal(resampled_classes(logits, grid), expected)
    channels_last = logits.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert torch.equal(resampled_classes(channels_last, grid), expected)
    with fixed_shapes():
        halves = resampled_classes(logits.bfloat16(), grid)
    assert torch.equal(resampled_classes(logits.bfloat16(), grid), halves)


def test_more_classes_than_a_half_can_count_are_told_apart():
    logits = torch.zeros(1203, 2, 3, dtype=torch.bfloat16)
    logits[1201, 0] = logits[1202, 1] = logits[1202, 0, 0] = 1
    assert best_classes(logits, (2, 3), (2, 3), (2, 3)).tolist() == [[1201] * 3, [1202] * 3]


def test_numbers_that_are_none_still_name_a_class():
    logits = torch.full((3, 4, 4), float("nan"))
    assert best_classes(logits, (8, 8), (8, 8), (8, 8)).unique().tolist() in ([0], [1], [2])


def test_noise_gives_the_classes_of_resized_logits():
    logits = torch.randn(5, 12, 20, generator=torch.Generator().manual_seed(0))
    resized = F.interpolate(logits[None], size=(45, 77), mode="bilinear")[0]
    grid = resample_grid((12, 20), (45, 77), (45, 77), (45, 77))
    assert_classes_match(resampled_classes(logits, grid), resized)


def test_best_classes_are_read_without_padding_at_the_wanted_size():
    logits = torch.zeros(3, 4, 8)
    logits[2, :, 4:] = 1.0
    logits[1, :, :4] = 1.0
    logits[0, 3] = logits[0, :, 7] = 9.0  # padding
    assert best_classes(logits, (4, 8), (3, 7), (3, 7)).tolist() == [[1, 1, 1, 1, 2, 2, 2]] * 3


def test_padding_is_left_out_before_resizing_to_the_file():
    logits = smooth_logits(1, size=(16, 16))
    whole = F.interpolate(logits[None], scale_factor=4, mode="bilinear")[0]
    grid = resample_grid((16, 16), (64, 64), (40, 56), (40, 56))
    assert_classes_match(resampled_classes(logits, grid), whole[:, :40, :56])
