"""3D-FUTURE instance segmentation: from its COCO-like JSON to id maps of things only.

The JSON differs from COCO's: file names have no extension, annotations no `iscrowd`, categories
other keys or none. The dataset has no stuff and no void; its own score is AP (see
`metrics.ap_rules`).
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from seamless_pr.datasets.coco_instances import (
    InstanceImage,
    paint_instances,
    read_instance_json,
)
from seamless_pr.datasets.folders import image_files_by_key
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.datasets.raw_splits import RawImage, RawMap, RawSplit, measured_segments
from seamless_pr.structures.faults import Fault
from seamless_pr.structures.label_space import Category

SPLITS = ("train", "val")
LAYOUTS = "annotations/<split>_set.json with images/<split>/, or GT/<split>_set.json"


def open_future3d(root: str | os.PathLike[str], split: str) -> RawSplit:
    """A split of the challenge's files, or of 3D-FUTURE-scene.zip.

    Args:
        root: folder that holds `annotations/` and images, or `GT/`.
        split: train, val, or test where it is annotated.

    Raises:
        FileNotFoundError: the JSON of the split is missing.
    """
    root = Path(root)
    candidates = [root / folder / f"{split}_set.json" for folder in ("annotations", "GT")]
    json_path = next((path for path in candidates if path.is_file()), None)
    if json_path is None:
        raise FileNotFoundError(
            f"no {' and no '.join(map(str, candidates))}; --root must hold {LAYOUTS} "
            "(3D-FUTURE comes after a signed agreement, see docs/datasets.md)"
        )
    folders = (f"images/{split}", f"{split}2020", f"images/{split}2020", f"{split}/image")
    images_dir = next((root / name for name in folders if (root / name).is_dir()), None)
    file, faults = read_instance_json(json_path)
    pictures = {} if images_dir is None else image_files_by_key(images_dir)
    categories = future3d_categories()
    if images_dir is not None:
        named = {Path(image.file_name).stem for image in file.images}
        faults += [
            Fault(str(path), f"image without annotation; {json_path.name} does not name it")
            for stem, path in pictures.items()
            if stem not in named
        ]
        faults += [
            Fault(str(json_path), f"image {image.image_id}: no file {image.file_name}.* there")
            for image in file.images
            if Path(image.file_name).stem not in pictures
        ]
    return RawSplit(
        dataset="3D-FUTURE",
        name=f"future3d_panoptic_{split}",
        categories=categories,
        images=tuple(
            _raw_image(image, pictures.get(Path(image.file_name).stem)) for image in file.images
        ),
        read_map=partial(
            read_future3d_map,
            category_ids=frozenset(category.category_id for category in categories),
            file=str(json_path),
        ),
        images_dir=images_dir,
        faults=tuple(faults),
    )


def _raw_image(image: InstanceImage, picture: Path | None) -> RawImage:
    stem = Path(image.file_name).stem
    return RawImage(
        image.image_id,
        (),
        f"{stem}.png",
        picture.name if picture is not None else f"{stem}.jpg",
        picture,
        image.text(),
    )


def read_future3d_map(image: RawImage, *, category_ids: frozenset[int], file: str) -> RawMap:
    """The id map of one image; objects without a pixel are left out, as the baseline does."""
    painted, faults = paint_instances(image.annotation_text, category_ids, file)
    if faults:
        return RawMap.unreadable(*faults)
    return RawMap(painted.id_map, measured_segments(painted.id_map, painted.category_of))


def future3d_categories() -> tuple[Category, ...]:
    """The 34 classes, with the names of 2020."""
    return load_label_space("future3d").categories
