"""What the schema says about each key of a group: its type, whether it is a group, its default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from seamless_pr.structures.kinds import OneOf

# Place -> kind -> class of its settings.
Kinds = Mapping[str, Mapping[str, type]]


@dataclass(frozen=True)
class Key:
    """One key of a group.

    Attributes:
        hint: its type with the ranges at the field.
        group: class of the settings behind it, for a group of one kind.
        place: for a group that comes in kinds: the name of their dictionary.
        may_be_null: whether null is a value.
        may_be_list: whether several groups of one kind may stand there, in a list.
        default: what holds without the key; `dataclasses.MISSING` if it must be given.
        default_kind: kind of the default, for a group that comes in kinds and has one.
    """

    hint: Any
    group: type | None
    place: str | None
    may_be_null: bool
    may_be_list: bool
    default: Any
    default_kind: str | None

    @property
    def is_required(self) -> bool:
        return self.default is MISSING

    @property
    def is_group(self) -> bool:
        return self.group is not None or self.place is not None

    @property
    def is_mapping(self) -> bool:
        """Whether its names are free, as those of losses."""
        return any(get_origin(choice) is dict for choice in alternatives(self.hint))

    def settings(self, kinds: Kinds, kind: str | None) -> type | None:
        """The class behind a group; None if there is no such kind."""
        if self.group is not None or self.place is None:
            return self.group
        return kinds[self.place].get(kind or self.default_kind or "")


@cache
def keys_of(settings: type) -> dict[str, Key]:
    """The keys of a class of settings, in their order."""
    hints = get_type_hints(settings, include_extras=True)
    keys = {}
    for entry in fields(settings):
        hint = hints[entry.name]
        choices = alternatives(hint)
        groups = [choice for choice in choices if _is_settings(choice)]
        lists = [get_args(choice)[0] for choice in choices if get_origin(choice) is tuple]
        places = [mark.place for choice in choices if (mark := _mark(choice)) is not None]
        factory = entry.default_factory
        default = entry.default if factory is MISSING else factory()
        keys[entry.name] = Key(
            hint,
            groups[0] if groups else None,
            places[0] if places else None,
            NoneType in choices,
            any(_is_settings(member) for member in lists),
            default,
            getattr(default, "kind", None) if places else None,
        )
    return keys


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, marks kept; the hint itself if it is none."""
    if get_origin(hint) in (Union, UnionType):
        return tuple(choice for member in get_args(hint) for choice in alternatives(member))
    return (hint,)


def without_marks(hint: Any) -> Any:
    """`Annotated[int, Ge(1)]` -> `int`."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _is_settings(hint: Any) -> bool:
    return isinstance(hint, type) and is_dataclass(hint)


def _mark(hint: Any) -> OneOf | None:
    marks = hint.__metadata__ if get_origin(hint) is Annotated else ()
    return next((mark for mark in marks if isinstance(mark, OneOf)), None)
