"""Lists of image files to label, and the id under which each result is known."""

from __future__ import annotations

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from seamless_pr.datasets.coco_images import read_image_names
from seamless_pr.datasets.image_files import (
    IMAGE_SUFFIXES,
    find_image_files,
    is_image_name,
    list_image_files,
    name_in_folder,
    walk_folders,
)
from seamless_pr.datasets.panoptic_records import ImageRecord
from seamless_pr.datasets.remote_files import FileState, Location, as_location, is_uri, list_uri
from seamless_pr.files import safe_join
from seamless_pr.input_files import read_text

LIST_EXTENSIONS = (".txt", ".lst")
# Of a file or folder name; file systems take 255, and results have extensions.
MAX_NAME_BYTES = 240
DIGEST_DIGITS = 12


@dataclass(frozen=True)
class ImageItem:
    """One image file to label.

    Attributes:
        path: the file; text if it is a URI.
        image_id: its id in the JSON; a string, or the number that a ground truth gives it.
        name: relative path, without extension and with forward slashes, of its result files.
        file_name: of the file in the JSON: relative to the images' folder, or as a ground truth
            names it.
        source: what tells this file from another one of its name, see `remote_files.file_state`;
            None until it is read.
    """

    path: Location
    image_id: str | int
    name: str
    file_name: str = ""
    source: FileState | None = None


def list_images(
    source: str | os.PathLike[str],
    *,
    id_from: str = "path",
    remove_suffix: str = "",
) -> list[ImageItem]:
    """Lists images and gives each its id.

    Args:
        source: a folder (searched with its sub-folders), a glob pattern (`**` crosses folders), a
            text file (.txt, .lst) with one path a line, relative to the text file or absolute, or a
            single image. All but the text file may be URIs (s3://bucket/photos), and so may its
            lines. Hidden files and folders that hold predictions are passed over.
        id_from: "path": the path without extension (with it for a.jpg beside a.png), relative to
            the folder, to the fixed part of the pattern, or to the text file; "name": the file name
            without extension; otherwise a COCO JSON whose "images" give the ids; `source` is then
            the folder of these images, and only they are listed (see
            `image_files.find_image_files`).
        remove_suffix: taken off the end of ids by path and name, so that `_leftImg8bit` turns
            names of Cityscapes files into Cityscapes ids.

    Returns:
        Items sorted by path.

    Raises:
        FileNotFoundError: no such folder or file, or no image there.
        OSError: a URI cannot be reached.
        ValueError: two images with one id, or a JSON whose images are not all there.
    """
    if id_from in ("path", "name"):
        paths, root = _find_images(os.fspath(source))
        stems = Counter(_stem(path) for path in paths)
        items = [
            _item_of_path(path, root, id_from, remove_suffix, keeps_ending=stems[_stem(path)] > 1)
            for path in paths
        ]
    else:
        items = _items_of_json(Path(id_from), os.fspath(source))
    _check_unique(items)
    return items


def _find_images(source: str) -> tuple[Sequence[Location], Location]:
    """Sorted image files and the folder that ids are relative to."""
    path = Path(source)
    paths: Sequence[Location]
    root: Location
    if is_uri(source):
        paths, root = list_uri(source)
    elif path.is_dir():
        paths, root = _without_results(list_image_files(path), path), path
    elif path.is_file() and path.suffix.lower() in LIST_EXTENSIONS:
        return _read_list(path)
    elif path.is_file():
        return [path], path.parent
    elif glob.has_magic(source):
        root = _fixed_folder(source)
        pictures = sorted(file for file in _matching(source) if is_image_name(file.name))
        paths = _without_results(pictures, root)
    else:
        raise FileNotFoundError(
            f"no images at {source}: it is neither a folder, a glob pattern, a list file "
            f"({', '.join(LIST_EXTENSIONS)}) nor an image; check the path"
        )
    if not paths:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise FileNotFoundError(
            f"no image files in {source}; looked for names ending in {suffixes}"
        )
    return paths, root


def _matching(pattern: str) -> set[Path]:
    """Files whose paths match; `**` crosses folders and links to them, but never in a circle."""
    parts = Path(pattern).parts
    if "**" not in parts:
        return {Path(name) for name in glob.iglob(pattern) if os.path.isfile(name)}
    place = parts.index("**")
    above = glob.iglob(os.path.join(*parts[:place])) if place else ["."]
    below = parts[place + 1 :] or ("*",)
    return {
        file
        for top in above
        for folder, _ in walk_folders(top)
        for file in _matching(os.path.join(glob.escape(folder), *below))
    }


def _without_results(paths: Iterable[Path], root: Path) -> list[Path]:
    """The pictures that no prediction wrote: those below folders of results are not photographs."""

    @cache
    def holds_results(folder: Path) -> bool:
        if (folder / "run.json").is_file() and (folder / "records").is_dir():
            return True
        return folder != root and folder != folder.parent and holds_results(folder.parent)

    return [path for path in paths if not holds_results(path.parent)]


