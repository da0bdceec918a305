"""YAML whose plain words wait for the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seamless_pr.config.words import Word, dump_yaml, parse_yaml, read_yaml


@pytest.mark.parametrize(
    "word, meaning",
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("No", False),
        ("12", 12),
        ("0012", 12),
        ("-3", -3),
        ("1e-4", 1e-4),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("1e", "1e"),
        ("2024-01-01", "2024-01-01"),
        ("<<", "<<"),
    ],
)
def test_a_word_means_what_yaml_means_where_no_text_is_wanted(word: str, meaning: Any) -> None:
    resolved = Word(word).resolved()
    assert resolved == meaning
    assert type(resolved) is type(meaning)


def test_plain_scalars_are_words_and_quoted_ones_are_text() -> None:
    values = parse_yaml("a: 1\nb: '1'\nc: [x, \"y\"]\nd: >-\n  long\n  text")
    assert isinstance(values["a"], Word)
    assert type(values["b"]) is str
    assert [type(item) for item in values["c"]] == [Word, str]
    assert (type(values["d"]), values["d"]) == (str, "long text")


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: [1, 2\nb: 3", r"line 2, column 2"),
        ("data: 1\ndata: 2", r"the key 'data' stands twice; .* line 2, column 1"),
        ("a: {b: 1, b: 2}", r"the key 'b' stands twice"),
        ("a: &x 1\nb: *x", r"an alias .* line 2, column 4"),
        ("a: !!python/name:os.system x", r"the tag .*os\.system' is not read here"),
        ("? [1, 2]\n: 3", r"a key must be a word"),
        ("a: 1\n--- \nb: 2", r"expected a single document"),
        ("a: \x00", r"special characters are not allowed"),
        ("[" * 5000, r"groups within groups beyond any use"),
    ],
)
def test_what_is_no_yaml_of_ours_is_refused_in_a_sentence(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"broken\.yaml is not valid YAML: .*" + message) as error:
        read_yaml(path)
    assert "\n" not in str(error.value)


def test_a_file_of_another_encoding_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "strange.yaml"
    path.write_bytes("a: 1\nimages: straße".encode("latin-1"))
    with pytest.raises(ValueError, match=r"strange\.yaml is no text in UTF-8 \(line 2, byte 17\)"):
        read_yaml(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes("images: straße\r\n".encode(encoding))
    assert read_yaml(path) == {"images": "straße"}


@pytest.mark.parametrize("text, got", [("- 1\n- 2", "a list"), ("", "nothing"), ("x", "a word")])
def test_a_config_is_a_mapping(tmp_path: Path, text: str, got: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"must hold 'key: value' lines at the top; got {got}"):
        read_yaml(tmp_path / "a.yaml")


def test_text_that_looks_like_something_else_survives_a_round_trip() -> None:
    values = {"a": ["1e3", "yes", "null", "", "x #y", "- z", "é", "0012", "a: b", " b "], "b": 1e-7}
    read = parse_yaml(dump_yaml(values))
    meant = [item.resolved() if isinstance(item, Word) else item for item in read["a"]]
    assert meant == values["a"]
    assert read["b"].resolved() == 1e-7
    words = parse_yaml("a: 0.50\nb: 2024-01-01\nc: text\nd: yes")
    assert parse_yaml(dump_yaml(words)) == words
    assert all(isinstance(value, Word) for value in parse_yaml(dump_yaml(words)).values())
