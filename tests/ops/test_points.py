"""Point sampling against grid sampling on explicit tensors, and the choice of training points."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.ops.points import (
    class_uncertainty,
    mask_uncertainty,
    points_to_image,
    regular_grid,
    sample_labels,
    sample_membership,
    sample_points,
    sample_windows,
    uncertain_coords,
)


def grid_sampled(maps, coords, mode="bilinear"):
    """[N, C, H, W] at [N, P, 2] -> [N, P, C], by the library's own kernel."""
    grid = 2 * coords[:, :, None] - 1
    return F.grid_sample(maps, grid, mode=mode, align_corners=False)[..., 0].transpose(1, 2)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_points_equal_grid_sampling_with_zero_padding(memory_format):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 5, 7, 11, generator=generator).contiguous(memory_format=memory_format)
    coords = torch.rand(3, 40, 2, generator=generator) * 1.4 - 0.2
    indices = torch.arange(3).repeat_interleave(40)
    sampled = sample_points(maps, coords.flatten(0, 1), indices).unflatten(0, (3, 40))
    torch.testing.assert_close(sampled, grid_sampled(maps, coords), rtol=1e-5, atol=1e-5)


def test_gradient_of_points_equals_that_of_grid_sampling():
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(2, 3, 6, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    coords = torch.rand(2, 9, 2, generator=generator)
    weight = torch.randn(2, 9, 3, generator=generator, dtype=torch.float64)
    (grid_sampled(maps, coords.double()) * weight).sum().backward()
    expected, maps.grad = maps.grad, None
    sampled = sample_points(maps, coords.flatten(0, 1), torch.arange(2).repeat_interleave(9))
    (sampled.unflatten(0, (2, 9)) * weight).sum().backward()
    torch.testing.assert_close(maps.grad, expected, rtol=1e-5, atol=1e-6)


def test_no_points_give_an_empty_result_with_a_gradient_path():
    maps = torch.randn(1, 4, 3, 3, requires_grad=True)
    sampled = sample_points(maps, torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
    assert sampled.shape == (0, 4)
    sampled.sum().backward()
    assert maps.grad.abs().sum() == 0


def test_membership_is_the_bilinear_sample_of_the_bit_mask():
    generator = torch.Generator().manual_seed(2)
    id_maps = [torch.randint(0, 4, (9, 13), generator=generator).int() for _ in range(2)]
    ids = torch.tensor([1, 3, 2])
    images = torch.tensor([0, 0, 1])
    points = torch.rand(3, 50, 2, generator=generator) * torch.tensor([15.0, 11.0]) - 1
    masks = torch.stack([(id_maps[n] == i).float() for n, i in zip(images.tolist(), ids)])[:, None]
    expected = grid_sampled(masks, points / torch.tensor([13.0, 9.0]))[..., 0]
    sampled = sample_membership(id_maps, ids, points, images)
    torch.testing.assert_close(sampled, expected, rtol=0, atol=2e-5)
    assert ((sampled > 0.01) & (sampled < 0.99)).any()


def test_images_without_rows_leave_the_labels_of_others_alone():
    id_maps = [torch.ones(4, 4, dtype=torch.int32), torch.full((4, 4), 2, dtype=torch.int32)]
    points = torch.full((1, 5, 2), 2.0)
    sampled = sample_membership(id_maps, torch.tensor([2]), points, torch.tensor([1]))
    assert sampled.tolist() == [[1.0] * 5]
    none = torch.zeros(0, dtype=torch.int64)
    assert sample_membership(id_maps, none, torch.zeros(0, 5, 2), none).shape == (0, 5)


def test_labels_are_those_of_the_nearest_pixel():
    label_map = torch.arange(6).view(2, 3)
    coords = torch.tensor([[0.1, 0.1], [0.99, 0.99], [0.5, 0.3]])
    assert sample_labels(label_map, coords).tolist() == [0, 5, 1]
    coords = torch.rand(1, 30, 2, generator=torch.Generator().manual_seed(3))
    expected = grid_sampled(label_map[None, None].float(), coords, "nearest")[0, :, 0]
    assert sample_labels(label_map, coords[0]).tolist() == expected.long().tolist()


def test_regular_grid_lists_cell_centres_row_by_row():
    assert regular_grid(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]


def test_points_of_a_box_move_into_the_image():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    assert points_to_image(torch.tensor([[[0.5, 0.25]]]), boxes).tolist() == [[[20.0, 30.0]]]


def draw_from(seed, num_rows):
    generator = torch.Generator().manual_seed(seed)
    return lambda num_points: torch.rand(num_rows, num_points, 2, generator=generator)


def test_uncertain_points_come_from_where_the_prediction_is_unsure():
    # Sure everywhere but in a narrow band around x = 0.3.
    def unsure(coords):
        return -(coords[..., 0] - 0.3).abs()

    coords = uncertain_coords(unsure, 2, 100, 3.0, 0.75, draw_from(0, 2))
    assert coords.shape == (2, 100, 2)
    distance = (coords[..., 0] - 0.3).abs()
    assert distance[:, :75].max() < 0.25
    assert distance[:, 75:].max() > 0.5
    candidates = draw_from(0, 2)(300)
    kept = (candidates[..., 0] - 0.3).abs().sort(dim=1).values[:, :75]
    torch.testing.assert_close(distance[:, :75].sort(dim=1).values, kept)


def test_uncertainty_is_not_asked_for_without_rows_or_without_importance():
    def never(coords):
        raise AssertionError("not needed")

    assert uncertain_coords(never, 0, 10, 3.0, 0.75, draw_from(0, 0)).shape == (0, 10, 2)
    assert uncertain_coords(never, 2, 10, 3.0, 0.0, draw_from(0, 2)).shape == (2, 10, 2)


@pytest.mark.parametrize("ratio, fraction, word", [(0.5, 0.5, "ratio"), (2.0, 1.5, "fraction")])
def test_wrong_sampling_numbers_are_named(ratio, fraction, word):
    with pytest.raises(ValueError, match=word):
        uncertain_coords(lambda coords: coords[..., 0], 1, 4, ratio, fraction, draw_from(0, 1))


def test_uncertainty_is_largest_on_the_boundary():
    assert mask_uncertainty(torch.tensor([-2.0, 0.5])).tolist() == [-2.0, -0.5]
    logits = torch.randn(4, 19, 6, generator=torch.Generator().manual_seed(5))
    top = logits.topk(2, dim=1).values
    torch.testing.assert_close(class_uncertainty(logits, dim=1), top[:, 1] - top[:, 0])


# Table 4 of the paper: the training strategies, as (oversample_ratio, importance_fraction).
STRATEGIES = {"uniform": (1, 0.0), "mildly biased": (3, 0.75), "heavily biased": (10, 1.0)}


def test_the_papers_strategies_are_settings_ordered_by_their_bias() -> None:
    shares = {}
    for name, (ratio, fraction) in STRATEGIES.items():
        generator = torch.Generator().manual_seed(1)

        def draw(count: int, generator: torch.Generator = generator) -> Tensor:
            return torch.rand(4, count, 2, generator=generator)

        # The boundary is the vertical line in the middle.
        coords = uncertain_coords(
            lambda points: -(points[..., 0] - 0.5).abs(), 4, 196, ratio, fraction, draw
        )
        assert coords.shape == (4, 196, 2)
        shares[name] = float(((coords[..., 0] - 0.5).abs() < 0.05).float().mean())
    # One tenth of the area; 147 of 588 candidates, of which a tenth is near, and 49 free ones; the
    # best 196 of 1960.
    assert shares["uniform"] == pytest.approx(0.1, abs=0.04)
    assert shares["mildly biased"] == pytest.approx(0.325, abs=0.05)
    assert shares["heavily biased"] > 0.9


def test_windows_are_the_pixels_around_points_and_repeat_the_edge() -> None:
    images = torch.randint(0, 256, (2, 3, 6, 10), dtype=torch.uint8)
    # Pixels (row 2, column 7) of the second image, and the last corner of the first.
    coords = torch.tensor([[7.5 / 10, 2.5 / 6], [1.0, 1.0]])
    inner, corner = (sample_windows(images, coords, torch.tensor([1, 0]), 3) + 2) * 64
    assert inner.view(3, 3, 3).permute(2, 0, 1).equal(images[1, :, 1:4, 6:9].float())
    rows, columns = torch.tensor([4, 5, 5]), torch.tensor([8, 9, 9])
    assert corner.view(3, 3, 3).permute(2, 0, 1).equal(images[0][:, rows][:, :, columns].float())
    assert sample_windows(images, coords[:0], torch.zeros(0, dtype=torch.long), 3).shape == (0, 27)
