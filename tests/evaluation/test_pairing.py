from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seamless_pr.evaluation.evaluate import evaluate
from seamless_pr.evaluation.results import evaluation_json
from seamless_pr.evaluation.sources import open_ground_truth, open_predictions
from seamless_pr.structures.faults import FaultyDataError
from tests.evaluation.files import CAR, ROAD, PanopticFiles, street


def _evaluate_with(files: PanopticFiles, categories: Any) -> dict[str, Any]:
    """The content of evaluation.json, with these categories in the predictions."""
    files.pred["categories"] = categories
    files.write()
    found = evaluate(open_ground_truth(files.gt_json), open_predictions(files.pred_json))
    return evaluation_json(found)


@pytest.mark.parametrize(
    "category, readings",
    [
        ({"id": ROAD, "name": "car"}, "category 7 is 'car' (of no stated kind) here and 'road'"),
        ({"id": ROAD, "name": "road", "isthing": 1}, "'road' (a thing) here and 'road' (stuff)"),
        ({"id": CAR, "isthing": False}, "'unnamed' (stuff) here and 'car' (a thing) in "),
    ],
)
def test_predictions_whose_categories_contradict_the_ground_truth_are_refused(
    tmp_path: Path, category: dict[str, Any], readings: str
) -> None:
    files = PanopticFiles(tmp_path, street())
    with pytest.raises(FaultyDataError) as error:
        _evaluate_with(files, [category])
    (fault,) = error.value.faults
    assert readings in str(fault)
    assert str(files.gt_json) in str(fault)
    assert str(files.pred_json) in str(fault)


@pytest.mark.parametrize(
    "categories",
    [
        [],
        [{"id": ROAD}],
        [{"id": ROAD, "name": "Road", "isthing": 0}],
        [{"id": 99, "name": "a class that the truth does not know", "isthing": 1}],
    ],
)
def test_predictions_may_name_fewer_classes_or_more(tmp_path: Path, categories: Any) -> None:
    files = PanopticFiles(tmp_path, street())
    expected = _evaluate_with(files, files.pred.get("categories", files.gt["categories"]))
    found = _evaluate_with(files, categories)
    assert found["all"] == expected["all"]
    assert found["per_category"] == expected["per_category"]
