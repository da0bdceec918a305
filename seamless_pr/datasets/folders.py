"""Looking into the folders of an unpacked dataset, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from seamless_pr.datasets.image_files import is_hidden, is_image_name
from seamless_pr.structures.faults import Fault, FaultyDataError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".z01")


def require_folder(path: Path, source: str) -> Path:
    """The folder itself.

    Args:
        path: what must be there.
        source: where it comes from, for the message: the archive that holds it.

    Raises:
        FileNotFoundError: it is missing; names a folder that differs in case only, and archives
            that lie there unpacked.
    """
    if path.is_dir():
        return path
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent}; give the folder that holds {path.name}/")
    if path.exists() or path.is_symlink():
        raise FileNotFoundError(f"{path} is no folder; give the one that is meant")
    siblings = sorted(path.parent.iterdir())
    twins = [entry.name for entry in siblings if entry.name.lower() == path.name.lower()]
    if twins:
        hint = f"{twins[0]}/ has another case: rename it to {path.name}/"
    else:
        archives = [entry.name for entry in siblings if entry.name.endswith(ARCHIVE_SUFFIXES)]
        hint = f"unpack {', '.join(archives)} there" if archives else f"it comes from {source}"
    raise FileNotFoundError(f"no folder {path}; {hint}")


def subfolders(path: Path) -> list[str]:
    """Names of the folders in a folder; empty if it is none."""
    if not path.is_dir():
        return []
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and entry.name[0] != ".")


def files_with_suffix(folder: Path, suffix: str, faults: list[Fault]) -> list[Path]:
    """All files below a folder whose name ends so, sorted; another case of letters is a fault."""
    found = []
    for path in visible_paths(folder):
        if path.name.endswith(suffix) and path.is_file():
            found.append(path)
        elif path.name.lower().endswith(suffix.lower()) and path.is_file():
            right = path.name[: -len(suffix)] + suffix
            faults.append(Fault(str(path), f"another case of letters; rename it to {right}"))
    return found


def visible_paths(folder: Path) -> list[Path]:
    """Everything below a folder, sorted, without hidden files such as `._x.png` of archives."""
    return sorted(path for path in folder.rglob("*") if not is_hidden(path.relative_to(folder)))


def image_files_by_key(folder: Path, ending: str = "") -> dict[str, Path]:
    """Image files below a folder: path without folder, `ending` and extension -> file.

    Args:
        folder: with sub-folders.
        ending: of the stem, such as `_leftImg8bit`; files without it are left out.

    Raises:
        FaultyDataError: lists pairs such as a.jpg and a.png, of which one would be lost.
    """
    found: dict[str, Path] = {}
    faults: list[Fault] = []
    for path in visible_paths(folder):
        if not is_image_name(path.name) or not path.stem.endswith(ending):
            continue
        name = path.relative_to(folder).with_name(path.stem.removesuffix(ending)).as_posix()
        other = found.setdefault(name, path)
        if other != path:
            message = f"{other.name} beside it has the same name but for the ending; keep one"
            faults.append(Fault(str(path), message))
    if faults:
        raise FaultyDataError(f"pictures of {folder} cannot be told apart", faults)
    return found


def unpaired(
    images: Mapping[str, Path], annotations: Mapping[str, Path], *, fix: str
) -> list[Fault]:
    """A fault for each image without annotation, and for each annotation without image.

    Args:
        images, annotations: key -> file.
        fix: what to do about it.
    """
    faults = [
        Fault(str(images[key]), f"image without annotation; {fix}")
        for key in sorted(images.keys() - annotations.keys())
    ]
    faults += [
        Fault(str(annotations[key]), f"annotation without image; {fix}")
        for key in sorted(annotations.keys() - images.keys())
    ]
    return faults


def split_folder(root: Path, names: Sequence[str], source: str) -> Path:
    """The first of several folder names that exists below a root.

    Raises:
        FileNotFoundError: none does.
    """
    for name in names:
        if (root / name).is_dir():
            return root / name
    return require_folder(root / names[0], source)


def listed(names: Iterable[str]) -> str:
    """Names for a message."""
    return ", ".join(names) or "none"
