"""Geometric and colour changes of an image together with its id map.

The random numbers come from one generator per image, and nothing reads the global random state: a
sample is the same however many workers load it, and after a restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as transforms

from seamless_pr.ops.resize import resize_image, resized_size


class Transform(Protocol):
    """Changes an image ([3, H, W] uint8) and its id map ([H, W] int32); sizes may change."""

    def __call__(
        self, image: tv_tensors.Image, id_map: tv_tensors.Mask, generator: torch.Generator
    ) -> tuple[tv_tensors.Image, tv_tensors.Mask]: ...


@dataclass(frozen=True)
class TrainTransform:
    """Random scale, mirror image, colours and crop.

    Attributes:
        shortest_side_pixels: the shorter side becomes this, times a random factor.
        longest_side_pixels: cap on the longer side; None: no cap.
        scale_range: the factor is uniform in this range; (1, 1): always the same size.
        flip_probability: of a mirror image (left and right exchanged).
        crop_size_pixels: (height, width) of a random crop after scaling; a side that is shorter
            stays as it is; None: no crop.
        color_strength: brightness, contrast and saturation are each multiplied by a factor that is
            uniform in 1 - strength .. 1 + strength; 0: colours stay.
    """

    shortest_side_pixels: int
    longest_side_pixels: int | None = None
    scale_range: tuple[float, float] = (1.0, 1.0)
    flip_probability: float = 0.5
    crop_size_pixels: tuple[int, int] | None = None
    color_strength: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.scale_range
        if not 0 < low <= high:
            raise ValueError(
                f"scale_range must be (low, high) with 0 < low <= high; got {self.scale_range}"
            )
        if not 0 <= self.flip_probability <= 1 or not 0 <= self.color_strength < 1:
            raise ValueError(
                "flip_probability must be in [0, 1] and color_strength in [0, 1); got "
                f"{self.flip_probability} and {self.color_strength}"
            )

    def __call__(
        self, image: tv_tensors.Image, id_map: tv_tensors.Mask, generator: torch.Generator
    ) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        # All numbers are drawn at once: switching one change off leaves the others as they were.
        draws = torch.rand(7, generator=generator, dtype=torch.float64).tolist()
        scale_draw, flip_draw, top_draw, left_draw, *color_draws = draws
        low, high = (self.shortest_side_pixels * factor for factor in self.scale_range)
        shortest = max(1, int(low + (high - low) * scale_draw))
        size = resized_size(
            (id_map.shape[-2], id_map.shape[-1]), shortest, self.longest_side_pixels
        )
        image, id_map = resize_pair(image, id_map, size)
        if self.crop_size_pixels is not None:
            box = crop_box(size, self.crop_size_pixels, top_draw, left_draw)
            image, id_map = transforms.crop(image, *box), transforms.crop(id_map, *box)
        if flip_draw < self.flip_probability:
            image = transforms.horizontal_flip(image)
            id_map = transforms.horizontal_flip(id_map)
        if self.color_strength > 0:
            image = change_colors(image, [self._factor(draw) for draw in color_draws])
        return image, id_map

    def _factor(self, draw: float) -> float:
        return 1 + self.color_strength * (2 * draw - 1)


@dataclass(frozen=True)
class EvalTransform:
    """Resizes to the network's size; nothing is random.

    Attributes:
        shortest_side_pixels, longest_side_pixels: as in training.
        resize_target: False leaves the id map at the size of the file, where quality is measured.
    """

    shortest_side_pixels: int
    longest_side_pixels: int | None = None
    resize_target: bool = False

    def __call__(
        self, image: tv_tensors.Image, id_map: tv_tensors.Mask, generator: torch.Generator
    ) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        original_size = (image.shape[-2], image.shape[-1])
        size = resized_size(original_size, self.shortest_side_pixels, self.longest_side_pixels)
        if self.resize_target:
            return resize_pair(image, id_map, size)
        return tv_tensors.Image(resize_image(image, size)), id_map


def resize_pair(
    image: tv_tensors.Image, id_map: tv_tensors.Mask, size: tuple[int, int]
) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """Resizes the pixels by antialiased bilinear interpolation, the ids by the nearest one."""
    return tv_tensors.Image(resize_image(image, size)), tv_tensors.Mask(resize_ids(id_map, size))


def resize_ids(id_map: Tensor, size: tuple[int, int]) -> Tensor:
    """Takes for each new pixel the id under its centre, as Pillow does but for rounding errors.

    torchvision resizes masks by another rule (the id under the corner of the new pixel), which
    shifts them by up to half a pixel against the image.

    Args:
        id_map: [H, W] of any dtype; the ids are copied, never computed with.
        size: (height, width) of the result.
    """
    rows, columns = (
        _nearest_indices(old, new) for old, new in zip((id_map.shape[-2], id_map.shape[-1]), size)
    )
    return id_map.as_subclass(Tensor)[rows[:, None], columns]


def _nearest_indices(old_length: int, new_length: int) -> Tensor:
    # (i + 0.5) * old / new, rounded down, in integers.
    return (2 * torch.arange(new_length) + 1) * old_length // (2 * new_length)


def crop_box(
    size: tuple[int, int], crop_size: tuple[int, int], top_draw: float, left_draw: float
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a crop; its place is given by two numbers in [0, 1)."""
    height, width = min(size[0], crop_size[0]), min(size[1], crop_size[1])
    top = int(top_draw * (size[0] - height + 1))
    left = int(left_draw * (size[1] - width + 1))
    return top, left, height, width


def change_colors(image: tv_tensors.Image, factors: list[float]) -> tv_tensors.Image:
    """Multiplies brightness, contrast and saturation, in this order, by the three factors."""
    brightness, contrast, saturation = factors
    image = transforms.adjust_brightness(image, brightness)
    image = transforms.adjust_contrast(image, contrast)
    return transforms.adjust_saturation(image, saturation)
