"""Drawn street scenes with their panoptic truth, and how right maps of them are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from seamless_pr.datasets.cityscapes import panoptic_from_instance_ids
from seamless_pr.metrics.panoptic_meter import PanopticQuality
from seamless_pr.metrics.panoptic_quality import PQCounts
from seamless_pr.street_scenes.dataset import draw_street_scene
from seamless_pr.street_scenes.painting import PaintedScene
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment


def drawn_scenes(split: str, count: int, size: tuple[int, int]) -> Iterator[PaintedScene]:
    """The first scenes of a split, which are always the same."""
    return (draw_street_scene(0, split, index, size) for index in range(count))


def scene_counts(scene: PaintedScene, found: PanopticSegmentation, space: LabelSpace) -> PQCounts:
    """What one scene adds to PQ.

    Args:
        scene: with the labels of Cityscapes.
        found: a map of it.
        space: Cityscapes, of both.
    """
    id_map, records, _ = panoptic_from_instance_ids(scene.instance_ids.astype(np.int32), "")
    segments = tuple(
        Segment(r.segment_id, space.train_id_of[r.category_id], r.area, None, r.is_crowd)
        for r in records
    )
    return PanopticQuality(space).update(id_map, segments, found.id_map, found.segments)


def pq_scores(counts: Sequence[PQCounts], space: LabelSpace) -> dict[str, float]:
    """PQ of all scenes together: of all classes, things and stuff."""
    meter = PanopticQuality(space)
    for of_scene in counts:
        meter.counts = meter.counts + of_scene
    scores = meter.compute()
    return {"pq": scores.all.pq, "things": scores.things.pq, "stuff": scores.stuff.pq}


def pq_cells(scores: Mapping[str, float]) -> str:
    """Those of `pq_scores` as cells of a Markdown row, in percent."""
    return " | ".join(f"{100 * scores[key]:.1f}" for key in ("pq", "things", "stuff"))
