"""Geometric and colour changes of an image together with its id map.

The random numbers come from one generator per image, and nothing reads the global random state: a
sample is the same however many workers load it, and after a restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as transforms

from seamless_pr.datasets.colors import NUM_SSD_DRAWS, change_colors, change_colors_as_ssd
from seamless_pr.ops.resize import resize_image, resized_size

# Pixels behind the border of an image, as MaskFormer fills them before normalisation.
PADDING_GREY = 128
VOID_ID = 0

# Crops are drawn so often before one is taken that shows too little.
_CROP_TRIES = 10


class Transform(Protocol):
    """Changes an image ([3, H, W] uint8) and its id map ([H, W] int32); sizes may change.

    Ids count the segments from 1; 0 is void. `train_ids` [S] are their classes.
    """

    def __call__(
        self,
        image: tv_tensors.Image,
        id_map: tv_tensors.Mask,
        train_ids: Tensor,
        generator: torch.Generator,
    ) -> tuple[tv_tensors.Image, tv_tensors.Mask]: ...


@dataclass(frozen=True)
class TrainTransform:
    """Random scale, mirror image, colours and crop.

    Attributes:
        shortest_side_pixels: the shorter side becomes this, times a random factor.
        longest_side_pixels: cap on the longer side; None: no cap.
        scale_range: the factor is uniform in this range; (1, 1): always the same size.
        scale_step_pixels: the shorter side is one of the ends of its range and the numbers between
            them in steps of this; 0: any whole number.
        flip_probability: of a mirror image (left and right exchanged).
        crop_size_pixels: (height, width) of a random crop after scaling; a side that is shorter
            stays as it is; None: no crop.
        crop_max_class_fraction: crops are drawn up to ten times until they show two classes and
            none fills this share of the pixels that are not void; 1: the first crop is taken.
        color_strength: brightness, contrast and saturation are each multiplied by a factor that is
            uniform in 1 - strength .. 1 + strength; 0: colours stay.
        ssd_colors: colours change as `change_colors_as_ssd` says.
        sides_pixels: the shorter side is one of these, each as likely; (): see `scale_range`.
        rounded_sides: the other side is rounded, see `resized_size`.
        pads_crops: what is smaller than the crop is padded to its size at the bottom and the right,
            with grey and void.
    """

    shortest_side_pixels: int
    longest_side_pixels: int | None = None
    scale_range: tuple[float, float] = (1.0, 1.0)
    flip_probability: float = 0.5
    crop_size_pixels: tuple[int, int] | None = None
    color_strength: float = 0.0
    scale_step_pixels: int = 0
    crop_max_class_fraction: float = 1.0
    ssd_colors: bool = False
    sides_pixels: tuple[int, ...] = ()
    rounded_sides: bool = False
    pads_crops: bool = False

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
        self,
        image: tv_tensors.Image,
        id_map: tv_tensors.Mask,
        train_ids: Tensor,
        generator: torch.Generator,
    ) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        # All numbers are drawn at once: switching one change off leaves the others as they were.
        draws = torch.rand(7, generator=generator, dtype=torch.float64).tolist()
        scale_draw, flip_draw, top_draw, left_draw, *color_draws = draws
        more_crops = torch.rand(_CROP_TRIES - 1, 2, generator=generator).tolist()
        ssd_draws = torch.rand(NUM_SSD_DRAWS, generator=generator).tolist()
        size = resized_size(
            (id_map.shape[-2], id_map.shape[-1]),
            self._shortest_side(scale_draw),
            self.longest_side_pixels,
            rounded=self.rounded_sides,
        )
        image, id_map = resize_pair(image, id_map, size)
        if self.crop_size_pixels is not None:
            box = self._crop_box(id_map, train_ids, [[top_draw, left_draw], *more_crops])
            image, id_map = transforms.crop(image, *box), transforms.crop(id_map, *box)
        if flip_draw < self.flip_probability:
            image = transforms.horizontal_flip(image)
            id_map = transforms.horizontal_flip(id_map)
        if self.color_strength > 0:
            image = change_colors(image, [self._factor(draw) for draw in color_draws])
        if self.ssd_colors:
            image = change_colors_as_ssd(image, ssd_draws)
        if self.crop_size_pixels is not None and self.pads_crops:
            image, id_map = padded_pair(image, id_map, self.crop_size_pixels)
        return image, id_map

    def _shortest_side(self, draw: float) -> int:
        if self.sides_pixels:
            return self.sides_pixels[int(draw * len(self.sides_pixels))]
        low, high = (self.shortest_side_pixels * factor for factor in self.scale_range)
        if self.scale_step_pixels:
            num_sides = (round(high) - round(low)) // self.scale_step_pixels + 1
            return max(1, round(low) + self.scale_step_pixels * int(draw * num_sides))
        return max(1, int(low + (high - low) * draw))

    def _crop_box(
        self, id_map: tv_tensors.Mask, train_ids: Tensor, draws: Sequence[Sequence[float]]
    ) -> tuple[int, int, int, int]:
        """The first crop that shows enough, or the last one."""
        assert self.crop_size_pixels is not None
        size = (id_map.shape[-2], id_map.shape[-1])
        for top_draw, left_draw in draws:
            box = crop_box(size, self.crop_size_pixels, top_draw, left_draw)
            if self.crop_max_class_fraction == 1:
                break
            if is_diverse(transforms.crop(id_map, *box), train_ids, self.crop_max_class_fraction):
                break
        return box

    def _factor(self, draw: float) -> float:
        return 1 + self.color_strength * (2 * draw - 1)


@dataclass(frozen=True)
class EvalTransform:
    """Resizes to the network's size; nothing is random.

    Attributes:
        shortest_side_pixels, longest_side_pixels: as in training.
        resize_target: False leaves the id map at the size of the file, where quality is measured.
        rounded_sides: the other side is rounded, see `resized_size`.
    """

    shortest_side_pixels: int
    longest_side_pixels: int | None = None
    resize_target: bool = False
    rounded_sides: bool = False

    def __call__(
        self,
        image: tv_tensors.Image,
        id_map: tv_tensors.Mask,
        train_ids: Tensor,
        generator: torch.Generator,
    ) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        original_size = (image.shape[-2], image.shape[-1])
        size = resized_size(
            original_size,
            self.shortest_side_pixels,
            self.longest_side_pixels,
            rounded=self.rounded_sides,
        )
        if self.resize_target:
            return resize_pair(image, id_map, size)
        return tv_tensors.Image(resize_image(image, size)), id_map


def padded_pair(
    image: tv_tensors.Image, id_map: tv_tensors.Mask, size: tuple[int, int]
) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """Grey and void at the bottom and the right, until both have at least this size."""
    bottom, right = (max(0, new - old) for new, old in zip(size, id_map.shape[-2:]))
    if bottom == right == 0:
        return image, id_map
    padding = [0, 0, right, bottom]
    return (
        transforms.pad(image, padding, fill=PADDING_GREY),
        transforms.pad(id_map, padding, fill=VOID_ID),
    )


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
    plain = id_map.as_subclass(Tensor)
    # Rows are copied whole, which is fast: last where the map grows, first where it shrinks.
    if size[0] > id_map.shape[-2]:
        return plain.index_select(1, columns).index_select(0, rows)
    return plain.index_select(0, rows).index_select(1, columns)


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


def is_diverse(id_map: Tensor, train_ids: Tensor, max_fraction: float) -> bool:
    """Whether there are two classes, and none has `max_fraction` of the pixels that are not void.

    Args:
        id_map: [H, W]; 0 is void, s + 1 the segment at index s.
        train_ids: [S] class of each segment.
        max_fraction: in (0, 1).
    """
    segment_areas = torch.bincount(id_map.flatten(), minlength=len(train_ids) + 1)[1:]
    areas = torch.bincount(train_ids, weights=segment_areas.double())
    return bool((areas > 0).sum() >= 2 and areas.max() < max_fraction * areas.sum())
