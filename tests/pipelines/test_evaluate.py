from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seamless_pr.pipelines import evaluate
from tests.evaluation.files import PERSON, PanopticFiles, street


@pytest.fixture
def files(tmp_path: Path) -> PanopticFiles:
    return PanopticFiles(tmp_path, street())


def _run(files: PanopticFiles, *more: str) -> dict[str, Any]:
    output = files.folder / "output"
    assert evaluate.main(files.arguments("--output", str(output), *more)) == 0
    return json.loads((output / "evaluation.json").read_text())


def test_evaluation_json_has_the_stated_keys(files: PanopticFiles) -> None:
    values = _run(files)
    for group in ("all", "things", "stuff"):
        assert set(values[group]) == {"pq", "sq", "rq", "num_categories"}
        assert group in values["pq_dagger"]
    keys = "category_id name is_thing pq sq rq pq_dagger tp fp fn iou_sum"
    assert set(keys.split()) <= set(values["per_category"][0])
    road, person = (
        next(row for row in values["per_category"] if row["name"] == name)
        for name in ("road", "person")
    )
    assert (road["pq"], road["pq_dagger"], road["tp"]) == (1.0, 1.0, 2)
    # One of two persons is found: IoU 1, one false negative.
    assert (person["pq"], person["fn"]) == (pytest.approx(1 / 1.5), 1)
    # The car in the picture lies on a crowd of cars: nothing is counted.
    assert values["things"]["num_categories"] == 1
    assert values["all"]["pq"] == pytest.approx((1 + 1 + 1 / 1.5) / 3)
    assert len(values["per_image"]) == 2


def test_the_console_shows_every_class_and_the_means(
    files: PanopticFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(files, "--boundary", "0.1", "--trimap", "1", "2")
    text = capsys.readouterr().out
    for word in ("sidewalk", "bicycle", "things", "PQ†", "Boundary PQ", "mean IoU within 2 px"):
        assert word in text


def test_results_that_cannot_be_written_are_shown(
    files: PanopticFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    (files.folder / "output").write_text("a file where the folder should be")
    assert evaluate.main(files.arguments("--output", str(files.folder / "output" / "here"))) == 1
    captured = capsys.readouterr()
    assert "mean IoU" in captured.out
    assert "error: cannot write" in captured.err


@pytest.mark.parametrize("step", ["evaluation", "write_tables"])
def test_an_output_that_is_removed_meanwhile_is_whole_or_told_with_advice_that_works(
    files: PanopticFiles,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: str,
) -> None:
    output, work = files.folder / "output", getattr(evaluate, step)
    arguments = files.arguments("--output", str(output), "--workers", "1")

    def work_while_somebody_cleans_up(*given: Any) -> Any:
        shutil.rmtree(output, ignore_errors=True)
        return work(*given)

    with monkeypatch.context() as patches:
        patches.setattr(evaluate, step, work_while_somebody_cleans_up)
        code = evaluate.main(arguments)
    told = capsys.readouterr().err
    assert code == (step == "write_tables")
    assert ("evaluation.json" in told and "give the same command again" in told) == bool(code)
    assert evaluate.main(arguments) == 0
    names = {path.name for path in output.iterdir()}
    assert {"evaluation.json", "summary.md", "classes.csv"} <= names


def test_tables_are_written_beside_the_result(files: PanopticFiles) -> None:
    _run(files)
    names = {path.name for path in (files.folder / "output").iterdir()}
    assert {"summary.md", "summary.csv", "summary.tex", "classes.md", "classes.csv"} <= names


def test_masks_and_label_pngs_are_scored_beside_the_maps(files: PanopticFiles) -> None:
    instance = {
        "image_id": "image_0",
        "category_id": PERSON,
        "score": 0.5,
        "segmentation": {"size": [3, 4], "counts": [4, 1, 7]},
    }
    (files.folder / "instances.json").write_text(json.dumps([instance]))
    (files.folder / "labels").mkdir()
    for index in range(2):
        picture = Image.fromarray(np.full((3, 4), 23, np.uint8))
        picture.save(files.folder / "labels" / f"image_{index}.png")
    values = _run(
        files,
        "--instances",
        str(files.folder / "instances.json"),
        "--ap-rules",
        "future3d",
        "--semantic-pngs",
        str(files.folder / "labels"),
    )
    assert list(values["instances"]) == ["coco", "cityscapes", "future3d"]
    assert 0 < values["instances"]["coco"]["ap"] == values["instances"]["future3d"]["ap"] < 1
    assert 0 < values["semantic_pngs"]["mean_iou"] < values["semantic"]["mean_iou"]


def test_a_baseline_is_shown(files: PanopticFiles, capsys: pytest.CaptureFixture[str]) -> None:
    _run(files)
    _run(files, "--baseline", str(files.folder / "output" / "evaluation.json"))
    assert "PQ† all" in capsys.readouterr().out


def test_two_evaluations_are_compared(
    files: PanopticFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(files)
    result, output = files.folder / "output", files.folder / "comparison"
    arguments = ["--compare", str(result), str(result / "evaluation.json")]
    assert evaluate.main([*arguments, "--output", str(output)]) == 0
    assert "paired bootstrap" in capsys.readouterr().out
    assert json.loads((output / "comparison.json").read_text())["num_images"] == 2


def test_faults_end_with_code_1_and_name_everything(
    files: PanopticFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    files.pred["annotations"][0]["segments_info"][0]["category_id"] = 99
    del files.pred["annotations"][1]
    files.write()
    assert evaluate.main(files.arguments()) == 1
    text = capsys.readouterr().err
    assert "category 99 is not among" in text
    assert "image 'image_1': no prediction for this image" in text
    assert evaluate.main(files.arguments("--lenient")) == 1


def test_a_file_that_is_no_evaluation_is_refused(
    files: PanopticFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    for content, message in (("{}", "'all' is missing"), ("[", "is not JSON")):
        path = files.folder / "other.json"
        path.write_text(content)
        assert evaluate.main(files.arguments("--baseline", str(path))) == 1
        assert message in capsys.readouterr().err
    assert evaluate.main(["--compare", str(files.folder / "x.json"), str(path)]) == 1
    assert "--output DIR writes one" in capsys.readouterr().err


def test_ground_truth_and_predictions_belong_together(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        evaluate.main(["--ground-truth", "g.json"])
    assert caught.value.code == 2
    assert "--predictions are needed" in capsys.readouterr().err
