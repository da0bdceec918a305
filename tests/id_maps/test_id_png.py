from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from seamless_pr.id_maps.id_png import IdRuns, PngError, decode_id_png, pack_ids, png_size


def _rgb(ids: NDArray[np.integer]) -> NDArray[np.uint8]:
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)


def _png(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def _filtered_png(rgb: NDArray[np.uint8], filters: list[int]) -> bytes:
    """A PNG whose rows use the given filters in turn: writers rarely choose all five."""
    height, width, channels = rgb.shape
    above = np.zeros((width + 1, channels), dtype=np.int64)
    data = bytearray()
    for row in range(height):
        current = np.vstack([np.zeros((1, channels)), rgb[row]]).astype(np.int64)
        left, up, corner = current[:-1], above[1:], above[:-1]
        nearest = left + up - corner
        distances = np.stack([abs(nearest - other) for other in (left, up, corner)])
        paeth = np.take_along_axis(np.stack([left, up, corner]), distances.argmin(0)[None], 0)[0]
        kind = filters[row % len(filters)]
        predicted = [np.zeros_like(left), left, up, (left + up) // 2, paeth][kind]
        data.append(kind)
        data += ((current[1:] - predicted) % 256).astype(np.uint8).tobytes()
        above = current
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 6, 0, 0, 0)
    return _joined([(b"IHDR", header), (b"IDAT", zlib.compress(bytes(data))), (b"IEND", b"")])


def _joined(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def _id_maps() -> list[NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 1 << 24, (23, 31))
    regions = np.repeat(np.repeat(rng.integers(0, 1 << 24, (5, 4)), 7, axis=0), 9, axis=1)
    speckled = np.where(rng.random(regions.shape) < 0.1, 7, regions)
    return [noise, regions, speckled, np.array([[(1 << 24) - 1]]), np.zeros((3, 1), np.int64)]


@pytest.mark.parametrize("filters", [[0], [1], [2], [3], [4], [4, 1, 3, 0, 2]])
@pytest.mark.parametrize("index", range(5))
def test_every_row_filter_is_undone(filters: list[int], index: int) -> None:
    ids = _id_maps()[index]
    assert np.array_equal(decode_id_png(_filtered_png(_rgb(ids), filters)), ids)


@pytest.mark.parametrize("index", range(5))
def test_files_of_pillow_and_opencv_are_read(index: int) -> None:
    ids = _id_maps()[index]
    assert np.array_equal(decode_id_png(_png(Image.fromarray(_rgb(ids)))), ids)
    encoded = cv2.imencode(".png", _rgb(ids)[..., ::-1])[1].tobytes()
    assert np.array_equal(decode_id_png(encoded), ids)


def test_alpha_is_ignored() -> None:
    ids = _id_maps()[2]
    rgba = np.dstack([_rgb(ids), (ids % 7).astype(np.uint8)])
    for filters in ([0], [1], [4]):
        assert np.array_equal(decode_id_png(_filtered_png(rgba, filters)), ids)


def test_palette_is_looked_up() -> None:
    ids = np.array([[0, 0, 70000], [26001, 70000, 0]])
    palette = Image.fromarray(_rgb(ids)).quantize(4)
    assert np.array_equal(decode_id_png(_png(palette)), ids)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("is_interlaced", [False, True])
def test_every_index_has_a_colour_in_the_palette_or_the_file_is_damaged(
    bits: int, is_interlaced: bool
) -> None:
    def png(palette: bytes | None, index: int) -> bytes:
        header = struct.pack(">IIBBBBB", 1, 1, bits, 3, 0, 0, is_interlaced)
        chunks = [(b"IHDR", header), *([] if palette is None else [(b"PLTE", palette)])]
        pixel = bytes([0, index << (8 - bits)])
        return _joined([*chunks, (b"IDAT", zlib.compress(pixel)), (b"IEND", b"")])

    colors = bytes([5, 1, 0, 7, 0, 1])
    assert decode_id_png(png(colors, 0)).tolist() == [[261]]
    assert decode_id_png(png(colors, 1)).tolist() == [[65543]]
    for palette in (None, b"", colors[:3], colors[:5], colors + b"\1"):
        size = len(palette or b"")
        with pytest.raises(PngError, match=f"damaged PNG: .* colour 1, and a palette of {size} by"):
            decode_id_png(png(palette, 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_images_are_refused_with_what_was_expected(dtype: type) -> None:
    bits = 8 * np.dtype(dtype).itemsize
    with pytest.raises(PngError, match=f"expected an 8-bit RGB PNG.* got {bits}-bit greyscale"):
        decode_id_png(_png(Image.fromarray(np.ones((4, 5), dtype))))


def test_16_bit_colours_are_refused() -> None:
    encoded = cv2.imencode(".png", np.ones((4, 5, 3), np.uint16))[1].tobytes()
    with pytest.raises(PngError, match="got 16-bit RGB"):
        decode_id_png(encoded)


def test_a_file_cut_anywhere_is_an_error_and_never_a_crash() -> None:
    data = _png(Image.fromarray(_rgb(_id_maps()[2])))
    for length in range(len(data) - 1):
        with pytest.raises(PngError):
            decode_id_png(data[:length])


def test_a_changed_byte_of_the_image_data_is_found() -> None:
    data = bytearray(_png(Image.fromarray(_rgb(_id_maps()[2]))))
    data[data.index(b"IDAT") + 20] ^= 1
    with pytest.raises(PngError, match="checksum"):
        decode_id_png(bytes(data))


def test_an_unknown_filter_names_its_row() -> None:
    body = zlib.compress(bytes([0, 1, 2, 3, 9, 1, 2, 3]))
    header = struct.pack(">IIBBBBB", 1, 2, 8, 2, 0, 0, 0)
    data = _joined([(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")])
    with pytest.raises(PngError, match="row 1 has an unknown filter"):
        decode_id_png(data)


@pytest.mark.parametrize("content", [b"", b"name", b"name\0", b"name\0\5"])
def test_whatever_pillow_stumbles_over_is_damage(content: bytes) -> None:
    data = _png(Image.fromarray(_rgb(_id_maps()[2])).quantize(4))
    chunk = b"iCCP" + content
    damaged = data[:33] + struct.pack(">I", len(content)) + chunk
    damaged += struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    with pytest.raises(PngError, match=r"damaged PNG: \S"):
        decode_id_png(damaged)


def test_other_files_are_refused() -> None:
    for data in (b"", b"GIF89a", b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(PngError):
            decode_id_png(data)


def test_size_is_read_from_the_first_bytes() -> None:
    data = _png(Image.new("RGB", (7, 5)))
    assert png_size(data[:33]) == (5, 7)


def test_pack_ids_takes_the_first_three_channels() -> None:
    assert pack_ids(np.array([[[1, 2, 3, 9]]], np.uint8)).tolist() == [[1 + 2 * 256 + 3 * 65536]]


@pytest.mark.parametrize("index", range(5))
def test_runs_become_the_map_again(index: int) -> None:
    ids = _id_maps()[index].astype(np.uint32)
    runs = IdRuns.from_map(ids)
    assert np.array_equal(runs.to_map(), ids)
    assert runs.row_starts[-1] == ids.shape[0] + (np.diff(ids.astype(np.int64)) != 0).sum()


@pytest.mark.parametrize("filters", [[0], [1], [2], [3], [4]])
def test_a_map_with_more_runs_than_usual_is_read(filters: list[int]) -> None:
    ids = np.random.default_rng(0).integers(0, 1 << 24, (9, 700))
    assert np.array_equal(decode_id_png(_filtered_png(_rgb(ids), filters)), ids)
