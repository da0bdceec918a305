"""Compilation of the few loops over pixels that neither NumPy nor PyTorch does in one pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compiles a function on NumPy arrays at its first call; the machine code is kept on disk.

    Releases the interpreter lock while it runs. Where no folder can be written, the code is
    compiled anew in each process instead of failing.
    """
    options: dict[str, Any] = {"nogil": True, "boundscheck": False, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no writable folder for its cache
        return numba.njit(**options)(function)
