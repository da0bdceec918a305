"""Files are written whole or not at all, and names that files give stay below their root."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import cv2
import numpy as np
import pytest
import torch

from seamless_pr import files
from seamless_pr.files import (
    WriteError,
    append_line,
    check_writable,
    is_unused,
    link_whole,
    locked,
    remove_file,
    remove_folder,
    remove_partials,
    safe_join,
    write_json,
    write_picture,
    write_whole,
    writing,
    writing_folder,
)
from tests.support.disks import size_limit
from tests.support.kills import is_killed, listing
from tests.support.processes import wait_until


def test_folder_is_created_and_nothing_else_is_left_beside_the_file(tmp_path: Path) -> None:
    target = tmp_path / "new" / "föld" / "a.bin"
    write_whole(target, b"first")
    write_whole(target, b"second")
    assert target.read_bytes() == b"second"
    assert list(target.parent.iterdir()) == [target]


def test_a_block_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"größe": 1})
    with pytest.raises(TypeError, match="bytes-like"), writing(target) as file:
        file.writelines([b"begun", None])  # type: ignore[list-item]
    assert json.loads(target.read_text(encoding="utf-8")) == {"größe": 1}
    assert list(tmp_path.iterdir()) == [target]


def test_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_whole(tmp_path / "ours", b"x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_picture_is_stored_as_rgb(tmp_path: Path) -> None:
    picture = np.zeros((2, 3, 3), np.uint8)
    picture[..., 0] = 200
    write_picture(tmp_path / "red.png", picture)
    stored = cv2.cvtColor(cv2.imread(str(tmp_path / "red.png")), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(stored, picture)


@pytest.mark.parametrize("name", ["a", "n" * 255, "ß" * 127])
def test_names_of_any_length_that_the_disk_takes_can_be_written(tmp_path: Path, name: str) -> None:
    write_whole(tmp_path / name, b"x")
    assert listing(tmp_path) == [name]


def test_a_kill_at_any_moment_leaves_the_old_or_the_new_file_and_the_repeat_no_rubbish(
    tmp_path: Path,
) -> None:
    target, source = tmp_path / "a.bin", tmp_path / "source"
    source.write_bytes(b"new" * 1000)
    works = {
        "write": lambda: write_whole(target, source.read_bytes()),
        "link": lambda: link_whole(source, target),
        "relink": lambda: (link_whole(source, target), link_whole(source, target)),
    }
    for name, work in works.items():
        operation = 0
        target.write_bytes(b"old")
        while is_killed(work, tmp_path, operation):
            assert target.read_bytes() in (b"old", source.read_bytes())
            # Another way of writing comes after: what a link left must not be written through.
            write_whole(target, b"other")
            assert source.read_bytes() == b"new" * 1000
            assert listing(tmp_path) == ["a.bin", "source"], name
            target.write_bytes(b"old")
            operation += 1
        assert operation >= 2
        target.unlink()


def test_a_kill_at_any_moment_leaves_a_whole_folder_or_none(tmp_path: Path) -> None:
    target = tmp_path / "folder"

    def write(content: bytes) -> None:
        with writing_folder(target) as folder:
            for name in "ab":
                write_whole(folder / name, content)

    def replace_and_remove() -> None:
        write(b"new")
        remove_folder(target)

    write(b"old")
    operation = 0
    while is_killed(replace_and_remove, tmp_path, operation):
        if target.exists():
            assert {(target / name).read_bytes() for name in "ab"} in ({b"old"}, {b"new"})
            assert listing(target) == ["a", "b"]
        write(b"old")
        assert listing(tmp_path) == ["folder", "folder/a", "folder/b"], operation
        operation += 1
    assert operation > 15
    assert listing(tmp_path) == []


def test_a_folder_with_nothing_but_leftovers_counts_as_unused(tmp_path: Path) -> None:
    assert is_unused(tmp_path / "none")
    target = tmp_path / "a.json"
    assert is_killed(lambda: write_whole(target, b"0123456789"), tmp_path, 3)
    (leftover,) = tmp_path.iterdir()
    assert leftover.name == ".a.json.partial"
    assert is_unused(tmp_path)
    remove_file(target)
    assert not leftover.exists()
    assert is_killed(lambda: write_whole(target, b"0123456789"), tmp_path, 3)
    remove_partials(tmp_path)
    assert listing(tmp_path) == []
    target.touch()
    assert not is_unused(tmp_path)
    assert is_unused(tmp_path, "a.json")
    assert not is_unused(target)


def test_writers_of_one_file_take_turns(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    contents = [bytes([number]) * 100_000 for number in range(8)]

    def write(content: bytes) -> None:
        for _ in range(20):
            with writing(target, sync=False) as file:
                for start in range(0, len(content), 10_000):
                    file.write(content[start : start + 10_000])
            assert target.read_bytes() in contents

    faults: list[BaseException] = []
    threads = [threading.Thread(target=_noted, args=(write, c, faults)) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert listing(tmp_path) == ["a.bin"]


def _noted(write, content: bytes, faults: list[BaseException]) -> None:
    try:
        write(content)
    except BaseException as error:
        faults.append(error)


def test_a_disk_without_locks_is_written_all_the_same(tmp_path: Path, monkeypatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    write_whole(tmp_path / "a", b"x")
    assert listing(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "fill",
    [
        lambda file: file.write(bytes(100_000)),
        # Says "unexpected pos" of its own.
        lambda file: torch.save({"a": torch.zeros(100_000)}, file),
        lambda file: np.savez(file, a=np.zeros(100_000)),
    ],
)
def test_a_disk_that_takes_no_more_is_named_with_the_file_whoever_writes(
    tmp_path: Path, fill: Callable[[IO[bytes]], object]
) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    with size_limit(5000), pytest.raises(WriteError, match=r"cannot write .*/a: File too large"):
        with writing(target) as file:
            fill(file)
    assert target.read_bytes() == b"old"
    assert listing(tmp_path) == ["a"]


def test_reason_and_fix_of_a_disk_that_refuses_are_told(tmp_path: Path, monkeypatch) -> None:
    fixes = {
        errno.ENOSPC: "No space left on device; make space there",
        errno.EROFS: "Read-only file system; choose another folder",
        errno.EACCES: "Permission denied; make it writable",
    }
    for number, message in fixes.items():

        def refuse(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(files.os, "fsync", refuse)
        with pytest.raises(WriteError, match=message) as error:
            write_whole(tmp_path / "a", b"x")
        assert error.value.errno == number
        assert listing(tmp_path) == []


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(WriteError, match=r"cannot write .*a/b: (File exists|Not a directory)"):
        write_whole(tmp_path / "a" / "b", b"x")
    with pytest.raises(WriteError, match=r"cannot write .*none/log: No such file .* removed"):
        append_line(tmp_path / "none" / "log", "x")


def test_a_line_is_not_added_through_a_link(tmp_path: Path) -> None:
    append_line(tmp_path / "log", "größe")
    append_line(tmp_path / "log", "x")
    assert (tmp_path / "log").read_text(encoding="utf-8") == "größe\nx\n"
    (tmp_path / "plain").touch()
    assert (tmp_path / "log").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "link").symlink_to(tmp_path / "log")
    with pytest.raises(WriteError, match=r"cannot write .*/link: Too many levels of symbolic link"):
        append_line(tmp_path / "link", "x")
    assert (tmp_path / "log").read_text(encoding="utf-8") == "größe\nx\n"


def test_too_little_space_is_told_before_the_work(tmp_path: Path, monkeypatch) -> None:
    check_writable(tmp_path / "new", 1000, "a checkpoint")
    assert listing(tmp_path) == ["new"]
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=2_000_000))
    check_writable(tmp_path, 2_000_000, "a checkpoint")
    message = (
        r"cannot write .*: No space .* \(2.0 MB are free, a checkpoint takes 2.1 MB\); make sp"
    )
    with pytest.raises(WriteError, match=message):
        check_writable(tmp_path, 2_100_000, "a checkpoint")


def test_a_lock_is_for_one_process_and_falls_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "run" / ".lock"

    def hold() -> None:
        with locked(lock, "training"):
            (tmp_path / "held").touch()
            time.sleep(60)

    holder = os.fork()
    if holder == 0:
        hold()
        os._exit(0)
    try:
        wait_until((tmp_path / "held").exists, 30, "the lock")
        with pytest.raises(
            ValueError, match=f"^process {holder} on .* is training right now; wait"
        ):
            with locked(lock, "training"):
                pytest.fail("the lock was given twice")
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
    for _ in range(2):
        with locked(lock, "training"):
            assert str(os.getpid()) in lock.read_text()


# Names that files give


@pytest.mark.parametrize("name", ["a.png", "deep/er/ä ö.png", "a..b/..c", "./a"])
def test_a_name_below_its_root_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    assert safe_join(tmp_path, name, "gt.json") == tmp_path / name


@pytest.mark.parametrize(
    "name, fault",
    [
        ("../a.png", "climbs out of it"),
        ("deep/../../a.png", "climbs out of it"),
        ("..\\a.png", "climbs out of it"),
        ("/etc/passwd", "is an absolute path"),
        ("C:\\a.png", "is an absolute path"),
        ("C:a.png", "is an absolute path"),
        ("\\\\host\\share\\a", "is an absolute path"),
        ("a\0.png", "holds a NUL"),
        ("", "is empty"),
        (".", "is empty"),
        ("n" * 256, "is too long"),
        ("ß" * 128, "is too long"),
        ("/".join(["deep"] * 900), "is too long"),
        ("link/a.png", "is a link out of it"),
        (17, "is no text"),
        (None, "is no text"),
    ],
)
def test_a_name_that_leaves_its_root_is_refused_with_the_file_that_gives_it(
    tmp_path: Path, name: str, fault: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=f"^gt.json names .* {fault}.*; correct the name"):
        safe_join(root, name, "gt.json")


def test_a_root_that_is_a_link_itself_and_links_within_it_are_followed(tmp_path: Path) -> None:
    (tmp_path / "disk/part").mkdir(parents=True)
    (tmp_path / "disk/same").symlink_to(tmp_path / "disk/part")
    root = tmp_path / "root"
    root.symlink_to(tmp_path / "disk")
    assert safe_join(root, "same/a.png", "gt.json") == root / "same/a.png"
