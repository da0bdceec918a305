"""Pickled arrays are read without NumPy's own trust in them."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from seamless_pr.weights.array_pickles import StoredArray, read_array_pickle


def read(data: bytes) -> Any:
    return read_array_pickle(io.BytesIO(data))


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("dtype", ["f4", ">f8", "f2", "i8", "u1", "?"])
def test_arrays_of_every_protocol_are_what_they_were(protocol: int, dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for each in (array, np.asfortranarray(array), array[:, :, :0], array[0, 0, 0]):
        found = read(pickle.dumps(OrderedDict(a=[each]), protocol))["a"][0]
        found = found.array if isinstance(found, StoredArray) else found
        assert np.array_equal(found, each)
        assert found.dtype == each.dtype.newbyteorder("=")


def changed(name: str, old: bytes, new: bytes) -> Any:
    data = pickle.dumps(np.arange(24, dtype="f4").reshape(2, 3, 4), 2)
    assert data.count(old) == 1, name
    return pytest.param(data.replace(old, new), id=name)


@pytest.mark.parametrize(
    "data",
    [
        changed("larger shape", b"K\x02K\x03K\x04\x87", b"K\x02K\x03K\xff\x87"),
        changed("negative side", b"K\x02K\x03K\x04\x87", b"K\x02K\x03J\xff\xff\xff\xff\x87"),
        changed("side that is no number", b"K\x02K\x03K\x04\x87", b"K\x02K\x03N\x87"),
        changed("shape that is no tuple", b"K\x02K\x03K\x04\x87", b"K\x02"),
        changed("another type", b"X\x02\x00\x00\x00f4", b"X\x02\x00\x00\x00O8"),
        changed("type of a structure", b"X\x02\x00\x00\x00f4", b"X\x05\x00\x00\x00f4,f4"),
        changed("byte order that is none", b"X\x01\x00\x00\x00<", b"X\x01\x00\x00\x00!"),
        pytest.param(b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R}b.", id="dict as state"),
        pytest.param(b"\x80\x02cnumpy\nndarray\n}X\x01\x00\x00\x00aK\x01sb.", id="class changed"),
        pytest.param(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", id="code"),
        pytest.param(b"\x80\x02B\xff\xff\xff\x7f.", id="bytes that are not there"),
    ],
)
def test_what_is_no_sound_array_is_refused(data: bytes) -> None:
    with pytest.raises((pickle.UnpicklingError, EOFError)):
        read(data)


def test_a_number_of_the_memo_takes_no_memory() -> None:
    assert read(b"\x80\x02]r\xff\xff\xff\x7f.") == []
