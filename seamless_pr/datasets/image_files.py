"""Finding the RGB image files that a COCO panoptic JSON speaks of."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath

from seamless_pr.datasets.panoptic_records import ImageId, ImageRecord
from seamless_pr.structures.faults import Fault

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})
# Cityscapes and IDD append this to the image id.
LEFT_CAMERA_SUFFIX = "_leftImg8bit"
# IDD's official JSON has the name of the id PNG where the id is expected.
GROUND_TRUTH_SUFFIX = "_gtFine_"


def find_image_files(
    images: Iterable[ImageRecord], images_dir: str | os.PathLike[str]
) -> tuple[dict[ImageId, Path], list[Fault]]:
    """Pairs each image of a JSON with its file; one file serves one image.

    First the JSON's own file name below `images_dir` is tried. Of the files that no image names so,
    in any sub-folder, comes next the one whose name without extension is that of the JSON, the
    image id in words, or the image id + "_leftImg8bit": Cityscapes' official JSON names files that
    do not exist. Folders that the JSON names must be those of the file, as far as both have any.
    Last, `<drive>/<frame>_leftImg8bit` for an id `<drive>_<frame>`: IDD's frames have the same
    names in several drives, and its official JSON the names of PNGs for everything. The folder
    itself may be a link; a file behind a link that leads out of it serves no image.

    Returns:
        image_id -> file, and a fault for each image without a file, with several candidates, whose
        file lies elsewhere, or whose file another image has as well.

    Raises:
        FileNotFoundError: `images_dir` does not exist.
    """
    images, images_dir = tuple(images), Path(images_dir)
    by_name, by_stem = _index_folder(images_dir)
    exact = {image.image_id: by_name.get(name_in_folder(image, images_dir)) for image in images}
    taken = {file for file in exact.values() if file is not None}
    free = {stem: [file for file in files if file not in taken] for stem, files in by_stem.items()}
    files: dict[ImageId, Path] = {}
    faults: list[Fault] = []
    place_of = _Places()
    root = os.path.realpath(images_dir)
    for image in images:
        file = exact[image.image_id]
        candidates = [file] if file is not None else _candidates(image, images_dir, free)
        if len(candidates) == 1 and not place_of(candidates[0]).is_relative_to(root):
            faults.append(_linked_out(image, candidates[0], place_of(candidates[0])))
        elif len(candidates) == 1:
            files[image.image_id] = candidates[0]
        elif candidates:
            names = ", ".join(map(str, candidates))
            faults.append(Fault(names, f"several files could be image {image.image_id!r}"))
        else:
            faults.append(_missing(image, images_dir))
    shared = _shared_files({image_id: place_of(file) for image_id, file in files.items()})
    for file, image_ids in shared.items():
        names = ", ".join(map(repr, image_ids))
        faults.append(Fault(str(file), f"would serve several images: {names}; each has its own"))
        for image_id in image_ids:
            del files[image_id]
    return files, faults


def list_image_files(images_dir: str | os.PathLike[str]) -> list[Path]:
    """All image files below a folder, sorted; hidden files and folders are none.

    A sub-folder that cannot be opened is in the list itself: reading it fails under its name.
    """
    images_dir = Path(images_dir)
    if not images_dir.is_dir():
        raise FileNotFoundError(f"no image folder {images_dir}; give the folder of the RGB images")
    closed: list[OSError] = []
    found = [
        Path(folder, name)
        for folder, names in walk_folders(images_dir, closed.append)
        for name in names
        if is_image_name(name)
    ]
    return sorted([*found, *(Path(error.filename) for error in closed)])


def walk_folders(
    top: str | os.PathLike[str], on_error: Callable[[OSError], object] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """A folder and all visible ones below it, each with the names of its files.

    Links to folders are followed, but never in a circle: not to a folder that holds the link, and
    behind a link to no folder that was entered before. So some links cannot make many folders.

    Args:
        top: where to begin; nothing is yielded where there is no such folder.
        on_error: gets what the system says of a folder that cannot be opened.
    """
    entered: set[str] = set()
    real_top = os.path.realpath(top)
    for folder, subfolders, names in os.walk(top, onerror=on_error, followlinks=True):
        place = os.path.realpath(folder)
        is_behind_link = place != os.path.normpath(
            os.path.join(real_top, os.path.relpath(folder, top))
        )
        entered.add(place)
        followed = []
        for name in sorted(subfolders):
            target = os.path.realpath(os.path.join(folder, name))
            if target != os.path.join(place, name):  # a link
                if Path(place).is_relative_to(target) or (is_behind_link and target in entered):
                    continue
                entered.add(target)
            if not is_hidden(name):
                followed.append(name)
        subfolders[:] = followed
        yield folder, names


def is_image_name(name: str) -> bool:
    """Whether a file's name, without folders, is that of a picture."""
    return not is_hidden(name) and PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def is_hidden(path: str | PurePath) -> bool:
    """Whether a part of a relative path begins with a dot: `._x.png`, `.ipynb_checkpoints/`."""
    return any(part.startswith(".") and part != ".." for part in PurePath(path).parts)


