"""From files to PQ against hotcoco, an independent evaluator in Rust that follows panopticapi."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seamless_pr.evaluation.evaluate import evaluate
from seamless_pr.evaluation.sources import open_ground_truth, open_predictions
from tests.evaluation.files import PanopticFiles
from tests.metrics.maps import fuzz_image

GOLDEN = Path(__file__).parents[1] / "golden" / "tf_deeplab"


@pytest.mark.parametrize("seed", range(4))
def test_every_number_of_fuzzed_files_is_the_same(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    files = PanopticFiles(tmp_path, [fuzz_image(rng) for _ in range(60)])
    for index, image in enumerate(files.gt["images"]):  # it knows ids that are numbers only
        image["id"] = index
        for side in (files.gt, files.pred):
            side["annotations"][index]["image_id"] = index
    files.pred["images"] = files.gt["images"]
    files.write()
    _compare(files.gt_json, files.pred_json)


def test_a_predicted_segment_of_id_zero_counts_alike() -> None:
    _compare(GOLDEN / "coco_gt.json", GOLDEN / "coco_pred.json")


def _compare(gt_json: Path, pred_json: Path) -> None:
    hotcoco = pytest.importorskip("hotcoco.panoptic", reason="hotcoco is in the test extra")
    theirs = hotcoco.pq_compute(gt_json, pred_json)
    evaluation = evaluate(open_ground_truth(gt_json), open_predictions(pred_json))
    scores, counts = evaluation.panoptic, evaluation.counts.pq
    assert counts.tp.sum() > 10
    for name, means in (("All", scores.all), ("Things", scores.things), ("Stuff", scores.stuff)):
        assert means.num_categories == theirs[name]["n"]
        for key in ("pq", "sq", "rq"):
            assert getattr(means, key) == pytest.approx(theirs[name][key], abs=1e-12, rel=0)
    for train_id, category in enumerate(evaluation.label_space.categories):
        of_class = theirs["per_class"][category.category_id]
        ours = (counts.tp[train_id], counts.fp[train_id], counts.fn[train_id])
        assert ours == (of_class["tp"], of_class["fp"], of_class["fn"])
        assert counts.iou_sum[train_id] == pytest.approx(of_class["iou"], abs=1e-12, rel=0)
