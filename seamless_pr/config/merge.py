"""Config files and overrides laid over each other, checked key by key against the schema."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from seamless_pr.config.keys import Key, Kinds, keys_of
from seamless_pr.config.values import NOT_GIVEN, containers, read_value, shown
from seamless_pr.config.words import Word
from seamless_pr.structures.faults import quoted


@dataclass(frozen=True)
class Source:
    """Where values come from.

    Attributes:
        name: for messages: the path of a file, or "override 'key=value'".
        values: nested mappings.
        adds: its free-form mappings add to earlier ones (an override names one entry); False: they
            replace them.
    """

    name: str
    values: Mapping[str, Any]
    adds: bool = False


@dataclass
class Merger:
    """Lays sources over each other, later ones win.

    A source that changes the kind of a group drops the group's earlier keys. null takes a group
    away, and a group takes the place of null; a list of groups replaces what was there. Every value
    is read when its source is, so that a message can name the file; what depends on several values
    waits for `build`.

    Attributes:
        root: class of the whole tree.
        kinds: what kinds there are; read when needed.
        tree: nested mappings of what was given so far.
    """

    root: type
    kinds: Kinds
    tree: dict[str, Any] = field(default_factory=dict)

    def add(self, source: Source) -> None:
        """Lays a source over the tree.

        Raises:
            ValueError: a key that does not exist, or a value of the wrong type or range; the
                message names source and key.
        """
        try:
            self.tree = self._merged(self.tree, source.values, self.root, _Place(), source.adds)
        except ValueError as error:
            raise ValueError(f"{source.name}: {error}") from error

    def build(self, named: str) -> Any:
        """The finished settings.

        Args:
            named: the config, for messages.

        Raises:
            ValueError: values that must be given and are not, or that contradict each other.
        """
        if missing := sorted(self._missing(self.tree, self.root, "")):
            raise ValueError(f"{named}: {', '.join(missing)} must be given")
        return self._built(self.tree, self.root, "", named)

    def _merged(
        self, tree: Mapping[str, Any], values: Any, settings: type, place: _Place, adds: bool
    ) -> dict[str, Any]:
        merged, keys = dict(tree), keys_of(settings)
        for name, value in values.items():
            if name not in keys:
                raise ValueError(self._unknown_key(name, keys, place))
            key, here = keys[name], place.inside(name)
            if isinstance(value, str) and value == NOT_GIVEN:
                merged[name] = NOT_GIVEN
            elif key.is_group:
                merged[name] = self._group(tree.get(name), value, key, here, adds)
            elif key.is_mapping and adds and isinstance(value, Mapping):
                merged[name] = tree.get(name, {}) | _entry(value, key.hint, here.name)
            else:
                merged[name] = read_value(value, key.hint, here.name)
        return merged

    def _group(self, earlier: Any, value: Any, key: Key, place: _Place, adds: bool) -> Any:
        try:
            value = containers(value)
        except ValueError as error:
            raise ValueError(f"'{place.name}' {error}") from error
        if value is None and key.may_be_null:
            return None
        if isinstance(value, list) and key.may_be_list:
            return [
                self._group(None, part, key, place.inside(str(index)), adds)
                for index, part in enumerate(value)
            ]
        earlier = earlier if isinstance(earlier, Mapping) else {}
        if not isinstance(value, Mapping):
            raise ValueError(self._no_group(value, earlier, key, place))
        kind = None
        if key.place is not None:
            before = earlier.get("kind", key.default_kind)
            kind = self._kind(value, before, key.place, place)
            # Keys of another kind mean something else, even those of the same name.
            earlier = {**(earlier if kind == before else {}), "kind": kind}
            place = place.of_kind(key.place, kind)
        settings = key.settings(self.kinds, kind)
        assert settings is not None
        return self._merged(earlier, value, settings, place, adds)

    def _kind(self, value: Mapping[str, Any], before: str | None, kinds: str, place: _Place) -> str:
        known = self.kinds[kinds]
        choices = ", ".join(f"'{kind}'" for kind in known)
        if "kind" not in value:
            if before is None:
                raise ValueError(f"'{place.name}.kind' must be given; one of {choices}")
            return before
        kind: str = read_value(value["kind"], str, f"{place.name}.kind")
        if kind not in known:
            raise ValueError(f"'{place.name}.kind' must be one of {choices}; got {shown(kind)}")
        return kind

    def _missing(self, tree: Mapping[str, Any], settings: type, prefix: str) -> Iterator[str]:
        for name, key in keys_of(settings).items():
            value = tree.get(name, NOT_GIVEN if key.is_required else None)
            if isinstance(value, str) and value == NOT_GIVEN:
                if key.group is not None and name not in tree:
                    yield from self._missing({}, key.group, f"{prefix}{name}.")
                else:
                    yield f"{prefix}{name}" + (".kind" if key.place else "")
            elif key.is_group and isinstance(value, list):
                assert key.group is not None
                for index, part in enumerate(value):
                    yield from self._missing(part, key.group, f"{prefix}{name}.{index}.")
            elif key.is_group and isinstance(value, Mapping):
                group = key.settings(self.kinds, value.get("kind"))
                assert group is not None
                yield from self._missing(value, group, f"{prefix}{name}.")

    def _built(self, tree: Mapping[str, Any], settings: type, name: str, named: str) -> Any:
        arguments = {}
        for key_name, key in keys_of(settings).items():
            value = tree.get(key_name, {} if key.group is not None and key.is_required else None)
            inside = f"{name}.{key_name}" if name else key_name
            if key.is_group and isinstance(value, list):
                assert key.group is not None
                arguments[key_name] = tuple(
                    self._built(part, key.group, f"{inside}.{index}", named)
                    for index, part in enumerate(value)
                )
            elif key.is_group and isinstance(value, Mapping):
                group = key.settings(self.kinds, value.get("kind"))
                assert group is not None
                arguments[key_name] = self._built(value, group, inside, named)
            elif key_name in tree:
                arguments[key_name] = value
        try:
            return settings(**arguments)
        except ValueError as error:
            where = f"in '{name}': " if name else ""
            raise ValueError(f"{named}: {where}{error}") from error

    def _no_group(self, value: Any, earlier: Mapping[str, Any], key: Key, place: _Place) -> str:
        settings = key.settings(self.kinds, earlier.get("kind"))
        names = list(keys_of(settings)) if settings else ["kind"]
        null = " or null" if key.may_be_null else ""
        null += " or a list of such groups" if key.may_be_list else ""
        return (
            f"'{place.name}' is a group of settings{null}; got {shown(value)}; give its keys: "
            f"{', '.join(names)}"
        )

    def _unknown_key(self, name: str, keys: Mapping[str, Key], place: _Place) -> str:
        """Names the kinds that have the key, or the nearest key, or all keys of the group."""
        full = quoted(place.inside(name).name)
        for kinds, kind, depth in reversed(place.owners):
            inside = (*place.steps, name)[depth:]
            others = [
                other
                for other, settings in self.kinds[kinds].items()
                if self._has_key(settings, inside)
            ]
            if others:
                named = " and ".join(f"'{other}'" for other in others)
                which = "kind" if len(others) == 1 else "the kinds"
                return f"'{full}' is a key of {which} {named}, not of '{kind}'"
        if nearest := difflib.get_close_matches(name, keys, n=1, cutoff=0.6):
            hint = f"did you mean '{place.inside(nearest[0]).name}'?"
        elif same := [key for key in self._all_keys(self.root) if key.endswith(f".{name}")]:
            hint = f"did you mean '{same[0]}'?"
        else:
            hint = f"valid: {', '.join(keys)}"
        return f"unknown key '{full}'; {hint}"

    def _has_key(self, settings: type, steps: tuple[str, ...]) -> bool:
        keys, (first, *rest) = keys_of(settings), steps
        if first not in keys or not rest:
            return first in keys
        key = keys[first]
        groups = [key.group] if key.place is None else self.kinds[key.place].values()
        return any(self._has_key(group, tuple(rest)) for group in groups if group is not None)

    def _all_keys(self, settings: type, prefix: str = "") -> Iterator[str]:
        """Dotted keys of all groups of one kind, and of the default kinds of the others."""
        for name, key in keys_of(settings).items():
            yield f"{prefix}{name}"
            if (group := key.settings(self.kinds, None)) is not None:
                yield from self._all_keys(group, f"{prefix}{name}.")


@dataclass(frozen=True)
class _Place:
    """A key in the tree.

    Attributes:
        steps: names from the root.
        owners: for each group around it that comes in kinds: the place of its kinds, its kind, and
            the number of steps that lead to it.
    """

    steps: tuple[str, ...] = ()
    owners: tuple[tuple[str, str, int], ...] = ()

    @property
    def name(self) -> str:
        return ".".join(self.steps)

    def inside(self, name: str) -> _Place:
        return _Place((*self.steps, name), self.owners)

    def of_kind(self, place: str, kind: str) -> _Place:
        return _Place(self.steps, (*self.owners, (place, kind, len(self.steps))))


def nested(dotted: str, word: Word) -> dict[str, Any]:
    """`a.b`, value -> `{"a": {"b": value}}`."""
    *groups, leaf = dotted.split(".")
    values: dict[str, Any] = {leaf: word}
    for group in reversed(groups):
        values = {group: values}
    return values


def _entry(value: Mapping[str, Any], hint: Any, name: str) -> dict[str, Any]:
    """The one entry of a free-form mapping that an override names; dots belong to its name."""
    steps: list[str] = []
    while isinstance(value, Mapping):
        ((step, value),) = value.items()
        steps.append(step)
    entries: dict[str, Any] = read_value({".".join(steps): value}, hint, name)
    return entries
