"""Images and id maps are changed together, by the given generator alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from seamless_pr.datasets.transforms import (
    EvalTransform,
    TrainTransform,
    crop_box,
    is_diverse,
    resize_ids,
    resize_pair,
)
from tests.support.maskformer_golden import load_arrays


def pair(height: int = 20, width: int = 30) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """An image whose red channel is the id map, so that any disagreement shows."""
    blocks = torch.arange(height)[:, None] // 10 * 8 + torch.arange(width)[None] // 10 + 1
    image = torch.stack([blocks, blocks * 0, blocks * 0]).to(torch.uint8)
    return tv_tensors.Image(image), tv_tensors.Mask(blocks.to(torch.int32))


# Blocks of 10x10 pixels are segments 1, 2, 3 and 9, 10, 11: sky above road.
TRAIN_IDS = torch.tensor([1] * 8 + [0] * 3)


def run(transform: TrainTransform | EvalTransform, seed: int = 0) -> tuple[Tensor, Tensor]:
    image, id_map = transform(*pair(), TRAIN_IDS, torch.Generator().manual_seed(seed))
    return image.as_subclass(torch.Tensor), id_map.as_subclass(torch.Tensor)


@pytest.mark.parametrize("size", [(8, 16), (33, 50), (20, 30), (1, 1), (40, 60)])
def test_ids_are_resized_as_pillow_does(size: tuple[int, int]) -> None:
    ids = np.random.default_rng(0).integers(0, 2**24, (20, 30)).astype(np.int32)
    expected = np.asarray(Image.fromarray(ids).resize((size[1], size[0]), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(resize_ids(torch.from_numpy(ids), size).numpy(), expected)


def test_centre_on_a_border_takes_the_later_id() -> None:
    # Centres of three pixels over ten: 1.67, 5 and 8.33.
    assert resize_ids(torch.arange(10)[None], (1, 3)).tolist() == [[1, 5, 8]]


def test_resized_pair_stays_aligned() -> None:
    image, id_map = resize_pair(*pair(), (40, 60))
    # Away from borders between ids, pixels and ids must tell the same.
    inside = torch.ones(40, 60, dtype=torch.bool)
    for border in (19, 20, 39, 40):
        inside[:, border] = False
    inside[19:21] = False
    assert image[0][inside].equal(id_map[inside].to(torch.uint8))
    assert isinstance(image, tv_tensors.Image)
    assert isinstance(id_map, tv_tensors.Mask)


def test_shortest_side_and_cap_decide_the_size() -> None:
    assert run(TrainTransform(40))[0].shape == (3, 40, 60)
    assert run(TrainTransform(40, 45))[1].shape == (30, 45)
    assert run(EvalTransform(10))[0].shape == (3, 10, 15)


def test_scales_fill_the_range() -> None:
    transform = TrainTransform(20, scale_range=(0.5, 2.0))
    sides = [run(transform, seed)[1].shape[0] for seed in range(200)]
    assert min(sides) in (10, 11)
    assert max(sides) in (38, 39)
    assert 23 < sum(sides) / len(sides) < 27


def test_scales_go_in_steps_from_one_end_to_the_other() -> None:
    transform = TrainTransform(20, scale_range=(0.5, 1.5), scale_step_pixels=5)
    sides = [run(transform, seed)[1].shape[0] for seed in range(100)]
    assert {side: sides.count(side) > 8 for side in sides} == dict.fromkeys(range(10, 31, 5), True)


def test_steps_stop_before_an_end_that_they_do_not_hit() -> None:
    transform = TrainTransform(20, scale_range=(0.5, 1.4), scale_step_pixels=5)
    assert {run(transform, seed)[1].shape[0] for seed in range(50)} == {10, 15, 20, 25}


def test_flip_mirrors_image_and_ids_half_of_the_time() -> None:
    plain_image, plain_ids = pair()
    num_flipped = 0
    for seed in range(100):
        image, ids = run(TrainTransform(20), seed)
        is_flipped = not ids.equal(plain_ids)
        num_flipped += is_flipped
        assert ids.equal(plain_ids.flip(-1) if is_flipped else plain_ids)
        assert image.equal(plain_image.flip(-1) if is_flipped else plain_image)
    assert 30 < num_flipped < 70


def test_crop_takes_the_same_place_of_both_and_leaves_short_sides() -> None:
    corners = set()
    for seed in range(60):
        image, ids = run(TrainTransform(20, crop_size_pixels=(8, 100)), seed)
        assert ids.shape == (8, 30)
        assert image[0].equal(ids.to(torch.uint8))
        corners.add(int(ids[0, 0]) // 8)
    assert corners == {0, 1}


def test_crops_are_drawn_again_until_no_class_fills_them() -> None:
    options = {"crop_size_pixels": (6, 12), "flip_probability": 0.0}
    shares = {fraction: [] for fraction in (1.0, 0.75)}
    for fraction, found in shares.items():
        for seed in range(60):
            transform = TrainTransform(20, crop_max_class_fraction=fraction, **options)
            sky = TRAIN_IDS[run(transform, seed)[1].long() - 1].double().mean()
            found.append(float(max(sky, 1 - sky)))
    assert sum(share >= 0.75 for share in shares[1.0]) > 30
    # Ten tries may all fail: a tenth of the places would do.
    assert sum(share >= 0.75 for share in shares[0.75]) < 20
    # A first crop that shows enough is kept.
    for before, after in zip(shares[1.0], shares[0.75]):
        assert after == before or before >= 0.75


def test_segments_of_a_class_count_together_and_void_does_not() -> None:
    train_ids = torch.tensor([5, 5, 2])
    three_of_four = torch.tensor([[1, 2, 0, 0], [1, 3, 0, 0]])
    assert is_diverse(three_of_four, train_ids, 0.76)
    assert not is_diverse(three_of_four, train_ids, 0.75)
    assert not is_diverse(torch.tensor([[1, 2, 0]]), train_ids, 0.99)
    assert not is_diverse(torch.zeros(2, 2, dtype=torch.int32), train_ids, 0.99)
    assert not is_diverse(torch.zeros(2, 2, dtype=torch.int32), train_ids[:0], 0.99)


def test_colors_of_ssd_change_the_image_only() -> None:
    num_changed = 0
    for seed in range(10):
        plain = run(TrainTransform(20, crop_size_pixels=(12, 12)), seed)
        colored = run(TrainTransform(20, crop_size_pixels=(12, 12), ssd_colors=True), seed)
        assert plain[1].equal(colored[1])
        num_changed += not plain[0].equal(colored[0])
    assert num_changed > 5


@pytest.mark.parametrize(("draw", "corner"), [(0.0, (0, 0)), (0.999999, (4, 5))])
def test_crop_reaches_both_ends(draw: float, corner: tuple[int, int]) -> None:
    assert crop_box((10, 20), (6, 15), draw, draw) == (*corner, 6, 15)
    assert crop_box((10, 20), (6, 30), draw, draw) == (corner[0], 0, 6, 20)


def test_colors_change_the_image_only_and_within_the_strength() -> None:
    image = tv_tensors.Image(torch.full((3, 20, 30), 100, dtype=torch.uint8))
    id_map = pair()[1]
    means = []
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        transform = TrainTransform(20, flip_probability=0.0, color_strength=0.2)
        changed, ids = transform(image, id_map, TRAIN_IDS, generator)
        assert ids.equal(id_map)
        assert changed.dtype == torch.uint8
        means.append(float(changed.float().mean()))
    assert 79 <= min(means) < 90 < 110 < max(means) <= 120


def test_switching_colors_on_leaves_the_geometry_of_a_seed() -> None:
    for seed in range(10):
        options = {"scale_range": (0.5, 2.0), "crop_size_pixels": (12, 12)}
        plain = run(TrainTransform(20, **options), seed)
        colored = run(TrainTransform(20, color_strength=0.3, **options), seed)
        assert plain[1].equal(colored[1])


def test_global_random_state_is_neither_read_nor_changed() -> None:
    transform = TrainTransform(20, None, (0.5, 2.0), 0.5, (12, 12), 0.3)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = run(transform, 5)
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(1)
    second = run(transform, 5)
    assert first[0].equal(second[0])
    assert first[1].equal(second[1])


def test_evaluation_keeps_the_ids_at_the_size_of_the_file() -> None:
    image, ids = run(EvalTransform(10))
    assert (image.shape[-2:], ids.shape) == ((10, 15), (20, 30))
    image, ids = run(EvalTransform(10, resize_target=True))
    assert image.shape[-2:] == ids.shape == (10, 15)


@pytest.mark.parametrize(
    "options",
    [{"scale_range": (2.0, 1.0)}, {"scale_range": (0.0, 1.0)}, {"flip_probability": 1.5}],
)
def test_impossible_settings_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        TrainTransform(20, **options)  # type: ignore[arg-type]


def test_the_shorter_side_is_one_of_a_list():
    transform = TrainTransform(100, 300, sides_pixels=(30, 47, 64), flip_probability=0.0)
    image = tv_tensors.Image(torch.zeros(3, 60, 90, dtype=torch.uint8))
    ids = tv_tensors.Mask(torch.zeros(60, 90, dtype=torch.int32))
    seen = {
        transform(image, ids, torch.zeros(0), torch.Generator().manual_seed(seed))[1].shape[0]
        for seed in range(30)
    }
    assert seen == {30, 47, 64}


def test_crops_are_padded_with_grey_and_void():
    transform = TrainTransform(20, crop_size_pixels=(24, 40), flip_probability=0.0, pads_crops=True)
    image = tv_tensors.Image(torch.full((3, 20, 30), 7, dtype=torch.uint8))
    ids = tv_tensors.Mask(torch.ones(20, 30, dtype=torch.int32))
    padded, padded_ids = transform(image, ids, torch.tensor([0]), torch.Generator())
    assert padded.shape == (3, 24, 40)
    assert (padded[:, :20, :30] == 7).all()
    assert (padded[:, 20:] == 128).all()
    assert (padded[:, :, 30:] == 128).all()
    assert padded_ids.sum() == 20 * 30
    assert padded_ids.dtype == torch.int32


def test_labels_are_resized_as_by_the_published_panoptic_networks():
    arrays = load_arrays("ops")
    labels = torch.from_numpy(arrays["resize_label_in"])
    for size in ((61, 87), (23, 33)):
        expected = torch.from_numpy(arrays[f"resize_label_panoptic_{size[0]}x{size[1]}"])
        assert torch.equal(resize_ids(labels, size), expected)
        # Its semantic networks take the pixel under the corner: shifted by up to half a pixel.
        semantic = torch.from_numpy(arrays[f"resize_label_semantic_{size[0]}x{size[1]}"])
        assert not torch.equal(semantic, expected)
