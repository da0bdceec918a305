"""Prediction folders and evaluations in FiftyOne."""

from __future__ import annotations

import json

import numpy as np
import pytest

from seamless_pr.datasets.coco_panoptic import write_panoptic_json
from seamless_pr.datasets.panoptic_records import AnnotationRecord, PanopticDataset, SegmentRecord
from seamless_pr.id_maps.id_png_files import write_id_png
from seamless_pr.integrations.fiftyone import panoptic_regions, to_fiftyone
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


def test_a_folder_becomes_a_dataset_with_scores(predictions, tmp_path):
    fiftyone = pytest.importorskip("fiftyone", reason="pip install fiftyone")
    try:
        fiftyone.list_datasets()
    except fiftyone.core.config.FiftyOneConfigError as error:
        pytest.skip(f"FiftyOne finds no database here: {error}")
    (tmp_path / "a.jpg").write_bytes(b"not read")
    counts = {"tp": 1, "fp": 0, "fn": 1, "num_gt": 2, "iou_sum": 0.75, "all_iou_sum": 0.75}
    evaluation = {
        **{key: {"pq": 0.5} for key in ("all", "things", "stuff")},
        "rules": "official",
        "pq_dagger": dict.fromkeys(("all", "things", "stuff"), 0.5),
        "per_category": [{"category_id": CAR.category_id, "name": "car", "is_thing": True}],
        "per_image": [
            {"image_id": "a", "categories": [{"category_id": CAR.category_id, **counts}]}
        ],
    }
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    dataset = to_fiftyone({"a": tmp_path / "a.jpg"}, predictions, evaluation=tmp_path)
    (sample,) = dataset
    assert [d.label for d in sample.prediction.detections] == ["road", "car"]
    assert sample.pq == pytest.approx(0.75 / 1.5)
    dataset.delete()


def test_without_fiftyone_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fiftyone", None)
    with pytest.raises(ModuleNotFoundError, match="pip install fiftyone"):
        to_fiftyone({})
