"""Keeps what the decoders of OpenCV and Pillow print off the console.

libpng, libjpeg, libtiff and OpenCV itself write warnings about a file to the C library's stderr,
and Pillow raises Python's; none of them names the file. Whoever decodes knows the name and tells
what matters in one line of his own.
"""

from __future__ import annotations

import ctypes
import platform
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

warnings.filterwarnings("ignore", module=r"PIL\.")
_lock = threading.Lock()
_num_inside = 0
_before: tuple[int, int | None] = (0, None)


@contextmanager
def quiet_decoding() -> Iterator[None]:
    """While the block runs, in any thread, decoders of this process print nothing.

    Only the variable `stderr` of the C library points elsewhere: what Python prints, and what
    processes print that are started meanwhile, arrives.
    """
    global _num_inside, _before
    with _lock:
        if _num_inside == 0:
            _before = _exchange((cv2.utils.logging.LOG_LEVEL_SILENT, _NOWHERE))
        _num_inside += 1
    try:
        yield
    finally:
        with _lock:
            _num_inside -= 1
            if _num_inside == 0:
                _exchange(_before)


def _exchange(new: tuple[int, int | None]) -> tuple[int, int | None]:
    """Sets OpenCV's level and the stream, and returns what they were."""
    level, stream = new
    old_level, old_stream = cv2.utils.logging.setLogLevel(level), None
    if _STREAM is not None and stream is not None:
        old_stream, _STREAM.value = _STREAM.value, stream
    return old_level, old_stream


def _c_stderr() -> tuple[ctypes.c_void_p | None, int | None]:
    """The variable, and a stream to nowhere; None where the C library does not let it be set."""
    if platform.libc_ver()[0] != "glibc":
        return None, None
    library = ctypes.CDLL(None)
    library.fopen.restype = ctypes.c_void_p
    return ctypes.c_void_p.in_dll(library, "stderr"), library.fopen(b"/dev/null", b"we")


_STREAM, _NOWHERE = _c_stderr()
