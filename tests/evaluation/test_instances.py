from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from seamless_pr.evaluation.evaluate import evaluate
from seamless_pr.evaluation.image_counts import EvaluationSettings
from seamless_pr.evaluation.map_files import Source
from seamless_pr.evaluation.results import evaluation_json
from seamless_pr.evaluation.sources import open_ground_truth
from seamless_pr.structures.faults import FaultyDataError
from tests.evaluation.files import CAR, PERSON, ROAD, PanopticFiles, street
from tests.oracles.official_cityscapes import official_instance_ap

SIZE = (60, 80)
Instance = tuple[NDArray[np.bool_], int, float]


def _run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def _fuzz(rng: np.random.Generator) -> tuple[NDArray[np.uint16], list[Instance]]:
    """Objects, groups, void, ignored objects; and instances that are moved copies of some."""
    values = np.full(SIZE, 7, np.uint16)
    values[: int(rng.integers(1, 20))] = 3
    labels = [24, 26, 33]
    for number in range(int(rng.integers(2, 14))):
        top, left = int(rng.integers(0, 50)), int(rng.integers(0, 70))
        bottom, right = top + int(rng.integers(4, 24)), left + int(rng.integers(4, 24))
        label = int(rng.choice([*labels, 29]))
        is_group = rng.random() < 0.2 and label != 29
        values[top:bottom, left:right] = label if is_group else label * 1000 + number
    instances: list[Instance] = []
    for value in np.unique(values[(values > 23)]).tolist():
        for _ in range(int(rng.integers(0, 3))):
            mask = np.roll(values == value, rng.integers(-3, 4, 2), (0, 1))
            mask &= rng.random(SIZE) < rng.choice([1.0, 0.8])
            label = value // 1000 if value >= 1000 else value
            if rng.random() < 0.2 or label == 29:
                label = int(rng.choice(labels))
            instances.append((mask, label, float(rng.integers(1, 8)) / 10))
    return values, instances


def _write(images: list[tuple[NDArray[np.uint16], list[Instance]]], folder: Path) -> Source:
    city = folder / "gtFine" / "val" / "aachen"
    city.mkdir(parents=True)
    entries = []
    for index, (values, instances) in enumerate(images):
        name = f"aachen_{index:06d}_000019"
        Image.fromarray(values).save(city / f"{name}_gtFine_instanceIds.png")
        entries += [
            {
                "image_id": name,
                "category_id": label,
                "score": score,
                "segmentation": _run_lengths(mask),
            }
            for mask, label, score in instances
        ]
    (folder / "instances.json").write_text(json.dumps(entries))
    return open_ground_truth(city)


def _score(gt: Source, path: Path, *, is_lenient: bool = True) -> dict[str, Any]:
    """AP of the instances; the panoptic map has no prediction."""
    settings = EvaluationSettings(is_lenient=is_lenient, instances_json=path)
    pred = gt if not is_lenient else Source("nothing", ())
    return evaluation_json(evaluate(gt, pred, settings))["instances"]


