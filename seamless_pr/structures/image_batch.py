"""A padded batch of images with their true sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageBatch:
    """Raw pixels; the network normalises them itself, so nobody can do it twice.

    Attributes:
        images: [N, 3, H, W] uint8 RGB; padded with zeros at the bottom and the right.
        image_sizes: (height, width) of the valid pixels of each image.
    """

    images: Tensor
    image_sizes: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[1] != 3:
            raise ValueError(f"images must be [N, 3, H, W]; got {tuple(self.images.shape)}")
        if self.images.dtype != torch.uint8:
            raise TypeError(
                f"images must be uint8 RGB; got {self.images.dtype}; do not normalise them"
            )
        if len(self.image_sizes) != len(self.images):
            raise ValueError(f"{len(self.images)} images but {len(self.image_sizes)} image_sizes")
        height, width = self.padded_size
        for size in self.image_sizes:
            if not (0 < size[0] <= height and 0 < size[1] <= width):
                raise ValueError(
                    f"image size {size} does not fit the padded size {(height, width)}"
                )

    @property
    def padded_size(self) -> tuple[int, int]:
        return self.images.shape[-2], self.images.shape[-1]

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> ImageBatch:
        return ImageBatch(self.images.to(device, non_blocking=True), self.image_sizes)

    def pin_memory(self) -> ImageBatch:
        """The batch in page-locked memory, from where it is copied to a GPU in the background."""
        return ImageBatch(self.images.pin_memory(), self.image_sizes)

    def padded_to(self, divisor: int) -> ImageBatch:
        """The batch with height and width padded to multiples of `divisor`; itself if they are."""
        height, width = self.padded_size
        bottom, right = -height % divisor, -width % divisor
        if bottom == right == 0:
            return self
        return ImageBatch(
            torch.nn.functional.pad(self.images, (0, right, 0, bottom)), self.image_sizes
        )

    @classmethod
    def from_images(cls, images: Sequence[Tensor]) -> ImageBatch:
        """Pads images ([3, H, W] uint8 each) to the largest height and width among them."""
        sizes = tuple((image.shape[-2], image.shape[-1]) for image in images)
        height, width = max(size[0] for size in sizes), max(size[1] for size in sizes)
        batch = images[0].new_zeros(len(images), 3, height, width)
        for padded, image, size in zip(batch, images, sizes):
            padded[:, : size[0], : size[1]] = image
        return cls(batch, sizes)
