from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seamless_pr.evaluation.compare import (
    Comparison,
    ScoreDifference,
    baseline_table,
    compare_evaluations,
    comparison_json,
    comparison_table,
)
from seamless_pr.evaluation.evaluate import evaluate
from seamless_pr.evaluation.image_evaluation import EvaluationSettings
from seamless_pr.evaluation.results import evaluation_json
from seamless_pr.evaluation.sources import open_ground_truth, open_predictions
from seamless_pr.metrics.segment_matching import PQ_RULES
from tests.evaluation.files import PanopticFiles, street
from tests.metrics.maps import FuzzedImage, fuzz_image, measured


def _better(image: FuzzedImage, share: float, rng: np.random.Generator) -> FuzzedImage:
    """The truth as prediction on a share of the images."""
    if rng.random() > share:
        return image
    segments = [dict(segment, iscrowd=0) for segment in image.gt_segments]
    return FuzzedImage(
        image.gt_map, image.gt_map, image.gt_segments, measured(image.gt_map, segments)
    )


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(0)
    worse = [fuzz_image(rng) for _ in range(60)]
    better = [_better(image, 0.6, rng) for image in worse]
    results = []
    for name, images in (("a", worse), ("b", better)):
        folder = tmp_path_factory.mktemp(name)
        PanopticFiles(folder, images)
        gt = open_ground_truth(folder / "gt.json")
        results.append(evaluation_json(evaluate(gt, open_predictions(folder / "pred.json"))))
    return results[0], results[1]


def _row(comparison: Comparison, name: str) -> ScoreDifference:
    return next(row for row in comparison.rows if row.name == name)


def test_scores_are_those_of_the_evaluations(evaluations: tuple[dict, dict]) -> None:
    a, b = evaluations
    comparison = compare_evaluations(a, b, num_draws=10)
    for group in ("all", "things", "stuff"):
        row = _row(comparison, group)
        assert row.pq.a == pytest.approx(a[group]["pq"], abs=1e-12)
        assert row.pq.b == pytest.approx(b[group]["pq"], abs=1e-12)
        assert row.pq_dagger.b == pytest.approx(b["pq_dagger"][group], abs=1e-12)
    for row_a, row_b in zip(a["per_category"], b["per_category"]):
        difference = _row(comparison, row_a["name"]).pq
        assert difference.delta == pytest.approx(row_b["pq"] - row_a["pq"], abs=1e-12)


@pytest.mark.parametrize("rules", sorted(PQ_RULES))
def test_both_sides_are_scored_by_the_rules_of_their_files(tmp_path: Path, rules: str) -> None:
    # Road and persons occur, three other classes of six do not: 0 under seamseg, no score else.
    files = PanopticFiles(tmp_path, street()[:1])
    settings = EvaluationSettings(rules=rules)
    gt, pred = open_ground_truth(files.gt_json), open_predictions(files.pred_json)
    values = evaluation_json(evaluate(gt, pred, settings))
    comparison = compare_evaluations(values, values, num_draws=10)
    for row in comparison.rows[:3]:
        assert row.pq.a == row.pq.b == values[row.name]["pq"]
        assert row.pq_dagger.a == values["pq_dagger"][row.name]
        assert (row.pq.low, row.pq.high) == (0, 0)
    for row, of_class in zip(comparison.rows[3:], values["per_category"], strict=True):
        assert row.pq.a == (of_class["pq"] if of_class["is_counted"] else None)
        assert row.pq_dagger.a == of_class["pq_dagger"]


def test_two_classes_of_one_name_keep_both_rows(evaluations: tuple[dict, dict]) -> None:
    sides = [
        {**side, "per_category": [{**row, "name": "lane"} for row in side["per_category"]]}
        for side in evaluations
    ]
    plain = compare_evaluations(*evaluations, num_draws=20).rows
    named_alike = compare_evaluations(*sides, num_draws=20)
    assert [row.pq for row in named_alike.rows] == [row.pq for row in plain]
    written = comparison_json(named_alike)["per_category"]
    assert [row["category_id"] for row in written] == [7, 23, 8, 24, 0, 33]


def test_a_clear_gain_is_clear_and_turned_around_it_is_a_loss(
    evaluations: tuple[dict, dict],
) -> None:
    gain = _row(compare_evaluations(*evaluations), "all").pq
    loss = _row(compare_evaluations(*evaluations[::-1]), "all").pq
    assert gain.low is not None
    assert gain.low > 0
    assert gain.is_clear
    assert loss.is_clear
    assert (loss.low, loss.high) == pytest.approx((-(gain.high or 0), -gain.low))


def test_an_evaluation_against_itself_has_no_width(evaluations: tuple[dict, dict]) -> None:
    same = compare_evaluations(evaluations[0], evaluations[0], num_draws=50)
    for row in same.rows:
        difference = row.pq
        assert (difference.delta, difference.low, difference.high) == (0.0, 0.0, 0.0)
        assert not difference.is_clear


def test_bounds_agree_with_a_plain_bootstrap(evaluations: tuple[dict, dict]) -> None:
    a, b = evaluations
    rng = np.random.default_rng(1)
    name = a["per_category"][0]["name"]
    category_id = a["per_category"][0]["category_id"]

    def pq(side: dict[str, Any], chosen: list[int]) -> float:
        rows = [
            row
            for index in chosen
            for row in side["per_image"][index]["categories"]
            if row["category_id"] == category_id
        ]
        weight = sum(row["tp"] + row["fp"] / 2 + row["fn"] / 2 for row in rows)
        return sum(row["iou_sum"] for row in rows) / weight

    num_images = len(a["per_image"])
    deltas = []
    for _ in range(1000):
        chosen = rng.integers(0, num_images, num_images).tolist()
        deltas.append(pq(b, chosen) - pq(a, chosen))
    difference = _row(compare_evaluations(a, b), name).pq
    expected = np.quantile(deltas, [0.025, 0.975])
    assert (difference.low, difference.high) == pytest.approx(tuple(expected), abs=0.02)


def test_a_seed_makes_the_bounds_repeatable(evaluations: tuple[dict, dict]) -> None:
    draws = [compare_evaluations(*evaluations, num_draws=200, seed=seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_tables_and_json_show_both_sides(evaluations: tuple[dict, dict]) -> None:
    comparison = compare_evaluations(*evaluations, num_draws=200)
    table = comparison_table(comparison)
    assert [row[0] for row in table.rows[:4]] == ["all", "things", "stuff", "road"]
    assert table.rows[0][4].endswith("*")
    assert comparison_json(comparison)["all"]["pq"]["difference"] == comparison.rows[0].pq.delta
    changes = baseline_table(evaluations[1], evaluations[0])
    assert changes.rows[0][0] == "PQ all"
    assert changes.rows[0][3].startswith("+")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda e: e["per_image"].pop(), "1 are in A only, 0 in B only"),
        (lambda e: e["per_category"].pop(), "A and B have other categories"),
        (lambda e: e.update(rules="paper"), "by the rules 'official', B by 'paper'"),
    ],
)
def test_evaluations_that_do_not_fit_together_are_refused(
    evaluations: tuple[dict, dict], change: Any, message: str
) -> None:
    other = {**evaluations[1]}
    other["per_image"], other["per_category"] = [*other["per_image"]], [*other["per_category"]]
    change(other)
    with pytest.raises(ValueError, match=message):
        compare_evaluations(evaluations[0], other)
