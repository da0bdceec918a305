"""The comparison of heads: what differs between runs, its tables, and one real tiny run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import save_file

from seamless_pr.build.configs import load_config
from seamless_pr.build.networks import build_network
from seamless_pr.build.runs import build_label_space
from seamless_pr.config.load import config_differences
from seamless_pr.training.checkpoints import load_weights
from tests.support.panoptic_files import write_panoptic_dataset
from tests.support.tiny_run import CATEGORY_OF, random_street, tiny_run_values, write_tiny_data
from tools.measure import compare_heads as tool
from tools.measure.head_tables import (
    ARMS,
    FACTORS,
    LOSS_ROWS,
    METRICS,
    VARIANTS,
    VARIED_ARM,
    cell,
    complete_seeds,
    factor_values,
    loss_values,
    read_scores,
    switched_off_values,
    tables,
)


def made_up_scores() -> dict[tuple[str, int], dict[str, float]]:
    """A PointRend mask is worth 4 points, PointRend semantics 1 in seed 0 and -1 in seed 1."""
    return {
        (key, seed): dict.fromkeys(
            METRICS,
            0.5
            + 0.04 * (arm.mask_kind == "point_rend")
            + (0.01 - 0.02 * seed) * (arm.refinement == "point_rend"),
        )
        for key, arm in ARMS.items()
        for seed in (0, 1)
    }


def test_a_difference_is_taken_within_a_seed_and_averaged_over_the_other_factor():
    scores = made_up_scores()
    masks, semantics, both = FACTORS
    assert factor_values(scores, masks, [0, 1])["PQ"] == pytest.approx([0.04, 0.04])
    assert factor_values(scores, semantics, [0, 1])["PQ"] == pytest.approx([0.01, -0.01])
    assert factor_values(scores, both, [0, 1])["PQ"] == pytest.approx([0.05, 0.03])


def test_cells_hold_mean_and_sample_deviation_and_mark_agreeing_signs():
    assert cell([0.5, 0.52, 0.54]) == "52.0 ± 2.0"
    assert cell([0.01, 0.03], is_difference=True) == "+2.0 ± 1.4 *"
    assert cell([0.01, -0.01], is_difference=True) == "+0.0 ± 1.4"
    assert cell([0.01], is_difference=True) == "+1.0", "one seed agrees with itself"


def test_the_tables_have_a_row_per_arm_and_a_row_per_factor():
    lines = tables(made_up_scores(), [0, 1]).splitlines()
    assert [line.split("|")[1].strip() for line in lines if "±" in line] == [
        *(arm.name for arm in ARMS.values()),
        *FACTORS,
    ]
    assert "54.0 ± 0.0" in lines[3]
    assert "+4.0 ± 0.0 *" in lines[9]


def with_variants(*arms: str) -> dict[tuple[str, int], dict[str, float]]:
    """Without refinement these arms are worth 2 points less in seed 0, and 3 in seed 1."""
    scores = made_up_scores()
    for arm in arms:
        for seed in (0, 1):
            as_trained = scores.setdefault((arm, seed), dict.fromkeys(METRICS, 0.55))
            less = {name: value - 0.02 - 0.01 * seed for name, value in as_trained.items()}
            scores |= {(arm + variant, seed): less for variant in VARIANTS}
    return scores


def test_a_variant_is_compared_with_the_same_weights_as_trained():
    scores = with_variants(VARIED_ARM)
    scores[VARIED_ARM, 2] = dict.fromkeys(METRICS, 0.9)
    seeds, values = switched_off_values(scores, [0, 1, 2])
    assert seeds == [0, 1]
    assert values["bilinear semantics"]["PQ"] == pytest.approx([-0.02, -0.03])
    last = tables(scores, [0, 1]).splitlines()[-1]
    assert [cell.strip() for cell in last.split("|")[1:3]] == ["bilinear semantics", "-2.5 ± 0.7 *"]


def test_point_losses_are_compared_with_the_network_without_semantic_points():
    assert loss_values(with_variants(VARIED_ARM), [0, 1]) == ([], {})
    scores = with_variants(*LOSS_ROWS)
    seeds, values = loss_values(scores, [0, 1])
    assert seeds == [0, 1]
    assert values["point loss as published"]["PQ"] == pytest.approx([0.01, -0.01])
    assert values["point loss as published; switched off"]["PQ"] == pytest.approx([-0.01, -0.04])
    assert values["a quarter of it"]["PQ"] == pytest.approx([0.01, 0.01])
    assert len(values) == 2 * len(LOSS_ROWS)


def test_a_seed_counts_when_all_its_arms_are_finished():
    scores = made_up_scores()
    assert complete_seeds(scores) == [0, 1]
    del scores["conv_pointrend", 0]
    assert complete_seeds(scores) == [1]


def test_a_missing_score_is_named(tmp_path: Path):
    (tmp_path / "evaluation.json").write_text(json.dumps({"all": {"pq": 0.5}}))
    with pytest.raises(ValueError, match=r"evaluation\.json has no 'things\.pq'"):
        read_scores(tmp_path / "evaluation.json")


def shipped_options(folder: Path, *more: str) -> Any:
    return tool.parse_arguments(["--output", str(folder), *more])


def test_arms_of_a_seed_differ_in_their_heads_only(tmp_path: Path):
    options = shipped_options(tmp_path)
    configs = {}
    for arm in tool.ALL_ARMS:
        path = tmp_path / f"{arm}.yaml"
        path.write_text(yaml.safe_dump(tool.run_values(tool.Run(arm, 3, tmp_path), options)))
        configs[arm] = load_config(path)
    plain = configs["conv_bilinear"]
    changed = {
        ".".join(key.split(".")[:3])
        for key in config_differences(plain, configs["pointrend_pointrend"])
    }
    assert changed == {
        *(f"model.instances.{key}" for key in ("kind", "mask", "points")),
        "model.semantics.points",
        *(f"loss_weights.{name}" for name in ("mask", "mask_coarse", "mask_point")),
        "loss_weights.semantic_point",
    }
    assert "model.instances.kind" not in config_differences(plain, configs["conv_pointrend"])
    both = configs["pointrend_pointrend"]
    assert config_differences(both, configs["pointrend_quarter"]) == {
        "loss_weights.semantic_point": (1.0, 0.25)
    }
    assert config_differences(both, configs["pointrend_hard"]) == {
        "loss_weights.semantic_point": (1.0, 0.25),
        "model.semantics.points.hard_point_fraction": (1.0, 0.25),
    }
    assert plain.training.seed == 3
    assert plain.model.fusion.size == "original"
    assert plain.model.instances.mask.hidden_channels == options.conv_channels


@pytest.fixture
def tiny(tmp_path: Path) -> Any:
    """Options of a comparison with a network of seconds, and its trained trunk."""
    write_tiny_data(tmp_path / "data")
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(tiny_run_values(tmp_path / "data")))
    held_out = tmp_path / "held_out"
    id_maps = {f"val_{index}": random_street(index + 1) for index in range(2)}
    write_panoptic_dataset(tmp_path / "made", id_maps, CATEGORY_OF)
    (held_out / "leftImg8bit").mkdir(parents=True)
    (held_out / "gtFine").mkdir()
    (tmp_path / "made/images").rename(held_out / "leftImg8bit/val")
    (tmp_path / "made/panoptic.json").rename(held_out / "gtFine/cityscapes_panoptic_val.json")
    (tmp_path / "made/panoptic").rename(held_out / "gtFine/cityscapes_panoptic_val")
    base = load_config(config)
    trunk = tmp_path / "trunk.safetensors"
    save_file(build_network(base.model, build_label_space(base)).state_dict(), trunk)
    arguments = ["--config", str(config), "--weights", str(trunk), "--held-out", str(held_out)]
    arguments += ["--steps", "2", "--warmup-steps", "0", "--conv-channels", "8"]
    return tool.parse_arguments(["--output", str(tmp_path / "runs"), *arguments])


def test_all_arms_of_a_seed_start_from_one_trunk_and_one_mini_dl_head(tiny: Any):
    first, other = (
        tool.Run("conv_bilinear", 0, tiny.output),
        tool.Run("conv_bilinear", 1, tiny.output),
    )
    assert first.start == tool.Run("pointrend_pointrend", 0, tiny.output).start
    for run in (first, other):
        tool.prepare_run(run, tiny)
    ours, theirs = load_weights(first.start)[0], load_weights(other.start)[0]
    different = {
        ".".join(name.split(".")[:2]) for name in ours if not ours[name].equal(theirs[name])
    }
    assert different == {"semantics.head"}


def test_a_folder_is_not_continued_with_other_settings(tiny: Any):
    run = tool.Run("conv_bilinear", 0, tiny.output)
    tool.prepare_run(run, tiny)
    tiny.steps = 3
    with pytest.raises(ValueError, match=r"training\.steps: 2 in the folder, 3 now"):
        tool.prepare_run(run, tiny)
    tiny.weights = tiny.weights.with_name("another.safetensors")
    with pytest.raises(ValueError, match=r"trunk\.safetensors, not of .*another"):
        tool.prepare_run(run, tiny)


@pytest.mark.slow
def test_a_run_trains_predicts_and_scores_once(tiny: Any, monkeypatch: pytest.MonkeyPatch):
    run = tool.Run("conv_pointrend", 0, tiny.output)
    config = tool.prepare_run(run, tiny)
    assert tool.finish(run, config, tiny) is None
    scores = read_scores(run.evaluation())
    assert not run.evaluation("_bilinear").exists(), "only PointRend in both has variants"
    assert scores.keys() == METRICS.keys()
    assert 0 <= min(scores.values()) <= max(scores.values()) <= 1
    monkeypatch.setattr(tool.subprocess, "run", lambda *_, **__: pytest.fail("started again"))
    assert tool.finish(run, config, tiny) is None


@pytest.mark.slow
def test_a_failed_run_is_reported_with_its_log(tiny: Any):
    run = tool.Run("conv_pointrend", 0, tiny.output)
    config = tool.prepare_run(run, tiny)
    run.start.unlink()
    reason = tool.finish(run, config, tiny)
    assert reason is not None
    assert reason.startswith("train.py ended with 1, see ")
    assert "does not exist" in run.log.read_text()


def test_without_a_complete_seed_there_is_no_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert tool.main(["--output", str(tmp_path), "--no-runs"]) == 1
    assert "no seed has all four arms" in capsys.readouterr().err
