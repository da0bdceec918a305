"""Inflating to the places of bytes that are not 0, against zlib."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

from seamless_pr.id_maps import sparse_inflate
from seamless_pr.id_maps.sparse_inflate import inflate_nonzero

STRATEGIES = (
    zlib.Z_DEFAULT_STRATEGY,
    zlib.Z_FILTERED,
    zlib.Z_HUFFMAN_ONLY,
    zlib.Z_RLE,
    zlib.Z_FIXED,
)


def _mostly_zeros(rng: np.random.Generator) -> bytes:
    """Some bytes among zeros, parts of which come again as rows of a picture do."""
    length = int(rng.choice([1, 300, 5_000, 70_000]))
    values = np.zeros(length, np.uint8)
    is_set = rng.random(length) < rng.choice([0, 0.001, 0.03])
    values[is_set] = rng.integers(1, 256, int(is_set.sum()))
    for _ in range(int(rng.integers(0, 20))):
        source, target = rng.integers(0, length, 2)
        part = values[source : source + int(rng.integers(1, 400))].copy()
        part = part[: length - target]
        values[target : target + len(part)] = part
    return values.tobytes()


def _compress(rng: np.random.Generator, data: bytes) -> bytes:
    """By any level, strategy and window, in blocks."""
    compressor = zlib.compressobj(
        int(rng.integers(0, 10)),
        wbits=int(rng.integers(9, 16)),
        strategy=STRATEGIES[int(rng.integers(0, len(STRATEGIES)))],
    )
    cut = int(rng.integers(0, len(data) + 1))
    flush = (zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_NO_FLUSH)[int(rng.integers(0, 3))]
    first = compressor.compress(data[:cut]) + compressor.flush(flush)
    return first + compressor.compress(data[cut:]) + compressor.flush()


def _dense(nonzero: NDArray[np.int64]) -> bytes:
    assert (np.diff(nonzero >> 8) > 0).all()
    values = np.zeros(int(nonzero[-1] >> 8), np.uint8)
    values[nonzero[:-1] >> 8] = nonzero[:-1] & 255
    assert (nonzero[:-1] & 255).all()
    return values.tobytes()


@pytest.mark.parametrize("seed", range(100))
def test_whatever_zlib_writes_is_read(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = _mostly_zeros(rng)
    nonzero = inflate_nonzero(_compress(rng, data), len(data))
    if nonzero is None:
        assert np.count_nonzero(np.frombuffer(data, np.uint8)) >= len(data) // 16
    else:
        assert _dense(nonzero) == data


def test_dense_data_is_left_to_others() -> None:
    data = bytes(range(1, 256)) * 100
    assert inflate_nonzero(zlib.compress(data), len(data)) is None


def test_another_length_is_noticed() -> None:
    compressed = zlib.compress(bytes(1000))
    assert inflate_nonzero(compressed, 1000) is not None
    for length in (0, 999, 1001):
        assert inflate_nonzero(compressed, length) is None
    assert inflate_nonzero(compressed + b"\0", 1000) is None
    assert inflate_nonzero(b"", 0) is None


@pytest.mark.slow
def test_damaged_data_is_noticed_and_no_index_leaves_its_array(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every index is checked here: a wrong one raises instead of passing unseen."""
    checked = sparse_inflate._inflate.dispatcher(boundscheck=True)
    monkeypatch.setattr(sparse_inflate, "_inflate", checked)
    num_refused = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        data = _mostly_zeros(rng)[:5_000]
        damaged = bytearray(_compress(rng, data))
        for place in rng.integers(0, len(damaged), int(rng.integers(1, 4))).tolist():
            damaged[place] = int(rng.integers(0, 256))
        if rng.random() < 0.2:
            damaged = damaged[: int(rng.integers(0, len(damaged)))]
        nonzero = inflate_nonzero(bytes(damaged), len(data))
        if nonzero is None:
            num_refused += 1
        else:
            assert _dense(nonzero) == zlib.decompress(bytes(damaged))
    assert num_refused > 250
