"""Reading of one value: words become what the schema wants, and ranges are checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from seamless_pr.config.keys import alternatives, without_marks
from seamless_pr.config.words import Word, parse_yaml
from seamless_pr.files import path_fault
from seamless_pr.structures.faults import quoted

NOT_GIVEN = "???"
# Single precision holds up to 3.4e38; there is room for some arithmetic.
LARGEST_FLOAT = 1e30
# Up to here a float holds every whole number.
LARGEST_WHOLE = 2**53
# pydantic's words -> ours.
_WORDING = {
    r"^(Input|Tuple|Dictionary) should ": "must ",
    r" after validation, not \d+$": "",
    r"greater than or equal to (\S+)": r"\1 or more",
    r"less than or equal to (\S+)": r"at most \1",
    "a valid boolean": "true or false",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "text",
}
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)


def read_value(value: Any, hint: Any, name: str) -> Any:
    """A value of the type of the schema, in its range.

    Args:
        value: of a file (`Word`s, quoted text, lists, mappings) or of plain containers.
        hint: the type with its ranges.
        name: dotted key, for messages.

    Raises:
        ValueError: not of this type or range.
    """
    try:
        prepared = _prepared(value, hint)
    except ValueError as error:
        raise ValueError(f"'{name}' {error}") from error
    try:
        found = _adapter(hint).validate_python(prepared)
    except ValidationError as error:
        raise ValueError(_sentence(error, prepared, name)) from error
    _check(found, name)
    return found


def containers(value: Any) -> Any:
    """A word that stands for a list, a group or null, as an override has it, taken apart.

    Raises:
        ValueError: it looks like one and is not well formed; the rest of a sentence that begins
            with the name of the key.
    """
    if not isinstance(value, Word):
        return value
    if value.is_null():
        return None
    if not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return parse_yaml(value)
    except ValueError as error:
        raise ValueError(f"cannot be {quoted(repr(str(value)))}: {error}") from error


def _check(value: Any, name: str) -> None:
    """Refuses what nothing can work with.

    Numbers must fit single precision and 64-bit counters; texts are names and paths, of files or of
    things, and must fit a disk.
    """
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _check(entry, f"{name}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, entry in enumerate(value):
            _check(entry, f"{name}[{index}]")
    elif isinstance(value, str) and (fault := path_fault(value)):
        raise ValueError(f"'{name}' {fault}; got {shown(value)}")
    elif isinstance(value, (int, float)):
        largest = LARGEST_FLOAT if isinstance(value, float) else LARGEST_WHOLE
        if not -largest <= value <= largest:
            raise ValueError(
                f"'{name}' must lie between {-largest} and {largest}; got {shown(value)}"
            )


@lru_cache(maxsize=1024)
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=_STRICT)


def _prepared(value: Any, hint: Any) -> Any:
    """Words resolved and lists made tuples where the hint asks for it; anything else as it is."""
    if isinstance(value, str) and "${" in value:
        raise ValueError(
            f"cannot be {quoted(repr(str(value)))}: values are taken as written, nothing is filled "
            "in for '${...}'; write the value out"
        )
    choices = [without_marks(choice) for choice in alternatives(hint)]
    for choice in choices:
        if get_origin(choice) is tuple:
            return _tuple(containers(value), choice)
        if get_origin(choice) is dict:
            return _mapping(containers(value), get_args(choice)[1])
    if Any in choices:
        return _free(containers(value))
    if not isinstance(value, Word):
        return value
    if not any(_is_text(choice) for choice in choices):
        return value.resolved()
    return None if value.is_null() else _unquoted(value)


def _tuple(values: Any, hint: Any) -> Any:
    if not isinstance(values, (list, tuple)):
        if values is None:
            return None
        raise ValueError(f"must be a list such as [1, 2]; got {shown(values)}")
    hints = get_args(hint)
    if hints[1:] == (...,):
        return tuple(_prepared(value, hints[0]) for value in values)
    if len(values) != len(hints):
        raise ValueError(f"must be a list of {len(hints)}; got {shown(values)}")
    return tuple(_prepared(value, item) for value, item in zip(values, hints, strict=True))


def _mapping(values: Any, hint: Any) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"must be a mapping such as {{name: 1}}; got {shown(values)}")
    return {str(name): _prepared(value, hint) for name, value in values.items()}


def _free(value: Any) -> Any:
    """Values that the schema leaves free have the types of YAML."""
    if isinstance(value, Mapping):
        return {str(name): _free(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_free(entry) for entry in value]
    free = value.resolved() if isinstance(value, Word) else value
    if isinstance(free, float) and free - free != 0:
        raise ValueError(f"must be made of finite numbers; got {free}")
    return free


def _is_text(hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return all(isinstance(choice, str) for choice in get_args(hint))
    return hint is str


def _unquoted(word: Word) -> str:
    """Quotes around the whole value of an override are not part of the text."""
    is_quoted = len(word) > 1 and word[0] == word[-1] and word[0] in "'\""
    return word[1:-1] if is_quoted else str(word)


def _sentence(error: ValidationError, value: Any, name: str) -> str:
    """pydantic's first finding in our words."""
    first = error.errors(include_url=False)[0]
    # The names of union members that pydantic adds are of no use to a reader.
    steps = [step for step in first["loc"] if isinstance(step, int) or step in _names(value)]
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    rule = first["msg"]
    for theirs, ours in _WORDING.items():
        rule = re.sub(theirs, ours, rule)
    return f"'{name}{place}' {rule}; got {shown(first['input'])}"


def _names(value: Any) -> set[str]:
    return set(value) if isinstance(value, Mapping) else set()


def shown(value: Any) -> str:
    """A value as it would be typed, cut where it is long."""
    if isinstance(value, (list, tuple)):
        return quoted(f"[{', '.join(shown(entry) for entry in value)}]")
    if isinstance(value, Word):
        return quoted(value)
    return "null" if value is None else quoted(repr(value))
