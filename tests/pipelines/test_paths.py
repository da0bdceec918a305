"""Paths on their way to the workers of a cluster."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

import pytest

from seamless_pr.build.configs import load_config
from seamless_pr.config.load import config_to_dict
from seamless_pr.inference.prediction_folder import PredictionFolder
from seamless_pr.pipelines import evaluate, predict, prepare, train
from seamless_pr.pipelines.cli import STAGES
from seamless_pr.pipelines.paths import absolute, settle_paths, with_absolute_paths
from seamless_pr.pipelines.ray_stages import Job, LabelFiles, LabelImages, read_files
from seamless_pr.pipelines.ray_training import worker_settings
from seamless_pr.pipelines.stage import ExitCode, Stage
from tests.support.tiny_checkpoint import tiny_config
from tests.support.tiny_run import write_tiny_run

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
# Options with a path that never leaves this process.
READ_HERE = {"image_ids", "token_file"}


@pytest.fixture(autouse=True)
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a job, in a folder of its own."""
    monkeypatch.delenv(JOB_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)


def settled(ray: bool, **values: object) -> dict[str, object]:
    options = argparse.Namespace(ray=ray, **values)
    settle_paths(options, ("images", "compare"), ("output",))
    return {name: value for name, value in vars(options).items() if name != "ray"}


def test_without_ray_paths_stay_as_they_were_typed() -> None:
    values = {"output": "out", "images": Path("photos"), "other": "x"}
    assert settled(False, **values) == values


def test_with_ray_paths_become_absolute_and_keep_their_kind(tmp_path: Path) -> None:
    assert settled(True, output="out", images=Path("photos"), other="x") == {
        "output": str(tmp_path / "out"),
        "images": tmp_path / "photos",
        "other": "x",
    }
    values = {"output": None, "images": "s3://bucket/photos/*.jpg", "compare": ["a", "/b"]}
    assert settled(True, **values) == {**values, "compare": [str(tmp_path / "a"), "/b"]}


def test_a_folder_behind_a_link_stays_the_folder_that_was_meant(tmp_path: Path) -> None:
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere/deep")
    (tmp_path / "elsewhere/file").touch()
    assert Path(absolute("link/../file")).exists()


def test_a_job_refuses_relative_results_and_leaves_relative_inputs_to_its_copy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(JOB_VARIABLE, "{}")
    values = {"output": tmp_path / "runs", "images": "photos"}
    assert settled(False, **values) == values
    with pytest.raises(ValueError, match="--output runs/a would be lost; give an absolute path"):
        settled(False, output="runs/a")
    # A stage that knows no --ray runs in the same temporary folder.
    with pytest.raises(ValueError, match="--output runs/a would be lost"):
        settle_paths(argparse.Namespace(output="runs/a"), (), ("output",))


def options_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    found = []
    for action in parser._actions:
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                found += options_of(command)
    return found


@pytest.mark.parametrize("name", sorted(STAGES))
def test_every_option_that_looks_like_a_path_is_settled(name: str) -> None:
    stage: Stage = import_module(f"seamless_pr.pipelines.{name}").STAGE
    named = {*stage.inputs, *stage.outputs}
    options = options_of(stage.parser())
    for option in options:
        metavar = " ".join(option.metavar) if isinstance(option.metavar, tuple) else option.metavar
        words = ("DIR", "JSON", "FILE", "YAML", ".json", "URI", "GLOB")
        if option.type is Path or any(word in str(metavar) for word in words):
            assert option.dest in named | READ_HERE, f"--{option.dest}"
    assert named - {"output"} <= {option.dest for option in options}


def test_a_config_has_absolute_files_and_nothing_else_is_changed(tmp_path: Path) -> None:
    values = config_to_dict(tiny_config())
    values["data"]["train"] = {"json": "a.json", "images": "/b", "segments": None}
    values["model"]["backbone"]["weights"] = "w.pth"
    values["initial_weights"]["file"] = "s3://bucket/w"
    settled = with_absolute_paths(values)
    assert settled["data"]["train"]["json"] == str(tmp_path / "a.json")
    assert settled["data"]["train"]["images"] == "/b"
    assert settled["model"]["backbone"]["weights"] == str(tmp_path / "w.pth")
    settled["data"]["train"]["json"] = "a.json"
    settled["model"]["backbone"]["weights"] = "w.pth"
    assert settled | {"data": {**settled["data"], "val": values["data"]["val"]}} == values


def test_parts_of_a_split_are_settled_and_names_of_weights_are_no_files(tmp_path: Path) -> None:
    config = {"train": [{"json": "a.json"}, {"json": "/b.json"}], "weights": "timm:resnet50"}
    parts = [{"json": str(tmp_path / "a.json")}, {"json": "/b.json"}]
    assert with_absolute_paths(config) == {"train": parts, "weights": "timm:resnet50"}


@pytest.mark.parametrize(
    "stage, arguments",
    [
        (evaluate, ["--ground-truth", "G.json", "--predictions", "P.json"]),
        (predict, ["--weights", "W", "--images", "I"]),
        (prepare, ["cityscapes", "--root", "city"]),
        (prepare, ["custom", "--description", "mine/data.yaml"]),
        (train, ["--config", "run.yaml"]),
    ],
    ids=lambda value: value.__name__.rpartition(".")[2] if hasattr(value, "main") else None,
)
def test_every_stage_refuses_a_relative_result_inside_a_job(
    stage, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv(JOB_VARIABLE, "{}")
    more = [] if stage in (prepare, train) else ["--output", "out"]
    assert stage.main([*arguments, *more]) == ExitCode.FAILED
    error = capsys.readouterr().err
    assert error.startswith("error: a Ray job runs in a temporary copy of the working directory")


def test_workers_of_a_training_get_absolute_paths_outside_of_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(write_tiny_run(tmp_path / "tiny"), ["data.train.json=a.json"])
    worker = worker_settings(config, tmp_path / "run")
    assert worker["config"]["data"]["train"]["json"] == str(tmp_path / "a.json")
    assert worker["output"] == str(tmp_path / "run")
    assert config.data.train.json == "a.json"
    monkeypatch.setenv(JOB_VARIABLE, "{}")
    worker = worker_settings(config, tmp_path / "run")
    assert worker["config"]["data"]["train"]["json"] == "a.json"


def test_a_worker_that_does_not_see_the_folder_of_results_says_so(tmp_path: Path) -> None:
    folder = PredictionFolder(tmp_path / "out", instances=False, overlays=False)
    job = Job(lambda: pytest.fail("too late"), (64, None), 1, folder, str(tmp_path), 1)
    for begin in (LabelFiles, LabelImages, lambda job: read_files({}, job)):
        with pytest.raises(FileNotFoundError, match="out; --output must lie on storage that all"):
            begin(job)
