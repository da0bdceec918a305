"""The one way of writing, and the one way of following a name that a file gives.

A file or folder is there under its name whole or not at all. It is written under a hidden name
beside it, `.NAME.partial`, and renamed in the end. A kill may leave that name behind; the next
write of the same target takes it over, so a command that is given again leaves nothing behind.
"""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

JPEG_QUALITY = 92
# Of a side in pixels: what encoders write.
MAX_JPEG_SIDE = 65_500

_PARTIAL_SUFFIX = ".partial"
# Of one name and of a whole path, in bytes; what Linux file systems take.
_NAME_BYTES, _PATH_BYTES = 255, 4095
_ADVICE = {
    errno.ENOSPC: "make space there and give the same command again",
    errno.EDQUOT: "make space there and give the same command again",
    errno.EROFS: "choose another folder",
    errno.EACCES: "make it writable, or choose another folder",
    errno.EPERM: "make it writable, or choose another folder",
    errno.ENAMETOOLONG: "give shorter names",
    errno.ENOENT: "its folder was removed meanwhile: give the same command again",
}


class WriteError(OSError):
    """A file cannot be written; the message names it, the reason and the fix."""


# Writing


def write_whole(path: str | os.PathLike[str], content: bytes, *, sync: bool = True) -> None:
    """Writes a file whole or not at all; creates its folder.

    Args:
        path: the file; an older one of that name is replaced.
        content: all of it.
        sync: wait for the disk, so that a crash of the machine leaves no empty file; False for what
            the next run writes anew anyway.

    Raises:
        WriteError: full, read-only or missing disk; names the file.
    """
    with writing(path, sync=sync) as file:
        file.write(content)


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Writes JSON in UTF-8, whole or not at all."""
    write_whole(path, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """JSON in UTF-8; bytes of a file name that are no UTF-8, which Linux allows, as escapes."""
    return json.dumps(content, ensure_ascii=False).encode(errors="backslashreplace")


def write_picture(
    path: str | os.PathLike[str], picture: NDArray[np.unsignedinteger[Any]], *, sync: bool = True
) -> None:
    """Writes a picture as PNG or JPEG, by the extension, whole or not at all.

    Args:
        path, sync: as in `write_whole`.
        picture: [H, W, 3] uint8 RGB; or [H, W] grey of 8 bits, or as PNG of 16.
    """
    import cv2  # Few of those who write files write pictures.

    path = Path(path)
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix in (".jpg", ".jpeg") else []
    pixels = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(path.suffix, pixels, options)
    if not done:
        raise ValueError(f"cannot encode a picture of shape {picture.shape} as {path}")
    write_whole(path, data.tobytes(), sync=sync)


@contextmanager
def writing(path: str | os.PathLike[str], *, sync: bool = True) -> Iterator[IO[bytes]]:
    """A binary file to write to, which takes its name when the block ends without an error.

    Two processes that write one target at once do so one after the other.

    Args:
        path, sync: as in `write_whole`.

    Raises:
        WriteError: as in `write_whole`; also where the writer of the block hides the reason.
    """
    path = Path(path)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _open_partial(path)
    try:
        yield file
        with naming(path):
            if sync:
                os.fsync(file.fileno())
            os.replace(file.partial, path)
    except BaseException as error:
        # A full disk also refuses to shrink files on some file systems; the rest is for the repeat.
        with suppress(OSError):
            os.unlink(file.partial)
        if file.error is not None:
            raise _named(file.error, path) from error
        raise
    finally:
        file.close()


@contextmanager
def writing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder to fill, which takes its name when the block ends without an error.

    An older folder of that name is there until then; the folder above must exist. The files in it
    are to be written by the functions of this module, which wait for the disk.
    """
    path = Path(path)
    partial = _partial_path(path)
    with naming(path):
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir()
    try:
        yield partial
        with naming(path):
            sync_folder(partial)
            old = _set_aside(path)
            os.replace(partial, path)
            sync_folder(path.parent)
            shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Adds a line to a text file in UTF-8; only a kill right then leaves a part of it.

    A link is not followed: a folder of somebody might lead out of itself.
    """
    with naming(path):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        with open(os.open(path, flags, 0o666), "ab", buffering=0) as file:
            file.write(f"{line}\n".encode())


def link_whole(source: Path, target: Path) -> None:
    """Gives a file one more name, or copies it where the disk has no hard links."""
    partial = _partial_path(target)
    with naming(target):
        partial.unlink(missing_ok=True)
        try:
            os.link(source, partial)
        except OSError:
            with writing(target) as copy, source.open("rb") as original:
                shutil.copyfileobj(original, copy)
            return
        os.replace(partial, target)
        # Two names of one file are left as they are by a rename.
        partial.unlink(missing_ok=True)


def remove_file(path: Path) -> None:
    """Removes a file that may be there, and what a killed write of it left."""
    with naming(path):
        path.unlink(missing_ok=True)
        _partial_path(path).unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Removes a folder that may be there; a kill leaves no half of it under its name."""
    with naming(path):
        if path.exists():
            shutil.rmtree(_set_aside(path))


