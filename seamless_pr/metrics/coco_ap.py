"""Average precision of instance masks by pycocotools, the official COCO evaluator."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from seamless_pr.metrics.ap_rules import COCO_RULES, ApRules

STATS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
# Thresholds rise from 0.5 by 0.05.
_AT_75 = 5


@dataclass(frozen=True)
class CocoScores:
    """AP of COCO, each value in [0, 1], None where there is no ground truth.

    Attributes:
        means: by the names of `STATS`.
        per_category: category id -> (AP, AP50).
    """

    means: dict[str, float | None]
    per_category: dict[int, tuple[float | None, float | None]]


def compute_coco_ap(
    image_sizes: Sequence[tuple[int, int]],
    category_ids: Sequence[int],
    truths: Sequence[dict[str, Any]],
    results: Sequence[dict[str, Any]],
    rules: ApRules = COCO_RULES,
    *,
    forgiven: Collection[tuple[int, int]] = (),
) -> CocoScores:
    """Runs pycocotools on masks.

    Args:
        image_sizes: (height, width) of each image; image ids are 1, 2, ... in this order.
        category_ids: thing categories.
        truths: COCO annotations with segmentation (run lengths), area, iscrowd, bbox, without ids.
        results: COCO results with segmentation and score.
        rules: sizes that part the objects, and how many instances count.
        forgiven: (image id, category id) where an instance without an object is no mistake.
    """
    empty = CocoScores(dict.fromkeys(STATS), dict.fromkeys(category_ids, (None, None)))
    if not truths:
        return empty
    # pycocotools reports its progress with print.
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = {
            "images": [
                {"id": index + 1, "height": height, "width": width}
                for index, (height, width) in enumerate(image_sizes)
            ],
            "categories": [{"id": category_id} for category_id in category_ids],
            "annotations": [dict(truth, id=index + 1) for index, truth in enumerate(truths)],
        }
        gt.createIndex()
        evaluator = COCOeval(gt, _load_results(gt, results), "segm")
        evaluator.params.catIds = sorted(category_ids)  # it sorts them itself
        evaluator.params.areaRng = _area_ranges(rules)
        evaluator.params.maxDets = [rules.max_detections]
        evaluator.evaluate()
        for match in evaluator.evalImgs:
            if match is not None and (match["image_id"], match["category_id"]) in forgiven:
                match["dtIgnore"] = np.logical_or(match["dtIgnore"], match["dtMatches"] == 0)
        evaluator.accumulate()
    # [thresholds, recalls, categories, areas]; -1 where there is no ground truth.
    precision = evaluator.eval["precision"][..., 0]
    of_all = precision[..., 0]
    parts = (of_all, of_all[0], of_all[_AT_75], *(precision[..., area] for area in (1, 2, 3)))
    return CocoScores(
        {name: _mean(part) for name, part in zip(STATS, parts, strict=True)},
        {
            category_id: (_mean(of_all[:, :, index]), _mean(of_all[0, :, index]))
            for index, category_id in enumerate(sorted(category_ids))
        },
    )


def _area_ranges(rules: ApRules) -> list[list[float]]:
    """Smallest and largest area in pixels of all, small, medium and large objects."""
    small, large = (side**2 for side in rules.area_sides)
    return [[0, 1e10], [0, small], [small, large], [large, 1e10]]


def _load_results(gt: COCO, results: Sequence[dict[str, Any]]) -> COCO:
    if results:
        # It writes into them.
        return gt.loadRes([dict(result) for result in results])
    none = COCO()
    none.dataset = {**gt.dataset, "annotations": []}
    none.createIndex()
    return none


def _mean(precision: NDArray[np.float64]) -> float | None:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None
