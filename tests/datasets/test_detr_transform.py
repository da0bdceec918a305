"""DETR's random changes: sizes, crops, and that image and ids stay together."""

from __future__ import annotations

import torch
from torchvision import tv_tensors

from seamless_pr.datasets.detr_transform import DetrTransform, _crop_side
from seamless_pr.ops.generators import keyed_generator
from seamless_pr.ops.resize import resized_size

SIDES = (48, 64, 80)
TRAIN_IDS = torch.tensor([0])


def pair(height, width):
    """An image whose red level is twice its id: what moves one must move the other."""
    ids = torch.arange(width).expand(height, width) // (width // 8) + 1
    image = (20 * ids).to(torch.uint8).expand(3, -1, -1)
    return tv_tensors.Image(image), tv_tensors.Mask(ids.int())


def changed(transform, size, seed):
    return transform(*pair(*size), TRAIN_IDS, keyed_generator("test", seed))


def test_sizes_are_those_of_the_sides_with_and_without_a_crop():
    transform = DetrTransform(SIDES, 100)
    whole = {resized_size((120, 160), side, 100, rounded=True) for side in SIDES}
    seen = [changed(transform, (120, 160), seed)[1].shape for seed in range(60)]
    assert all(max(size) <= 100 for size in seen)
    uncropped = [size for size in seen if tuple(size) in whole]
    # The crop leaves the aspect ratio of few images as it was.
    assert 15 < len(uncropped) < 45
    assert {min(size) for size in uncropped} == {min(size) for size in whole}


def test_image_and_ids_stay_together():
    for seed in range(12):
        image, ids = changed(DetrTransform(SIDES), (300, 400), seed)
        assert image.shape[-2:] == ids.shape
        # Away from borders between two ids, where pixels are mixed.
        difference = (image[0].int() - 20 * ids.int()).abs()
        assert (difference <= 1).float().mean() > 0.7
        assert difference.max() <= 20 * 7


def test_a_mirror_image_turns_both():
    straight, turned = (DetrTransform((40,), flip_probability=share) for share in (0.0, 1.0))
    # A seed without a crop, which would be at the same place of both.
    seed = next(s for s in range(20) if changed(straight, (40, 64), s)[1].shape == (40, 64))
    same, before = changed(straight, (40, 64), seed)
    image, ids = changed(turned, (40, 64), seed)
    assert torch.equal(image, same.flip(-1))
    assert torch.equal(ids, before.flip(-1))


def test_sides_of_crops_are_uniform_between_the_limits_of_the_image():
    assert {_crop_side(300, draw / 10) for draw in range(10)} == {300}
    assert {_crop_side(386, draw / 30) for draw in range(30)} == {384, 385, 386}
    assert _crop_side(900, 0.0) == 384
    assert _crop_side(900, 0.9999) == 600


def test_the_same_numbers_make_the_same_changes():
    first, second = (changed(DetrTransform(SIDES), (90, 70), 5) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
