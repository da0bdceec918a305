"""One image from files to counts; what is wrong with it is returned, not raised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seamless_pr.datasets.panoptic_columns import NO_AREA
from seamless_pr.evaluation.image_counts import (
    EvaluationSettings,
    ImageOutcome,
    ImageWork,
    SemanticCounts,
    SetCounts,
)
from seamless_pr.evaluation.map_files import LoadedMap, MapFile
from seamless_pr.evaluation.pairing import ImagePair
from seamless_pr.evaluation.semantic_pngs import overlap_with_label_png
from seamless_pr.id_maps.id_png import PngError
from seamless_pr.id_maps.overlap import VOID_SEGMENT_ID, Overlap, count_overlap_of_runs
from seamless_pr.metrics.boundary import (
    boundary_overlap,
    count_boundary_iou,
    count_trimaps,
)
from seamless_pr.metrics.panoptic_quality import count_matches
from seamless_pr.metrics.segment_confusion import count_segment_confusion
from seamless_pr.metrics.segment_matching import match_segments, rules_named, sum_by
from seamless_pr.metrics.segment_table import SegmentTable
from seamless_pr.metrics.semantic_iou import count_confusion
from seamless_pr.metrics.semantic_pq import count_as_stuff
from seamless_pr.structures.faults import Fault
from seamless_pr.structures.label_space import LabelSpace

if TYPE_CHECKING:  # of instances, which most evaluations do without
    from seamless_pr.evaluation.instances import ImageInstances

# Ids of one image that are told one by one; a picture of noise has millions.
MAX_LISTED = 100
NOTE_MISSING = "images have no prediction and count as empty"
NOTE_NO_PIXEL = "predicted segments have no pixel and are left out"
NOTE_GT_AREA = (
    "true segments have another area in the JSON than in the PNG; "
    "the official rules believe the JSON"
)
NOTE_GT_UNLISTED = "regions of the true PNGs are not in the JSON; they belong to no segment"


def evaluate_image(
    work: ImageWork, label_space: LabelSpace, settings: EvaluationSettings
) -> ImageOutcome:
    """Reads the maps of an image, checks them and counts.

    Args:
        work: the files.
        label_space: classes of the ground truth.
        settings: what to count.
    """
    pair = work.pair
    check = _ImageCheck(pair, settings)
    gt, pred = check.load(pair.gt), check.load_prediction()
    if gt is None:
        return check.outcome(None)
    gt_table = check.table(pair.gt.path, gt, label_space)
    semantic = instances = None
    if gt_table is not None:
        semantic = check.count_label_png(work, gt, gt_table, label_space)
        instances = check.count_instances(work, gt, gt_table, label_space)
    if pred is None and not check.prediction_is_empty:
        return check.outcome(None)
    pred = pred or LoadedMap.empty(gt.runs.image_size)
    pred_table = check.table(check.pred_path, pred, label_space)
    if not check.sizes_agree(gt, pred):
        return check.outcome(None)
    overlap = count_overlap_of_runs(gt.runs, pred.runs)
    if gt_table is not None:
        check.note_gt(overlap, gt_table)
    if pred_table is not None:
        check.check_prediction(overlap, pred_table)
    if check.faults or gt_table is None or pred_table is None:
        return check.outcome(None)
    try:
        counts = count_image(gt, pred, overlap, gt_table, pred_table, label_space, settings)
    except ValueError as error:  # a stated area that cannot be
        check.fault(pair.gt.path, str(error))
        return check.outcome(None)
    return check.outcome(replace(counts, semantic_pngs=semantic), instances)


def count_image(
    gt_loaded: LoadedMap,
    pred_loaded: LoadedMap,
    overlap: Overlap,
    gt: SegmentTable,
    pred: SegmentTable,
    label_space: LabelSpace,
    settings: EvaluationSettings,
) -> SetCounts:
    """All counts of one sound image."""
    num_classes, rules = label_space.num_classes, rules_named(settings.rules)
    matches = match_segments(overlap, gt, pred, num_classes, rules)
    counts = SetCounts(
        pq=count_matches(matches, gt, pred, num_classes),
        confusion=count_confusion(overlap, gt, pred, num_classes),
        segments=count_segment_confusion(overlap, gt, pred, matches, num_classes),
    )
    if settings.boundary_ratio is None and not settings.trimap_widths:
        return counts
    gt_map, pred_map = gt_loaded.id_map, pred_loaded.id_map
    if settings.trimap_widths:
        trimaps = count_trimaps(gt_map, pred_map, gt, pred, num_classes, settings.trimap_widths)
        counts = replace(counts, trimaps=trimaps)
    if settings.boundary_ratio is None:
        return counts
    ratio = settings.boundary_ratio
    band = boundary_overlap(gt_map, pred_map, ratio)
    band_matches = match_segments(overlap, gt, pred, num_classes, rules, boundary=band)
    return replace(
        counts,
        boundary_pq=count_matches(band_matches, gt, pred, num_classes),
        boundary_iou=count_boundary_iou(gt_map, pred_map, gt, pred, num_classes, ratio),
    )


class _ImageCheck:
    """Collects what is wrong with one image, so that all of it can be said at once."""

    def __init__(self, pair: ImagePair, settings: EvaluationSettings) -> None:
        self.pair = pair
        self.settings = settings
        self.faults: list[Fault] = []
        self.notes: dict[str, int] = {}
        self.prediction_is_empty = False

    @property
    def pred_path(self) -> Path:
        return self.pair.pred.path if self.pair.pred is not None else Path("predictions")

    def fault(self, path: Path, message: str, segment_id: int | None = None) -> None:
        place = f"image {self.pair.gt.image_id!r}: {message}"
        self.faults.append(Fault(str(path), place, segment_id))

    def note(self, kind: str, number: int = 1) -> None:
        if number:
            self.notes[kind] = self.notes.get(kind, 0) + number

    def outcome(
        self, counts: SetCounts | None, instances: ImageInstances | None = None
    ) -> ImageOutcome:
        image_id = self.pair.gt.image_id
        return ImageOutcome(image_id, counts, tuple(self.faults), self.notes, instances)

    def load(self, file: MapFile) -> LoadedMap | None:
        try:
            return file.load()
        except FileNotFoundError:
            self.fault(file.path, "no such file")
        except (PngError, OSError) as error:
            self.fault(file.path, str(error))
        return None

    def load_prediction(self) -> LoadedMap | None:
        file = self.pair.pred
        if file is not None and (file.path.is_file() or not self.settings.is_lenient):
            return self.load(file)
        if self.settings.is_lenient:
            self.prediction_is_empty = True
            self.note(NOTE_MISSING)
        else:
            self.fault(
                self.pred_path, "no prediction for this image (--lenient counts it as empty)"
            )
        return None

    def table(self, path: Path, loaded: LoadedMap, label_space: LabelSpace) -> SegmentTable | None:
        segment_ids, category_ids, areas, is_crowd = loaded.segments.T
        train_ids = [label_space.train_id_of.get(value, -1) for value in category_ids.tolist()]
        if -1 in train_ids:
            for segment_id, category_id, train_id in zip(segment_ids, category_ids, train_ids):
                if train_id < 0:
                    self.fault(
                        path,
                        f"category {category_id} is not among the categories of the ground truth",
                        int(segment_id),
                    )
            return None
        return SegmentTable(
            np.ascontiguousarray(segment_ids),
            np.array(train_ids, dtype=np.int64),
            is_crowd == 1,
            None if NO_AREA in areas else np.ascontiguousarray(areas),
        )

    def count_label_png(
        self, work: ImageWork, gt: LoadedMap, gt_table: SegmentTable, label_space: LabelSpace
    ) -> SemanticCounts | None:
        folder = self.settings.label_png_folder
        if folder is None:
            return None
        if work.label_png is None:
            self.fault(folder, "no PNG of that name")
            return None
        try:
            overlap, labels = overlap_with_label_png(work.label_png, gt, label_space)
        except ValueError as error:
            self.fault(work.label_png, str(error))
            return None
        num_classes = label_space.num_classes
        return SemanticCounts(
            count_confusion(overlap, gt_table, labels, num_classes),
            count_as_stuff(overlap, gt_table, labels, num_classes),
        )

    def count_instances(
        self, work: ImageWork, gt: LoadedMap, gt_table: SegmentTable, label_space: LabelSpace
    ) -> ImageInstances | None:
        path = self.settings.instances_json
        if path is None:
            return None
        from seamless_pr.evaluation.instances import count_image_instances

        try:
            return count_image_instances(work.instances, gt, gt_table, label_space)
        except ValueError as error:
            self.fault(path, str(error))
            return None

    def sizes_agree(self, gt: LoadedMap, pred: LoadedMap) -> bool:
        gt_size, pred_size = gt.runs.image_size, pred.runs.image_size
        if gt_size == pred_size:
            return True
        self.fault(
            self.pred_path,
            f"the prediction is {pred_size[0]}x{pred_size[1]} pixels (height x width), the ground "
            f"truth {gt_size[0]}x{gt_size[1]}; predict at the size of the ground truth",
        )
        return False

    def note_gt(self, overlap: Overlap, gt: SegmentTable) -> None:
        index = gt.find(overlap.gt_ids)
        unlisted = overlap.gt_ids[(index < 0) & (overlap.gt_ids != VOID_SEGMENT_ID)]
        self.note(NOTE_GT_UNLISTED, len(set(unlisted.tolist())))
        if gt.areas is not None:
            counted = sum_by(index, overlap.pixels, len(gt))
            self.note(NOTE_GT_AREA, int((counted != gt.areas).sum()))

    def check_prediction(self, overlap: Overlap, pred: SegmentTable) -> None:
        ids = overlap.pred_ids
        index = pred.find(ids)
        unlisted = ids[(index < 0) & (ids != VOID_SEGMENT_ID)]
        # Not for the empty: NumPy loads its masked arrays to tell that there are none.
        if len(unlisted):
            unlisted = np.unique(unlisted)
        for segment_id in unlisted[:MAX_LISTED].tolist():
            self.fault(self.pred_path, "the id is in the PNG and not in the JSON", segment_id)
        if len(unlisted) > MAX_LISTED:
            self.fault(self.pred_path, f"{len(unlisted)} ids are in the PNG and not in the JSON")
        has_pixels = np.zeros(len(pred), dtype=bool)
        has_pixels[index[index >= 0]] = True
        missing = pred.segment_ids[~has_pixels].tolist()
        if self.settings.is_lenient:
            self.note(NOTE_NO_PIXEL, len(missing))
            return
        for segment_id in missing:
            self.fault(self.pred_path, "the id is in the JSON and not in the PNG", segment_id)
