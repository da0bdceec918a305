from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seamless_pr.evaluation.evaluate import evaluate
from seamless_pr.evaluation.map_files import MapFile, Source
from seamless_pr.evaluation.pairing import pair_images
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


def test_one_prediction_serves_one_image(tmp_path: Path) -> None:
    def source(*image_ids: int | str) -> Source:
        maps = (MapFile(image_id, tmp_path, lambda path: None) for image_id in image_ids)
        return Source("made up", tuple(maps))

    pairs, notes = pair_images(source(42, "42", 7), source("7", 42))
    found = [None if pair.pred is None else pair.pred.image_id for pair in pairs]
    assert found == [42, None, "7"]
    (note,) = notes
    assert note.startswith("1 image ids are a number on one side and a text on the other")
