"""PQ and Boundary PQ against vernier, an independent implementation in Rust."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from seamless_pr.id_maps.overlap import count_overlap
from seamless_pr.metrics.boundary import boundary_overlap, boundary_width
from seamless_pr.metrics.panoptic_quality import PQCounts, count_matches
from seamless_pr.metrics.segment_matching import match_segments
from tests.metrics.maps import (
    STUFF_AND_THINGS,
    FuzzedImage,
    categories_json,
    fuzz_image,
    measured,
    to_table,
)

NUM_CLASSES = STUFF_AND_THINGS.num_classes


def _images(count: int) -> list[FuzzedImage]:
    """Square images whose segments are listed by id.

    Of several crowd segments of a class vernier 0.5.4 takes the one with the largest id,
    panopticapi the last listed; and its bands are wrong on maps that are not square. So both are
    avoided here.
    """
    rng, images = np.random.default_rng(0), []
    for _ in range(count):
        image = fuzz_image(rng)
        side = min(image.gt_map.shape)
        maps = [np.ascontiguousarray(m[:side, :side]) for m in (image.gt_map, image.pred_map)]
        segments = [
            sorted(measured(m, s), key=lambda segment: segment["id"])
            for m, s in zip(maps, (image.gt_segments, image.pred_segments))
        ]
        images.append(FuzzedImage(maps[0], maps[1], segments[0], segments[1]))
    return images


def _segments_json(parts: Sequence[list[dict[str, Any]]]) -> bytes:
    content = {
        str(index): [dict(segment, bbox=[0, 0, 1, 1]) for segment in segments]
        for index, segments in enumerate(parts)
    }
    return json.dumps(content).encode()


def _vernier(images: Sequence[FuzzedImage], ratio: float | None) -> dict[int, Any]:
    panoptic = pytest.importorskip("vernier.panoptic", reason="vernier is in the test extra")
    gt = panoptic.Dataset.from_arrays(
        {index: image.gt_map.astype(np.uint32) for index, image in enumerate(images)},
        _segments_json([image.gt_segments for image in images]),
        json.dumps(categories_json(STUFF_AND_THINGS)).encode(),
    )
    pred = panoptic.Predictions.from_arrays(
        {index: image.pred_map.astype(np.uint32) for index, image in enumerate(images)},
        _segments_json([image.pred_segments for image in images]),
    )
    evaluator = panoptic.Evaluator(
        parity_mode="strict", boundary=ratio is not None, dilation_ratio=ratio or 0.02
    )
    return evaluator.evaluate(gt, pred).per_class()


def _ours(images: Sequence[FuzzedImage], ratio: float | None) -> PQCounts:
    parts = []
    for image in images:
        gt, pred = (to_table(s, STUFF_AND_THINGS) for s in (image.gt_segments, image.pred_segments))
        maps = image.gt_map.view(np.uint32), image.pred_map.view(np.uint32)
        band = None if ratio is None else boundary_overlap(*maps, ratio)
        matches = match_segments(count_overlap(*maps), gt, pred, NUM_CLASSES, boundary=band)
        parts.append(count_matches(matches, gt, pred, NUM_CLASSES))
    return functools.reduce(lambda a, b: a + b, parts)


@pytest.mark.parametrize("ratio", [None, 0.02, 0.05, 0.1])
def test_counts_equal_those_of_vernier(ratio: float | None) -> None:
    images = _images(150)
    theirs, ours = _vernier(images, ratio), _ours(images, ratio)
    assert ours.tp.sum() > 50
    for train_id, category in enumerate(STUFF_AND_THINGS.categories):
        of_class = theirs[category.category_id]
        counts = (ours.tp[train_id], ours.fp[train_id], ours.fn[train_id])
        assert counts == (of_class.n_tp, of_class.n_fp, of_class.n_fn)
        assert ours.iou_sum[train_id] == pytest.approx(of_class.iou_sum, abs=1e-12, rel=0)


def _eroded_bands(id_map: NDArray[np.int32], width: int) -> NDArray[np.bool_]:
    """The definition of Boundary IoU's authors: a mask without its erosion, segment by segment."""
    in_band = np.zeros(id_map.shape, dtype=bool)
    for segment_id in np.unique(id_map):
        mask = (id_map == segment_id).astype(np.uint8)
        padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1]
        in_band |= (mask - eroded).astype(bool)
    return in_band


@pytest.mark.parametrize("seed", range(12))
def test_bands_equal_erosion_of_each_segment_on_maps_of_any_shape(seed: int) -> None:
    image = fuzz_image(np.random.default_rng(seed))
    maps = image.gt_map.view(np.uint32), image.pred_map.view(np.uint32)
    size = (image.gt_map.shape[0], image.gt_map.shape[1])
    for ratio in (0.01, 0.06, 0.15):
        width = boundary_width(size, ratio)
        in_gt, in_pred = _eroded_bands(image.gt_map, width), _eroded_bands(image.pred_map, width)
        expected = in_gt & in_pred & (image.gt_map > 0) & (image.pred_map > 0)
        overlap = boundary_overlap(*maps, ratio)
        both = (overlap.gt_ids > 0) & (overlap.pred_ids > 0)
        both &= (overlap.gt_ids < 1 << 24) & (overlap.pred_ids < 1 << 24)
        assert overlap.pixels[both].sum() == expected.sum()
