"""What needs no cluster: when Ray is used, and what goes to it."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from seamless_pr.pipelines import evaluate, upload
from seamless_pr.pipelines.ray_serving import COUNTS, NETWORKS
from seamless_pr.pipelines.ray_support import lock_own_cluster, uses_ray
from seamless_pr.pipelines.ray_training import storage_parts
from seamless_pr.pipelines.stage import ExitCode
from seamless_pr.pipelines.upload import ROOT
from seamless_pr.serving.limits import ServingLimits

CLUSTERS = sorted((ROOT / "configs/clusters").glob("*.yaml"))
JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def test_ray_is_used_when_asked_for_and_inside_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(JOB_VARIABLE, raising=False)
    assert not uses_ray(argparse.Namespace(ray=False))
    assert uses_ray(argparse.Namespace(ray=True))
    monkeypatch.setenv(JOB_VARIABLE, "{}")
    assert uses_ray(argparse.Namespace(ray=False))


def test_a_pipeline_refuses_too_large_an_upload_before_it_calls_the_cluster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(JOB_VARIABLE, raising=False)
    monkeypatch.setattr(upload, "UPLOAD_LIMIT", 2**18)
    # Nobody listens there: an attempt to connect would last a minute and end with another error.
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    arguments = ["--ground-truth", "G.json", "--predictions", "P.json", "--ray"]
    assert evaluate.main(arguments) == ExitCode.FAILED
    assert "MiB for the cluster, and Ray's job server takes" in capsys.readouterr().err


def test_a_cluster_of_ones_own_gets_a_token_whatever_the_shell_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    tokens = set()
    for _ in range(2):
        monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
        lock_own_cluster()
        assert os.environ["RAY_AUTH_MODE"] == "token"
        tokens.add(os.environ["RAY_AUTH_TOKEN"])
    assert len(tokens) == 2
    assert min(map(len, tokens)) >= 64
    # A second cluster of this process is opened by the first one's.
    lock_own_cluster()
    assert os.environ["RAY_AUTH_TOKEN"] in tokens


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


def check_serve_config(content: dict[str, Any]) -> None:
    """Whether Serve knows all of it, and `application` builds what it names."""
    from ray.serve.schema import ServeDeploySchema

    (application,) = ServeDeploySchema.model_validate(content).applications
    assert application.import_path == "seamless_pr.pipelines.ray_serving:application"
    assert [deployment.name for deployment in application.deployments] == [NETWORKS, COUNTS]
    fields = set(application.args["limits"])
    assert fields <= set(ServingLimits().to_dict())
    assert application.deployments[0].user_config["weights"]


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_each_cluster_file_is_complete_and_says_how_to_use_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    assert "# edit" in text
    if content.get("kind") == "RayJob":
        assert "kubectl apply -f configs/clusters/kuberay.yaml" in text
        groups = content["spec"]["rayClusterSpec"]["workerGroupSpecs"]
        assert groups[0]["minReplicas"] <= groups[0]["replicas"] <= groups[0]["maxReplicas"]
        assert content["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
        return
    if content.get("kind") == "RayService":
        assert f"kubectl apply -f configs/clusters/{path.name}" in text
        check_serve_config(yaml.safe_load(content["spec"]["serveConfigV2"]))
        assert content["spec"]["rayClusterConfig"]["authOptions"] == {"mode": "token"}
        return
    if "applications" in content:  # deployed for real in test_ray_serving.py
        assert f"serve deploy configs/clusters/{path.name}" in text
        check_serve_config(content)
        return
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(content))
    assert f"ray up configs/clusters/{path.name}" in text
    assert re.search(rf"ray (submit|exec) configs/clusters/{path.name} (pipelines/|\"RAY)", text)
    assert "disabled" not in text
    starts = [*content["head_start_ray_commands"], *content["worker_start_ray_commands"]]
    for command in (command for command in starts if "ray start" in command):
        assert "RAY_AUTH_MODE=token ray start" in command


def test_cluster_files_are_found() -> None:
    assert len(CLUSTERS) == 7
