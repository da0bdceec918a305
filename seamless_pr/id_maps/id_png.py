"""Fast decoding of segment-id PNGs (id = R + 256 G + 65536 B) straight to integers.

A general PNG reader spends its time in zlib and in writing three bytes a pixel that are then put
together again. Nearly every filtered byte of a label map is 0: here only the others are inflated,
and the row filters are undone on horizontal runs of one id instead of pixels, so that the work
follows the number of runs. Pictures of another kind go through libdeflate, pixel by pixel.
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

from seamless_pr.id_maps.jit import helper, kernel
from seamless_pr.id_maps.sparse_inflate import inflate_nonzero
from seamless_pr.structures.limits import MAX_PIXELS

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOR_GREY, COLOR_RGB, COLOR_PALETTE, COLOR_GREY_ALPHA, COLOR_RGBA = 0, 2, 3, 4, 6
COLOR_NAMES = {
    COLOR_GREY: "greyscale",
    COLOR_RGB: "RGB",
    COLOR_PALETTE: "palette",
    COLOR_GREY_ALPHA: "greyscale with alpha",
    COLOR_RGBA: "RGBA",
}
BIT_DEPTHS = {
    COLOR_GREY: (1, 2, 4, 8, 16),
    COLOR_RGB: (8, 16),
    COLOR_PALETTE: (1, 2, 4, 8),
    COLOR_GREY_ALPHA: (8, 16),
    COLOR_RGBA: (8, 16),
}
BYTES_PER_PIXEL = {COLOR_RGB: 3, COLOR_RGBA: 4}
CRITICAL_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
HEADER_LENGTH = 13
# Room that is tried first; street scenes have some ten to sixty runs a row.
USUAL_RUNS_PER_ROW = 128
# Kinds of row filters.
NONE, SUB, UP, AVERAGE, PAETH = range(5)
# Deflate cannot expand further: a copy of 258 bytes takes at least two bits.
MAX_EXPANSION = 1032
# Larger maps than `MAX_PIXELS` are believed if the file is not small for them.
PIXELS_PER_BYTE = 64


class PngError(ValueError):
    """A file that is no PNG of segment ids; says why, and the caller adds the file's name."""


@dataclass(frozen=True)
class _PngHeader:
    height: int
    width: int
    bit_depth: int
    color_type: int
    is_interlaced: bool


@dataclass(frozen=True)
class IdRuns:
    """An id map as horizontal runs of one id, row by row.

    Attributes:
        starts: [T] int32, column where a run begins; it ends where the next begins, or with the
            row.
        ids: [T] uint32. Behind the last run of the map both may hold unused places.
        row_starts: [H + 1] int64, index of the first run of each row, and the number of runs.
        image_size: (height, width).
    """

    starts: NDArray[np.int32]
    ids: NDArray[np.uint32]
    row_starts: NDArray[np.int64]
    image_size: tuple[int, int]

    @classmethod
    def allocate(cls, height: int, width: int, runs_per_row: int) -> IdRuns:
        """Room for a number of runs, yet to be written."""
        return cls(
            np.empty(height * runs_per_row, dtype=np.int32),
            np.empty(height * runs_per_row, dtype=np.uint32),
            np.empty(height + 1, dtype=np.int64),
            (height, width),
        )

    @classmethod
    def from_map(cls, id_map: NDArray[np.uint32]) -> IdRuns:
        """Runs of an [H, W] map."""
        height, width = id_map.shape
        runs = cls.allocate(height, width, runs_per_row=width)
        _find_runs(
            np.ascontiguousarray(id_map, dtype=np.uint32), runs.starts, runs.ids, runs.row_starts
        )
        return runs

    def to_map(self) -> NDArray[np.uint32]:
        """[H, W] ids."""
        id_map = np.empty(self.image_size, dtype=np.uint32)
        _fill_rows(self.starts, self.ids, self.row_starts, id_map)
        return id_map


def decode_id_png(data: bytes) -> NDArray[np.uint32]:
    """Decodes a PNG of segment ids into an [H, W] uint32 map; see `decode_id_runs`."""
    return decode_id_runs(data).to_map()


