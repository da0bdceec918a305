"""The page of all keys of a config, made of the settings classes and their docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Interval, Le, Len, Lt, MultipleOf

from seamless_pr.config.keys import Key, Kinds, alternatives, keys_of, without_marks

_NAMES = {int: "whole number", float: "number", bool: "true or false", str: "text", Any: "anything"}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}


@dataclass(frozen=True)
class Row:
    """One line of a table: a key, its type with the range, its default, and one sentence."""

    key: str
    type: str
    default: str
    sentence: str

    def __str__(self) -> str:
        cells = (f"`{self.key}`", self.type, self.default, self.sentence)
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def config_page(root: type, kinds: Kinds) -> str:
    """Markdown: the keys that every config has, then those of each group that comes in kinds.

    Args:
        root: class of the whole config.
        kinds: place -> kind -> class of its settings.
    """
    lines = [*_table(_rows(root, ""))]
    paths = _paths(root, kinds)
    for place, groups in paths.items():
        classes = kinds[place]
        named = ", ".join(f"`{group}`" for group in groups)
        lines += [f"## {place}", "", f"What {named} can be.", ""]
        lines += [f"- `{kind}`: {summary_and_sentences(cls)[0]}" for kind, cls in classes.items()]
        lines += [""]
        # A group at several places has its keys without what stands before them.
        prefix = f"{groups[0]}." if len(groups) == 1 else ""
        for names, rows in _by_kinds(classes, prefix).items():
            shown = ", ".join(f"`{name}`" for name in names)
            if len(classes) > 1:
                lines += [f"### {shown if len(names) < len(classes) else 'every kind'}", ""]
            lines += _table(rows)
    return "\n".join(lines)


def settings_classes(root: type, kinds: Kinds) -> list[type]:
    """All classes of settings that are reached from one, itself first, each once."""
    found: dict[type, None] = {root: None}
    for settings in (waiting := [root]):
        for key in keys_of(settings).values():
            for group in _groups(key, kinds):
                if group not in found:
                    found[group] = None
                    waiting.append(group)
    return list(found)


def summary_and_sentences(settings: type) -> tuple[str, dict[str, str]]:
    """The first paragraph of a class's docstring, and its `Attributes:` with those of its bases."""
    sentences: dict[str, str] = {}
    for base in reversed(settings.__mro__):
        text = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        _, _, attributes = text.partition("Attributes:\n")
        for name, words in re.findall(r"^ {4}(\w+): (.*?)(?=^ {4}\w|\Z)", attributes, re.M | re.S):
            sentences[name] = " ".join(words.split())
    summary, _, _ = inspect.cleandoc(settings.__doc__ or "").partition("\n\n")
    return " ".join(summary.split()), sentences


def _groups(key: Key, kinds: Kinds) -> Iterable[type]:
    if key.place is not None:
        return kinds[key.place].values()
    return [] if key.group is None else [key.group]


def _paths(root: type, kinds: Kinds) -> dict[str, list[str]]:
    """Place -> the dotted keys of the groups that come in its kinds."""
    paths: dict[str, dict[str, None]] = {}

    def visit(settings: type, path: str) -> None:
        for name, key in keys_of(settings).items():
            inside = f"{path}{name}"
            if key.place is not None:
                paths.setdefault(key.place, {})[inside] = None
            for group in _groups(key, kinds):
                visit(group, f"{inside}.")

    visit(root, "")
    return {place: list(groups) for place, groups in paths.items()}


def _by_kinds(classes: Mapping[str, type], prefix: str) -> dict[tuple[str, ...], list[Row]]:
    """Kinds -> the rows that these and no others have; rows of more kinds first."""
    owners: dict[Row, list[str]] = {}
    for kind, settings in classes.items():
        for row in _rows(settings, prefix):
            owners.setdefault(row, []).append(kind)
    tables: dict[tuple[str, ...], list[Row]] = {}
    for row, names in owners.items():
        tables.setdefault(tuple(names), []).append(row)
    return dict(sorted(tables.items(), key=lambda table: -len(table[0])))


def _rows(settings: type, prefix: str) -> Iterator[Row]:
    _, sentences = summary_and_sentences(settings)
    for name, key in keys_of(settings).items():
        full = f"{prefix}{name}"
        if name == "kind":
            continue
        if key.place is not None:
            null = " or null" if key.may_be_null else ""
            link = f"[{key.place}](#{key.place}){null}"
            default = "required" if key.is_required else f"`{_kind_or_null(key)}`"
            yield Row(full, link, default, sentences[name])
            continue
        if key.group is None:
            default = "required" if key.is_required else f"`{_typed(key.default)}`"
            yield Row(full, _type(key.hint), default, sentences[name])
            continue
        if key.may_be_null:
            yield Row(full, "group or null", "`null`", sentences[name])
        if key.may_be_list:
            yield Row(full, "group or list of groups", "required", sentences[name])
        yield from _rows(key.group, f"{full}.")


def _table(rows: Iterable[Row]) -> list[str]:
    return ["| key | type | default | |", "|---|---|---|---|", *map(str, rows), ""]


def _kind_or_null(key: Key) -> str:
    return f"kind: {key.default_kind}" if key.default_kind else "null"


def _type(hint: Any) -> str:
    choices = [choice for choice in alternatives(hint) if choice is not NoneType]
    null = " or null" if len(choices) < len(alternatives(hint)) else ""
    return " or ".join(_one_type(choice) for choice in choices) + null


def _one_type(hint: Any) -> str:
    inner, ranges = without_marks(hint), _ranges(hint)
    if get_origin(inner) is Literal:
        return " or ".join(f"`{_typed(choice)}`" for choice in get_args(inner))
    if get_origin(inner) is dict:
        return f"mapping of name to {_one_type(get_args(inner)[1])}"
    if get_origin(inner) is tuple:
        first, *rest = get_args(inner)
        length = "" if rest == [...] else f"{1 + len(rest)} "
        return f"list of {ranges or length}{_items(first)}".rstrip()
    return _NAMES[inner] + (f" {ranges}" if ranges else "")


def _items(hint: Any) -> str:
    """What the items of a list are, in the plural."""
    inner = without_marks(hint)
    if get_origin(inner) is Literal:
        return f"words ({_one_type(inner)})"
    if get_origin(inner) is tuple:
        return _one_type(inner).replace("list of", "lists of", 1)
    return f"{_PLURALS[inner]} {_ranges(hint)}"


def _ranges(hint: Any) -> str:
    """`Interval(gt=0, le=1)` -> "> 0, <= 1"; of a list its length."""
    if get_origin(hint) is not Annotated:
        return ""
    words = []
    for mark in hint.__metadata__:
        for rule in mark if isinstance(mark, Interval) else (mark,):
            if isinstance(rule, Len):
                least, most = rule.min_length, rule.max_length
                words.append(
                    f"{least} or more "
                    if most is None
                    else f"{least} "
                    if least == most
                    else f"{least} to {most} "
                )
            elif isinstance(rule, MultipleOf):
                words.append(f"multiple of {rule.multiple_of}")
            else:
                words += [
                    f"{sign} {getattr(rule, name)}"
                    for kind, name, sign in (
                        (Gt, "gt", "&gt;"),
                        (Ge, "ge", "&ge;"),
                        (Lt, "lt", "&lt;"),
                        (Le, "le", "&le;"),
                    )
                    if isinstance(rule, kind)
                ]
    return ", ".join(words)


def _typed(value: Any) -> str:
    """A value as one would type it in YAML."""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_typed(entry) for entry in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    return "null" if value is None else str(value)
