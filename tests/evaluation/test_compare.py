from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seamless_pr.evaluation.compare import (
    baseline_table,
    compare_evaluations,
    comparison_json,
    comparison_table,
    require_fitting_baseline,
)
from seamless_pr.evaluation.evaluate import evaluate
from seamless_pr.evaluation.image_evaluation import EvaluationSettings
from seamless_pr.evaluation.results import evaluation_json
from seamless_pr.evaluation.sources import open_ground_truth, open_predictions
from seamless_pr.metrics.segment_matching import PQ_RULES
from seamless_pr.structures.label_space import Category, LabelSpace
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


def test_scores_are_those_of_the_evaluations(evaluations: tuple[dict, dict]) -> None:
    a, b = evaluations
    comparison = compare_evaluations(a, b, num_draws=10)
    for group in ("all", "things", "stuff"):
        difference = comparison.pq[group]
        assert difference.a == pytest.approx(a[group]["pq"], abs=1e-12)
        assert difference.b == pytest.approx(b[group]["pq"], abs=1e-12)
        assert comparison.pq_dagger[group].b == pytest.approx(b["pq_dagger"][group], abs=1e-12)
    for row_a, row_b in zip(a["per_category"], b["per_category"]):
        difference = comparison.pq[row_a["name"]]
        assert difference.delta == pytest.approx(row_b["pq"] - row_a["pq"], abs=1e-12)


@pytest.mark.parametrize("rules", sorted(PQ_RULES))
def test_both_sides_are_scored_by_the_rules_of_their_files(tmp_path: Path, rules: str) -> None:
    # Road and persons occur, three other classes of six do not: 0 under seamseg, no score else.
    files = PanopticFiles(tmp_path, street()[:1])
    settings = EvaluationSettings(rules=rules)
    gt, pred = open_ground_truth(files.gt_json), open_predictions(files.pred_json)
    values = evaluation_json(evaluate(gt, pred, settings))
    comparison = compare_evaluations(values, values, num_draws=10)
    for group in ("all", "things", "stuff"):
        difference = comparison.pq[group]
        assert difference.a == difference.b == values[group]["pq"]
        assert comparison.pq_dagger[group].a == values["pq_dagger"][group]
        assert (difference.low, difference.high) == (0, 0)
    for of_class in values["per_category"]:
        expected = of_class["pq"] if of_class["is_counted"] else None
        assert comparison.pq[of_class["name"]].a == expected
        assert comparison.pq_dagger[of_class["name"]].a == of_class["pq_dagger"]


def test_classes_of_one_name_or_named_as_a_mean_keep_their_rows(
    evaluations: tuple[dict, dict],
) -> None:
    names = ["lane", "lane", "all", "person", "things", "bicycle"]
    sides = [
        {**side, "per_category": [{**r, "name": n} for r, n in zip(side["per_category"], names)]}
        for side in evaluations
    ]
    plain = compare_evaluations(*evaluations, num_draws=20).pq
    renamed = compare_evaluations(*sides, num_draws=20).pq
    keys = ["lane (7)", "lane (23)", "all (8)", "person", "things (0)", "bicycle"]
    assert [*renamed] == ["all", "things", "stuff", *keys]
    assert [*renamed.values()] == [*plain.values()]


def test_a_clear_gain_is_clear_and_turned_around_it_is_a_loss(
    evaluations: tuple[dict, dict],
) -> None:
    gain = compare_evaluations(*evaluations).pq["all"]
    loss = compare_evaluations(*evaluations[::-1]).pq["all"]
    assert gain.low is not None
    assert gain.low > 0
    assert gain.is_clear
    assert loss.is_clear
    assert (loss.low, loss.high) == pytest.approx((-(gain.high or 0), -gain.low))


def test_an_evaluation_against_itself_has_no_width(evaluations: tuple[dict, dict]) -> None:
    same = compare_evaluations(evaluations[0], evaluations[0], num_draws=50)
    for difference in same.pq.values():
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
    difference = compare_evaluations(a, b).pq[name]
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
    assert comparison_json(comparison)["pq"]["all"]["difference"] == comparison.pq["all"].delta
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


def test_classes_of_one_number_and_another_name_are_not_compared(
    evaluations: tuple[dict, dict],
) -> None:
    a, b = evaluations
    b = {**b, "per_category": [dict(row) for row in b["per_category"]]}
    b["per_category"][0]["name"] = "canal"
    number, name = a["per_category"][0]["category_id"], a["per_category"][0]["name"]
    with pytest.raises(ValueError) as error:
        compare_evaluations(a, b, num_draws=1)
    assert f"in B category {number} is 'canal' (stuff) here and '{name}' (stuff) in A" in str(
        error.value
    )


def test_a_baseline_has_the_classes_and_rules_of_the_evaluation(
    evaluations: tuple[dict, dict],
) -> None:
    values = evaluations[0]
    rows = values["per_category"]
    space = LabelSpace(
        "now",
        tuple(Category(r["category_id"], r["name"], r["is_thing"], (0, 0, 0)) for r in rows),
    )
    require_fitting_baseline(values, space, "official")
    fewer = {**values, "per_category": rows[:-1]}
    with pytest.raises(ValueError, match=rf"category {rows[-1]['category_id']} .* only in the gro"):
        require_fitting_baseline(fewer, space, "official")
    other = {**values, "per_category": [{**rows[0], "name": "canal"}, *rows[1:]]}
    with pytest.raises(ValueError, match=r"is 'canal' \(stuff\) here and .*in the ground truth"):
        require_fitting_baseline(other, space, "official")
    with pytest.raises(ValueError, match="scored by the rules 'official', this evaluation by 'x'"):
        require_fitting_baseline(values, space, "x")
