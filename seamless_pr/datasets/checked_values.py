"""Values of JSON files that others wrote: what they are taken as, or None where they are refused.

Exporters write whole numbers as 20.0 and flags as true; both are taken. What is no number is no
number: texts of digits, NaN and numbers beyond a range are refused, and so are texts that no file
or page could hold again.
"""

from __future__ import annotations

import math
from typing import Any

from seamless_pr.structures.faults import quoted

# Class numbers of every dataset fit; above it NumPy's fixed widths would wrap or stop.
MAX_CATEGORY_ID = 2**31 - 1
# Up to here a float holds every whole number.
MAX_WHOLE = 2**53


def whole(value: Any, low: int = -MAX_WHOLE, high: int = MAX_WHOLE) -> int | None:
    """An integer in low..high, or a float that is one."""
    if isinstance(value, float) and math.isfinite(value) and value == math.floor(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        return None
    return value


def flag(value: Any) -> bool | None:
    """0, 1, false or true."""
    if isinstance(value, bool):
        return value
    number = whole(value, 0, 1)
    return None if number is None else bool(number)


def number(value: Any) -> float | None:
    """Any number but NaN and the infinities."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer that no float can hold
        return None


def numbers(value: Any, length: int) -> tuple[float, ...] | None:
    """A list of so many numbers."""
    if not isinstance(value, list) or len(value) != length:
        return None
    found = tuple(number(entry) for entry in value)
    return None if None in found else found  # type: ignore[return-value]


def text(value: Any) -> str | None:
    """A text that is not empty, without NUL, and that UTF-8 can hold."""
    if not isinstance(value, str) or not value or "\0" in value:
        return None
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return None
    return value


def image_id(value: Any) -> int | str | None:
    """An id is a whole number or a text; 7.0 is 7, and "7" stays a text."""
    return text(value) if isinstance(value, str) else whole(value)


def file_name(value: Any) -> str | None:
    """A name with forward slashes; names that were written on Windows are turned round.

    What can only be a folder is no file.
    """
    name = (text(value) or "").replace("\\", "/")
    return None if name.rpartition("/")[2] in ("", ".", "..") else name


def name_below(value: Any) -> str | None:
    """As `file_name`, of a file that must lie below its folder: not absolute, and without `..`."""
    name = file_name(value)
    if name is None or name.startswith("/") or name[1:2] == ":" or ".." in name.split("/"):
        return None
    return name


def is_shallow(value: Any, depth: int) -> bool:
    """Whether lists and objects lie in each other so often at most."""
    if isinstance(value, dict):
        value = [*value.values()]
    if not isinstance(value, list):
        return True
    if not depth:
        return False
    return not {list, dict} & set(map(type, value)) or all(
        is_shallow(entry, depth - 1) for entry in value
    )


def shown(value: Any, limit: int = 60) -> str:
    """A value for a message, cut where it is long."""
    try:
        words = repr(value)
    except RecursionError:
        words = f"a {type(value).__name__} in many others"
    return quoted(words, limit)
