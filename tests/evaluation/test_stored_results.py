from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seamless_pr.evaluation.evaluate import evaluate
from seamless_pr.evaluation.results import evaluation_json, write_evaluation_json
from seamless_pr.evaluation.sources import open_ground_truth, open_predictions
from seamless_pr.evaluation.stored_results import count_cube, read_evaluation_json
from seamless_pr.structures.faults import FaultyDataError
from tests.evaluation.files import PanopticFiles, street


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    files = PanopticFiles(tmp_path, street())
    gt, pred = open_ground_truth(files.gt_json), open_predictions(files.pred_json)
    return evaluation_json(evaluate(gt, pred))


def test_what_was_written_is_read_back(values: dict[str, Any], tmp_path: Path) -> None:
    path = write_evaluation_json(values, tmp_path / "out")
    assert read_evaluation_json(path) == read_evaluation_json(tmp_path / "out") == values


def test_the_counts_of_all_images_are_those_of_the_classes(values: dict[str, Any]) -> None:
    cube = count_cube(values).sum(0)
    for row, counts in zip(values["per_category"], cube):
        assert counts.tolist() == pytest.approx(
            [row[key] for key in ("tp", "fp", "fn", "num_gt", "iou_sum", "all_iou_sum")]
        )


def _count(row: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda values: values["per_image"][0]["categories"][0].update({row: value})


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda values: values.pop("per_image"), "'per_image' is missing"),
        (lambda values: values.update(rules="mine"), "'rules' must be one of official, paper"),
        (lambda values: values.update(rules=["official"]), "'rules' must be one of official"),
        (lambda values: values.update(all=None), "'all' must be an object with 'pq'"),
        (lambda values: values["all"].update(pq="0.5"), "all: 'pq' must be a number or null"),
        (lambda values: values.update(per_category=[]), "at least one class"),
        (lambda values: values["per_category"].append(7), "per_category[6] needs a category_id"),
        (lambda values: values["per_category"][0].update(category_id=7.5), "per_category[0] needs"),
        (lambda values: values["per_category"][1].update(category_id=7), "per_category[1] needs"),
        (lambda values: values.update(per_image={}), "'per_image' must be a list"),
        (lambda values: values["per_image"][1].update(image_id="image_0"), "per_image[1] needs"),
        (lambda values: values["per_image"][0].update(image_id=None), "per_image[0] needs"),
        (_count("category_id", 99), "image 'image_0': a class needs a category_id"),
        (_count("tp", -1), "image 'image_0': a class needs"),
        (_count("iou_sum", None), "image 'image_0': a class needs"),
        (_count("iou_sum", float("nan")), "image 'image_0': a class needs"),
    ],
)
def test_a_changed_value_is_one_fault(
    values: dict[str, Any], change: Any, message: str, tmp_path: Path
) -> None:
    change(values)
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(values))
    with pytest.raises(FaultyDataError) as error:
        read_evaluation_json(path)
    (fault,) = error.value.faults
    assert message in fault.message


@pytest.mark.parametrize("content", ["", "[" * 100_000, '{"all"'])
def test_what_is_no_json_is_said(tmp_path: Path, content: str) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="is not JSON"):
        read_evaluation_json(path)
