"""Prediction folders and evaluations in FiftyOne."""

from __future__ import annotations

import json

import numpy as np
import pytest

from seamless_pr.datasets.coco_panoptic import write_panoptic_json
from seamless_pr.datasets.panoptic_records import AnnotationRecord, PanopticDataset, SegmentRecord
from seamless_pr.id_maps.id_png_files import write_id_png
from seamless_pr.integrations.fiftyone import fiftyone_samples, panoptic_regions, to_fiftyone
from tests.support.panoptic_files import CAR, CATEGORIES, ROAD

ID_MAP = np.array([[7, 7, 7, 0], [7, 9, 9, 0], [7, 9, 9, 7]], np.uint32)


@pytest.fixture
def predictions(tmp_path):
    (tmp_path / "panoptic").mkdir()
    write_id_png(tmp_path / "panoptic" / "a.png", ID_MAP)
    segments = (
        SegmentRecord(7, ROAD.category_id, 6),
        SegmentRecord(9, CAR.category_id, 4),
        SegmentRecord(11, CAR.category_id, 0),
    )
    annotation = AnnotationRecord("a", "a.png", segments)
    write_panoptic_json(tmp_path / "panoptic.json", PanopticDataset((), (annotation,), CATEGORIES))
    return tmp_path / "panoptic.json"


def test_segments_are_cut_out_of_the_map_with_boxes_as_parts_of_the_image(predictions):
    ((image_id, regions),) = panoptic_regions(predictions)
    assert image_id == "a"
    assert [(r.label, r.is_thing, r.segment_id, r.area) for r in regions] == [
        ("road", False, 7, 6),
        ("car", True, 9, 4),
    ]
    car = regions[1]
    assert car.box == pytest.approx((0.25, 1 / 3, 0.5, 2 / 3))
    assert car.mask.tolist() == [[True, True], [True, True]]
    road = regions[0]
    assert road.box == (0.0, 0.0, 1.0, 1.0)
    assert np.array_equal(road.mask, ID_MAP == 7)


@pytest.fixture
def evaluation(tmp_path):
    counts = {"tp": 1, "fp": 0, "fn": 1, "num_gt": 2, "iou_sum": 0.75, "all_iou_sum": 0.75}
    values = {
        **{key: {"pq": 0.5} for key in ("all", "things", "stuff")},
        "rules": "official",
        "pq_dagger": dict.fromkeys(("all", "things", "stuff"), 0.5),
        "per_category": [{"category_id": CAR.category_id, "name": "car", "is_thing": True}],
        "per_image": [
            {"image_id": "a", "categories": [{"category_id": CAR.category_id, **counts}]}
        ],
    }
    (tmp_path / "evaluation.json").write_text(json.dumps(values))
    return tmp_path


def check_sample(sample):
    assert sample.image_id == "a"
    road, car = sample.prediction.detections
    assert [road.label, car.label] == ["road", "car"]
    assert [road.is_thing, car.is_thing, car.iscrowd, car.segment_id] == [False, True, 0, 9]
    assert car.bounding_box == pytest.approx([0.25, 1 / 3, 0.5, 2 / 3])
    assert np.array_equal(road.mask, ID_MAP == 7)
    assert sample.pq == pytest.approx(0.75 / 1.5)


def test_images_become_samples_with_segments_and_scores(predictions, evaluation, tmp_path):
    pytest.importorskip("fiftyone", reason="pip install fiftyone")
    (sample,) = fiftyone_samples({"a": tmp_path / "a.jpg"}, predictions, evaluation=evaluation)
    assert sample.filepath == str(tmp_path / "a.jpg")
    check_sample(sample)


def test_files_of_other_images_are_refused(predictions, evaluation, tmp_path):
    pytest.importorskip("fiftyone", reason="pip install fiftyone")
    for source in ({"predictions": predictions}, {"evaluation": evaluation}):
        with pytest.raises(ValueError, match=r"image ids are 'a', \.\.\., those given are 7"):
            fiftyone_samples({7: tmp_path / "a.jpg"}, **source)


def test_samples_become_a_dataset(predictions, evaluation, tmp_path):
    fiftyone = pytest.importorskip("fiftyone", reason="pip install fiftyone")
    try:
        fiftyone.list_datasets()
    except fiftyone.core.config.FiftyOneConfigError as error:
        pytest.skip(f"FiftyOne finds no database here: {error}")
    (tmp_path / "a.jpg").write_bytes(b"not read")
    dataset = to_fiftyone({"a": tmp_path / "a.jpg"}, predictions, evaluation=evaluation)
    (sample,) = dataset
    check_sample(sample)
    dataset.delete()


def test_without_fiftyone_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fiftyone", None)
    with pytest.raises(ModuleNotFoundError, match="pip install fiftyone"):
        to_fiftyone({})
