"""The generated page of keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Interval, Len

from seamless_pr.config.pages import config_page, settings_classes, summary_and_sentences
from seamless_pr.structures.kinds import Kinded, OneOf


@dataclass(frozen=True, kw_only=True)
class Wheel(Kinded):
    """What all wheels have.

    Attributes:
        size: in cm | inches;
            two lines.
    """

    size: Annotated[int, Ge(3)] = 7


@dataclass(frozen=True, kw_only=True)
class Spoked(Wheel):
    """A wheel with spokes.

    Attributes:
        spokes: their number.
    """

    kind: str = "spoked"
    spokes: Annotated[tuple[float, ...], Len(2, 2)] = (1.0, 2.5)


@dataclass(frozen=True, kw_only=True)
class Disc(Wheel):
    """A full wheel."""

    kind: str = "disc"


@dataclass(frozen=True, kw_only=True)
class Bell:
    """A bell.

    Attributes:
        tone: its sound.
        loudness: share of the largest.
    """

    tone: Literal["high", "low"] | None = None
    loudness: Annotated[float, Interval(gt=0, le=1)] = 0.5


@dataclass(frozen=True, kw_only=True)
class Bicycle:
    """All of it.

    Attributes:
        front: the wheel that steers.
        back: the other one; null: a unicycle.
        bell: to be heard.
        names: what it is called.
    """

    front: Annotated[Any, OneOf("wheels")]
    back: Annotated[Any, OneOf("wheels")] | None = field(default_factory=Disc)
    bell: Bell | None = None
    names: dict[str, int]


KINDS = {"wheels": {"spoked": Spoked, "disc": Disc}}

PAGE = """\
| key | type | default | |
|---|---|---|---|
| `front` | [wheels](#wheels) | required | the wheel that steers. |
| `back` | [wheels](#wheels) or null | `kind: disc` | the other one; null: a unicycle. |
| `bell` | group or null | `null` | to be heard. |
| `bell.tone` | `high` or `low` or null | `null` | its sound. |
| `bell.loudness` | number &gt; 0, &le; 1 | `0.5` | share of the largest. |
| `names` | mapping of name to whole number | required | what it is called. |

## wheels

What `front`, `back` can be.

- `spoked`: A wheel with spokes.
- `disc`: A full wheel.

### every kind

| key | type | default | |
|---|---|---|---|
| `size` | whole number &ge; 3 | `7` | in cm \\| inches; two lines. |

### `spoked`

| key | type | default | |
|---|---|---|---|
| `spokes` | list of 2 numbers | `[1, 2.5]` | their number. |
"""


def test_the_page_names_every_key_once_with_type_range_default_and_sentence() -> None:
    assert config_page(Bicycle, KINDS) == PAGE


def test_sentences_of_bases_count() -> None:
    summary, sentences = summary_and_sentences(Spoked)
    assert summary == "A wheel with spokes."
    assert sentences["size"] == "in cm | inches; two lines."
    assert sentences["spokes"] == "their number."


def test_classes_of_all_kinds_are_found() -> None:
    assert settings_classes(Bicycle, KINDS) == [Bicycle, Spoked, Disc, Bell]
