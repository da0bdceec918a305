"""The own PNG decoder against two independent ones, on files that no writer would choose."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from seamless_pr.id_maps import id_png
from seamless_pr.id_maps.id_png import PngError, decode_id_png, decode_id_runs, pack_ids

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(rng: np.random.Generator, rows: NDArray[np.uint8], channels: int) -> bytes:
    """A PNG of filtered rows [H, 1 + W * channels], with sound checksums, in pieces."""
    height, width = rows.shape[0], (rows.shape[1] - 1) // channels
    color_type = id_png.COLOR_RGB if channels == 3 else id_png.COLOR_RGBA
    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    data = zlib.compress(rows.tobytes(), int(rng.integers(0, 10)))
    cuts = np.sort(rng.integers(0, len(data) + 1, int(rng.integers(0, 4)))).tolist()
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)])]
    chunks = [_chunk(b"IHDR", header), _chunk(b"tEXt", b"k\0v")]
    chunks += [_chunk(b"IDAT", piece) for piece in pieces]
    return SIGNATURE + b"".join([*chunks, _chunk(b"IEND", b"")])


def _rows(rng: np.random.Generator, channels: int) -> NDArray[np.uint8]:
    """Filtered rows: mostly zeros, as label maps have them, with every kind of filter."""
    height, width = int(rng.integers(1, 40)), int(rng.choice([1, 2, 3, 7, 64, 200, 333]))
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    share = rng.choice([0.0, 0.002, 0.02, 0.3, 1.0])
    is_set = rng.random(rows.shape) < share
    rows[is_set] = rng.integers(0, 256, int(is_set.sum()))
    kinds = rng.choice([[0, 1, 2, 3, 4], [2, 2, 4, 4, 4], [4, 4, 4, 4, 4], [3, 4, 3, 4, 2]])
    rows[:, 0] = rng.choice(kinds, height)
    return rows


@pytest.mark.parametrize("seed", range(150))
def test_any_filtered_bytes_are_decoded_as_pillow_and_opencv_decode_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    channels = int(rng.choice([3, 3, 4]))
    data = _png(rng, _rows(rng, channels), channels)
    ids = decode_id_png(data)
    by_pillow = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(ids, pack_ids(by_pillow))
    if channels == 3:  # OpenCV drops alpha in its own way
        by_opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert np.array_equal(ids, pack_ids(np.asarray(by_opencv)[..., ::-1]))


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_file_is_refused_or_read_and_never_crashes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(_png(rng, _rows(rng, 3), 3))
    for _ in range(40):
        damaged = bytearray(data)
        for place in rng.integers(0, len(damaged), int(rng.integers(1, 4))).tolist():
            damaged[place] = int(rng.integers(0, 256))
        damaged = (
            damaged[: int(rng.integers(1, len(damaged) + 1))] if rng.random() < 0.3 else damaged
        )
        try:
            runs = decode_id_runs(bytes(damaged))
        except PngError:
            continue
        assert runs.to_map().shape == runs.image_size


@pytest.mark.parametrize(
    "size, kind, bits, methods",
    [
        ((0, 5), 2, 8, (0, 0, 0)),
        ((5, 5), 2, 4, (0, 0, 0)),
        ((5, 5), 5, 8, (0, 0, 0)),
        ((5, 5), 2, 8, (1, 0, 0)),
        ((5, 5), 2, 8, (0, 1, 0)),
        ((5, 5), 2, 8, (0, 0, 2)),
    ],
)
def test_impossible_headers_are_refused_before_anything_is_allocated(
    size: tuple[int, int], kind: int, bits: int, methods: tuple[int, int, int]
) -> None:
    header = struct.pack(">IIBBBBB", *size, bits, kind, *methods)
    data = SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", b"") + _chunk(b"IEND", b"")
    with pytest.raises(PngError, match="damaged PNG header"):
        decode_id_png(data)


def test_a_small_file_cannot_ask_for_a_large_picture() -> None:
    header = struct.pack(">IIBBBBB", 7_000, 7_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    data = SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")
    with pytest.raises(PngError, match="too little image data for 147007000 bytes of pixels"):
        decode_id_png(data)


@pytest.mark.parametrize("kind", [2, 3])
def test_a_picture_that_is_too_large_for_its_file_is_refused_unread(kind: int) -> None:
    header = struct.pack(">IIBBBBB", 32_000, 32_000, 8, kind, 0, 0, 0)
    chunks = [_chunk(b"IHDR", header), _chunk(b"PLTE", bytes(3)), _chunk(b"IDAT", b"")]
    with pytest.raises(PngError, match="32000x32000 pixels in 72 bytes; more than 52 million"):
        decode_id_png(SIGNATURE + b"".join([*chunks, _chunk(b"IEND", b"")]))


def test_a_changed_header_is_found_by_its_checksum() -> None:
    rng = np.random.default_rng(0)
    data = bytearray(_png(rng, np.zeros((4, 13), np.uint8), 3))
    data[len(SIGNATURE) + 11] ^= 1  # the width
    with pytest.raises(PngError, match="checksum of chunk IHDR"):
        decode_id_png(bytes(data))


@pytest.mark.slow
def test_the_loops_stay_inside_their_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same decoder with every index checked: a wrong one raises instead of passing unseen."""
    for name in ("_undo_filters", "_undo_dense_filters", "_fill_rows", "_find_runs"):
        checked = getattr(id_png, name).dispatcher(boundscheck=True)
        monkeypatch.setattr(id_png, name, checked)
    for seed in range(150):
        rng = np.random.default_rng(seed)
        channels = int(rng.choice([3, 4]))
        rows = _rows(rng, channels)
        data = _png(rng, rows, channels)
        assert np.array_equal(
            decode_id_png(data), pack_ids(np.asarray(Image.open(io.BytesIO(data))))
        )
        row = int(rng.integers(0, len(rows)))
        rows[row, 0] = rng.integers(5, 256)
        with pytest.raises(PngError, match=f"row {row} has an unknown filter"):
            decode_id_png(_png(rng, rows, channels))