def decode_id_runs(data: bytes) -> IdRuns:
    """Decodes a PNG of segment ids.

    8-bit RGB is the format; alpha is ignored, and a palette is looked up (lossless optimisers write
    one). Grey images are refused: R = G = B and "the grey value is the id" cannot be told apart.

    Args:
        data: the file's bytes.

    Returns:
        Runs of R + 256 G + 65536 B; 0 = void.

    Raises:
        PngError: not a PNG, truncated, damaged, or of a kind that holds no 24-bit ids.
    """
    header, compressed, palette = _read_chunks(data)
    if header.height * header.width > max(MAX_PIXELS, PIXELS_PER_BYTE * len(data)):
        raise PngError(
            f"{header.height}x{header.width} pixels in {len(data)} bytes; more than "
            f"{MAX_PIXELS / 1e6:g} million are read only if there are at most {PIXELS_PER_BYTE} a "
            "byte: cut the map into tiles"
        )
    if header.color_type not in (COLOR_RGB, COLOR_RGBA, COLOR_PALETTE) or header.bit_depth == 16:
        raise PngError(
            "expected an 8-bit RGB PNG with ids as R + 256 G + 65536 B; "
            f"got {header.bit_depth}-bit {COLOR_NAMES[header.color_type]}; write the ids as RGB"
        )
    bytes_per_pixel = BYTES_PER_PIXEL.get(header.color_type)
    if bytes_per_pixel is None or header.is_interlaced:
        return IdRuns.from_map(_decode_with_pillow(data, palette))
    row_length = header.width * bytes_per_pixel + 1
    length = row_length * header.height
    if length > MAX_EXPANSION * len(compressed):  # before room for it is taken
        raise PngError(f"damaged PNG: too little image data for {length} bytes of pixels")
    nonzero = inflate_nonzero(compressed, length)
    if nonzero is None:
        filtered = np.frombuffer(_inflate(compressed, length), np.uint8)
        id_map = np.empty((header.height, header.width), np.uint32)
        failed_row = _undo_dense_filters(filtered, bytes_per_pixel, id_map)
        if failed_row < 0:
            return IdRuns.from_map(id_map)
        raise PngError(f"damaged PNG: row {failed_row} has an unknown filter")
    runs_per_row = min(header.width, USUAL_RUNS_PER_ROW)
    while True:
        runs = IdRuns.allocate(header.height, header.width, runs_per_row)
        failed_row = _undo_filters(
            nonzero, bytes_per_pixel, header.width, runs.starts, runs.ids, runs.row_starts
        )
        if failed_row < 0:
            return runs
        if runs_per_row == header.width:
            raise PngError(f"damaged PNG: row {failed_row} has an unknown filter")
        # An unusually busy map: room for as many runs as pixels.
        runs_per_row = header.width


def pack_ids(rgb: NDArray[Any]) -> NDArray[np.uint32]:
    """[H, W, 3 or more] uint8 -> [H, W] uint32, R + 256 G + 65536 B."""
    # Byte by byte into one array: a wide copy of the whole picture would take three.
    ids: NDArray[np.uint32] = rgb[..., 2].astype(np.uint32)
    for channel in (1, 0):
        ids <<= 8
        ids |= rgb[..., channel]
    return ids


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
    width, height, bit_depth, color_type, compression, filtering, interlace = struct.unpack_from(
        ">IIBBBBB", data, start + 8
    )
    if (
        bit_depth not in BIT_DEPTHS.get(color_type, ())
        or not height * width
        or (compression, filtering) != (0, 0)
        or interlace > 1
    ):
        raise PngError(
            f"damaged PNG header: {height}x{width} pixels, colour type {color_type}, "
            f"{bit_depth} bits, methods {compression}, {filtering}, {interlace}"
        )
    return _PngHeader(height, width, bit_depth, color_type, interlace != 0)


def _read_chunks(data: bytes) -> tuple[_PngHeader, bytes, bytes]:
    """Header, joined image data and palette; checksums of all chunks that matter are verified."""
    header = _read_header(data)
    view = memoryview(data)
    parts: list[memoryview] = []
    palette = b""
    start = len(PNG_SIGNATURE)
    previous = b""
    while True:
        if start + 12 > len(data):
            raise PngError("truncated PNG: the file ends before its last chunk")
        length = int.from_bytes(view[start : start + 4], "big")
        kind = data[start + 4 : start + 8]
        end = start + 8 + length
        if end + 4 > len(data):
            raise PngError(f"truncated PNG: the file ends inside chunk {kind!r}")
        is_critical = kind[:1].isupper()
        checksum = int.from_bytes(view[end : end + 4], "big")
        if is_critical and zlib.crc32(view[start + 4 : end]) != checksum:
            raise PngError(f"damaged PNG: checksum of chunk {kind.decode('ascii', 'replace')}")
        if (
            (is_critical and kind not in CRITICAL_CHUNKS)
            or (kind == b"IHDR" and previous)
            or (kind == b"PLTE" and parts)
            or (kind == b"IDAT" and parts and previous != b"IDAT")
        ):
            raise PngError(f"damaged PNG: a chunk {kind.decode('ascii', 'replace')} out of place")
        if kind == b"IDAT":
            parts.append(view[start + 8 : end])
        elif kind == b"PLTE":
            palette = data[start + 8 : end]
        elif kind == b"IEND":
            break
        start, previous = end + 4, kind
    return header, b"".join(parts), palette


