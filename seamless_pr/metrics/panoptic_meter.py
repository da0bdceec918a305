"""Panoptic quality of maps in memory: inside a training loop, over workers, or for one image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from seamless_pr.id_maps.overlap import count_overlap
from seamless_pr.metrics.panoptic_quality import (
    PanopticScores,
    PQCounts,
    compute_panoptic_scores,
    count_matches,
)
from seamless_pr.metrics.segment_matching import match_segments, rules_named
from seamless_pr.metrics.segment_table import SegmentTable
from seamless_pr.structures.label_space import LabelSpace

Segments = SegmentTable | Mapping[int, int] | Iterable[Any]


class PanopticQuality:
    """Adds up images and computes PQ and PQ† from the sums.

    The sums are exact, so any split of the images over meters gives the same result:

        meter = PanopticQuality(label_space)
        for target_map, target_segments, segmentation in results:
            meter.update(
                target_map, target_segments, segmentation.id_map, segmentation.segments
            )
        meter.gather()  # under torch.distributed only
        meter.compute().all.pq
    """

    def __init__(self, label_space: LabelSpace, rules: str = "official") -> None:
        """Starts with no image.

        Args:
            label_space: what the train ids of segments mean.
            rules: name of one of `PQ_RULES`.
        """
        self.label_space = label_space
        self.rules = rules_named(rules)
        self.num_images = 0
        self.counts = PQCounts.zeros(label_space.num_classes)

    def update(
        self, gt_map: Any, gt_segments: Segments, pred_map: Any, pred_segments: Segments
    ) -> PQCounts:
        """Adds one image.

        Args:
            gt_map, pred_map: [H, W] integer arrays or tensors of segment ids, 0 = void.
            gt_segments, pred_segments: `SegmentTable`, records such as `structures.Segment`, or a
                mapping segment id -> train id (no crowd). Areas are counted in the map unless a
                table states them.

        Returns:
            The counts of this image alone.

        Raises:
            ValueError: sizes differ, a train id is unknown, or an id of the map has no segment.
        """
        num_classes = self.label_space.num_classes
        gt = _segment_table(gt_segments, num_classes, "gt_segments")
        pred = _segment_table(pred_segments, num_classes, "pred_segments")
        overlap = count_overlap(_on_cpu(gt_map), _on_cpu(pred_map))
        _require_listed(overlap.gt_ids, gt, "gt")
        _require_listed(overlap.pred_ids, pred, "pred")
        matches = match_segments(overlap, gt, pred, num_classes, self.rules)
        counts = count_matches(matches, gt, pred, num_classes)
        self.counts = self.counts + counts
        self.num_images += 1
        return counts

    def merge(self, other: PanopticQuality) -> None:
        """Adds the images of another meter of the same classes and rules."""
        if other.label_space != self.label_space or other.rules != self.rules:
            raise ValueError(
                "meters must have one label space and one set of rules; got "
                f"'{self.label_space.name}' ({self.rules.name}) and "
                f"'{other.label_space.name}' ({other.rules.name})"
            )
        self.counts = self.counts + other.counts
        self.num_images += other.num_images

    def gather(self) -> None:
        """Gives every worker of torch.distributed the sum over all workers; call it on all of them.

        Call it once, after the last update: a second call would count the sums again. Does nothing
        outside a process group.
        """
        import torch.distributed as distributed

        if not distributed.is_available() or not distributed.is_initialized():
            return
        parts: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(parts, (self.counts, self.num_images))
        self.reset()
        for counts, num_images in parts:
            self.counts = self.counts + counts
            self.num_images += num_images

    def reset(self) -> None:
        """Forgets all images."""
        self.counts = PQCounts.zeros(self.label_space.num_classes)
        self.num_images = 0

    def compute(self) -> PanopticScores:
        """PQ, SQ, RQ and PQ† over all images so far; the meter can go on."""
        return compute_panoptic_scores(self.counts, self.label_space.num_stuff, self.rules)


def panoptic_quality(
    gt_map: Any,
    gt_segments: Segments,
    pred_map: Any,
    pred_segments: Segments,
    label_space: LabelSpace,
    rules: str = "official",
) -> PanopticScores:
    """PQ and PQ† of one image; the arguments are those of `PanopticQuality.update`."""
    meter = PanopticQuality(label_space, rules)
    meter.update(gt_map, gt_segments, pred_map, pred_segments)
    return meter.compute()


def _on_cpu(id_map: Any) -> Any:
    return id_map.cpu() if hasattr(id_map, "cpu") else id_map


def _segment_table(segments: Segments, num_classes: int, name: str) -> SegmentTable:
    if isinstance(segments, Mapping):
        ids, train_ids = list(segments.keys()), list(segments.values())
        segments = SegmentTable(
            np.array(ids, dtype=np.int64),
            np.array(train_ids, dtype=np.int64),
            np.zeros(len(ids), dtype=bool),
        )
    elif not isinstance(segments, SegmentTable):
        segments = SegmentTable.from_segments(segments)
    unknown = (segments.train_ids < 0) | (segments.train_ids >= num_classes)
    if unknown.any():
        raise ValueError(
            f"{name}: train ids must be in 0..{num_classes - 1}; got "
            f"{int(segments.train_ids[unknown][0])} for segment "
            f"{int(segments.segment_ids[unknown][0])}"
        )
    return segments


def _require_listed(ids: Any, segments: SegmentTable, side: str) -> None:
    unlisted = ids[(ids != 0) & (segments.find(ids) < 0)]
    if len(unlisted):
        raise ValueError(
            f"{side}_map holds id {int(unlisted[0])}, which {side}_segments does not list; "
            "list every segment, or set its pixels to 0 (void)"
        )
