"""Point heads on a frozen network: what it sees, what scores are, and a comparison of seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from seamless_pr.build.configs import load_config
from seamless_pr.build.networks import build_network
from seamless_pr.build.runs import build_label_space, run_metadata
from seamless_pr.structures.settings import SemanticPointSettings
from seamless_pr.training.checkpoints import save_weights
from tests.support.tiny_run import SIZE, tiny_run_values, write_tiny_scenes
from tools.measure import semantic_point_forms as tool
from tools.measure.frozen_network import Cache, make_cache


@pytest.fixture
def scenes(tmp_path: Path) -> dict[str, Path]:
    """Part -> folder of scenes in Cityscapes' layout."""
    return write_tiny_scenes(tmp_path / "scenes")


@pytest.fixture
def checkpoint(tmp_path: Path, scenes: dict[str, Path]) -> Path:
    """A network of random weights."""
    values = tiny_run_values(tmp_path)
    for part, folder in scenes.items():
        truth = folder / "gtFine" / f"cityscapes_panoptic_{part}.json"
        values["data"][part] = {"json": str(truth), "images": str(folder / "leftImg8bit" / part)}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(values))
    config = load_config(tmp_path / "tiny.yaml")
    space = build_label_space(config)
    torch.manual_seed(0)
    weights = build_network(config.model, space).state_dict()
    path = tmp_path / "checkpoint.safetensors"
    save_weights(path, weights, run_metadata(config, space))
    return path


@pytest.fixture
def cache(checkpoint: Path, scenes: dict[str, Path]) -> Cache:
    return make_cache(checkpoint, scenes, num_batches=1)


def test_the_network_is_seen_as_it_trains_and_as_it_predicts(cache: Cache):
    (train,), (first, second) = cache.train, cache.val
    assert [len(train.images), len(train.targets), len(first.targets)] == [4, 4, 1]
    assert (train.fine.dtype, first.fine.dtype) == (torch.bfloat16, torch.float32)
    assert first.size == second.size == SIZE
    assert first.coarse.shape[-2:] == (SIZE[0] // 4, SIZE[1] // 4)
    assert cache.min_stuff_area == pytest.approx(SIZE[0] * SIZE[1] / 512)


def test_the_truth_scores_full_marks_and_a_lost_class_does_not(cache: Cache):
    maps = [seen.targets[0].semantic_map for seen in cache.val]
    filled = [m.where(m < cache.val[0].coarse.shape[1], 0) for m in maps]
    scores = tool.semantic_scores(cache, filled)
    # Where void begins, the truth has a border and the prediction has none.
    assert 0.8 < scores.pop("Boundary IoU") < 1.0
    assert scores == dict.fromkeys(tool.METRICS[:-1], 1.0)
    scores = tool.semantic_scores(cache, [torch.zeros_like(m) for m in filled])
    assert scores["PQ stuff"] <= 0.5
    assert scores["mIoU"] < 0.5


def test_stuff_below_the_limit_of_the_fusion_is_void_and_things_are_not(cache: Cache):
    truth = [seen.targets[0].semantic_map for seen in cache.val]
    space = cache.val[0].targets[0].label_space
    maps = [m.where(m < space.num_classes, 0) for m in truth]
    alike = replace(cache, min_stuff_area=SIZE[0] * SIZE[1])
    scores = tool.semantic_scores(alike, maps)
    assert scores["PQ stuff"] == 0.0
    assert scores["mIoU"] == pytest.approx(1 / 3), "the cars of sky, road and cars"


def test_a_new_head_of_corrections_changes_nothing_and_learns(cache: Cache):
    settings = SemanticPointSettings(hidden_channels=8, residual=True, pixel_window=3)
    head = tool.train_head(cache, settings, seed=0, steps=1)
    head.predictor.weight.data.zero_()
    head.predictor.bias.data.zero_()
    for refined, seen in zip(tool.class_maps(cache, head, settings, 1), cache.val, strict=True):
        upsampled = tool.upsample_logits(seen.coarse, seen.size)[0].argmax(0)
        assert (refined == upsampled).float().mean() > 0.95, "twice by 2 is nearly once by 4"
    weights = tool.train_head(cache, settings, seed=0, steps=2).state_dict()
    again = tool.train_head(cache, settings, seed=0, steps=2).state_dict()
    other = tool.train_head(cache, settings, seed=1, steps=2).state_dict()
    assert all(weights[name].equal(again[name]) for name in weights)
    assert not weights["predictor.weight"].equal(other["predictor.weight"])


def test_all_forms_are_judged_once_and_compared_with_no_points(
    checkpoint: Path, scenes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    page = tmp_path / "page.md"
    page.write_text(f"{tool.BEGIN}\n{tool.END}\n")
    arguments: list[Any] = ["--weights", checkpoint, "--data", scenes["train"], "--held-out"]
    arguments += [scenes["val"], "--output", tmp_path / "runs", "--seeds", 0, 1, "--batches", 1]
    arguments += ["--steps", 2, "--write", page, "--json", tmp_path / "all.json"]
    assert tool.main([str(argument) for argument in arguments]) == 0
    rows = json.loads((tmp_path / "all.json").read_text())["rows"]
    num_judged = len(tool.FORMS) + len(tool.ALSO_JUDGED)
    assert len(rows) == 1 + num_judged * len(tool.POINT_FACTORS)
    assert {len(found) for name, found in rows.items() if name != tool.OFF} == {2}
    table = page.read_text()
    assert f"| {tool.OFF} " in table
    assert table.count("±") == (len(rows) - 1) * len(tool.METRICS)
    monkeypatch.setattr(tool, "train_head", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(tool, "make_cache", lambda *_: pytest.fail("seen again"))
    assert tool.main([str(argument) for argument in arguments]) == 0
    assert page.read_text() == table
