"""Reading one-channel PNGs of labels whose number of bits matters."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seamless_pr.datasets.images import read_bytes, read_label_image, read_pillow_pixels

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Bytes of the header: width, height, then the bits of a sample.
BIT_DEPTH_OFFSET = 24


def read_label_png(path: Path, bits: int) -> NDArray[np.int32]:
    """Reads the labels as they are stored.

    Args:
        path: the PNG.
        bits: 16: an 8-bit file is refused, because numbers above 255 were lost when it was
            written. 8: any depth.

    Returns:
        [H, W] int32.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a whole one-channel picture, or with fewer bits.
    """
    found = png_bits(path)
    if found is not None and found < bits:
        raise ValueError(
            f"{path} has {found} bits a pixel where {bits} are needed; a tool saved it again and "
            "lost the object numbers: take the original file"
        )
    return read_label_image(path)


def png_bits(path: Path) -> int | None:
    """Bits of a sample, or None if the file is no PNG."""
    header = read_bytes(path)[: BIT_DEPTH_OFFSET + 1]
    return header[BIT_DEPTH_OFFSET] if _is_png_header(header) else None


def png_size(path: Path) -> tuple[int, int] | None:
    """(height, width) by the header alone, or None if there is no such PNG."""
    try:
        with path.open("rb") as file:
            header = file.read(BIT_DEPTH_OFFSET + 1)
    except OSError:
        return None
    if not _is_png_header(header):
        return None
    width, height = struct.unpack(">II", header[BIT_DEPTH_OFFSET - 8 : BIT_DEPTH_OFFSET])
    return height, width


def _is_png_header(header: bytes) -> bool:
    return len(header) == BIT_DEPTH_OFFSET + 1 and header.startswith(PNG_SIGNATURE)


def read_palette_indices(path: Path) -> NDArray[np.int32]:
    """The stored values of a palette or grey picture: the label is the value, never the colour.

    Raises:
        FileNotFoundError, ValueError: as `read_label_png`.
    """
    mode, values = read_pillow_pixels(path)
    if mode not in ("P", "L"):
        raise ValueError(
            f"{path} must be a palette or grey picture of 8-bit labels; got mode {mode}: take the "
            "original file"
        )
    return values.astype(np.int32)
