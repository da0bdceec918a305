"""Predictions that use the id 0, which means void in ground truth, for a segment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cityscapesscripts.evaluation import evalPanopticSemanticLabeling as twin

from seamless_pr.evaluation.evaluate import evaluate
from seamless_pr.evaluation.sources import open_ground_truth, open_predictions

# panopticapi's numbers: 67.4 over all, with a segment of id 0 among the predictions.
FOLDER = Path(__file__).parents[1] / "golden" / "tf_deeplab"


def test_a_predicted_segment_of_id_zero_is_scored_as_the_official_evaluator_does() -> None:
    gt, pred = (json.loads((FOLDER / f"coco_{side}.json").read_text()) for side in ("gt", "pred"))
    ids = {s["id"] for annotation in pred["annotations"] for s in annotation["segments_info"]}
    assert 0 in ids
    categories = {category["id"]: category for category in gt["categories"]}
    pred_of = {annotation["image_id"]: annotation for annotation in pred["annotations"]}
    pairs = [(annotation, pred_of[annotation["image_id"]]) for annotation in gt["annotations"]]
    folders = (str(FOLDER / "coco_gt"), str(FOLDER / "coco_pred"))
    official = twin.pq_compute_single_core(0, pairs, *folders, categories)

    evaluation = evaluate(
        open_ground_truth(FOLDER / "coco_gt.json"), open_predictions(FOLDER / "coco_pred.json")
    )
    scores = evaluation.panoptic
    assert scores.all.pq == pytest.approx(0.674, abs=5e-4)
    for name, is_thing in (("all", None), ("things", True), ("stuff", False)):
        theirs, _ = official.pq_average(categories, isthing=is_thing)
        ours = getattr(scores, name)
        assert (ours.pq, ours.sq, ours.rq) == pytest.approx(
            (theirs["pq"], theirs["sq"], theirs["rq"]), abs=1e-12
        )
