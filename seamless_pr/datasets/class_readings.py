"""What others say about the classes behind numbers, and whether it contradicts a label space."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

from seamless_pr.structures.label_space import Category


class Reading(Protocol):
    """A class as somebody states it; all but the number may be left out."""

    @property
    def category_id(self) -> int: ...

    @property
    def name(self) -> str | None: ...

    @property
    def is_thing(self) -> bool | None: ...


def contradictions(
    stated: Iterable[Reading], categories: Sequence[Category], source: str
) -> list[str]:
    """A sentence for each class whose number means something else on both sides.

    Numbers alone do not make a class. Names are compared without regard to case, spaces, hyphens
    and underscores; a name of Vistas' config is that of its class, and of a list of synonyms one in
    common is enough.

    Args:
        stated: classes as somebody states them; those that `categories` lacks are passed over.
        categories: what the numbers mean here.
        source: where `categories` stand, for the sentences.
    """
    known = {category.category_id: category for category in categories}
    return [
        f"category {reading.category_id} is {described(reading)} here and "
        f"{described(known[reading.category_id])} in {source}"
        for reading in stated
        if reading.category_id in known and not is_same_class(reading, known[reading.category_id])
    ]


def described(reading: Reading) -> str:
    """`'car' (a thing)`, for messages."""
    kinds = {True: "a thing", False: "stuff", None: "of no stated kind"}
    return f"'{reading.name or 'unnamed'}' ({kinds[reading.is_thing]})"


def is_same_class(reading: Reading, category: Category) -> bool:
    """Whether name and kind, as far as they are stated, are those of the class; see above."""
    other_kind = reading.is_thing is not None and reading.is_thing != category.is_thing
    return not other_kind and (reading.name is None or _same_name(reading.name, category))


def _same_name(name: str, category: Category) -> bool:
    own = _synonyms(category.name)
    if "--" in category.supercategory:  # Vistas' config calls the class so.
        own.add(_plain(category.supercategory))
    return bool(_synonyms(name) & own)


def _synonyms(name: str) -> set[str]:
    return {_plain(part) for part in (name, *re.split("[,;]", name)) if _plain(part)}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name.casefold())
