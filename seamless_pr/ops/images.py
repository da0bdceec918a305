"""Images in memory, brought to the one form that the package works with."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

ImageLike = Tensor | NDArray[np.uint8] | Image.Image


def image_tensor(image: ImageLike) -> Tensor:
    """Brings an image in memory to uint8 [3, H, W] RGB.

    Args:
        image: uint8 tensor [3, H, W] RGB; or uint8 array [H, W, 3] RGB or [H, W] grey; or a Pillow
            image of any mode (its EXIF rotation is not applied: that is the file reader's work).

    Raises:
        TypeError: another type or dtype.
        ValueError: another shape.
    """
    if isinstance(image, Image.Image):
        image = np.array(image.convert("RGB"))
    if isinstance(image, np.ndarray):
        return _tensor_of_array(image)
    if not isinstance(image, Tensor):
        raise TypeError(
            "an image is a uint8 tensor [3, H, W], a uint8 array [H, W, 3] or a Pillow image; "
            f"got {type(image).__name__}; read a file with seamless_pr.datasets.images.read_image"
        )
    if image.dtype != torch.uint8:
        raise TypeError(f"an image tensor must be uint8; got {image.dtype}; do not normalise it")
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"an image tensor must be [3, H, W]; got {tuple(image.shape)}")
    if image.numel() == 0:
        raise ValueError(f"an image must have at least one pixel; got {tuple(image.shape)}")
    return image


def _tensor_of_array(image: NDArray[np.uint8]) -> Tensor:
    if image.dtype != np.uint8:
        raise TypeError(f"an image array must be uint8; got {image.dtype}; scale it to 0..255")
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image array must be [H, W, 3] or [H, W]; got {image.shape}")
    if image.size == 0:
        raise ValueError(f"an image must have at least one pixel; got {image.shape}")
    # A copy: the array may be read-only or have negative strides, which tensors cannot have.
    return torch.from_numpy(image.copy()).permute(2, 0, 1)
