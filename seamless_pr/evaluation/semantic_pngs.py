"""Semantic label PNGs (one grey picture of category ids per image) beside panoptic ground truth."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from seamless_pr.datasets.image_files import folders_agree, is_hidden
from seamless_pr.evaluation.map_files import LoadedMap, Source
from seamless_pr.id_maps.overlap import Overlap, count_overlap
from seamless_pr.metrics.segment_table import SegmentTable
from seamless_pr.structures.faults import Fault, FaultyDataError
from seamless_pr.structures.label_space import LabelSpace


def find_label_pngs(folder: Path, gt: Source) -> list[Path | None]:
    """The label PNG of each true image; None where there is none. One file serves one image.

    A picture belongs to the image whose id is its path below the folder, or the end of it, less
    the extension; else to the one whose true PNG has its name (of several the one in folders of the
    same names); else to the one whose number is its name. Where none is, the same is asked without
    what follows the last underscore, and so on.

    Args:
        folder: searched with its sub-folders.
        gt: ground truth.

    Raises:
        FileNotFoundError: no such folder.
        FaultyDataError: lists the images that several pictures could be.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; give the folder of the semantic PNGs")
    index_of = _Names(gt)
    found: dict[int, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in _visible(folder):
        match = index_of.match(path.relative_to(folder).with_suffix(""))
        if match is not None:
            index, num_cut = match
            found[index][num_cut].append(path)
    # A name that fits as it is wins over one that is cut.
    files = {index: of_image[min(of_image)] for index, of_image in found.items()}
    faults = [
        Fault(", ".join(map(str, paths)), f"could all be image {gt.maps[index].image_id!r}")
        for index, paths in files.items()
        if len(paths) > 1
    ]
    if faults:
        raise FaultyDataError(f"label PNGs of {folder} cannot be told apart; keep one each", faults)
    return [files[index][0] if index in files else None for index in range(len(gt.maps))]


class _Names:
    """Which image a picture belongs to by its name."""

    def __init__(self, gt: Source) -> None:
        self._by_id: dict[str, int] = {}
        self._by_number: dict[str, int] = {}
        self._by_png: dict[str, list[tuple[tuple[str, ...], int]]] = defaultdict(list)
        for index, file in enumerate(gt.maps):
            is_text = isinstance(file.image_id, str)
            (self._by_id if is_text else self._by_number)[str(file.image_id)] = index
            self._by_png[file.path.stem].append((file.path.parent.parts, index))

    def match(self, name: PurePath) -> tuple[int, int] | None:
        """Index of the image, and how many parts of the name were cut off for it."""
        stem, num_cut = name.name, 0
        while stem:
            index = self._index(name.with_name(stem))
            if index is not None:
                return index, num_cut
            stem, num_cut = stem.rpartition("_")[0], num_cut + 1
        return None

    def _index(self, name: PurePath) -> int | None:
        for start in range(len(name.parts)):
            index = self._by_id.get("/".join(name.parts[start:]))
            if index is not None:
                return index
        pngs = self._by_png.get(name.name, [])
        if len(pngs) > 1:  # The same name in several folders.
            pngs = [png for png in pngs if folders_agree(png[0], name.parent.parts)]
        if len(pngs) == 1:
            return pngs[0][1]
        return self._by_number.get(name.name)


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.png") if not is_hidden(path.relative_to(folder)))


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
    from seamless_pr.datasets.images import read_pillow_pixels  # Brings PyTorch.

    try:
        _, labels = read_pillow_pixels(path)
    except (OSError, ValueError) as error:
        reason = str(error).removeprefix(f"{path} ")
        raise ValueError(f"expected one channel of category ids; it {reason}") from error
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        channels = labels.shape[2] if labels.ndim == 3 else 1
        raise ValueError(
            f"expected one channel of category ids; got {channels} channels of {labels.dtype}"
        )
    if labels.size and int(labels.min()) < 0:
        raise ValueError(f"category ids are at least 0; got {int(labels.min())}")
    return labels
