"""AP of COCO and of 3D-FUTURE against pycocotools' own summary with their numbers."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from seamless_pr.metrics.ap_rules import COCO_RULES, MORE_AP_RULES, ApRules
from seamless_pr.metrics.coco_ap import STATS, compute_coco_ap

SIZE, CATEGORIES, NUM_IMAGES = (300, 320), [3, 7], 3
SIDES = ((12, 32), (24, 48), (50, 110), (120, 250), (257, 290))


def scene(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Boxes of all sizes; 10 objects and 20 results, half of them close, of a class in an image."""
    rng = np.random.default_rng(seed)
    truths, results = [], []
    for image_id in range(1, NUM_IMAGES + 1):
        for category_id in CATEGORIES:
            for number in range(20):
                sides = rng.integers(*SIDES[number % 5], 2)
                corner = rng.integers(0, np.array(SIZE) - sides + 1)
                mask = np.zeros(SIZE, np.uint8, order="F")
                mask[corner[0] : corner[0] + sides[0], corner[1] : corner[1] + sides[1]] = 1
                common = {"image_id": image_id, "category_id": category_id}
                if number % 2:
                    truths.append(common | annotation(mask) | {"iscrowd": 0})
                shifted = np.asfortranarray(np.roll(mask, rng.integers(-9, 10, 2), (0, 1)))
                encoded = annotation(shifted)["segmentation"]
                results.append(common | {"segmentation": encoded, "score": float(rng.random())})
    return truths, results


def annotation(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco_mask.encode(mask)
    bbox = coco_mask.toBbox(encoded).tolist()
    return {"segmentation": encoded, "area": int(coco_mask.area(encoded)), "bbox": bbox}


def official(truths: list[dict[str, Any]], results: list[dict[str, Any]], rules: ApRules):
    """The stats of the official summary; its first number is of 100 instances whatever is set."""
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = {
            "images": [
                {"id": number + 1, "height": SIZE[0], "width": SIZE[1]}
                for number in range(NUM_IMAGES)
            ],
            "categories": [{"id": category_id} for category_id in CATEGORIES],
            "annotations": [dict(truth, id=number + 1) for number, truth in enumerate(truths)],
        }
        gt.createIndex()
        evaluator = COCOeval(gt, gt.loadRes([dict(result) for result in results]), "segm")
        small, large = (side**2 for side in rules.area_sides)
        bands = [[0, 1e10], [0, small], [small, large], [large, 1e10]]
        evaluator.params.areaRng = bands
        evaluator.params.maxDets = [1, 5, rules.max_detections]
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats[1:6], evaluator.eval["precision"][:, :, :, 0, 2].mean()


@pytest.mark.parametrize("rules", [COCO_RULES, *MORE_AP_RULES.values()])
def test_means_are_those_of_the_official_summary(rules: ApRules) -> None:
    truths, results = scene(0)
    expected, ap = official(truths, results, rules)
    found = compute_coco_ap([SIZE] * NUM_IMAGES, CATEGORIES, truths, results, rules).means
    assert tuple(found) == STATS
    assert found["ap"] == pytest.approx(ap, abs=1e-12)
    for name, value in zip(STATS[1:], expected, strict=True):
        assert found[name] == pytest.approx(value, abs=1e-12), name
        assert 0.01 < found[name] < 0.99


def test_bands_and_numbers_change_what_is_found() -> None:
    truths, results = scene(1)
    sizes = [SIZE] * NUM_IMAGES
    by_rules = {
        rules: compute_coco_ap(sizes, CATEGORIES, truths, results, rules).means
        for rules in (COCO_RULES, *MORE_AP_RULES.values())
    }
    coco, challenge, winner = by_rules.values()
    # More instances than objects: the best ten miss some that the best hundred hold.
    assert challenge["ap"] < winner["ap"] == coco["ap"]
    assert winner["ap_small"] != coco["ap_small"]
