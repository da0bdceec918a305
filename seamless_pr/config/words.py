"""YAML whose plain words wait for the schema: the key, not the spelling, decides their type.

`images: 0012` is the text "0012" because the schema wants text there, and `lr: 1e-4` is a number
because it wants one. Quotes always mean text.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml

from seamless_pr.input_files import YamlLoader, read_text
from seamless_pr.structures.faults import first_line

_NULLS = {"", "~", "null", "Null", "NULL"}
_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on"), True),
    **dict.fromkeys(("false", "no", "off"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan")
# Plain words have the last three in YAML 1.1, for what they look like; here they are words.
_TAGS = tuple(
    f"tag:yaml.org,2002:{name}"
    for name in "null bool int float str seq map timestamp merge value".split()  # noqa: SIM905
)


class Word(str):
    """A value as it was typed, without quotes: text, number, truth value, null, list or group."""

    def is_null(self) -> bool:
        return self in _NULLS

    def resolved(self) -> Any:
        """What the word means where the schema does not want text: YAML's types."""
        lower = self.lower()
        if self.is_null():
            return None
        if lower in _BOOLEANS:
            return _BOOLEANS[lower]
        if _INTEGER.fullmatch(self):
            return int(self)
        if _FLOAT.fullmatch(lower):
            return float(lower.replace(".inf", "inf").replace(".nan", "nan"))
        return str(self)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping at the top of a file; its plain scalars are `Word`s.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not UTF-8, not YAML, a key that stands twice, or no mapping; names the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"config {path} does not exist; give the path of a YAML file")
    text = read_text(path)
    try:
        values = parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        got = "nothing" if values is None else f"a {'list' if isinstance(values, list) else 'word'}"
        raise ValueError(f"{path} must hold 'key: value' lines at the top; got {got}")
    return values


def parse_yaml(text: str) -> Any:
    """Mappings, lists and `Word`s of a YAML text; None for an empty one.

    Raises:
        ValueError: not YAML, a key that stands twice, an alias or a tag; says where.
    """
    try:
        loader = YamlLoader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        return None if node is None else _plain(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        context = f"{error.context}: " if error.context else ""
        raise ValueError(f"{context}{error.problem}{where}") from error
    except yaml.YAMLError as error:
        raise ValueError(first_line(error)) from error
    except RecursionError as error:
        raise ValueError("groups within groups beyond any use") from error


def dump_yaml(values: Any) -> str:
    """YAML that `parse_yaml` reads back as the same values, whatever the schema wants."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _plain(node: yaml.Node) -> Any:
    if node.tag not in _TAGS:
        raise yaml.MarkedYAMLError(
            problem=f"the tag '{node.tag}' is not read here; leave it out",
            problem_mark=node.start_mark,
        )
    if isinstance(node, yaml.ScalarNode):
        return Word(node.value) if node.style is None else str(node.value)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    values: dict[str, Any] = {}
    for key, value in node.value:
        problem = None
        if not isinstance(key, yaml.ScalarNode):
            problem = "a key must be a word"
        elif key.value in values:
            problem = f"the key '{key.value}' stands twice; leave one of them out"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
        values[str(key.value)] = _plain(value)
    return values


class _Dumper(yaml.SafeDumper):
    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = None if isinstance(Word(text).resolved(), str) else "'"
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    def represent_word(self, word: Word) -> yaml.ScalarNode:
        tag = self.resolve(yaml.ScalarNode, str(word), (True, False))
        return self.represent_scalar(tag, str(word))

    def represent_number(self, number: float) -> yaml.ScalarNode:
        assert math.isfinite(number)
        return self.represent_word(Word(repr(number)))

    def represent_list(self, values: list[Any]) -> yaml.SequenceNode:
        return self.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(list, _Dumper.represent_list)
_Dumper.add_representer(str, _Dumper.represent_text)
_Dumper.add_representer(Word, _Dumper.represent_word)
_Dumper.add_representer(float, _Dumper.represent_number)
