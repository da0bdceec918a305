"""Ground truth as downloaded is scored as its conversion is."""

from __future__ import annotations

from pathlib import Path

import pytest

from seamless_pr.datasets.ade20k import open_ade20k
from seamless_pr.datasets.conversion import convert_split
from seamless_pr.datasets.idd import OFFICIAL_SIZE, open_idd
from seamless_pr.datasets.raw_splits import RawSplit
from seamless_pr.evaluation.evaluate import evaluate
from seamless_pr.evaluation.sources import (
    ground_truth_readers,
    open_ground_truth,
    open_predictions,
)
from seamless_pr.structures.faults import FaultyDataError
from tests.datasets.test_ade20k import write as write_ade20k
from tests.datasets.test_idd import SCENE, write_frame
from tests.support.raw_datasets import write_coco, write_vistas


def converted(split: RawSplit, output: Path) -> Path:
    return convert_split(split, output, num_workers=0, show_progress=False).json_path


def pq(folder: Path, prediction: Path, **options: object) -> float:
    gt = open_ground_truth(folder, readers=ground_truth_readers(**options))  # type: ignore[arg-type]
    return evaluate(gt, open_predictions(prediction), num_workers=0).panoptic.all.pq


def test_idd_is_scored_from_its_polygons_at_both_sizes(tmp_path: Path) -> None:
    write_frame(tmp_path, "0", "000001", SCENE)
    folder = tmp_path / "gtFine" / "train"
    assert pq(folder, converted(open_idd(tmp_path, "train"), tmp_path / "native")) == 1
    official = open_idd(tmp_path, "train", size=OFFICIAL_SIZE)
    prediction = converted(official, tmp_path / "official")
    assert pq(folder, prediction, idd_size=OFFICIAL_SIZE) == 1


def test_ade20k_is_scored_with_counted_or_stated_areas(tmp_path: Path) -> None:
    write_ade20k(tmp_path)
    folder = tmp_path / "ADEChallengeData2016" / "annotations" / "training"
    prediction = converted(open_ade20k(tmp_path, "train"), tmp_path / "out")
    assert pq(folder, prediction) == 1
    # The stated area of a wall and a floor exceeds what things leave of them: 2 of 3, 1 of 3.
    stated = pq(folder, prediction, stated_areas=True)
    assert stated == pytest.approx((1 + 1 + 2 / 3 + 0) / 4)


@pytest.mark.parametrize("nested", [False, True])
def test_vistas_and_coco_are_scored_from_their_folders(tmp_path: Path, nested: bool) -> None:
    json_path = write_vistas(tmp_path / "vistas", nested=nested, exchanged=True)
    assert pq(tmp_path / "vistas" / "validation", json_path) == 1
    json_path = write_coco(tmp_path / "coco")
    assert pq(json_path.with_suffix(""), json_path) == 1


def test_a_broken_folder_is_refused_and_an_unknown_one_learns_what_is_known(tmp_path: Path) -> None:
    write_vistas(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FaultyDataError, match=r"no config\*\.json here"):
        open_ground_truth(tmp_path / "validation")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="IDD polygons such as gtFine/val, or a split of"):
        open_ground_truth(tmp_path / "empty")
