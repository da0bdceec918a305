"""The same images seen several times: at other scales, mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seamless_pr.structures.features import Features
from seamless_pr.structures.image_batch import ImageBatch


@dataclass(frozen=True)
class View:
    """How images are changed before the network sees them.

    Attributes:
        scale: factor on both sides.
        flip: mirrored, left to right.
        shortest_side_pixels: length of the shorter side, in place of the factor.
        longest_side_pixels: cap on the longer side then; None: no cap.
        rounded_sides: the other side is rounded then, not cut off.
    """

    scale: float = 1.0
    flip: bool = False
    shortest_side_pixels: int | None = None
    longest_side_pixels: int | None = None
    rounded_sides: bool = False

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"the scale of a view must be positive; got {self.scale}")


def views_of(scales: Sequence[float], *, flip: bool = False) -> tuple[View, ...]:
    """Every scale, and with `flip` every scale mirrored too; each plain one before its mirror.

    None at all if the image as it is would be the only one.
    """
    flips = (False, True) if flip else (False,)
    views = tuple(View(scale, is_mirrored) for scale in scales for is_mirrored in flips)
    return () if views == (View(),) else views


def described_views(views: Sequence[View]) -> list[list[float | bool]]:
    """Views by factors as plain values, for the record of a prediction."""
    return [[view.scale, view.flip] for view in views]


@dataclass(frozen=True)
class ChangedBatch:
    """One view of a batch.

    Attributes:
        batch: the changed images.
        flip: whether they are mirrored.
    """

    batch: ImageBatch
    flip: bool

    def from_base(
        self, boxes: Tensor, image: int, base: ImageBatch, *, whole_pixels: bool = False
    ) -> Tensor:
        """Boxes [..., 4] of an image of the base batch -> the same boxes in this view.

        Args:
            boxes: xyxy in pixels of the base batch.
            image: index of their image.
            base: the batch as it was.
            whole_pixels: corners are pixels, not edges, while they are scaled (mmdetection 1.x).
        """
        factors, pixel = self._factors(boxes, image, base), _last_pixel(boxes, whole_pixels)
        scaled = (boxes - pixel) * factors + pixel
        return self._mirrored(scaled, image)

    def to_base(
        self, boxes: Tensor, image: int, base: ImageBatch, *, whole_pixels: bool = False
    ) -> Tensor:
        """The inverse of `from_base`."""
        factors, pixel = self._factors(boxes, image, base), _last_pixel(boxes, whole_pixels)
        return (self._mirrored(boxes, image) - pixel) / factors + pixel

    def _factors(self, boxes: Tensor, image: int, base: ImageBatch) -> Tensor:
        height, width = self.batch.image_sizes[image]
        base_height, base_width = base.image_sizes[image]
        return boxes.new_tensor([width / base_width, height / base_height] * 2)

    def _mirrored(self, boxes: Tensor, image: int) -> Tensor:
        if not self.flip:
            return boxes
        width = self.batch.image_sizes[image][1]
        x0, y0, x1, y1 = boxes.unbind(-1)
        return torch.stack([width - x1, y0, width - x0, y1], dim=-1)


@dataclass(frozen=True)
class SeenView(ChangedBatch):
    """One view of a batch, padded as the network wants it, after the trunk.

    Attributes:
        features: of the changed images.
    """

    features: Features


def _last_pixel(boxes: Tensor, whole_pixels: bool) -> Tensor:
    return boxes.new_tensor([0.0, 0.0, 1.0, 1.0]) * whole_pixels