@pytest.mark.parametrize("seed", range(3))
def test_ap_equals_that_of_the_official_cityscapes_evaluator(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    images = [_fuzz(rng) for _ in range(12)]
    gt = _write(images, tmp_path)
    scores = _score(gt, tmp_path / "instances.json")["cityscapes"]
    official = official_instance_ap(images, tmp_path)
    assert scores["ap"] == pytest.approx(official["allAp"], abs=1e-12)
    assert scores["ap50"] == pytest.approx(official["allAp50%"], abs=1e-12)
    assert 0.01 < scores["ap"] < 0.99
    for name, of_class in scores["per_category"].items():
        expected = official["classes"][name]["ap"]
        assert (of_class["ap"] is None) == bool(np.isnan(expected))
        if of_class["ap"] is not None:
            assert of_class["ap"] == pytest.approx(expected, abs=1e-12)


def _person_map() -> NDArray[np.uint16]:
    values = np.full(SIZE, 7, np.uint16)
    values[10:30, 10:30] = 24000
    return values


def test_a_perfect_instance_has_ap_one_by_both_rules(tmp_path: Path) -> None:
    values = _person_map()
    gt = _write([(values, [(values == 24000, 24, 0.9)])], tmp_path)
    scores = _score(gt, tmp_path / "instances.json")
    for rules in ("coco", "cityscapes"):
        assert scores[rules]["ap"] == pytest.approx(1.0)
        assert scores[rules]["per_category"]["person"]["ap50"] == pytest.approx(1.0)
        assert scores[rules]["per_category"]["car"]["ap"] is None


def test_classes_whose_ids_fall_have_their_own_ap(tmp_path: Path) -> None:
    gt = open_ground_truth(PanopticFiles(tmp_path, street()).gt_json)
    assert CAR < PERSON
    person = np.zeros((3, 4), bool)
    person[1, 1] = True
    (tmp_path / "instances.json").write_text(
        json.dumps([_entry(category_id=PERSON, segmentation=_run_lengths(person))])
    )
    of_class = _score(gt, tmp_path / "instances.json")["coco"]["per_category"]
    assert of_class["person"]["ap"] == pytest.approx(0.5, abs=0.01)
    assert of_class["car"]["ap"] is None


def test_half_of_two_objects_found_is_half_the_ap(tmp_path: Path) -> None:
    values = _person_map()
    values[40:55, 40:60] = 24001
    gt = _write([(values, [(values == 24000, 24, 0.9)])], tmp_path)
    scores = _score(gt, tmp_path / "instances.json")
    assert scores["cityscapes"]["ap"] == pytest.approx(0.5)
    assert scores["coco"]["ap"] == pytest.approx(0.5, abs=0.01)


def test_no_instance_at_all_is_ap_zero(tmp_path: Path) -> None:
    gt = _write([(_person_map(), [])], tmp_path)
    scores = _score(gt, tmp_path / "instances.json")
    assert scores["cityscapes"]["ap"] == 0.0
    assert scores["coco"]["ap"] == 0.0


def test_ground_truth_without_objects_has_no_ap(tmp_path: Path) -> None:
    values = np.full(SIZE, 7, np.uint16)
    gt = _write([(values, [(values == 7, 24, 0.9)])], tmp_path)
    scores = _score(gt, tmp_path / "instances.json")
    assert scores["cityscapes"]["ap"] is None
    assert scores["coco"]["ap"] is None


def _entry(**changes: Any) -> dict[str, Any]:
    segmentation = _run_lengths(np.ones((3, 4), bool))
    values = {
        "image_id": "image_0",
        "category_id": PERSON,
        "score": 0.5,
        "segmentation": segmentation,
    }
    return {**values, **changes}


@pytest.mark.parametrize(
    "entries, message",
    [
        ({"annotations": []}, "expected a list of COCO results; got a dict"),
        (["one"], "entry 0: expected an object; got 'one'"),
        ([_entry(), _entry(image_id=None)], "entry 1: 'image_id' must be an integer or a text"),
        ([_entry(score="high")], "entry 0: 'score' must be a number; got 'high'"),
        ([_entry(score=float("nan"))], "entry 0: 'score' must be a number; got nan"),
        ([_entry(category_id=5)], "entry 0: category 5 is not among those of the ground truth"),
        ([_entry(segmentation=[[0, 0, 1, 1]])], "entry 0: 'segmentation' must be run lengths"),
        ([_entry(segmentation=_run_lengths(np.ones((2, 2), bool)))], "masks are [2, 2] pixels"),
    ],
)
def test_faults_of_the_instances_are_named(tmp_path: Path, entries: Any, message: str) -> None:
    gt = open_ground_truth(PanopticFiles(tmp_path, street()).gt_json)
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(entries))
    with pytest.raises(FaultyDataError) as caught:
        _score(gt, path)
    assert message in str(caught.value)


def test_stuff_is_left_out_and_instances_of_other_images_only_where_asked_for(
    tmp_path: Path,
) -> None:
    gt = open_ground_truth(PanopticFiles(tmp_path, street()).gt_json)
    path = tmp_path / "instances.json"
    path.write_text(json.dumps([_entry()]))
    expected = _score(gt, path)
    others = [_entry(image_id="x", category_id=CAR), _entry(image_id="x"), _entry(image_id=7)]
    path.write_text(json.dumps([_entry(), _entry(category_id=ROAD), *others]))
    assert _score(gt, path) == expected
    with pytest.raises(FaultyDataError) as caught:
        _score(gt, path, is_lenient=False)
    assert [fault.message for fault in caught.value.faults] == [
        f"image {image_id!r} of {number} instances is none of {gt.name} (--lenient leaves them out)"
        for image_id, number in (("x", 2), (7, 1))
    ]


def test_a_faulty_instance_is_named_beside_a_missing_prediction(tmp_path: Path) -> None:
    gt = open_ground_truth(PanopticFiles(tmp_path, street()).gt_json)
    path = tmp_path / "instances.json"
    path.write_text(json.dumps([_entry(segmentation=_run_lengths(np.ones((2, 2), bool)))]))
    settings = EvaluationSettings(instances_json=path)
    with pytest.raises(FaultyDataError) as caught:
        evaluate(gt, Source("nothing", ()), settings)
    messages = [str(fault) for fault in caught.value.faults]
    assert "no prediction for this image" in messages[0]
    assert messages[1].startswith(f"{path}: image 'image_0': masks are [2, 2] pixels")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    gt = open_ground_truth(PanopticFiles(tmp_path, street()).gt_json)
    with pytest.raises(FileNotFoundError, match=r"no file .*nothing\.json"):
        _score(gt, tmp_path / "nothing.json")


@pytest.mark.parametrize("void_columns, is_forgiven", [(10, False), (12, True)])
def test_a_false_instance_is_forgiven_when_more_than_half_of_it_lies_on_void(
    tmp_path: Path, void_columns: int, is_forgiven: bool
) -> None:
    values = _person_map()
    values[40:60, 40 : 40 + void_columns] = 3
    false_mask = np.zeros(SIZE, bool)
    false_mask[40:60, 40:60] = True
    images = [(values, [(values == 24000, 24, 0.5), (false_mask, 24, 0.9)])]
    gt = _write(images, tmp_path)
    scores = _score(gt, tmp_path / "instances.json")["cityscapes"]
    official = official_instance_ap(images, tmp_path)
    assert scores["ap50"] == pytest.approx(official["allAp50%"])
    assert (scores["ap50"] == 1.0) == is_forgiven
