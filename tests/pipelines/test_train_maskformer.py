"""MaskFormer trains and predicts through the stages, as every other network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from seamless_pr.build.predictor import load_predictor
from seamless_pr.pipelines import predict, train
from seamless_pr.training.checkpoints import find_weights, load_weights
from tests.support.tiny_run import tiny_run_values, write_tiny_data

LAYERS = {"num_layers": 2, "num_heads": 4, "hidden_channels": 16}
NETWORKS: dict[str, dict[str, Any]] = {
    "maskformer": {
        "kind": "maskformer",
        "backbone": {"name": "resnet18", "options": {"channels": [8, 8, 16, 16]}},
        "pixel_decoder": {"channels": 16, "mask_channels": 16},
        "queries": {**LAYERS, "channels": 16, "num_queries": 8},
    },
    "per_pixel": {
        "kind": "per_pixel",
        "backbone": {"name": "resnet18", "options": {"channels": [8, 8, 16, 16]}},
        "pixel_decoder": {"channels": 16, "mask_channels": 16},
        "queries": {**LAYERS, "channels": 16},
    },
}
WEIGHTS = {
    "maskformer": {
        f"{name}{layer}": weight
        for layer in ("", "_0")
        for name, weight in (("query_class", 1.0), ("mask_focal", 20.0), ("mask_dice", 1.0))
    },
    "per_pixel": {"semantic": 1.0, "semantic_0": 1.0},
}


def write_config(folder: Path, kind: str) -> Path:
    write_tiny_data(folder / "data")
    values = tiny_run_values(folder / "data")
    values |= {"model": NETWORKS[kind], "loss_weights": WEIGHTS[kind]}
    values["optimizer"] = {
        "kind": "adamw",
        "lr": 1e-3,
        "lr_multipliers": {"trunk.backbone": 0.1},
        "clip_grad_norm": 0.01,
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(_plain(values)))
    return folder / "run.yaml"


def _plain(value: Any) -> Any:
    """Without tuples, which YAML would tag."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(NETWORKS))
def test_a_run_trains_validates_and_its_weights_predict(tmp_path, kind):
    config = write_config(tmp_path, kind)
    assert train.main(["--config", str(config), "--output", str(tmp_path / "run")]) == 0
    arguments = ["--weights", str(tmp_path / "run"), "--output", str(tmp_path / "out")]
    images = str(tmp_path / "data" / "val" / "images")
    assert predict.main([*arguments, "--images", images, "--device", "cpu"]) == 0
    written = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    assert len(written["annotations"]) == 2
    predictor = load_predictor(
        tmp_path / "run", "cpu", overrides=["data.view_sides_pixels=[32, 64]"]
    )
    assert len(predictor.network.views) == 4
    ((prediction),) = predictor.predict([torch.zeros(3, 50, 70, dtype=torch.uint8)])
    assert prediction.semantic_map.shape == (50, 70)


@pytest.mark.slow
def test_two_runs_with_dropout_end_with_the_same_weights(tmp_path):
    config = write_config(tmp_path, "maskformer")
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        assert train.main(["--config", str(config), "--output", str(folder)]) == 0
    first, second = (load_weights(find_weights(folder))[0] for folder in folders)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
