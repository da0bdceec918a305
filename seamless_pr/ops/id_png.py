"""Fast decoding of segment-id PNGs (id = R + 256 G + 65536 B) straight to integers.

A general PNG reader spends its time in zlib and in writing three bytes a pixel that are then put
together again. Here libdeflate inflates the file and one compiled loop undoes the row filters on
whole 24-bit pixels. In a label map nearly every filtered pixel is 0, and the Paeth predictor of PNG
reduces to a comparison wherever two of its three neighbours agree, so the loop rarely does
arithmetic.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import deflate
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from seamless_pr.ops.jit import compiled

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOR_GREY, COLOR_RGB, COLOR_PALETTE, COLOR_GREY_ALPHA, COLOR_RGBA = 0, 2, 3, 4, 6
COLOR_NAMES = {
    COLOR_GREY: "greyscale",
    COLOR_RGB: "RGB",
    COLOR_PALETTE: "palette",
    COLOR_GREY_ALPHA: "greyscale with alpha",
    COLOR_RGBA: "RGBA",
}
BYTES_PER_PIXEL = {COLOR_RGB: 3, COLOR_RGBA: 4}
HEADER_LENGTH = 13
# An image side beyond this is a broken or hostile header, not a photograph.
MAX_PIXELS = 1 << 30


class PngError(ValueError):
    """A file that is no PNG of segment ids; says why, and the caller adds the file's name."""


@dataclass(frozen=True)
class _PngHeader:
    height: int
    width: int
    bit_depth: int
    color_type: int
    is_interlaced: bool


def decode_id_png(data: bytes) -> NDArray[np.uint32]:
    """Decodes a PNG of segment ids.

    8-bit RGB is the format; alpha is ignored, and a palette is looked up (lossless optimisers write
    one). Grey images are refused: R = G = B and "the grey value is the id" cannot be told apart.

    Args:
        data: the file's bytes.

    Returns:
        [H, W] uint32, R + 256 G + 65536 B; 0 = void.

    Raises:
        PngError: not a PNG, truncated, damaged, or of a kind that holds no 24-bit ids.
    """
    header, compressed = _read_chunks(data)
    if header.color_type not in (COLOR_RGB, COLOR_RGBA, COLOR_PALETTE) or header.bit_depth > 8:
        raise PngError(
            "expected an 8-bit RGB PNG with ids as R + 256 G + 65536 B; "
            f"got {header.bit_depth}-bit {COLOR_NAMES[header.color_type]}; write the ids as RGB"
        )
    bytes_per_pixel = BYTES_PER_PIXEL.get(header.color_type)
    if bytes_per_pixel is None or header.is_interlaced:
        return _decode_with_pillow(data)
    row_length = header.width * bytes_per_pixel + 1
    filtered = _inflate(compressed, row_length * header.height)
    # One row more than the image: the row of zeros that the filters see above the first one.
    ids = np.empty((header.height + 1, header.width), dtype=np.uint32)
    ids[header.height] = 0
    bad_row = _undo_filters(np.frombuffer(filtered, np.uint8), bytes_per_pixel, ids)
    if bad_row >= 0:
        raise PngError(f"damaged PNG: row {bad_row} has an unknown filter")
    return ids[: header.height]


def pack_ids(rgb: NDArray[Any]) -> NDArray[np.uint32]:
    """[H, W, 3 or more] uint8 -> [H, W] uint32, R + 256 G + 65536 B."""
    wide: NDArray[np.uint32] = rgb.astype(np.uint32)
    return np.bitwise_or.reduce(wide[..., :3] << np.array([0, 8, 16], np.uint32), axis=-1)


def png_size(data: bytes) -> tuple[int, int]:
    """(height, width) from the first bytes of a PNG file (33 are enough).

    Raises:
        PngError: not a PNG.
    """
    header = _read_header(data)
    return header.height, header.width


def _read_header(data: bytes) -> _PngHeader:
    start = len(PNG_SIGNATURE)
    if data[:start] != PNG_SIGNATURE:
        raise PngError("not a PNG file" if data else "empty file")
    if data[start + 4 : start + 8] != b"IHDR" or len(data) < start + 8 + HEADER_LENGTH:
        raise PngError("truncated PNG: no complete header")
    width, height, bit_depth, color_type, _, _, interlace = struct.unpack_from(
        ">IIBBBBB", data, start + 8
    )
    if color_type not in COLOR_NAMES or not 0 < height * width <= MAX_PIXELS:
        raise PngError(f"damaged PNG header: {height}x{width} pixels, colour type {color_type}")
    return _PngHeader(height, width, bit_depth, color_type, interlace != 0)


