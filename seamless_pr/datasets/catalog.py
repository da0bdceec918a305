"""All datasets that can be prepared or scored as downloaded, and how a folder is recognised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from seamless_pr.datasets import ade20k, cityscapes, coco, future3d, idd, vistas
from seamless_pr.datasets.ade20k import open_ade20k
from seamless_pr.datasets.cityscapes import open_cityscapes, open_cityscapes_folder
from seamless_pr.datasets.coco import open_coco
from seamless_pr.datasets.folders import listed, visible_paths
from seamless_pr.datasets.future3d import open_future3d
from seamless_pr.datasets.idd import open_idd, open_idd_folder
from seamless_pr.datasets.panoptic_files import PanopticFiles
from seamless_pr.datasets.raw_splits import RawSplit
from seamless_pr.datasets.vistas import JSON_NAMES, SPLIT_NAMES, open_vistas

OpenedSplit = RawSplit | PanopticFiles


@dataclass(frozen=True)
class KnownDataset:
    """A dataset of the catalog.

    Attributes:
        title: for people.
        splits: those with annotations, the training one first.
        open_split: (root, split) -> the split.
        results_dir: where a conversion writes, below the root.
    """

    title: str
    splits: tuple[str, ...]
    open_split: Callable[[Path, str], OpenedSplit]
    results_dir: str = "."


DATASETS = {
    "cityscapes": KnownDataset("Cityscapes", cityscapes.SPLITS, open_cityscapes, "gtFine"),
    "idd": KnownDataset("IDD, part I or II", idd.SPLITS, open_idd, "gtFine"),
    "vistas": KnownDataset("Mapillary Vistas v1.2 or v2.0", vistas.SPLITS, open_vistas),
    "ade20k": KnownDataset("ADE20K, challenge archives", ade20k.SPLITS, open_ade20k),
    "coco": KnownDataset("COCO panoptic 2017", coco.SPLITS, open_coco),
    "future3d": KnownDataset("3D-FUTURE instances", future3d.SPLITS, open_future3d),
}


def open_ground_truth_folder(
    folder: Path,
    *,
    idd_size: tuple[int, int] | None = None,
    stated_areas: bool = False,
) -> OpenedSplit:
    """Opens the ground truth of one split from a folder as downloaded.

    Recognised are: Cityscapes' `gtFine/<split>`, IDD's `gtFine/<split>`, a split of Vistas
    (`validation`, or the `panoptic` folder in it), ADE20K's `annotations/<split>`, and COCO's
    `panoptic_<split>2017`.

    Args:
        folder: of the split's annotations.
        idd_size: see `open_idd`.
        stated_areas: see `open_ade20k`.

    Raises:
        FileNotFoundError: no such folder, or none of these.
    """
    folder = folder.absolute()
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; give the folder of the ground truth")
    if (vistas_split := vistas_split_of(folder)) is not None:
        return open_vistas(*vistas_split)
    if (ade20k_split := ade20k_split_of(folder)) is not None:
        return open_ade20k(*ade20k_split, stated_areas=stated_areas)
    if (coco_split := coco_split_of(folder)) is not None:
        return open_coco(*coco_split)
    if (split := _split_with(folder, cityscapes.INSTANCE_IDS_SUFFIX)) is not None:
        return open_cityscapes_folder(folder, split)
    if (split := _split_with(folder, idd.POLYGONS_SUFFIX)) is not None:
        return open_idd_folder(folder, split, size=idd_size)
    raise FileNotFoundError(
        f"{folder} holds no ground truth that is known: give a COCO panoptic JSON, gtFine/<split> "
        "of Cityscapes or IDD, validation/ of Vistas, annotations/<split> of ADE20K, or "
        "panoptic_<split>2017 of COCO"
    )


def _split_with(folder: Path, suffix: str) -> str | None:
    """The split's name if files with this ending lie below the folder.

    Raises:
        FileNotFoundError: they lie in several splits.
    """
    files = [path for path in visible_paths(folder) if path.name.endswith(suffix)]
    if not files:
        return None
    splits = sorted({file.parent.parent for file in files})
    if len(splits) > 1:
        raise FileNotFoundError(
            f"{folder} holds several splits; give one of {listed(map(str, splits))}"
        )
    return splits[0].name


def vistas_split_of(folder: Path) -> tuple[Path, str, str | None] | None:
    """(root, split, version) if the folder is a split of Vistas, or lies in one, by its names."""
    places = [
        f"{outer}panoptic/{name}"
        for outer in ("", "v1.2/", "v2.0/")
        for name in JSON_NAMES.values()
    ]
    for split_dir in (folder, *folder.parents[:3]):
        if split_dir.name not in SPLIT_NAMES:
            continue
        if any((split_dir / place).is_file() for place in places):
            inner = folder.relative_to(split_dir).parts
            version = next((part[1:] for part in inner if part in ("v1.2", "v2.0")), None)
            return split_dir.parent, split_dir.name, version
    return None


def ade20k_split_of(folder: Path) -> tuple[Path, str] | None:
    """(root, split) if the folder is ADE20K's `annotations/<training or validation>`."""
    splits = {name: split for split, name in ade20k.FOLDERS.items()}
    if folder.parent.name != "annotations" or folder.name not in splits:
        return None
    return folder.parents[1], splits[folder.name]


def coco_split_of(folder: Path) -> tuple[Path, str] | None:
    """(root, split) if the folder is COCO's `panoptic_<split>2017`."""
    for split in coco.SPLITS:
        if folder.name == f"panoptic_{split}2017":
            inside = folder.parent.name == "annotations"
            return (folder.parents[1] if inside else folder.parent), split
    return None
