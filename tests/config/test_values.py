"""One value: words become what the schema wants, and ranges are checked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Len

from seamless_pr.config.values import read_value
from seamless_pr.config.words import Word

Positive = Annotated[float, Gt(0)]


@pytest.mark.parametrize(
    "value, hint, read",
    [
        (Word("3"), float, 3.0),
        (Word("1e-4"), Positive, 1e-4),
        (Word("0012"), str, "0012"),
        (Word("null"), str | None, None),
        (Word(""), str | None, None),
        (Word("16"), Literal[8, 16], 16),
        (Word("none"), Literal["none", "bf16"], "none"),
        (Word("off"), bool | None, False),
        (Word("[1, 2.5]"), tuple[Positive, ...], (1.0, 2.5)),
        ([Word("1"), Word("2")], tuple[int, int] | None, (1, 2)),
        (Word("~"), tuple[int, int] | None, None),
        (Word("[0012, yes]"), tuple[str, ...], ("0012", "yes")),
        (Word("{a: 1}"), dict[str, Positive], {"a": 1.0}),
        ({"a": Word("1e3"), "b": [Word("x")]}, dict[str, Any], {"a": 1000.0, "b": ["x"]}),
        ("'quoted in a file'", str, "'quoted in a file'"),
        (Word("'quoted on the command line'"), str, "quoted on the command line"),
    ],
)
def test_a_value_gets_the_type_of_the_schema(value: Any, hint: Any, read: Any) -> None:
    found = read_value(value, hint, "a.b")
    assert found == read
    assert type(found) is type(read)


@pytest.mark.parametrize(
    "value, hint, sentence",
    [
        ("3", int, "'a.b' must be a whole number; got '3'"),
        (Word("yes"), int, "'a.b' must be a whole number; got True"),
        (3, str, "'a.b' must be text; got 3"),
        (Word("null"), str, "'a.b' must be text; got null"),
        (Word("9"), Literal[8, 16], "'a.b' must be 8 or 16; got 9"),
        (Word("0"), Annotated[int, Ge(1)] | None, "'a.b' must be 1 or more; got 0"),
        (Word("[1]"), tuple[int, int], "'a.b' must be a list of 2; got [1]"),
        (Word("1"), tuple[int, ...], "'a.b' must be a list such as [1, 2]; got 1"),
        (Word("[1, x]"), tuple[int, ...], "'a.b[1]' must be a whole number; got 'x'"),
        ([], Annotated[tuple[int, ...], Len(1)], "'a.b' must have at least 1 item; got []"),
        ({"x": 0}, dict[str, Positive], "'a.b.x' must be greater than 0; got 0"),
        ([1], dict[str, Positive], "'a.b' must be a mapping such as {name: 1}; got [1]"),
        (float("nan"), float, "'a.b' must be a finite number; got nan"),
        ({"x": [float("inf")]}, dict[str, Any], "'a.b' must be made of finite numbers; got inf"),
        (1e38, float, "'a.b' must lie between -1e+30 and 1e+30; got 1e+38"),
        (
            [1.0, -1e308],
            tuple[float, ...],
            "'a.b[1]' must lie between -1e+30 and 1e+30; got -1e+308",
        ),
        (
            {"x": [2**53 + 1]},
            dict[str, Any],
            f"'a.b.x[0]' must lie between -{2**53} and {2**53}; got {2**53 + 1}",
        ),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence(value: Any, hint: Any, sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        read_value(value, hint, "a.b")
    assert str(error.value) == sentence
