"""Finding the RGB image files that a COCO panoptic JSON speaks of."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePath

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
    """Pairs each image of a JSON with its file.

    First the JSON's own file name below `images_dir` is tried, then, in any sub-folder, a file
    whose name without extension is that of the JSON, the image id, or the image id +
    "_leftImg8bit": Cityscapes' official JSON names files that do not exist. Last,
    `<drive>/<frame>_leftImg8bit` for an id `<drive>_<frame>`: IDD's frames have the same names in
    several drives, and its official JSON the names of PNGs for everything.

    Returns:
        image_id -> file, and a fault for each image without a file or with several candidates.

    Raises:
        FileNotFoundError: `images_dir` does not exist.
    """
    images_dir = Path(images_dir)
    by_name, by_stem = _index_folder(images_dir)
    files: dict[ImageId, Path] = {}
    faults: list[Fault] = []
    for image in images:
        exact = by_name.get(PurePath(image.file_name).as_posix())
        if exact is not None:
            files[image.image_id] = exact
            continue
        stems = (
            PurePath(image.file_name).stem,
            str(image.image_id),
            f"{image.image_id}{LEFT_CAMERA_SUFFIX}",
            f"/{str(image.image_id).partition(GROUND_TRUTH_SUFFIX)[0]}",
        )
        candidates = next((by_stem[stem] for stem in stems if stem in by_stem), [])
        if len(candidates) == 1:
            files[image.image_id] = candidates[0]
        elif candidates:
            names = ", ".join(map(str, candidates))
            faults.append(Fault(names, f"several files could be image {image.image_id!r}"))
        else:
            tried = f"'{image.file_name}' or a file named {' or '.join(stems[1:3])}"
            faults.append(
                Fault(str(images_dir), f"image {image.image_id!r} has no file; looked for {tried}")
            )
    return files, faults


def list_image_files(images_dir: str | os.PathLike[str]) -> list[Path]:
    """All image files below a folder, sorted."""
    images_dir = Path(images_dir)
    if not images_dir.is_dir():
        raise FileNotFoundError(f"no image folder {images_dir}; give the folder of the RGB images")
    found: list[Path] = []
    for folder, _, names in os.walk(images_dir, followlinks=True):
        found += [
            Path(folder, name) for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES
        ]
    return sorted(found)


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
