"""Images in memory, brought to the one form that the package works with."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

_SIXTEEN_TO_EIGHT_BIT = 257  # 65535 / 255
_STRIP_ROWS = 64
# Rows that Pillow converts at a time.
BAND_ROWS = 256

ImageLike = Tensor | NDArray[np.uint8] | Image.Image


def image_tensor(image: ImageLike) -> Tensor:
    """Brings an image in memory to uint8 [3, H, W] RGB.

    Args:
        image: uint8 tensor [3, H, W] RGB; or uint8 array [H, W, 3] RGB or [H, W] grey; or a Pillow
            image, see `pillow_pixels`.

    Raises:
        TypeError: another type or dtype.
        ValueError: another shape, or a Pillow image that Pillow has changed already.
    """
    if isinstance(image, Image.Image):
        image = pillow_pixels(image)
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


def pillow_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """A Pillow image as it is meant to be looked at, as a file of the same content is read.

    Grey becomes three equal channels, alpha is dropped, 16 bit is scaled to 8 (65535 -> 255), and
    the EXIF orientation is applied.

    Returns:
        [H, W, 3] uint8 RGB; the caller's own.

    Raises:
        ValueError: 32 bits a pixel, or a 16-bit colour file, of which Pillow keeps 8 bits.
    """
    if _is_cut(image):
        raise ValueError(
            "Pillow keeps 8 of the 16 bits of this colour picture; give its path, which is read "
            "without that, or pixels of 8 bits"
        )
    _load(image)
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("I", "F"):  # Converting them to RGB would clip, not scale.
        raise ValueError(
            f"the picture has 32 bits a pixel (mode {upright.mode}); expected 8 or 16 bit integers"
        )
    if upright.mode.startswith("I;16"):
        return np.repeat(sixteen_to_eight_bit(np.asarray(upright))[..., None], 3, axis=2)
    if upright.mode in ("RGBa", "La"):  # Multiplied by alpha; only RGBA undoes it.
        upright = upright.convert("RGBA" if upright.mode == "RGBa" else "LA")
    width, height = upright.size
    pixels = np.empty((height, width, 3), np.uint8)
    # Band by band: Pillow would hold the whole picture once more, with four bytes a pixel.
    for top in range(0, height, BAND_ROWS):
        band = upright.crop((0, top, width, min(top + BAND_ROWS, height)))
        pixels[top : top + BAND_ROWS] = np.asarray(band.convert("RGB"))
    return pixels


def _load(image: Image.Image) -> None:
    """Reads the pixels of a file that was opened and not yet read.

    Not through Pillow's mapping of files into memory, which garbles uncompressed TIFFs that lie on
    their side (13.0).
    """
    name = getattr(image, "filename", None)
    if not name:
        image.load()
        return
    image.filename = ""  # type: ignore[attr-defined]
    try:
        image.load()
    finally:
        image.filename = name  # type: ignore[attr-defined]


def _is_cut(image: Image.Image) -> bool:
    """Whether an opened file whose pixels are still to be loaded has more bits than its mode."""
    modes = [str(tile[3]) for tile in getattr(image, "tile", ()) if len(tile) > 3]
    return not image.mode.startswith("I") and any(";16" in mode for mode in modes)


def sixteen_to_eight_bit(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """uint16 -> the nearest uint8, where 65535 is 255; the same shape."""
    narrow = np.empty(pixels.shape, np.uint8)
    # In strips: the sums need 32 bits.
    for top in range(0, len(pixels), _STRIP_ROWS):
        wide = pixels[top : top + _STRIP_ROWS].astype(np.uint32)
        wide += _SIXTEEN_TO_EIGHT_BIT // 2
        narrow[top : top + _STRIP_ROWS] = wide // _SIXTEEN_TO_EIGHT_BIT
    return narrow
