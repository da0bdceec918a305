"""Scores beside those of panopticapi, itself where it is installed, else its Cityscapes twin."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cityscapesscripts.evaluation import evalPanopticSemanticLabeling as twin

from seamless_pr.pipelines import evaluate
from tests.evaluation.files import PanopticFiles, street


@pytest.fixture
def files(tmp_path: Path) -> PanopticFiles:
    return PanopticFiles(tmp_path, street())


def twin_pq_compute(
    gt_json: str, pred_json: str, gt_folder: str, pred_folder: str
) -> dict[str, Any]:
    """panopticapi's entry point over the copy of its counting that Cityscapes' scripts carry."""
    gt, pred = (json.loads(Path(path).read_text()) for path in (gt_json, pred_json))
    categories = {category["id"]: category for category in gt["categories"]}
    pred_of = {annotation["image_id"]: annotation for annotation in pred["annotations"]}
    pairs = [(annotation, pred_of[annotation["image_id"]]) for annotation in gt["annotations"]]
    counts = twin.pq_compute_single_core(0, pairs, gt_folder, pred_folder, categories)
    results: dict[str, Any] = {}
    for name, is_thing in (("All", None), ("Things", True), ("Stuff", False)):
        results[name], per_class = counts.pq_average(categories, isthing=is_thing)
        if name == "All":
            results["per_class"] = per_class
    return results


def install(monkeypatch: pytest.MonkeyPatch, pq_compute: Any) -> None:
    package, module = ModuleType("panopticapi"), ModuleType("panopticapi.evaluation")
    package.evaluation = module  # type: ignore[attr-defined]
    module.pq_compute = pq_compute  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "panopticapi", package)
    monkeypatch.setitem(sys.modules, "panopticapi.evaluation", module)


def test_equal_scores_are_shown_side_by_side(
    files: PanopticFiles, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    install(monkeypatch, twin_pq_compute)
    assert evaluate.main(files.arguments("--cross-check")) == 0
    text = capsys.readouterr().out
    lines = [line.split()[2:] for line in text.splitlines() if line.startswith("all, ")]
    ours, theirs = (line[-3:] for line in lines)
    assert ours == theirs
    assert float(ours[0]) == pytest.approx(100 * (1 + 1 + 1 / 1.5) / 3, abs=1e-5)
    assert "scores of means and classes are the same" in text


def test_a_difference_ends_with_code_1_and_is_named(
    files: PanopticFiles, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def other_pq_compute(*arguments: str) -> dict[str, Any]:
        results = twin_pq_compute(*arguments)
        results["per_class"][24]["rq"] += 2e-9
        return results

    install(monkeypatch, other_pq_compute)
    assert evaluate.main(files.arguments("--cross-check")) == 1
    captured = capsys.readouterr()
    assert "differs in 1 of" in captured.err
    assert "person rq" in captured.err


def test_files_that_panopticapi_refuses_are_an_error(
    files: PanopticFiles, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def give_up(*arguments: str) -> None:
        raise Exception("no prediction for the image with id: 7")

    install(monkeypatch, give_up)
    assert evaluate.main(files.arguments("--cross-check")) == 1
    assert "panopticapi gave up on" in capsys.readouterr().err

    def no_class(*arguments: str) -> float:
        return 1 / len(arguments[4:])

    install(monkeypatch, no_class)
    assert evaluate.main(files.arguments("--cross-check")) == 1
    assert "average over no class" in capsys.readouterr().err


def test_a_missing_package_is_found_before_anything_is_scored(
    files: PanopticFiles, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "panopticapi", None)
    assert evaluate.main(files.arguments("--cross-check")) == 1
    captured = capsys.readouterr()
    assert "pip install git+https://github.com/cocodataset/panopticapi" in captured.err
    assert captured.out == ""


def test_a_folder_of_annotations_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    install(monkeypatch, twin_pq_compute)
    arguments = ["--ground-truth", str(tmp_path), "--predictions", "p.json", "--cross-check"]
    assert evaluate.main(arguments) == 1
    assert "panopticapi reads JSON only" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more", [["--rules", "paper"], ["--lenient"], ["--compare", "a.json", "b.json"]]
)
def test_other_rules_are_not_for_comparison(files: PanopticFiles, more: list[str]):
    with pytest.raises(SystemExit) as exit_info:
        evaluate.main(files.arguments("--cross-check", *more))
    assert exit_info.value.code == 2


def test_panopticapi_itself_gives_the_same(
    files: PanopticFiles, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("panopticapi.evaluation", reason="panopticapi is not installed")
    assert evaluate.main(files.arguments("--cross-check")) == 0
    assert "scores of means and classes are the same" in capsys.readouterr().out
