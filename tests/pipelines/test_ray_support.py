"""What needs no cluster: when Ray is used, and what goes to it."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from seamless_pr.pipelines import evaluate, ray_support
from seamless_pr.pipelines.ray_support import (
    ROOT,
    check_output,
    check_upload,
    upload_sizes,
    uses_ray,
)
from seamless_pr.pipelines.ray_training import storage_parts

CLUSTERS = sorted((ROOT / "configs/clusters").glob("*.yaml"))
JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def test_ray_is_used_when_asked_for_and_inside_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(JOB_VARIABLE, raising=False)
    assert not uses_ray(argparse.Namespace(ray=False))
    assert uses_ray(argparse.Namespace(ray=True))
    monkeypatch.setenv(JOB_VARIABLE, "{}")
    assert uses_ray(argparse.Namespace(ray=False))


def test_a_job_must_not_leave_its_results_in_its_own_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(JOB_VARIABLE, raising=False)
    check_output("runs/a")
    monkeypatch.setenv(JOB_VARIABLE, "{}")
    check_output(Path.cwd() / "runs/a")
    check_output(None)
    with pytest.raises(ValueError, match="--output runs/a would be lost; give an absolute path"):
        check_output("runs/a")


def test_the_upload_leaves_out_what_the_ignore_files_name(tmp_path: Path) -> None:
    files = ("a.py", "data/x.png", "sub/data/y.py", "w.pth", ".venv/z.py", "sub/__pycache__/b.pyc")
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1234")
    (tmp_path / ".gitignore").write_text("# a comment\n/data/\n")
    (tmp_path / ".rayignore").write_text("*.pth\n")
    sizes = upload_sizes(tmp_path)
    assert sizes.keys() == {"a.py", "sub/data/y.py", ".gitignore", ".rayignore"}
    assert sizes["a.py"] == 4


def test_this_clone_is_small_enough_and_brings_the_code() -> None:
    sizes = upload_sizes(ROOT)
    check_upload(sizes)
    assert {"pipelines/train.py", "seamless_pr/build/runs.py"} <= sizes.keys()
    assert not any(name.startswith(("tests/", ".git/", ".venv/")) for name in sizes)


def test_too_large_an_upload_is_refused_and_names_the_cause() -> None:
    check_upload({"a": 100 * 2**20})
    with pytest.raises(ValueError, match=r"101 MiB .* takes 100; largest: b \(61 MiB\), a"):
        check_upload({"a": 40 * 2**20, "b": 61 * 2**20})


def test_a_pipeline_refuses_too_large_an_upload_before_it_calls_the_cluster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray_support, "UPLOAD_LIMIT", 2**18)
    # Nobody listens there: an attempt to connect would last a minute and end with another error.
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    arguments = ["--ground-truth", "G.json", "--predictions", "P.json", "--ray"]
    assert evaluate.main(arguments) == evaluate.EXIT_ERROR
    assert "MiB for the cluster, and Ray's job server takes" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ("prepare", "train", "predict", "evaluate"))
def test_a_copied_script_finds_the_installed_package(name: str, tmp_path: Path) -> None:
    # What `ray submit` does; the package is on the path then, not beside the script.
    script = shutil.copy(ROOT / f"pipelines/{name}.py", tmp_path)
    installed = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script, "--help"], cwd=tmp_path, env=installed, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {name}.py".encode())


@pytest.mark.parametrize(
    "storage, parts",
    [
        ("/shared/runs/a", ("/shared/runs", "a")),
        ("/a/", ("/", "a")),
        ("s3://bucket/a", ("s3://bucket", "a")),
        ("s3://bucket/runs/a?region=eu", ("s3://bucket/runs?region=eu", "a")),
        ("file:///shared/a", ("file:///shared", "a")),
    ],
)
def test_the_last_part_of_the_storage_is_the_name_of_the_run(
    storage: str, parts: tuple[str, str]
) -> None:
    assert storage_parts(storage) == parts


@pytest.mark.parametrize("storage", ("s3://bucket", "s3://bucket/", "file:///a"))
def test_storage_without_a_folder_is_refused(storage: str) -> None:
    with pytest.raises(ValueError, match=f"--storage {storage} names no folder .*/run"):
        storage_parts(storage)


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_each_cluster_file_is_complete_and_says_how_to_use_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    assert "# edit" in text
    if content.get("kind") == "RayJob":
        assert "kubectl apply -f configs/clusters/kuberay.yaml" in text
        groups = content["spec"]["rayClusterSpec"]["workerGroupSpecs"]
        assert groups[0]["minReplicas"] <= groups[0]["replicas"] <= groups[0]["maxReplicas"]
        return
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(content))
    assert f"ray up configs/clusters/{path.name}" in text
    assert f"ray submit configs/clusters/{path.name} pipelines/" in text


def test_cluster_files_are_found() -> None:
    assert len(CLUSTERS) == 5