def name_in_folder(image: ImageRecord, images_dir: str | os.PathLike[str]) -> str:
    """The JSON's file name; the absolute name of a file of the folder relative to it."""
    name = PurePath(image.file_name)
    root = os.path.abspath(images_dir)
    return (name.relative_to(root) if name.is_relative_to(root) else name).as_posix()


def _candidates(
    image: ImageRecord, images_dir: Path, free: dict[str, list[Path]]
) -> Sequence[Path]:
    named = PurePath(image.file_name)
    found = [
        file
        for file in free.get(named.stem, ())
        if folders_agree(file.relative_to(images_dir).parent.parts, named.parent.parts)
    ]
    if found or not isinstance(image.image_id, str):
        return found  # A number is no name: 5.png may be of another image.
    words = (
        image.image_id,
        f"{image.image_id}{LEFT_CAMERA_SUFFIX}",
        f"/{image.image_id.partition(GROUND_TRUTH_SUFFIX)[0]}",
    )
    return next((free[word] for word in words if free.get(word)), [])


def folders_agree(folders: tuple[str, ...], named: tuple[str, ...]) -> bool:
    """Whether folders of a file and those that a JSON names agree, from the innermost outwards."""
    return all(one == other for one, other in zip(reversed(folders), reversed(named)))


class _Places:
    """Where files really lie; each folder is looked up once."""

    def __init__(self) -> None:
        self._folders: dict[Path, str] = {}

    def __call__(self, file: Path) -> Path:
        if file.is_symlink():
            return Path(os.path.realpath(file))
        if file.parent not in self._folders:
            self._folders[file.parent] = os.path.realpath(file.parent)
        return Path(self._folders[file.parent], file.name)


def _linked_out(image: ImageRecord, file: Path, place: Path) -> Fault:
    message = f"image {image.image_id!r} lies behind a link out of this folder, at {place}"
    return Fault(str(file), f"{message}; put the file itself there, or give the folder that has it")


def _missing(image: ImageRecord, images_dir: Path) -> Fault:
    tried = f"'{image.file_name}'"
    if isinstance(image.image_id, str):
        tried += f" or a file named {image.image_id} or {image.image_id}{LEFT_CAMERA_SUFFIX}"
    return Fault(
        str(images_dir),
        f"image {image.image_id!r} has no file among these images; looked for {tried}",
    )


def _shared_files(files: dict[ImageId, Path]) -> dict[Path, list[ImageId]]:
    images_of: dict[Path, list[ImageId]] = defaultdict(list)
    for image_id, file in files.items():
        images_of[file].append(image_id)
    return {file: image_ids for file, image_ids in images_of.items() if len(image_ids) > 1}


def _index_folder(images_dir: Path) -> tuple[dict[str, Path], dict[str, list[Path]]]:
    by_name: dict[str, Path] = {}
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for file in list_image_files(images_dir):
        by_name[file.relative_to(images_dir).as_posix()] = file
        by_stem[file.stem].append(file)
        if file.stem.endswith(LEFT_CAMERA_SUFFIX):
            # No stem of a file holds a slash.
            frame = file.stem.removesuffix(LEFT_CAMERA_SUFFIX)
            by_stem[f"/{file.parent.name}_{frame}"].append(file)
    return by_name, by_stem
