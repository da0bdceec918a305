"""COCO panoptic 2017: in its own format already; found and checked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from seamless_pr.datasets.folders import listed
from seamless_pr.datasets.label_spaces import load_labels
from seamless_pr.datasets.panoptic_files import PanopticFiles, open_panoptic_files
from seamless_pr.structures.faults import Fault
from seamless_pr.structures.label_space import Category

SPLITS = ("train", "val")
ARCHIVE = "panoptic_annotations_trainval2017.zip"


def open_coco(root: str | os.PathLike[str], split: str) -> PanopticFiles:
    """A split of COCO panoptic 2017.

    Args:
        root: folder that holds `annotations/` and, for the pictures, `<split>2017/`.
        split: train or val.

    Raises:
        FileNotFoundError: JSON or PNGs are missing; the archive holds the PNGs in further zips.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; --root must hold annotations/")
    if split not in SPLITS:
        raise ValueError(f"COCO panoptic has the splits {', '.join(SPLITS)}; got '{split}'")
    name = f"panoptic_{split}2017"
    json_path = _first(root, (f"annotations/{name}.json", f"{name}.json"))
    if json_path is None:
        raise FileNotFoundError(
            f"no annotations/{name}.json below {root}; unpack {ARCHIVE} there ({_instance_hint()})"
        )
    png_dir = _first(root, (f"annotations/{name}", name))
    if png_dir is None:
        inner = _first(root, (f"annotations/{name}.zip", f"{name}.zip"))
        if inner is None:
            raise FileNotFoundError(
                f"no folder annotations/{name} below {root}; {ARCHIVE} holds the PNGs in a further "
                f"zip, annotations/{name}.zip: unpack both"
            )
        raise FileNotFoundError(
            f"no folder annotations/{name} below {root}, but its zip is there: "
            f"unzip {inner} -d {inner.parent}"
        )
    images_dir = _first(root, (f"{split}2017", f"images/{split}2017"))
    return open_panoptic_files(
        "COCO panoptic 2017",
        f"coco_{name}",
        json_path,
        png_dir,
        images_dir,
        partial(check_coco_categories, file=str(json_path)),
    )


def check_coco_categories(
    categories: Sequence[Category], *, file: str
) -> tuple[tuple[Category, ...], list[Fault]]:
    """The JSON's categories with the official colours, which the download lacks."""
    known = {label.label_id: label for label in load_labels("coco_panoptic")}
    faults = []
    coloured = []
    for category in categories:
        label = known.get(category.category_id)
        if label is None or (label.name, label.is_thing) != (category.name, category.is_thing):
            faults.append(
                Fault(
                    file,
                    f"category {category.category_id} ('{category.name}') is not as in COCO "
                    "panoptic 2017; for classes of your own use the sub-command custom",
                )
            )
        elif label.color is not None:
            coloured.append(replace(category, color=label.color))
    missing = [label.name for key, label in known.items() if key not in _ids(categories)]
    if missing:
        faults.append(
            Fault(
                file,
                f"{len(categories)} categories, COCO panoptic has {len(known)} (missing: "
                f"{listed(missing[:5])}); {_instance_hint()}",
            )
        )
    return tuple(coloured), faults


def _ids(categories: Sequence[Category]) -> set[int]:
    return {category.category_id for category in categories}


def _instance_hint() -> str:
    return "annotations_trainval2017.zip is another one: it holds instances only"


def _first(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).exists()), None)