def remove_partials(folder: Path) -> None:
    """Removes what killed writes left in a folder, for a caller who alone writes there."""
    for path in folder.glob(f".*{_PARTIAL_SUFFIX}"):
        with naming(path):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def is_unused(folder: Path, *ignored: str) -> bool:
    """Whether a folder is missing or empty, but for what killed writes left and names to ignore."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(
        path.name in ignored or (path.name.startswith(".") and path.suffix == _PARTIAL_SUFFIX)
        for path in folder.iterdir()
    )


def check_writable(folder: Path, num_bytes: int, content: str) -> None:
    """Makes a folder, and finds out before the work whether its results will have a place.

    Args:
        folder: where to.
        num_bytes: how much is to come at once.
        content: what that is, for the message.

    Raises:
        WriteError: read-only, or not enough space; names the folder.
    """
    write_whole(folder / ".write_test", b"x")
    remove_file(folder / ".write_test")
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        room = f"{free / 1e6:.1f} MB are free, {content} takes {num_bytes / 1e6:.1f} MB"
        raise _named(OSError(errno.ENOSPC, f"No space left on device ({room})"), folder)


def check_written(paths: Iterable[Path]) -> None:
    """Finds out at the end of the work whether somebody removed files of it meanwhile.

    Raises:
        WriteError: names the first one that has gone.
    """
    for path in paths:
        if not path.is_file():
            raise _named(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)), path)


@contextmanager
def locked(path: Path, purpose: str) -> Iterator[None]:
    """Holds a lock file while the block runs; whoever ends, also by a kill, gives the lock back.

    Args:
        path: the lock file, which stays.
        purpose: what may be done by one process at a time, for the message.

    Raises:
        ValueError: another process holds the lock; the message says which.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise ValueError(
                f"{holder} is {purpose} right now; wait for its end, stop it, or choose another "
                "output folder"
            ) from error
        except OSError:
            pass  # A file system without locks.
        with naming(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
            file.flush()
        yield


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Errors of the operating system in the block become ones that name this path and the fix."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise _named(error, path) from error


def sync_folder(path: Path) -> None:
    """Forces the names in a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _PartialFile(io.FileIO):
    """An unbuffered file that remembers why it could not be written: some writers hide it."""

    def __init__(self, partial: Path, mode: str, flags: int = 0) -> None:
        self.partial = partial
        self.error: OSError | None = None
        super().__init__(partial, mode, opener=lambda name, own: os.open(name, flags or own, 0o666))

    def write(self, data: Any, /) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest:  # The system takes at most 2 GB at once.
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
            raise
        return size


def _open_partial(path: Path) -> _PartialFile:
    """The empty hidden file, locked: who comes second waits, then opens a new one."""
    partial = _partial_path(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        file = _PartialFile(partial, "w", flags)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # A file system without locks: a name that nobody else has.
            file.close()
            os.unlink(partial)
            return _PartialFile(path.with_name(f".{uuid.uuid4().hex}{_PARTIAL_SUFFIX}"), "x")
        state = os.fstat(file.fileno())
        try:
            is_ours = os.path.samestat(state, os.stat(partial))
        except FileNotFoundError:
            is_ours = False
        if is_ours and state.st_nlink == 1:
            file.truncate(0)
            return file
        if is_ours:  # A second name of a finished file, by a kill in `link_whole`.
            os.unlink(partial)
        file.close()


def _partial_path(path: Path) -> Path:
    name = f".{path.name}{_PARTIAL_SUFFIX}"
    if len(os.fsencode(name)) > _NAME_BYTES:
        import hashlib  # brings OpenSSL

        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()}{_PARTIAL_SUFFIX}"
    return path.with_name(name)


def _set_aside(path: Path) -> Path:
    """Takes the name from a folder that may be there; returns the name that it has now."""
    aside = _partial_path(path.with_name(f"{path.name}.old"))
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(FileNotFoundError):
        os.replace(path, aside)
    return aside


def _named(error: OSError, path: str | os.PathLike[str]) -> WriteError:
    reason = error.strerror or str(error) or type(error).__name__
    advice = _ADVICE.get(error.errno or 0, "see whether the disk and its folder are in order")
    named = WriteError(f"cannot write {os.fspath(path)}: {reason}; {advice}")
    named.errno = error.errno
    return named


# Names that files give


def safe_join(root: str | os.PathLike[str], name: str, named_in: str | os.PathLike[str]) -> Path:
    """The path of a name that stands in a file, which must stay below its root.

    Args:
        root: the folder.
        name: relative, with forward slashes.
        named_in: the file that holds the name, for messages.

    Returns:
        `root / name`; need not exist.

    Raises:
        ValueError: the name is absolute, climbs out by `..` or by a link, has a drive letter or a
            NUL, is too long or empty; the message names the file and the fix.
    """
    root = Path(root)
    if fault := _fault_of_name(name) or path_fault(path := root / name):
        raise ValueError(_unsafe(name, named_in, root, fault))
    place = Path(os.path.realpath(path))
    if not place.is_relative_to(os.path.realpath(root)):
        raise ValueError(_unsafe(name, named_in, root, f"is a link out of it, to {place}"))
    return path


def path_fault(path: str | os.PathLike[str]) -> str | None:
    """Why no disk can have a file of this name: the rest of a sentence; None if one can."""
    if "\0" in os.fspath(path):
        return "holds a NUL"
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError:
        return "holds half of a letter"
    if len(name) > _PATH_BYTES or any(len(part) > _NAME_BYTES for part in name.split(b"/")):
        return "is too long for a file name"
    return None


def _fault_of_name(name: str) -> str | None:
    if not isinstance(name, str):
        return "is no text"
    if fault := path_fault(name):
        return fault
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if not posix.parts:
        return "is empty"
    if posix.is_absolute() or windows.drive or windows.root:
        return "is an absolute path"
    if ".." in (*posix.parts, *windows.parts):
        return "climbs out of it by '..'"
    return None


def _unsafe(name: object, named_in: str | os.PathLike[str], root: Path, fault: str) -> str:
    shown = repr(name)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return (
        f"{os.fspath(named_in)} names {shown}, which must lie below {root} and {fault}; "
        "correct the name in that file"
    )
