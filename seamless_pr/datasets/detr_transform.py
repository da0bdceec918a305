"""The random changes of DETR, with which MaskFormer learned COCO."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as transforms

from seamless_pr.datasets.transforms import crop_box, resize_pair
from seamless_pr.ops.resize import resized_size

# Before a crop the shorter side is one of these; each side of the crop is in this range.
_SIDES_BEFORE_CROP = (400, 500, 600)
_CROP_SIDES = (384, 600)


@dataclass(frozen=True)
class DetrTransform:
    """A mirror image, and for half of the images a crop between two changes of size.

    Carion et al., End-to-End Object Detection with Transformers, appendix A.4, as the released
    MaskFormer does it.

    Attributes:
        sides_pixels: the shorter side becomes one of these, each as likely.
        longest_side_pixels: cap on the longer side; not for the size before a crop.
        flip_probability: of a mirror image (left and right exchanged).
    """

    sides_pixels: tuple[int, ...]
    longest_side_pixels: int | None = None
    flip_probability: float = 0.5

    def __call__(
        self,
        image: tv_tensors.Image,
        id_map: tv_tensors.Mask,
        train_ids: Tensor,
        generator: torch.Generator,
    ) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        # All numbers are drawn at once: a change that is left out leaves the others as they were.
        draws = torch.rand(8, generator=generator, dtype=torch.float64).tolist()
        flip, crops, before, tall, wide, top, left, side = draws
        if flip < self.flip_probability:
            image = transforms.horizontal_flip(image)
            id_map = transforms.horizontal_flip(id_map)
        if crops >= 0.5:
            shortest = _SIDES_BEFORE_CROP[int(before * len(_SIDES_BEFORE_CROP))]
            image, id_map = resize_pair(
                image, id_map, resized_size(_size(id_map), shortest, rounded=True)
            )
            height, width = _size(id_map)
            crop = (_crop_side(height, tall), _crop_side(width, wide))
            box = crop_box((height, width), crop, top, left)
            image, id_map = transforms.crop(image, *box), transforms.crop(id_map, *box)
        shortest = self.sides_pixels[int(side * len(self.sides_pixels))]
        size = resized_size(_size(id_map), shortest, self.longest_side_pixels, rounded=True)
        return resize_pair(image, id_map, size)


def _size(id_map: Tensor) -> tuple[int, int]:
    return id_map.shape[-2], id_map.shape[-1]


def _crop_side(side: int, draw: float) -> int:
    """Uniform between both limits, each cut to the side of the image."""
    low, high = (min(side, limit) for limit in _CROP_SIDES)
    return low + int(draw * (high - low + 1))
