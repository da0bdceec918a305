"""Semantic label PNGs (one grey picture of category ids per image) beside panoptic ground truth."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seamless_pr.evaluation.map_files import LoadedMap, Source
from seamless_pr.id_maps.overlap import Overlap, count_overlap
from seamless_pr.metrics.segment_table import SegmentTable
from seamless_pr.structures.label_space import LabelSpace


def find_label_pngs(folder: Path, gt: Source) -> list[Path | None]:
    """The label PNG of each true image; None where there is none.

    Args:
        folder: searched with its sub-folders; the name of a picture must be the image id, the name
            of the true PNG, or begin with the image id and an underscore. An exact name wins.
        gt: ground truth.

    Raises:
        FileNotFoundError: no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; give the folder of the semantic PNGs")
    found = _by_index(_visible(folder), gt)
    return [found.get(index) for index in range(len(gt.maps))]


def _visible(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*.png")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _by_index(paths: Iterable[Path], gt: Source) -> dict[int, Path]:
    by_name: dict[str, int] = {}
    for index, file in enumerate(gt.maps):
        by_name[file.path.stem] = by_name[str(file.image_id)] = index
    found: dict[int, Path] = {}
    for path in paths:
        stem = path.stem
        if stem in by_name:
            found[by_name[stem]] = path
            continue
        while "_" in stem:
            stem = stem.rpartition("_")[0]
            if stem in by_name:
                found.setdefault(by_name[stem], path)
                break
    return found


def overlap_with_label_png(
    path: Path, loaded: LoadedMap, label_space: LabelSpace
) -> tuple[Overlap, SegmentTable]:
    """Pixels of each true segment and each label; a segment of the result is a class.

    Values are category ids (Cityscapes: label ids, not train ids); one that is no category belongs
    to no class. Palette pictures are read as indices.

    Raises:
        ValueError: no picture of one channel, or of another size than the ground truth.
    """
    labels = _read_labels(path)
    if labels.shape != loaded.runs.image_size:
        height, width = loaded.runs.image_size
        raise ValueError(
            f"the PNG is {labels.shape[0]}x{labels.shape[1]} pixels (height x width), the ground "
            f"truth {height}x{width}"
        )
    # Category 0 is a real class in some datasets, so labels move up by one.
    of_labels = [(c.category_id + 1, t) for t, c in enumerate(label_space.categories)]
    ids, train_ids = np.array([pair for pair in of_labels if pair[0] > 0]).reshape(-1, 2).T
    table = SegmentTable(ids, train_ids, np.zeros(len(ids), dtype=bool))
    return count_overlap(loaded.id_map, labels.astype(np.uint32) + 1), table


def _read_labels(path: Path) -> NDArray[np.integer]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            labels = np.asarray(picture)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise ValueError("expected one channel of category ids; got no whole picture") from error
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        channels = labels.shape[2] if labels.ndim == 3 else 1
        raise ValueError(
            f"expected one channel of category ids; got {channels} channels of {labels.dtype}"
        )
    if labels.size and int(labels.min()) < 0:
        raise ValueError(f"category ids are at least 0; got {int(labels.min())}")
    return labels
