"""Settings that come in kinds: the `kind` key of a group decides which other keys it has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OneOf:
    """Marks a field as a group that comes in kinds.

    Attributes:
        place: name of the dictionary of kinds, such as "backbones".
    """

    place: str


@dataclass(frozen=True, kw_only=True)
class Kinded:
    """A group that comes in kinds.

    Attributes:
        kind: which one; the other keys of the group are those of this kind.
    """

    kind: str