def _inflate(compressed: bytes, length: int) -> Any:
    try:
        filtered = deflate.zlib_decompress(compressed, length)
    except deflate.DeflateError as error:
        raise PngError(f"damaged PNG: image data cannot be decompressed ({error})") from error
    if len(filtered) != length:
        raise PngError(f"damaged PNG: {len(filtered)} bytes of image data; expected {length}")
    return filtered


def _decode_with_pillow(data: bytes, palette: bytes) -> NDArray[np.uint32]:
    """Palette and interlaced files: rare, so a general reader does them."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            pixels = np.asarray(image if image.mode == "P" else image.convert("RGB"))
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to.
        raise PngError(f"damaged PNG: {str(error) or type(error).__name__}") from error
    if pixels.ndim == 3:
        return pack_ids(pixels)
    # Pillow would make what the palette lacks black, which means void.
    num_colors, rest = divmod(len(palette), 3)
    if rest or pixels.max() >= num_colors:
        raise PngError(
            f"damaged PNG: a pixel of colour {pixels.max()}, and a palette of {len(palette)} bytes"
        )
    ids: NDArray[np.uint32] = pack_ids(np.frombuffer(palette, np.uint8).reshape(-1, 3))[pixels]
    return ids


@kernel(*("int64[:]", "int64", "int64", "int32[:]", "uint32[:]", "int64[:]"), returns="int64")
def _undo_filters(nonzero, bytes_per_pixel, width, starts, ids, row_starts):  # type: ignore[no-untyped-def]
    """Undoes PNG's row filters; returns -1, or the row with an unknown filter or too many runs.

    A row is followed from event to event: a pixel whose filtered bytes are not 0, or above which
    the row before changes. Between events the id stays what it is.

    nonzero: filtered bytes that are not 0, see `inflate_nonzero`.
    starts, ids, row_starts: the fields of `IdRuns`, written.
    """
    num_rows = len(row_starts) - 1
    position, cursor, num_runs = 0, 0, 0
    row_starts[0] = 0
    for row in range(num_rows):
        kind = NONE
        if nonzero[cursor] >> 8 == position:
            kind = nonzero[cursor] & 255
            cursor += 1
        if kind > PAETH or num_runs + width > len(starts):
            return row
        first_byte = position + 1
        end_byte = first_byte + width * bytes_per_pixel
        position = end_byte
        # The run above the current column, and the column where the next one begins.
        above, above_end = (row_starts[row - 1], row_starts[row]) if row > 0 else (0, 0)
        up = ids[above] if row > 0 else np.uint32(0)
        above_change = starts[above + 1] if above + 1 < above_end else width
        up_left, left = np.uint32(0), np.uint32(0)
        column = 0
        while column < width:
            if column == above_change:
                above += 1
                up = ids[above]
                above_change = starts[above + 1] if above + 1 < above_end else width
            byte = first_byte + column * bytes_per_pixel
            delta = np.uint32(0)
            place = nonzero[cursor] >> 8
            while place < byte + bytes_per_pixel:
                if place < byte + 3:  # a fourth is alpha
                    shift = np.uint32(8 * (place - byte))
                    delta |= np.uint32(nonzero[cursor] & 255) << shift
                cursor += 1
                place = nonzero[cursor] >> 8
            value = _add_bytes(_predict(kind, left, up, up_left), delta)
            if value != left or column == 0:
                starts[num_runs], ids[num_runs] = column, value
                num_runs += 1
            left, up_left = value, up
            # Columns where nothing can change are passed over.
            column += 1
            if (kind == AVERAGE and left != up) or (kind in (NONE, UP) and delta != 0):
                continue
            next_byte = min(place, end_byte)
            if bytes_per_pixel == 3:  # dividing by a constant is much faster
                stop = (next_byte - first_byte) // 3
            else:
                stop = (next_byte - first_byte) // bytes_per_pixel
            if left == up and kind in (UP, PAETH):
                # In step with the row above until then: the row goes on as a copy of it.
                while above_change < stop:
                    above += 1
                    left = ids[above]
                    starts[num_runs], ids[num_runs] = above_change, left
                    num_runs += 1
                    above_change = starts[above + 1] if above + 1 < above_end else width
                up = up_left = left
                column = stop
            elif kind > SUB and above_change < stop:
                column = above_change
            else:
                column = stop
        row_starts[row + 1] = num_runs
    return -1


@kernel("uint8[:]", "int64", "uint32[:, :]", returns="int64")
def _undo_dense_filters(filtered, bytes_per_pixel, id_map):  # type: ignore[no-untyped-def]
    """The same pixel by pixel, of bytes of which many are not 0."""
    height, width = id_map.shape
    eight, sixteen = np.uint32(8), np.uint32(16)
    byte = 0
    for row in range(height):
        kind = filtered[byte]
        if kind > PAETH:
            return row
        byte += 1
        left, up_left = np.uint32(0), np.uint32(0)
        for column in range(width):
            up = id_map[row - 1, column] if row > 0 else np.uint32(0)
            delta = (
                np.uint32(filtered[byte])
                | (np.uint32(filtered[byte + 1]) << eight)
                | (np.uint32(filtered[byte + 2]) << sixteen)
            )
            left = _add_bytes(_predict(kind, left, up, up_left), delta)
            id_map[row, column], up_left = left, up
            byte += bytes_per_pixel
    return -1


@helper
def _predict(kind, left, up, up_left):  # type: ignore[no-untyped-def]
    """What a filter of PNG expects of a pixel, on three packed bytes."""
    if kind == SUB:
        return left
    if kind == UP:
        return up
    if kind == NONE:
        return np.uint32(0)
    if kind == AVERAGE:
        # Bytewise: what both share, and half of what they do not, without its lowest bit.
        return (left & up) + (((left ^ up) & np.uint32(0xFEFEFE)) >> np.uint32(1))
    # Paeth: the neighbour nearest to left + up - up_left. Trivial if two of them agree.
    if up == up_left:
        return left
    if left == up_left:
        return up
    predicted = np.uint32(0)
    for shift in range(0, 24, 8):
        bits = np.uint32(shift)
        a = np.int32((left >> bits) & np.uint32(255))
        b = np.int32((up >> bits) & np.uint32(255))
        c = np.int32((up_left >> bits) & np.uint32(255))
        to_a, to_b, to_c = abs(b - c), abs(a - c), abs(a + b - 2 * c)
        nearest = a if to_a <= to_b and to_a <= to_c else (b if to_b <= to_c else c)
        predicted |= np.uint32(nearest) << bits
    return predicted


@helper
def _add_bytes(a, b):  # type: ignore[no-untyped-def]
    """Three sums of bytes modulo 256: low seven bits added, high bits by exclusive or."""
    low_bits, high_bits = np.uint32(0x7F7F7F), np.uint32(0x808080)
    return ((a & low_bits) + (b & low_bits)) ^ ((a ^ b) & high_bits)


@kernel("int32[:]", "uint32[:]", "int64[:]", "uint32[:, :]")
def _fill_rows(starts, ids, row_starts, id_map):  # type: ignore[no-untyped-def]
    """Writes runs into a map."""
    height, width = id_map.shape
    for row in range(height):
        end = row_starts[row + 1]
        for run in range(row_starts[row], end):
            last = starts[run + 1] if run + 1 < end else width
            id_map[row, starts[run] : last] = ids[run]


@kernel("uint32[:, :]", "int32[:]", "uint32[:]", "int64[:]")
def _find_runs(id_map, starts, ids, row_starts):  # type: ignore[no-untyped-def]
    """The inverse of `_fill_rows`."""
    height, width = id_map.shape
    num_runs = 0
    row_starts[0] = 0
    for row in range(height):
        for column in range(width):
            value = id_map[row, column]
            if column == 0 or value != ids[num_runs - 1]:
                starts[num_runs], ids[num_runs] = column, value
                num_runs += 1
        row_starts[row + 1] = num_runs
