"""Pickles of NumPy arrays, read by stand-ins of our own for everything that they refer to.

NumPy's own functions trust what a pickle tells them: a damaged one ends the process. The reader in
C takes any amount of memory for a number of its memo. So nothing but containers, numbers and texts
is made here, and an array only of bytes that are there.
"""

from __future__ import annotations

import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

_TYPES = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248])")
_BYTE_ORDERS = ("<", ">", "|", "=")
MAX_DIMENSIONS = 8


class StoredDtype:
    """`numpy.dtype`: booleans, integers and floats."""

    def __init__(self, name: str, *_: Any) -> None:
        if not isinstance(name, str) or not _TYPES.fullmatch(name):
            raise pickle.UnpicklingError(f"an array of the type {name!r:.40}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in _BYTE_ORDERS:
            raise pickle.UnpicklingError("a damaged type of an array")
        self.dtype = self.dtype.newbyteorder(state[1])


class StoredArray:
    """`numpy.ndarray`: empty until its state is set."""

    def __init__(self, *_: Any) -> None:
        self.array: NDArray[Any] = np.zeros(0, np.float32)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("a damaged array")
        _, shape, dtype, is_by_columns, content = state
        self.array = _array(content, dtype, shape, "F" if is_by_columns is True else "C")


def _array(content: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    if isinstance(content, str):  # Of Python 2.
        content = content.encode("latin1")
    is_shape = isinstance(shape, tuple) and len(shape) <= MAX_DIMENSIONS
    if (
        not is_shape
        or not all(type(side) is int and side >= 0 for side in shape)
        or not isinstance(content, bytes | bytearray)
        or not isinstance(dtype, StoredDtype)
        or order not in ("C", "F")
        or math.prod(shape) * dtype.dtype.itemsize != len(content)
    ):
        raise pickle.UnpicklingError("an array whose size, type and content do not agree")
    array = np.frombuffer(bytearray(content), dtype.dtype).reshape(shape, order=order)
    return array.astype(dtype.dtype.newbyteorder("="), copy=False)


def stored_scalar(dtype: Any, content: Any = b"") -> Any:
    """`numpy.core.multiarray.scalar`: one number."""
    return _array(content, dtype, (), "C")[()]


def _stored_buffer(content: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> StoredArray:
    stored = StoredArray()
    stored.array = _array(content, dtype, shape, order)
    return stored


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """`_codecs.encode`, by which bytes are written for Python 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"a text in the encoding {encoding!r:.40}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """`bytes()`, by which no bytes are written for Python 2."""
    return b""


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): StoredArray,
    ("numpy", "dtype"): StoredDtype,
    ("numpy.core.multiarray", "_reconstruct"): StoredArray,
    ("numpy.core.multiarray", "scalar"): stored_scalar,
    ("numpy.core.numeric", "_frombuffer"): _stored_buffer,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encoded,
    ("__builtin__", "bytes"): _no_bytes,
}


class _ArrayUnpickler(pickle._Unpickler):  # The one in Python, whose memo is a dict.
    """Knows the stand-ins; everything else in a pickle is an error."""

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        stand_in = _STAND_INS.get((module.replace("numpy._core.", "numpy.core."), name))
        if stand_in is None:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return stand_in

    def load_build(self) -> None:
        """Sets a state; attributes of anything else stay as they are."""
        state = self.stack.pop()  # type: ignore[attr-defined]
        target = self.stack[-1]  # type: ignore[attr-defined]
        if isinstance(target, StoredArray | StoredDtype):
            target.__setstate__(state)
        elif not isinstance(target, OrderedDict):
            raise pickle.UnpicklingError(f"it sets the state of a {type(target).__name__}")

    dispatch[pickle.BUILD[0]] = load_build


def read_array_pickle(file: IO[bytes]) -> Any:
    """The content of a pickle; arrays are `StoredArray`s.

    Raises:
        Exception: of a dozen unrelated types, on a damaged pickle and on one that refers to
            anything but arrays in plain containers.
    """
    # Zoo files were written by Python 2, whose texts are bytes.
    return _ArrayUnpickler(file, encoding="latin1").load()
