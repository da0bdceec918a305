"""The one way images are resized, in training, evaluation and prediction alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from seamless_pr.structures.limits import MAX_PIXELS, TooManyPixelsError


@dataclass(frozen=True)
class NetworkSides:
    """The size at which a network sees images, see `resized_size`.

    Attributes:
        shortest: length of the shorter side.
        longest: cap on the longer side; None: no cap.
        rounded: the other side is rounded, not cut off.
    """

    shortest: int
    longest: int | None = None
    rounded: bool = False

    def resized(self, image: Tensor) -> Tensor:
        """[..., H, W] uint8 -> [..., h, w] uint8."""
        return resize_to_sides(image, self.shortest, self.longest, rounded=self.rounded)


def resized_size(
    size: tuple[int, int],
    shortest_side_pixels: int,
    longest_side_pixels: int | None = None,
    *,
    rounded: bool = False,
) -> tuple[int, int]:
    """Size of an image whose shorter side becomes `shortest_side_pixels`, both sides in proportion.

    Where the longer side would exceed `longest_side_pixels`, it becomes exactly that instead. The
    other side is rounded down as in the released Seamless code, but in integers, so that no
    rounding error of a floating-point scale takes a pixel from the side that was asked for.

    Args:
        size: (height, width) in pixels.
        shortest_side_pixels: target length of the shorter side.
        longest_side_pixels: cap on the longer side; None: no cap.
        rounded: the other side is rounded to the nearest pixel, as detectron2 does.

    Returns:
        (height, width); each at least 1.

    Raises:
        ValueError: a side that is not positive.
        TooManyPixelsError: (a ValueError) the image would grow beyond MAX_PIXELS.
    """
    shorter, longer = min(size), max(size)
    if shorter < 1:
        raise ValueError(f"an image must have at least one pixel; got height and width {size}")
    if shortest_side_pixels < 1 or (longest_side_pixels is not None and longest_side_pixels < 1):
        raise ValueError(
            "shortest_side_pixels and longest_side_pixels must be positive; "
            f"got {shortest_side_pixels} and {longest_side_pixels}"
        )
    numerator, denominator = shortest_side_pixels, shorter
    # Where sides are rounded, the cap holds for the side before that.
    longest = longer * numerator / denominator if rounded else longer * numerator // denominator
    if longest_side_pixels is not None and longest > longest_side_pixels:
        numerator, denominator = longest_side_pixels, longer
    # To the nearest: half a pixel more before rounding down, all in integers.
    half = denominator if rounded else 0
    height, width = (max(1, (2 * side * numerator + half) // (2 * denominator)) for side in size)
    if height * width > max(MAX_PIXELS, shorter * longer):
        raise TooManyPixelsError(
            f"an image of {size[0]} x {size[1]} pixels would grow to {height} x {width}, more than "
            f"{MAX_PIXELS} in all; lower shortest_side_pixels or longest_side_pixels of the data"
        )
    return height, width


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes uint8 pixels by bilinear interpolation with antialiasing, as Pillow does it.

    Args:
        image: [..., H, W] uint8.
        size: (height, width) of the result.

    Returns:
        [..., height, width] uint8; the same tensor when the size is unchanged. At most one grey
        level away from Pillow's `resize(..., BILINEAR)`.
    """
    if (image.shape[-2], image.shape[-1]) == tuple(size):
        return image
    return transforms.resize(
        image, list(size), interpolation=transforms.InterpolationMode.BILINEAR, antialias=True
    )


def resize_as_pillow(image: Tensor, size: tuple[int, int]) -> Tensor:
    """`resize_image` to the last grey level as Pillow does it, by Pillow itself, on the CPU.

    For comparisons with published numbers; slower, most of all where the image is on a GPU.

    Args:
        image: [3, H, W] uint8.
        size: (height, width) of the result.
    """
    if (image.shape[-2], image.shape[-1]) == tuple(size):
        return image
    picture = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    resized = np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return torch.from_numpy(resized.copy()).permute(2, 0, 1).to(image.device)


def resize_to_sides(
    image: Tensor,
    shortest_side_pixels: int,
    longest_side_pixels: int | None = None,
    *,
    rounded: bool = False,
) -> Tensor:
    """`resize_image` to the `resized_size` of an image: [..., H, W] uint8 -> [..., h, w] uint8."""
    size = (image.shape[-2], image.shape[-1])
    sides = resized_size(size, shortest_side_pixels, longest_side_pixels, rounded=rounded)
    return resize_image(image, sides)


def upsample_logits(logits: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Bilinear resize of [N, C, h, w] to `size` with pixel areas aligned (align_corners=False)."""
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


def resampled_valid(
    maps: Tensor,
    padded_size: tuple[int, int],
    image_size: tuple[int, int],
    size: tuple[int, int],
    *,
    flip: bool = False,
) -> Tensor:
    """Maps of a padded image, read bilinearly at the cells of a grid over its valid part.

    Args:
        maps: [R, h, w] over the padded image.
        padded_size, image_size: (height, width) of it and of its valid part.
        size: (rows, columns) of the grid.
        flip: the image is mirrored, and the grid is not.

    Returns:
        [R, *size]; the maps themselves where they are that grid.
    """
    places = []
    for cells, valid, padded in zip(size, image_size, padded_size):
        centres = (torch.arange(cells, device=maps.device, dtype=maps.dtype) + 0.5) / cells
        places.append(2 * centres * valid / padded - 1)
    rows, columns = places
    y, x = torch.meshgrid(rows, columns.flip(0) if flip else columns, indexing="ij")
    grid = torch.stack([x, y], dim=-1)[None]
    read = F.grid_sample(
        maps[None], grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return read[0]