def _read_chunks(data: bytes) -> tuple[_PngHeader, bytes]:
    """The header and the joined image data, with every checksum verified."""
    header = _read_header(data)
    view = memoryview(data)
    parts: list[memoryview] = []
    start = len(PNG_SIGNATURE)
    while True:
        if start + 12 > len(data):
            raise PngError("truncated PNG: the file ends before its last chunk")
        length = int.from_bytes(view[start : start + 4], "big")
        kind = data[start + 4 : start + 8]
        end = start + 8 + length
        if end + 4 > len(data):
            raise PngError(f"truncated PNG: the file ends inside chunk {kind!r}")
        if kind == b"IDAT":
            if zlib.crc32(view[start + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
                raise PngError("damaged PNG: checksum of the image data does not fit")
            parts.append(view[start + 8 : end])
        elif kind == b"IEND":
            break
        start = end + 4
    return header, b"".join(parts)


def _inflate(compressed: bytes, length: int) -> Any:
    try:
        filtered = deflate.zlib_decompress(compressed, length)
    except deflate.DeflateError as error:
        raise PngError(f"damaged PNG: image data cannot be decompressed ({error})") from error
    if len(filtered) != length:
        raise PngError(f"damaged PNG: {len(filtered)} bytes of image data; expected {length}")
    return filtered


def _decode_with_pillow(data: bytes) -> NDArray[np.uint32]:
    """Palette and interlaced files: rare, so a general reader does them."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return pack_ids(np.asarray(image.convert("RGB")))
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise PngError(f"damaged PNG: {error}") from error


@compiled
def _undo_filters(filtered, bytes_per_pixel, ids):  # type: ignore[no-untyped-def]
    """Undoes PNG's row filters on packed pixels; returns the first bad row, -1 if there is none.

    Sums of bytes modulo 256 are done on all three at once: the low seven bits are added, the high
        bits
    by exclusive or, so that no carry crosses a byte.

    filtered: [H * (1 + W * bytes_per_pixel)] uint8; ids: [H + 1, W] uint32, last row 0, the rest
        written.
    """
    num_rows, width = ids.shape[0] - 1, ids.shape[1]
    low_bits, high_bits = np.uint32(0x7F7F7F), np.uint32(0x808080)
    upper_seven_bits = np.uint32(0xFEFEFE)
    one, eight, sixteen, byte = np.uint32(1), np.uint32(8), np.uint32(16), np.uint32(255)
    position = 0
    for row in range(num_rows):
        kind = filtered[position]
        position += 1
        above = ids[row - 1] if row > 0 else ids[num_rows]
        current = ids[row]
        left = np.uint32(0)
        above_left = np.uint32(0)
        if kind > 4:
            return row
        for column in range(width):
            delta = (
                np.uint32(filtered[position])
                | (np.uint32(filtered[position + 1]) << eight)
                | (np.uint32(filtered[position + 2]) << sixteen)
            )
            position += bytes_per_pixel
            up = above[column]
            if kind == 0:
                predicted = np.uint32(0)
            elif kind == 1:
                predicted = left
            elif kind == 2:
                predicted = up
            elif kind == 3:
                predicted = (left & up) + (((left ^ up) & upper_seven_bits) >> one)
            elif up == above_left:
                predicted = left
            elif left == above_left:
                predicted = up
            else:
                predicted = np.uint32(0)
                for bits in (np.uint32(0), eight, sixteen):
                    a = np.int32((left >> bits) & byte)
                    b = np.int32((up >> bits) & byte)
                    c = np.int32((above_left >> bits) & byte)
                    to_a, to_b, to_c = abs(b - c), abs(a - c), abs(a + b - 2 * c)
                    nearest = a if to_a <= to_b and to_a <= to_c else (b if to_b <= to_c else c)
                    predicted |= np.uint32(nearest) << bits
            above_left = up
            if delta != 0:
                predicted = ((predicted & low_bits) + (delta & low_bits)) ^ (
                    (predicted ^ delta) & high_bits
                )
            left = predicted
            current[column] = left
    return -1
