"""Masks of boxes and of images: scaling, cropping, pasting, extents.

Letters: R boxes, M mask side, H, W image size. Boxes are xyxy in pixels of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.ops.mask_paste import PIXELS_AT_ONCE, paste_masks, paste_pixel_masks
from seamless_pr.ops.opencv_resize import resize_probs
from seamless_pr.ops.vectors import vector
from seamless_pr.structures.instances import MaskCrop, Masks


@dataclass(frozen=True)
class BoxMasks:
    """Masks over boxes, as Mask R-CNN and PointRend make them; see `Masks`.

    Attributes:
        logits: [R, M, M] float32 before sigmoid, each stretched over its box.
        boxes: [R, 4] xyxy in pixels of the image.
    """

    logits: Tensor
    boxes: Tensor

    def __post_init__(self) -> None:
        if self.boxes.shape != (len(self.logits), 4):
            raise ValueError(
                f"{len(self.logits)} masks need boxes [R, 4]; got {tuple(self.boxes.shape)}"
            )

    def __len__(self) -> int:
        return len(self.logits)

    def select(self, index: Tensor) -> BoxMasks:
        return replace(self, logits=self.logits[index], boxes=self.boxes[index])

    def scaled(self, scale_x: float, scale_y: float) -> BoxMasks:
        factors = vector([scale_x, scale_y, scale_x, scale_y], self.boxes)
        return replace(self, boxes=self.boxes * factors)

    def to(self, device: torch.device | str) -> BoxMasks:
        return replace(self, logits=self.logits.to(device), boxes=self.boxes.to(device))

    def crop(
        self,
        index: int,
        image_size: tuple[int, int],
        threshold: float,
        *,
        includes_threshold: bool = False,
    ) -> MaskCrop:
        x0, y0, x1, y1 = self.boxes[index].tolist()
        return paste_mask(
            self.logits[index].float().sigmoid(),
            (x0, y0, x1, y1),
            image_size,
            threshold,
            includes_threshold=includes_threshold,
        )

    def paste(
        self, image_size: tuple[int, int], threshold: float, *, includes_threshold: bool = False
    ) -> Tensor:
        probs = self.logits.float().sigmoid()
        return paste_masks(
            probs, self.boxes, image_size, threshold, includes_threshold=includes_threshold
        )


@dataclass(frozen=True)
class PixelBoxMasks(BoxMasks):
    """`BoxMasks` that are pasted as in mmdetection 1.x: into rows and columns of whole pixels.

    `boxes` end at the index of their last pixel. They are cut off to integers, and the mask is
    resized to that many pixels.
    """

    def crop(
        self,
        index: int,
        image_size: tuple[int, int],
        threshold: float,
        *,
        includes_threshold: bool = False,
    ) -> MaskCrop:
        left, top, right, bottom = self.boxes[index].int().tolist()
        size = (max(bottom - top + 1, 1), max(right - left + 1, 1))
        values = resize_probs(self.logits[index].float().sigmoid(), size)
        # Scaling may have moved the box over the border by a pixel.
        values = values[max(-top, 0) : image_size[0] - top, max(-left, 0) : image_size[1] - left]
        mask = values >= threshold if includes_threshold else values > threshold
        return MaskCrop(mask, max(top, 0), max(left, 0))

    def paste(
        self, image_size: tuple[int, int], threshold: float, *, includes_threshold: bool = False
    ) -> Tensor:
        probs = self.logits.float().sigmoid()
        return paste_pixel_masks(
            probs, self.boxes, image_size, threshold, includes_threshold=includes_threshold
        )


@dataclass(frozen=True)
class ImageMasks:
    """Masks over whole images, as networks without boxes make them; see `Masks`.

    Attributes:
        probs: [R, h, w] float in [0, 1], over the padded image.
        padded_size, image_size: (height, width) of the network input and its valid part. A crop
            is resized bilinearly to the padded size, cut to the valid part, and resized to the
            image: nothing of the padding is mixed in.
    """

    probs: Tensor
    padded_size: tuple[int, int]
    image_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.probs)

    def select(self, index: Tensor) -> ImageMasks:
        return replace(self, probs=self.probs[index])

    def scaled(self, scale_x: float, scale_y: float) -> ImageMasks:
        return self  # They cover the image, whatever its size.

    def to(self, device: torch.device | str) -> ImageMasks:
        return replace(self, probs=self.probs.to(device))

    def crop(
        self,
        index: int,
        image_size: tuple[int, int],
        threshold: float,
        *,
        includes_threshold: bool = False,
    ) -> MaskCrop:
        mask = self._resized(self.probs[index][None], image_size, threshold, includes_threshold)[0]
        return MaskCrop(mask, 0, 0)

    def paste(
        self, image_size: tuple[int, int], threshold: float, *, includes_threshold: bool = False
    ) -> Tensor:
        num_at_once = max(1, PIXELS_AT_ONCE // (image_size[0] * image_size[1]))
        parts = [
            self._resized(probs, image_size, threshold, includes_threshold)
            for probs in self.probs.split(num_at_once)
        ]
        return torch.cat(parts)

    def _resized(
        self,
        probs: Tensor,
        image_size: tuple[int, int],
        threshold: float,
        includes_threshold: bool,
    ) -> Tensor:
        """[R, h, w] -> [R, H, W] bool."""
        values = probs.float()[:, None]
        if tuple(values.shape[-2:]) != self.padded_size:
            values = F.interpolate(values, self.padded_size, mode="bilinear", align_corners=False)
        values = values[..., : self.image_size[0], : self.image_size[1]]
        if tuple(values.shape[-2:]) != tuple(image_size):
            values = F.interpolate(values, tuple(image_size), mode="bilinear", align_corners=False)
        return (values >= threshold if includes_threshold else values > threshold)[:, 0]


@dataclass(frozen=True)
class PooledMasks:
    """Masks of several networks together; see `Masks`.

    Attributes:
        parts: of each network.
        places: [R, 2] int64: the part, and the row in it, of every mask.
    """

    parts: tuple[Masks, ...]
    places: Tensor

    def __len__(self) -> int:
        return len(self.places)

    def select(self, index: Tensor) -> PooledMasks:
        return replace(self, places=self.places[index])

    def scaled(self, scale_x: float, scale_y: float) -> PooledMasks:
        return replace(self, parts=tuple(part.scaled(scale_x, scale_y) for part in self.parts))

    def to(self, device: torch.device | str) -> PooledMasks:
        return PooledMasks(tuple(part.to(device) for part in self.parts), self.places.to(device))

    def crop(
        self,
        index: int,
        image_size: tuple[int, int],
        threshold: float,
        *,
        includes_threshold: bool = False,
    ) -> MaskCrop:
        part, row = self.places[index].tolist()
        return self.parts[part].crop(
            row, image_size, threshold, includes_threshold=includes_threshold
        )

    def paste(
        self, image_size: tuple[int, int], threshold: float, *, includes_threshold: bool = False
    ) -> Tensor:
        pasted = torch.cat(
            [
                part.paste(image_size, threshold, includes_threshold=includes_threshold)
                for part in self.parts
            ]
        )
        starts = vector([0, *accumulate(len(part) for part in self.parts[:-1])], self.places)
        return pasted[starts[self.places[:, 0]] + self.places[:, 1]]


def pooled_masks(parts: Sequence[Masks], device: torch.device) -> PooledMasks:
    """All masks of the parts, one part after the other; `device` is theirs."""
    places = [
        torch.stack(
            [
                torch.full((len(part),), index, device=device),
                torch.arange(len(part), device=device),
            ],
            dim=1,
        )
        for index, part in enumerate(parts)
    ]
    return PooledMasks(tuple(parts), torch.cat(places))


def paste_mask(
    mask_probs: Tensor,
    box: tuple[float, float, float, float],
    image_size: tuple[int, int],
    threshold: float,
    *,
    includes_threshold: bool = False,
) -> MaskCrop:
    """Resizes a mask to its box and keeps the part inside the image, as the released code does.

    The probability at a pixel centre is the bilinear read of the mask at
    `M * (x + 0.5 - x0) / (x1 - x0) - 0.5`, zero outside the mask; a pixel is set when it exceeds
    the threshold. Boxes are neither rounded nor grown.

    Args:
        mask_probs: [M, M] float in [0, 1].
        box: x0, y0, x1, y1 in pixels of the image.
        image_size: (height, width).
        threshold: in (0, 1); at 0.5 and above no pixel whose centre is outside the box can be set.
        includes_threshold: a pixel that just reaches the threshold is set, too.
    """
    x0, y0, x1, y1 = box
    top, bottom = _pixel_range(y0, y1, image_size[0])
    left, right = _pixel_range(x0, x1, image_size[1])
    if bottom <= top or right <= left:
        return MaskCrop(mask_probs.new_zeros(0, 0, dtype=torch.bool), 0, 0)
    # A cell of nothing on each side.
    padded = F.pad(mask_probs, (1, 1, 1, 1))
    side = len(mask_probs)
    cell, fraction = _cells_at(side, y0, y1, top, bottom, padded)
    rows = _mixed(padded, 0, cell, fraction[:, None])
    cell, fraction = _cells_at(side, x0, x1, left, right, padded)
    values = _mixed(rows, 1, cell, fraction)
    mask = values >= threshold if includes_threshold else values > threshold
    return MaskCrop(mask, top, left)


def _pixel_range(start: float, end: float, limit: int) -> tuple[int, int]:
    """First pixel and end pixel whose centres lie in [start, end], inside the image."""
    if not end > start:
        return 0, 0
    first = max(int(-(-(start - 0.5) // 1)), 0)
    last = min(int((end - 0.5) // 1), limit - 1)
    return first, last + 1


def _cells_at(
    side: int, start: float, end: float, first: int, stop: int, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Padded cell below each pixel centre of a box side, and the fraction of the way to the next.

    Args:
        side: cells without padding.
        start, end: of the box.
        first, stop: pixels whose centres lie inside.
        like: on its device.

    Returns:
        [stop - first] int64 and float32.
    """
    position = torch.arange(first + 0.5, stop + 0.5, dtype=torch.float32, device=like.device)
    position.sub_(start).mul_(side).div_(end - start).sub_(0.5)
    lower = position.floor()
    return lower.long().add_(1), position.sub_(lower)


def _mixed(values: Tensor, dim: int, cell: Tensor, fraction: Tensor) -> Tensor:
    """Linear reads along a dimension between each cell and the next one."""
    following = values.narrow(dim, 1, values.shape[dim] - 1)
    return torch.lerp(values.index_select(dim, cell), following.index_select(dim, cell), fraction)


def mask_boxes(masks: Tensor) -> Tensor:
    """The extents of masks.

    Args:
        masks: [R, H, W] bool.

    Returns:
        [R, 4] float32 xyxy: first column and row, last ones + 1; zeros for an empty mask.
    """
    rows, columns = masks.any(2), masks.any(1)
    starts_and_ends = []
    for present in (columns, rows):
        start = present.int().argmax(1)
        end = present.shape[1] - present.flip(1).int().argmax(1)
        starts_and_ends.append((start, end))
    (x0, x1), (y0, y1) = starts_and_ends
    boxes = torch.stack([x0, y0, x1, y1], dim=1).float()
    return boxes * rows.any(1)[:, None]
