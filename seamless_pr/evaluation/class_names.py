"""Names of classes as keys: no two classes may share one, and none may be the name of a mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

# Means over all classes, the things, the stuff.
GROUPS = ("all", "things", "stuff")


def unique_names(classes: Iterable[tuple[int, str]]) -> list[str]:
    """One key for each class: its name, and its id as well where the name alone is not enough.

    Args:
        classes: (category id, name) of each class; ids are unique, names need not be.
    """
    classes = list(classes)
    taken = Counter([*GROUPS, *(name for _, name in classes)])
    return [
        name if taken[name] == 1 else f"{name} ({category_id})" for category_id, name in classes
    ]
