"""Errors about what a file of another program holds name the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from seamless_pr.structures.faults import first_line, is_want_of_memory

# What reading shapes and texts of any kind leads to.
_STUMBLES = (ArithmeticError, AttributeError, LookupError, RecursionError, RuntimeError, TypeError)


@contextmanager
def reading(source: str | os.PathLike[str]) -> Iterator[None]:
    """Errors of the block become ones that name the file.

    Networks are read off names and shapes, and anybody may have written these: a layer that must be
    there is missing, a tensor has fewer dimensions than every layer of its name.

    Raises:
        ValueError: of the block, with the name of the file; or this is not what it is taken for.
    """
    name = os.fspath(source)
    try:
        yield
    except ValueError as error:
        if name in str(error):
            raise
        raise ValueError(f"{name}: {error}") from error
    except _STUMBLES as error:
        if isinstance(error, RuntimeError) and is_want_of_memory(error):
            raise
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(
            f"{name} is not what it is taken for ({reason}); give the file as it was published, or "
            "with all that its program saves"
        ) from error
