"""The one way of reading files that somebody else has written."""

from __future__ import annotations

import codecs
import json
import os
import stat
from typing import Any

import yaml

# Devices have no end, and some file systems hold files of terabytes that take no room.
MAX_BYTES = 4_000_000_000
# Of an archive: its content may be so many times as large.
MAX_COMPRESSION = 8


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """The content of a regular file; a device, a pipe or a socket is never waited for.

    Raises:
        FileNotFoundError: no such file.
        OSError: not a regular file, larger than any that is read whole, or refused by the system;
            the message names it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise OSError(f"{os.fspath(path)} is not a regular file; give a file with content")
        if state.st_size > MAX_BYTES:
            size = f"{state.st_size / 1e9:.1f} GB"
            raise OSError(f"{os.fspath(path)} has {size}, more than any file that is read whole")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        os.close(descriptor)


def read_text(path: str | os.PathLike[str]) -> str:
    """The content of a text file: UTF-8, or UTF-16 with a mark, as PowerShell writes it.

    Raises:
        FileNotFoundError, OSError: as `read_regular`.
        ValueError: another encoding; the message names the file and the line.
    """
    data = read_regular(path)
    is_utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if is_utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{os.fspath(path)} is no text in UTF-8 (line {line}, byte {error.start}); save it in "
            "the encoding UTF-8"
        ) from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError, OSError: as `read_regular`.
        ValueError: no JSON, or nested beyond any use; the message names the file.
    """
    try:
        return json.loads(read_regular(path))
    except (ValueError, RecursionError) as error:
        name = os.fspath(path)
        raise ValueError(f"{name} is not JSON, or only a part of it ({error})") from error


def refuse_bomb(path: str | os.PathLike[str]) -> None:
    """Refuses archives that are small on the disk and fill the memory when they are read.

    torch.save does not compress; what others have compressed may shrink as far as weights do.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a ZIP archive with far more content than bytes; the message names it.
    """
    import zipfile  # Scoring does without.

    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except FileNotFoundError:
        raise
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # Whoever reads it tells what is wrong with it.
    if unpacked > MAX_COMPRESSION * os.path.getsize(path):
        raise ValueError(
            f"{os.fspath(path)} would unpack to {unpacked / 1e6:.0f} MB, more than "
            f"{MAX_COMPRESSION} times its size; weights do not compress like that: copy it again "
            "from its source"
        )


class YamlLoader(yaml.SafeLoader):
    """YAML without aliases, by which a few lines may stand for any number of values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="an alias (*name) is not read here; write the value again",
                problem_mark=self.peek_event().start_mark,
            )
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # PyYAML stumbles over values that do not fit their type.
            raise yaml.MarkedYAMLError(
                problem=f"{node.value!r:.80} is no value of the type '{node.tag}'",
                problem_mark=node.start_mark,
            ) from error