def _fixed_folder(pattern: str) -> Path:
    """The folders of a glob pattern before its first wildcard."""
    fixed: list[str] = []
    for part in Path(pattern).parent.parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)


def _read_list(path: Path) -> tuple[list[Location], Path]:
    text = read_text(path)
    before, nul, _ = text.partition("\0")
    if nul:  # As in UTF-16 without a mark.
        line = before.count("\n") + 1
        raise ValueError(
            f"{path} is no text in UTF-8 (line {line} holds a NUL); save it in the encoding UTF-8"
        )
    lines = text.splitlines()
    entries = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not entries:
        raise FileNotFoundError(f"{path} lists no images; write one path a line")
    for entry in entries:
        if not PurePosixPath(entry.partition("://")[2] if is_uri(entry) else entry).name:
            raise ValueError(f"{path} has a line {entry!r:.80}, which names no file; correct it")
    locations = (as_location(entry) for entry in entries)
    paths = [path.parent / place if isinstance(place, Path) else place for place in locations]
    return sorted(paths, key=str), path.parent


def _stem(path: Location) -> str:
    return str(
        path.with_suffix("") if isinstance(path, Path) else PurePosixPath(path).with_suffix("")
    )


def _item_of_path(
    path: Location, root: Location, id_from: str, remove_suffix: str, *, keeps_ending: bool
) -> ImageItem:
    if isinstance(path, Path):
        stem = _relative_stem(path, Path(root))
    else:
        inside = path.startswith(f"{root}/")
        # As with files outside the list's folder, ids keep the whole path.
        relative = path[len(str(root)) + 1 :] if inside else path.partition("://")[2]
        stem = PurePosixPath(relative).with_suffix("").as_posix().lstrip("/")
        safe_join("OUTPUT", stem, path)
    name = PurePosixPath(stem).name if id_from == "name" else stem
    without = name.removesuffix(remove_suffix)
    # A name that is nothing but the suffix keeps it.
    image_id = name if not without or without.endswith("/") else without
    ending = PurePosixPath(path).suffix
    if keeps_ending:
        image_id += ending
    return ImageItem(path, image_id, _result_name(image_id), f"{stem}{ending}")


def _relative_stem(path: Path, root: Path) -> str:
    """The path without extension, relative to a folder that holds it, else whole."""
    stem = path.with_suffix("")
    # Listed files may lie outside the list's folder.
    inside = stem.is_relative_to(root) and ".." not in stem.relative_to(root).parts
    relative = stem.relative_to(root) if inside else Path(os.path.abspath(stem))
    return relative.as_posix().lstrip("/")


def _items_of_json(json_path: Path, images_dir: str) -> list[ImageItem]:
    """Only the files that a COCO JSON lists, with its ids."""
    if is_uri(images_dir):
        raise ValueError(
            f"ids from {json_path} need a folder that the file system shows; {images_dir} is a "
            "URI: mount it, or take ids from 'path' or 'name'"
        )
    records = read_image_names(json_path)
    files, faults = find_image_files(records, images_dir)
    if faults:
        raise ValueError(
            f"{len(faults)} of {len(records)} images of {json_path} cannot be found in "
            f"{images_dir}; give the folder that holds all of them; first: {faults[0]}"
        )
    names = [PurePosixPath(name_in_folder(record, images_dir)) for record in records]
    stems = Counter(name.with_suffix("") for name in names)
    items = [
        _item_of_record(
            record,
            files[record.image_id],
            json_path,
            str(name if stems[name.with_suffix("")] > 1 else name.with_suffix("")),
        )
        for record, name in zip(records, names)
    ]
    return sorted(items, key=lambda item: str(item.path))


def _item_of_record(record: ImageRecord, path: Path, json_path: Path, name: str) -> ImageItem:
    """Ids in words name the files of the results; numbers are left to the image's own name."""
    if isinstance(record.image_id, str):
        name = record.image_id
    # Results follow the name into folders, but never out of the output.
    name = _result_name(name)
    safe_join("OUTPUT", name, json_path)
    return ImageItem(path, record.image_id, name, record.file_name)


def _result_name(name: str) -> str:
    """A name that still fits the disk with the extension of a result; long parts are cut."""
    return "/".join(_shortened(part) for part in name.split("/"))


def _shortened(part: str) -> str:
    data = part.encode(errors="surrogatepass")
    if len(data) <= MAX_NAME_BYTES:
        return part
    # Of names with one beginning each keeps its own file.
    digest = hashlib.sha256(data).hexdigest()[:DIGEST_DIGITS]
    return f"{data[: MAX_NAME_BYTES - DIGEST_DIGITS - 1].decode(errors='ignore')}_{digest}"


def _check_unique(items: Iterable[ImageItem]) -> None:
    seen: dict[str, Location] = {}
    for item in items:
        # Case is folded because result files may lie on a file system that ignores it.
        for key in {f"id {item.image_id}", f"name {item.name.casefold()}"}:
            if key in seen:
                raise ValueError(
                    f"two images have the id '{item.image_id}': {seen[key]} and {item.path}; "
                    "rename one, or take ids from paths, if they are taken from names"
                )
            seen[key] = item.path
