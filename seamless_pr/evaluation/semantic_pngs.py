"""Mean IoU of semantic label PNGs (one grey picture of category ids per image)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from seamless_pr.evaluation.map_files import MapFile, Source
from seamless_pr.id_maps.id_png import PngError
from seamless_pr.id_maps.overlap import count_overlap
from seamless_pr.metrics.segment_table import SegmentTable
from seamless_pr.metrics.semantic_iou import (
    ConfusionCounts,
    SemanticScores,
    compute_semantic_scores,
    count_confusion,
)
from seamless_pr.parallel import ItemMap, map_in_processes
from seamless_pr.structures.faults import Fault, FaultyDataError
from seamless_pr.structures.label_space import LabelSpace


@dataclass(frozen=True)
class _Work:
    gt: MapFile
    label_png: Path | None


def evaluate_semantic_pngs(
    gt: Source,
    label_space: LabelSpace,
    folder: Path,
    *,
    num_workers: int | None = 1,
    show_progress: bool = False,
    map_items: ItemMap = map_in_processes,
) -> SemanticScores:
    """Scores label PNGs as Cityscapes' pixel-level evaluator does.

    Args:
        gt: ground truth; crowd counts with its class.
        label_space: its classes.
        folder: searched with its sub-folders; the name of a picture must be the image id, the name
            of the true PNG, or begin with the image id and an underscore. Values are category ids
            (Cityscapes: label ids, not train ids); a value that is no category counts as no class.
        num_workers: processes; None: one per core.
        show_progress: draw a bar with the time left.
        map_items: what spreads the images; by default over processes of this machine.

    Raises:
        FaultyDataError: lists every missing or unreadable picture.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; give the folder of the semantic PNGs")
    found = _find_pngs(folder.rglob("*.png"), gt)
    outcomes = map_items(
        partial(_count_image, label_space=label_space, folder=folder),
        [_Work(file, found.get(index)) for index, file in enumerate(gt.maps)],
        num_workers=num_workers,
        title="semantic PNGs",
        show_progress=show_progress,
    )
    counts, faults = ConfusionCounts.zeros(label_space.num_classes), []
    for outcome in outcomes:
        if isinstance(outcome, Fault):
            faults.append(outcome)
        else:
            counts = counts + outcome
    if faults:
        raise FaultyDataError("the semantic PNGs cannot be scored", faults)
    return compute_semantic_scores(counts)


def _find_pngs(paths: Iterable[Path], gt: Source) -> dict[int, Path]:
    """Index into the true maps -> picture; an exact name wins over a prefix."""
    by_name: dict[str, int] = {}
    for index, file in enumerate(gt.maps):
        by_name[file.path.stem] = by_name[str(file.image_id)] = index
    found: dict[int, Path] = {}
    for path in sorted(paths):
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


def _count_image(work: _Work, label_space: LabelSpace, folder: Path) -> ConfusionCounts | Fault:
    place = f"image {work.gt.image_id!r}"
    if work.label_png is None:
        return Fault(str(folder), f"{place}: no PNG of that name")
    try:
        loaded = work.gt.load()
    except (PngError, OSError) as error:
        return Fault(str(work.gt.path), f"{place}: {error}")
    labels = cv2.imread(str(work.label_png), cv2.IMREAD_UNCHANGED)
    if labels is None or labels.ndim != 2:
        kind = "no picture" if labels is None else f"{labels.shape[2]} channels"
        return Fault(
            str(work.label_png), f"{place}: expected one channel of category ids; got {kind}"
        )
    if labels.shape != loaded.id_map.shape:
        return Fault(
            str(work.label_png),
            f"{place}: the PNG is {labels.shape[0]}x{labels.shape[1]} pixels (height x width), the "
            f"ground truth {loaded.id_map.shape[0]}x{loaded.id_map.shape[1]}",
        )
    segment_ids, category_ids, _, is_crowd = loaded.segments.T
    train_ids = [label_space.train_id_of.get(value, -1) for value in category_ids.tolist()]
    gt = SegmentTable(np.ascontiguousarray(segment_ids), np.array(train_ids), is_crowd == 1)
    # Category 0 is a real class in some datasets, so labels move up by one.
    classes = np.arange(label_space.num_classes)
    pred = SegmentTable(
        np.array([category.category_id + 1 for category in label_space.categories]),
        classes,
        np.zeros(len(classes), dtype=bool),
    )
    overlap = count_overlap(loaded.id_map, labels.astype(np.uint32) + 1)
    return count_confusion(overlap, gt, pred, label_space.num_classes)
