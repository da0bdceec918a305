"""Average precision by the rules of LVIS, whose images are annotated for some categories only.

Gupta et al. 2019, "LVIS: A dataset for large vocabulary instance segmentation", section 2.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from seamless_pr.metrics.ap_rules import COCO_RULES
from seamless_pr.metrics.coco_ap import CocoScores, compute_coco_ap

MAX_DETECTIONS = 300


@dataclass(frozen=True)
class FederatedImage:
    """What is known of one image.

    Attributes:
        size: (height, width).
        negative: ids of categories that are known not to be there.
        not_exhaustive: ids of categories of which not every object is annotated.
    """

    size: tuple[int, int]
    negative: Collection[int]
    not_exhaustive: Collection[int]


def compute_lvis_ap(
    images: Sequence[FederatedImage],
    category_ids: Sequence[int],
    truths: Sequence[dict[str, Any]],
    results: Sequence[dict[str, Any]],
) -> CocoScores:
    """AP over what was annotated.

    Of an image the 300 best instances of all categories count. Those of categories that it neither
    has annotated nor lists as negative are left out; those without an object are forgiven where
    their category is not annotated exhaustively.

    Args:
        images: image ids are 1, 2, ... in this order.
        category_ids: the categories of the mean.
        truths: COCO annotations with segmentation (run lengths), area, bbox, without ids.
        results: COCO results with segmentation and score.
    """
    judged = {
        (number, category_id)
        for number, image in enumerate(images, start=1)
        for category_id in image.negative
    }
    judged |= {(truth["image_id"], truth["category_id"]) for truth in truths}
    forgiven = {
        (number, category_id)
        for number, image in enumerate(images, start=1)
        for category_id in image.not_exhaustive
    }
    of_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        of_image[result["image_id"]].append(result)
    kept = [
        result
        for of_one in of_image.values()
        for result in sorted(of_one, key=lambda result: -result["score"])[:MAX_DETECTIONS]
        if (result["image_id"], result["category_id"]) in judged
    ]
    return compute_coco_ap(
        [image.size for image in images],
        category_ids,
        [dict(truth, iscrowd=0) for truth in truths],
        kept,
        replace(COCO_RULES, max_detections=MAX_DETECTIONS),
        forgiven=forgiven,
    )
