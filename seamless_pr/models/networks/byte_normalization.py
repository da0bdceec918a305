"""Normalisation of pixels by numbers on the scale of their bytes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from seamless_pr.models.networks.network import PixelNormalization
from seamless_pr.structures.image_batch import ImageBatch

_LARGEST_BYTE = 255


class BytePixelNormalization(PixelNormalization):
    """`PixelNormalization` with the roundings of detectron2: mean and std as parts of 0..255.

    forward: batch of N images -> [N, 3, H, W] in the type of the buffers, and 0 in the padding.

    Args:
        mean, std: of RGB in [0, 1].
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(
            [_LARGEST_BYTE * value for value in mean], [_LARGEST_BYTE * value for value in std]
        )

    def forward(self, batch: ImageBatch) -> Tensor:
        images: Tensor = (batch.images.to(self.mean.dtype) - self.mean) / self.std
        for image, (height, width) in zip(images, batch.image_sizes):
            image[:, height:] = 0
            image[:, :, width:] = 0
        return images
