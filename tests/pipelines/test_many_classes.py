"""847 classes, as ADE20K-Full has: numbers beyond 8 bits from the label picture to the scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from seamless_pr.datasets.coco_panoptic import read_panoptic_json
from seamless_pr.pipelines import evaluate, predict, prepare, train
from seamless_pr.training.checkpoints import load_weights, save_weights
from tests.pipelines.test_train_maskformer import NETWORKS, WEIGHTS
from tests.support.tiny_run import tiny_run_values

NUM_CLASSES = 847
# Train id = class id - 1 where all classes are stuff. 256 and 513 lose their high bits in 8.
PATCHES = (1, 255, 256, 257, 513, 847)


def write_described_data(folder: Path) -> Path:
    """Three pictures of six patches, two of them without one class, and their description."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for index in range(3):
        labels = np.repeat(np.repeat(np.array(PATCHES, np.uint16).reshape(2, 3), 24, 0), 32, 1)
        labels[labels == PATCHES[index]] = 0 if index else PATCHES[0]
        Image.fromarray(labels).save(folder / f"labels/{index}.png")
        pixels = (labels[..., None].astype(int) * (3, 5, 7) % 251).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{index}.png")
    paths = {"images": "images", "labels": "labels"}
    description = {
        "name": "full",
        "classes": [
            {"id": number, "name": f"class {number}", "thing": False}
            for number in range(1, NUM_CLASSES + 1)
        ],
        "void": [0],
        "splits": {"train": paths, "val": dict(paths)},
    }
    (folder / "full.yaml").write_text(yaml.safe_dump(description))
    return folder / "full.yaml"


def run_values(folder: Path) -> dict[str, Any]:
    model = {**NETWORKS["maskformer"], "losses": {"targets": "classes"}}
    model["fusion"] = {"task": "semantic"}
    values = tiny_run_values(folder) | {"model": model, "loss_weights": WEIGHTS["maskformer"]}
    part = {"json": str(folder / "full_panoptic_train.json"), "images": str(folder / "images")}
    values["data"] |= {"train": part, "val": part, "batch_size": 3, "scale_range": [1.0, 1.0]}
    values["training"]["steps"] = 1
    return json.loads(json.dumps(values))


def scores_of(truth: Path, predictions: Path, output: Path) -> dict[str, Any]:
    arguments = ["--ground-truth", truth, "--predictions", predictions, "--output", output]
    assert evaluate.main([*map(str, arguments), "--workers", "1", "--report"]) == 0
    return json.loads((output / "evaluation.json").read_text())


@pytest.mark.slow
def test_847_classes_are_prepared_trained_predicted_and_scored(tmp_path: Path) -> None:
    description = write_described_data(tmp_path / "data")
    assert prepare.main(["custom", "--description", str(description)]) == 0
    truth = tmp_path / "data/full_panoptic_train.json"
    space = read_panoptic_json(truth).label_space("full")
    assert space.num_classes == NUM_CLASSES
    assert space.train_id_of[847] == 846

    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run_values(tmp_path / "data")))
    run = tmp_path / "run"
    assert train.main(["--config", str(tmp_path / "run.yaml"), "--output", str(run)]) == 0

    # Every query says class 513, whose train id is 512.
    tensors, metadata = load_weights(run / "weights.safetensors")
    assert tensors["class_embed.bias"].shape == (NUM_CLASSES + 1,)
    tensors["class_embed.bias"][space.train_id_of[513]] = 100
    save_weights(tmp_path / "biased.safetensors", tensors, metadata)
    out = tmp_path / "out"
    arguments = ["--weights", tmp_path / "biased.safetensors", "--images", tmp_path / "data/images"]
    arguments += ["--output", out, "--image-ids", truth, "--overlays", "--device", "cpu"]
    assert predict.main([*map(str, arguments)]) == 0
    annotations = json.loads((out / "panoptic.json").read_text())["annotations"]
    found = [segment for record in annotations for segment in record["segments_info"]]
    assert [segment["category_id"] for segment in found] == [513] * 3

    scores = scores_of(truth, out, tmp_path / "scores")
    by_class = {entry["category_id"]: entry for entry in scores["per_category"]}
    assert len(by_class) == NUM_CLASSES
    # A sixth of every picture; the void sixth of two of them is in no union.
    assert by_class[513]["iou"] == pytest.approx(3 / (6 + 5 + 5))
    assert by_class[256]["iou"] == by_class[1]["iou"] == 0

    perfect = scores_of(truth, truth, tmp_path / "perfect")
    assert perfect["all"]["pq"] == perfect["semantic"]["mean_iou"] == 1
    assert perfect["all"]["num_categories"] == len(PATCHES)
