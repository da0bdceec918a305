from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from seamless_pr.input_files import (
    MAX_BYTES,
    YamlLoader,
    read_json,
    read_regular,
    read_text,
)


def test_a_regular_file_is_read_whole_and_a_link_to_it_too(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").symlink_to("a")
    assert read_regular(tmp_path / "a") == read_regular(tmp_path / "b") == b"abc"


def test_devices_pipes_and_folders_are_refused_at_once_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError, match=f"{path} is not a regular file"):
            read_regular(path)


def test_a_file_that_the_system_cannot_read_is_named() -> None:
    with pytest.raises(OSError, match="/proc/self/mem"):
        read_regular("/proc/self/mem")


def test_a_file_that_claims_terabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(OSError, match=r"sparse has 4\.0 GB"):
        read_regular(tmp_path / "sparse")


@pytest.mark.parametrize(
    "content", [b"", b'{"a": ', b"[" * 200_000, b'{"a": \xff}', b"9" * 5000, b"\0"]
)
def test_what_is_no_json_is_an_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is not JSON, or only a part of it"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    "value",
    [
        "!!timestamp 1", "!!bool maybe", "!!int ''", "!!int 1.5", "!!float abc", "!!binary é",
        "2001-13-45", "9" * 5000,
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_its_type_is_named_with_its_line(value: str) -> None:
    with pytest.raises(yaml.MarkedYAMLError) as refused:
        yaml.load(f"a: 1\nb: [{value}]", YamlLoader)
    assert "line 2, column 5" in str(refused.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_text_is_read_with_and_without_a_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes("größe\n日本".encode(encoding))
    assert read_text(tmp_path / "a.txt") == "größe\n日本"


@pytest.mark.parametrize("content", [b"a\ngr\xf6\xdfe", b"a\n\xff", b"\xff\xfea\0\n\0\0"])
def test_a_text_in_another_encoding_is_an_error_that_names_the_file(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"a\.txt is no text in UTF-8 \(line 2, byte \d\); save it"
    ):
        read_text(tmp_path / "a.txt")
