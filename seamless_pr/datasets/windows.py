"""Images that are read row by row, whatever their size."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from seamless_pr.datasets.images import read_image
from seamless_pr.datasets.remote_files import is_uri

_TIFF_ENDINGS = (".tif", ".tiff")
_NUM_COLORS = 3
# 65535 -> 255.
_SIXTEEN_BIT_STEP = 257
# Pictures of other formats are decoded whole; nobody can say how much memory there is.
_NO_LIMIT = 2**62


class RowReader(Protocol):
    """An open image.

    Attributes:
        size: (height, width).
    """

    size: tuple[int, int]

    def rows(self, top: int, bottom: int) -> Tensor:
        """[3, bottom - top, width] uint8 RGB."""
        ...


class WholeImage:
    """An image in memory."""

    def __init__(self, image: Tensor) -> None:
        self.size = (image.shape[-2], image.shape[-1])
        self._image = image

    def rows(self, top: int, bottom: int) -> Tensor:
        return self._image[:, top:bottom]


class RasterFile:
    """A TIFF, of which only the rows in question are decoded (rasterio).

    Raises:
        ValueError: neither 8 nor 16 bits, or a palette.
    """

    def __init__(self, raster: Any) -> None:
        self.size = (int(raster.height), int(raster.width))
        self._raster = raster
        kinds = set(raster.dtypes[:_NUM_COLORS])
        has_palette = "palette" in {str(color.name) for color in raster.colorinterp}
        if not kinds <= {"uint8", "uint16"} or len(kinds) > 1 or has_palette:
            raise ValueError(
                f"{raster.name} has {'a palette' if has_palette else ', '.join(sorted(kinds))}; "
                "tiles need grey or RGB of 8 or 16 bits: convert it, for instance with "
                "gdal_translate -ot Byte"
            )

    def rows(self, top: int, bottom: int) -> Tensor:
        count = min(self._raster.count, _NUM_COLORS)
        bands = [1] * _NUM_COLORS if count < _NUM_COLORS else [1, 2, 3]
        pixels = self._raster.read(bands, window=((top, bottom), (0, self.size[1])))
        if pixels.dtype == np.uint16:
            pixels = np.round(pixels / _SIXTEEN_BIT_STEP)
        return torch.from_numpy(pixels.astype(np.uint8, copy=False))


@contextmanager
def open_rows(path: str | os.PathLike[str]) -> Iterator[RowReader]:
    """Opens an image of any size: a TIFF in windows where rasterio is installed, others whole.

    Raises:
        ValueError: not a readable image; names it, and what to install where that would help.
    """
    name = os.fspath(path)
    if is_uri(name) or not name.lower().endswith(_TIFF_ENDINGS) or not os.path.isfile(name):
        yield WholeImage(read_image(path, max_pixels=_NO_LIMIT))
        return
    try:
        import rasterio
    except ModuleNotFoundError:
        yield _whole_tiff(path)
        return
    with warnings.catch_warnings():
        # Where on Earth it lies is nobody's business here.
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            raster = rasterio.open(name)
        except rasterio.errors.RasterioIOError as error:
            raise ValueError(f"{path} cannot be read: {error}; copy or create it again") from error
        with raster:
            yield RasterFile(raster)


def _whole_tiff(path: str | os.PathLike[str]) -> WholeImage:
    try:
        return WholeImage(read_image(path, max_pixels=_NO_LIMIT))
    except ValueError as error:
        raise ValueError(
            f'{error}; large TIFFs are read in windows with pip install "seamless_pr[mosaics]"'
        ) from error
