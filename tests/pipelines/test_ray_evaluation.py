"""Evaluation and verification over Ray tasks give what one process gives, to the last digit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from seamless_pr.evaluation.compare import compare_evaluations, comparison_json
from seamless_pr.evaluation.evaluate import evaluate
from seamless_pr.evaluation.image_evaluation import EvaluationSettings
from seamless_pr.evaluation.results import evaluation_json
from seamless_pr.evaluation.sources import open_ground_truth, open_predictions
from seamless_pr.pipelines.ray_support import ray_cluster
from seamless_pr.pipelines.ray_tasks import map_in_tasks
from seamless_pr.structures.faults import FaultyDataError
from tests.evaluation.files import PanopticFiles
from tests.metrics.maps import fuzz_image
from tests.support.ray_variables import RAY_VARIABLES

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SETTINGS = EvaluationSettings(boundary_ratio=0.1, trimap_widths=(2,))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        for name, value in RAY_VARIABLES.items():
            patch.setenv(name, value)
        # Two logical cores more than a small machine has, so that four tasks do run at once.
        with ray_cluster(wanted_cpus=4):
            yield


@pytest.fixture
def files(tmp_path: Path) -> PanopticFiles:
    rng = np.random.default_rng(0)
    return PanopticFiles(tmp_path, [fuzz_image(rng) for _ in range(21)])


def values_of(files: PanopticFiles, num_tasks: int | None) -> str:
    gt = open_ground_truth(files.folder / "gt.json")
    pred = open_predictions(files.folder / "pred.json")
    spread = {"num_workers": num_tasks, "map_items": map_in_tasks} if num_tasks else {}
    return json.dumps(evaluation_json(evaluate(gt, pred, SETTINGS, **spread)))


def test_one_two_and_four_tasks_give_the_json_of_one_process(
    cluster: None, files: PanopticFiles
) -> None:
    alone = values_of(files, None)
    assert len(json.loads(alone)["per_image"]) == 21
    for num_tasks in (1, 2, 4):
        assert values_of(files, num_tasks) == alone


def test_all_unreadable_images_are_reported_as_in_one_process(
    cluster: None, files: PanopticFiles
) -> None:
    pngs = sorted((files.folder / "pred").rglob("*.png"))
    pngs[3].unlink()
    pngs[17].write_bytes(pngs[17].read_bytes()[:20])
    messages = []
    for num_tasks in (None, 4):
        with pytest.raises(FaultyDataError) as caught:
            values_of(files, num_tasks)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert pngs[3].name in messages[0]
    assert pngs[17].name in messages[0]


def test_bootstrap_intervals_do_not_depend_on_where_they_are_drawn(
    cluster: None, files: PanopticFiles
) -> None:
    values = json.loads(values_of(files, None))
    gt = open_ground_truth(files.folder / "gt.json")
    perfect = evaluation_json(evaluate(gt, gt, SETTINGS))
    alone = comparison_json(compare_evaluations(values, perfect, num_draws=450))
    spread = compare_evaluations(
        values, perfect, num_draws=450, num_workers=3, map_items=map_in_tasks
    )
    assert comparison_json(spread) == alone
    assert alone["pq"]["all"]["interval"][0] > 0


def test_a_task_whose_worker_dies_is_done_again(cluster: None, tmp_path: Path) -> None:
    numbers = list(range(40))
    results = map_in_tasks(
        _DiesOnce(tmp_path / "died"), numbers, num_workers=2, title="", show_progress=False
    )
    assert list(results) == [number**2 for number in numbers]
    assert (tmp_path / "died").exists()


class _DiesOnce:
    """Squares numbers; the first time it meets 23 it takes its process along."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __call__(self, number: int) -> int:
        import os

        if number == 23 and not self.mark.exists():
            self.mark.touch()
            os._exit(9)
        return number**2
