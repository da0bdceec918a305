"""Writes an id PNG strip by strip, so that a map of any size needs the memory of one strip.

Source: Portable Network Graphics (W3C), sections 5, 9, 10.
"""

from __future__ import annotations

import struct
import zlib
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from seamless_pr.id_maps.id_png_files import ids_to_rgb

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BITS, _RGB = 8, 2
# Label maps are flat: more effort makes them hardly smaller.
_COMPRESSION = 3
_LARGEST_SIDE = 2**31 - 1


class IdPngWriter:
    """An id PNG that grows from the top.

    Args:
        file: to write into.
        image_size: (height, width), at least 1 each.

    Raises:
        ValueError: the size is none that the format knows.
    """

    def __init__(self, file: IO[bytes], image_size: tuple[int, int]) -> None:
        height, width = image_size
        if not (0 < height <= _LARGEST_SIDE and 0 < width <= _LARGEST_SIDE):
            raise ValueError(f"a PNG has sides of 1 to {_LARGEST_SIDE} pixels; got {image_size}")
        self._file = file
        self._width = width
        self._rows_left = height
        self._compressor = zlib.compressobj(_COMPRESSION)
        file.write(_SIGNATURE)
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, _BITS, _RGB, 0, 0, 0))

    def write(self, ids: NDArray[Any]) -> None:
        """Appends rows of segment ids, [rows, width] of any integer dtype.

        Raises:
            ValueError: another width, or more rows than announced.
        """
        rows, width = ids.shape
        if width != self._width or rows > self._rows_left:
            raise ValueError(
                f"expected at most {self._rows_left} rows of {self._width} ids; got {ids.shape}"
            )
        # Every row starts with the number of its filter; 0: none.
        lines = np.zeros((rows, 1 + 3 * width), np.uint8)
        lines[:, 1:] = ids_to_rgb(ids).reshape(rows, 3 * width)
        self._rows_left -= rows
        self._chunk(b"IDAT", self._compressor.compress(lines.tobytes()))

    def close(self) -> None:
        """Ends the picture.

        Raises:
            ValueError: rows are missing.
        """
        if self._rows_left:
            raise ValueError(f"{self._rows_left} rows of the id PNG are missing; write them first")
        self._chunk(b"IDAT", self._compressor.flush())
        self._chunk(b"IEND", b"")

    def _chunk(self, kind: bytes, data: bytes) -> None:
        if not data and kind == b"IDAT":
            return
        checksum = zlib.crc32(data, zlib.crc32(kind))
        self._file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum))
