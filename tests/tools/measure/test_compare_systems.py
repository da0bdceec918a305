"""Systems trained for the same time: what they share, their table, and one real tiny run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from seamless_pr.build.configs import load_config
from seamless_pr.build.networks import build_network
from seamless_pr.build.runs import build_label_space
from seamless_pr.config.schema import DatasetConfig
from seamless_pr.training.checkpoints import load_weights
from tests.support.tiny_run import tiny_run_values, write_tiny_scenes
from tools.measure import compare_systems as tool
from tools.measure import system_runs
from tools.measure.system_runs import Run, random_parts, read_costs
from tools.measure.system_tables import METRICS, all_values, complete_seeds, system_table
from tools.measure.systems import COMPARISONS, Comparison, System

ROOT = Path(__file__).resolve().parents[3]


def test_what_is_not_kept_is_named_by_the_shortest_names():
    names = [
        "trunk.backbone.conv.weight",
        "trunk.neck.a.weight",
        "trunk.neck.b.weight",
        "head.bias",
    ]
    assert random_parts(names, ["trunk.backbone"]) == ["trunk.neck", "head"]
    assert random_parts(names, ["trunk.backbone", "trunk.neck.a"]) == ["trunk.neck.b", "head"]


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_system_starts_from_the_same_shipped_weights_and_only_they_are_shared(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(ROOT)
    comparison, starts = COMPARISONS[name], []
    options = tool.parse_arguments([name, "--output", str(tmp_path)])
    trained = [run for run in tool.runs_of(comparison, options) if not run.of.weights_of]
    trained = [run for run in trained if run.seed == options.seeds[0]]
    for run in trained:
        run.output.mkdir(exist_ok=True)
        tool.write_start(comparison, run, options)
        starts.append(load_weights(run.start)[0])
        run.config.write_text(yaml.safe_dump(tool.run_values(comparison, run, options)))
        config = load_config(run.config)
        with torch.device("meta"):
            network = build_network(config.model, build_label_space(config)).state_dict()
        random = tuple(f"{part}." for part in config.initial_weights.random_parts)
        given = {key: value.shape for key, value in network.items() if not key.startswith(random)}
        assert given == {key: value.shape for key, value in starts[-1].items()}, run.system
        assert config.training.clock == comparison.clock
        assert (config.training.max_minutes == 0) == (config.training.steps == comparison.steps)
        assert (config.data.num_workers == 0) == (comparison.clock == "process")
    assert set(METRICS) >= set(comparison.metrics)
    assert len(starts) > 1


MADE_UP = Comparison({"a": System("A", "a.yaml"), "b": System("B", "b.yaml")}, ("trunk",), ("PQ",))


def made_up_values() -> dict[tuple[str, int], Any]:
    return {
        (key, seed): {
            "scores": {"PQ": 0.1 * (key == "b") + 0.3 + 0.02 * seed},
            "num_images": 4,
            "steps": 10 + 2 * seed,
            "costs": {
                "train": {"processor_seconds": 90.0, "peak_bytes": 3 << 20},
                "predict": {"processor_seconds": 2.0, "peak_bytes": 1 << 20},
            },
        }
        for key in "ab"
        for seed in (0, 1)
    }


def test_the_table_has_scores_with_deviation_and_costs_per_image():
    values = made_up_values()
    lines = system_table(MADE_UP, values, complete_seeds(MADE_UP, values)).splitlines()
    cells = [cell.strip() for cell in lines[-1].split("|")[1:-1]]
    assert cells == ["B", "41.0 ± 1.4", "11", "1.5", "0.50", "3", "1"]
    del values["a", 0]
    assert complete_seeds(MADE_UP, values) == [1]


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Options of a comparison of one network of seconds with itself."""
    folders = write_tiny_scenes(tmp_path)
    values = tiny_run_values(tmp_path)
    for part, folder in folders.items():
        values["data"][part]["json"] = str(folder / "gtFine" / f"cityscapes_panoptic_{part}.json")
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(values))
    base = load_config(config)
    trunk = tmp_path / "trunk.safetensors"
    save_file(build_network(base.model, build_label_space(base)).state_dict(), trunk)
    comparison = Comparison(
        {
            "same": System("Same", str(config)),
            "semantics_off": System(
                "Without points",
                str(config),
                weights_of="same",
                at_prediction=("model.semantics.points=null",),
                without=("semantics.point_head",),
            ),
        },
        ("trunk.backbone",),
        ("PQ", "AP", "mIoU"),
        True,
    )
    monkeypatch.setitem(COMPARISONS, "queries", comparison)
    arguments = ["queries", "--seeds", "0", "--minutes", "0.02", "--weights", str(trunk)]
    arguments += ["--data", str(tmp_path / "train"), "--held-out", str(tmp_path / "val")]
    return tool.parse_arguments([*arguments, "--output", str(tmp_path / "runs")])


@pytest.mark.slow
def test_a_run_trains_for_its_time_and_is_scored_once(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    comparison = COMPARISONS["queries"]
    assert tool.finish_all(comparison, tiny) == []
    run = Run("same", 0, tiny.output / "queries")
    monkeypatch.setattr(system_runs, "_run_in_one_thread", lambda *_: pytest.fail("again"))
    assert tool.finish_all(comparison, tiny) == []
    costs = read_costs(run)
    assert costs.keys() == {"train", "predict", "evaluate"}
    assert all(cost["processor_seconds"] > 0.1 for cost in costs.values())
    assert all(cost["peak_bytes"] > 100 << 20 for cost in costs.values())
    both = all_values(comparison, tool.runs_of(comparison, tiny))
    values, off = both["same", 0], both["semantics_off", 0]
    assert off["steps"] == values["steps"]
    assert off["costs"]["train"] == values["costs"]["train"]
    assert off["scores"]["AP"] == values["scores"]["AP"]
    left_out = (
        load_weights(run.weights)[0].keys()
        - load_weights(Run("semantics_off", 0, run.output).weights)[0].keys()
    )
    assert {name.rsplit(".", 2)[0] for name in left_out} >= {"semantics.point_head"}
    assert values["steps"] > 0
    assert values["num_images"] == 2
    tiny.json = tiny.output / "all.json"
    assert tool.report(comparison, tiny) == []
    assert json.loads(tiny.json.read_text())["runs"]["same_seed0"] == values
    assert "| Same " in capsys.readouterr().out
    tiny.minutes = 1.0
    with pytest.raises(ValueError, match=r"training\.max_minutes: 0\.02 in the folder, 1\.0 now"):
        tool.finish_all(comparison, tiny)


def test_a_failed_stage_is_reported_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script = tmp_path / "pipelines" / "train.py"
    script.parent.mkdir()
    script.write_text("import sys; sys.exit('no such data')")
    monkeypatch.setattr(system_runs, "ROOT", tmp_path)
    run, part = Run("some", 0, tmp_path), DatasetConfig(json="truth.json", images="images")
    assert system_runs.finish_run(run, part, False) == f"train.py ended with 1, see {run.log}"
    assert run.log.read_text() == "no such data\n"


def test_without_a_complete_seed_there_is_no_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert tool.main(["queries", "--output", str(tmp_path), "--no-runs"]) == 1
    assert "no seed has all systems" in capsys.readouterr().err
