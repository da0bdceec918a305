"""Lists of image files to label, and the id under which each result is known."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

IMAGE_EXTENSIONS = (
    ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm",
)  # fmt: skip
LIST_EXTENSIONS = (".txt", ".lst")


@dataclass(frozen=True)
class ImageItem:
    """One image file to label.

    Attributes:
        path: the file.
        image_id: its id in the JSON; a string, or the number that a ground truth gives it.
        name: relative path, without extension and with forward slashes, of its result files.
    """

    path: Path
    image_id: str | int
    name: str


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
            single image.
        id_from: "path": the path without extension, relative to the folder, to the fixed part of
            the pattern, or to the text file; "name": the file name without extension; otherwise a
            COCO panoptic JSON whose "images" give the id of each file name, and only these files.
        remove_suffix: taken off the end of ids by path and name, so that `_leftImg8bit` turns
            names of Cityscapes files into Cityscapes ids.

    Returns:
        Items sorted by path.

    Raises:
        FileNotFoundError: no such folder or file, or no image there.
        ValueError: two images with one id.
    """
    paths, root = _find_images(os.fspath(source))
    if id_from in ("path", "name"):
        items = [_item_of_path(path, root, id_from, remove_suffix) for path in paths]
    else:
        items = _items_of_json(paths, Path(id_from), os.fspath(source))
    _check_unique(items)
    return items


def _find_images(source: str) -> tuple[list[Path], Path]:
    """Sorted image files and the folder that ids are relative to."""
    path = Path(source)
    if path.is_dir():
        found = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
        root = path
    elif path.is_file() and path.suffix.lower() in LIST_EXTENSIONS:
        return _read_list(path)
    elif path.is_file():
        return [path], path.parent
    elif glob.has_magic(source):
        found = (Path(name) for name in glob.iglob(source, recursive=True) if os.path.isfile(name))
        root = _fixed_folder(source)
    else:
        raise FileNotFoundError(
            f"no images at {source}: it is neither a folder, a glob pattern, a list file "
            f"({', '.join(LIST_EXTENSIONS)}) nor an image; check the path"
        )
    paths = sorted(file for file in found if file.suffix.lower() in IMAGE_EXTENSIONS)
    if not paths:
        raise FileNotFoundError(
            f"no image files in {source}; looked for names ending in {', '.join(IMAGE_EXTENSIONS)}"
        )
    return paths, root


def _fixed_folder(pattern: str) -> Path:
    """The folders of a glob pattern before its first wildcard."""
    fixed: list[str] = []
    for part in Path(pattern).parent.parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)


def _read_list(path: Path) -> tuple[list[Path], Path]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    entries = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not entries:
        raise FileNotFoundError(f"{path} lists no images; write one path a line")
    return sorted(path.parent / entry for entry in entries), path.parent


def _item_of_path(path: Path, root: Path, id_from: str, remove_suffix: str) -> ImageItem:
    stem = path.with_suffix("")
    if id_from == "name":
        name = stem.name
    else:
        # Listed files may lie outside the list's folder; their ids keep the whole path.
        inside = stem.is_relative_to(root) and ".." not in stem.relative_to(root).parts
        relative = stem.relative_to(root) if inside else Path(os.path.abspath(stem))
        name = relative.as_posix().lstrip("/")
    name = name.removesuffix(remove_suffix)
    return ImageItem(path, name, name)


def _items_of_json(paths: Iterable[Path], json_path: Path, source: str) -> list[ImageItem]:
    """Only the files that a COCO JSON lists, with its ids."""
    records = _read_json_images(json_path)
    path_of_name = _unique_tails(paths)
    items = []
    missing = []
    for record in records:
        file_name = Path(record["file_name"])
        path = path_of_name.get(file_name.as_posix()) or path_of_name.get(file_name.name)
        if path is None:
            missing.append(file_name.as_posix())
        else:
            items.append(ImageItem(path, record["id"], file_name.with_suffix("").as_posix()))
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(records)} images of {json_path} are not in {source}, "
            f"for example {missing[0]}; give the folder that holds all of them"
        )
    return sorted(items, key=lambda item: item.path)


def _read_json_images(json_path: Path) -> list[dict[str, str]]:
    if not json_path.is_file():
        raise FileNotFoundError(
            f"image ids come from 'path', 'name' or a COCO JSON file; there is no file {json_path}"
        )
    try:
        content = json.loads(json_path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{json_path} is not JSON ({error}); give a COCO panoptic JSON") from error
    records = content.get("images") if isinstance(content, Mapping) else None
    if not records or any("id" not in record or "file_name" not in record for record in records):
        raise ValueError(f"{json_path} has no 'images' with 'id' and 'file_name'")
    return list(records)


def _unique_tails(paths: Iterable[Path]) -> dict[str, Path]:
    """Every ending of every path (c.png, b/c.png, a/b/c.png) that belongs to one path only."""
    found: dict[str, Path | None] = {}
    for path in paths:
        parts = path.parts
        for start in range(len(parts)):
            tail = "/".join(parts[start:])
            found[tail] = None if tail in found else path
    return {tail: path for tail, path in found.items() if path is not None}


def _check_unique(items: Iterable[ImageItem]) -> None:
    seen: dict[str, Path] = {}
    for item in items:
        # Case is folded because result files may lie on a file system that ignores it.
        for key in {f"id {item.image_id}", f"name {item.name.casefold()}"}:
            if key in seen:
                raise ValueError(
                    f"two images have the id '{item.image_id}': {seen[key]} and {item.path}; "
                    "rename one, or take ids from paths instead of names"
                )
            seen[key] = item.path
