"""Image files behind URIs: s3://, gs://, https:// and whatever else fsspec has a backend for."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from seamless_pr.datasets.image_files import is_hidden, is_image_name

Location = Path | str
"""Where a file is: a path, or a URI as text (a Path would make s3://bucket one slash shorter)."""
FileState = tuple[str, int, str]
"""What tells a file from another one of its name: whole path, size, and times or version.

The last is empty where a storage has nothing of the kind.
"""
# What storages call the version of a file, the surest first.
_VERSIONS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "Content-MD5",
    "Digest",
    "mtime",
    "LastModified",
    "Last-Modified",
    "updated",
    "created",
)


def is_uri(source: str | os.PathLike[str]) -> bool:
    return "://" in os.fspath(source)


def as_location(text: str) -> Location:
    """A line of a list or a table as a location."""
    return text if is_uri(text) else Path(text)


def location_name(location: Location) -> str:
    """The name of a file without its folders."""
    return location.name if isinstance(location, Path) else PurePosixPath(location).name


def file_state(location: Location) -> FileState:
    """Path, size and times of a file, or what its storage has in place of the times.

    The time of its content may be that of another file, which a copy kept; the time at which the
    file system itself last changed it is not.

    Raises:
        OSError: it is not there, or cannot be reached.
    """
    if isinstance(location, Path):
        try:
            stat = location.stat()
        except FileNotFoundError as error:
            raise FileNotFoundError(f"no image file at {location}; check its name") from error
        times = f"{stat.st_mtime_ns} {stat.st_ctime_ns}"
        return os.path.abspath(location), stat.st_size, times
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(location)
        info = files.info(path)
    except Exception as error:  # Each backend has its own types.
        raise _unreachable(location, error) from error
    version = next((info[key] for key in _VERSIONS if info.get(key)), "")
    return location, int(info.get("size") or 0), str(version)


def list_uri(source: str) -> tuple[list[str], str]:
    """Image files at a URI.

    Args:
        source: a folder (searched with its sub-folders), a glob pattern or one image.

    Returns:
        Sorted URIs, and the URI of the folder that ids are relative to.

    Raises:
        OSError: the storage cannot be reached, or its backend is not installed.
    """
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(source)
        if glob.has_magic(path):
            found, root = files.glob(path), _fixed_part(path)
        elif files.isfile(path):
            found, root = [path], str(PurePosixPath(path).parent)
        else:
            found, root = files.find(path), path
        names = _pictures(found, root)
        return [files.unstrip_protocol(name) for name in names], files.unstrip_protocol(root)
    except Exception as error:  # Each backend has its own types.
        raise _unreachable(source, error) from error


def _pictures(names: Sequence[str], root: str) -> list[str]:
    """The image files, sorted, without hidden ones and what predictions wrote."""
    runs = {name.removesuffix("run.json") for name in names if name.endswith("/run.json")}
    results = tuple(run for run in runs if any(n.startswith(f"{run}records/") for n in names))
    return sorted(
        name
        for name in names
        if is_image_name(PurePosixPath(name).name)
        and not is_hidden(name.removeprefix(root).lstrip("/"))
        and not name.startswith(results)
    )


def read_uri(uri: str) -> bytes:
    """The content of a file at a URI.

    Raises:
        FileNotFoundError: there is none.
        OSError: the storage cannot be reached, or its backend is not installed.
    """
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(uri)
        content: bytes = files.cat_file(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no file at {uri}; check its name") from error
    except Exception as error:  # Each backend has its own types.
        raise _unreachable(uri, error) from error
    return content


def read_bounded_uri(uri: str, max_bytes: int) -> bytes:
    """The first bytes of a file at a URI, one more than `max_bytes` where it has more.

    What answers at the address cannot send on to another one.

    Raises:
        FileNotFoundError, OSError: as `read_uri`.
    """
    import fsspec

    options = {"allow_redirects": False} if uri.startswith(("http://", "https://")) else {}
    try:
        with fsspec.open(uri, "rb", **options) as file:
            content: bytes = file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no file at {uri}; check its name") from error
    except Exception as error:  # Each backend has its own types.
        raise _unreachable(uri, error) from error
    return content


def _fixed_part(pattern: str) -> str:
    """The folders of a glob pattern before its first wildcard."""
    parts = pattern.split("/")
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:first])


def _unreachable(uri: str, error: Exception) -> OSError:
    # A missing backend says by itself what to install.
    reason = str(error) or type(error).__name__
    return OSError(f"{uri} cannot be read ({reason}); check the address and the credentials")
