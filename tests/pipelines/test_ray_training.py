"""Training over Ray Train: what torchrun computes, whatever is lost on the way."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seamless_pr.config.schema import ClusterConfig
from seamless_pr.pipelines.ray_support import lock_own_cluster
from seamless_pr.training.run_log import read_log
from tests.support.processes import kill_one
from tests.support.ray_variables import RAY_VARIABLES
from tests.support.training_runs import (
    STEPS,
    differing,
    largest_difference,
    train_with_ray,
    train_with_torchrun,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without cores, and two nodes of one core each; nodes may be killed and added."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        for name, value in {**RAY_VARIABLES, "RAY_USAGE_STATS_ENABLED": "0"}.items():
            patch.setenv(name, value)
        lock_own_cluster()
        from ray.cluster_utils import Cluster

        # The default takes half a minute to notice that a node is gone.
        checks = {"period_ms": 1000, "timeout_ms": 5000, "failure_threshold": 3}
        config = {f"health_check_{name}": value for name, value in checks.items()}
        head = {"num_cpus": 0, "include_dashboard": True, "_system_config": config}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1)
            yield cluster
        finally:
            cluster.shutdown()


def test_a_run_that_loses_a_worker_ends_as_if_nothing_had_happened(
    cluster: Any, training: list[str], undisturbed: Path, tmp_path: Path
) -> None:
    run = train_with_ray(training, tmp_path / "run", variables={"RAY_ADDRESS": cluster.address})
    run.wait_for_checkpoint()
    assert kill_one(os.getpid(), "RayTrainWorker") is not None, run.log
    run.finish()
    assert "going on after step 2" in run.log

    records = read_log(run.output / "log.jsonl")
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    assert {record["checksum_spread"] for record in records} == {0}
    kept = json.loads(run.snapshot.read_text())["checkpoint_results"]
    assert [entry["checkpoint_dir_name"] for entry in kept] == ["step_00000004", "step_00000005"]
    assert (run.output / "tensorboard").is_dir()

    assert differing(run.output, undisturbed) == []
    alone = train_with_torchrun(training, 1, tmp_path / "alone")
    assert largest_difference(run.output, alone)[0] < 1e-5
    for one, two in zip(read_log(alone / "log.jsonl"), records, strict=True):
        assert two["losses"] == pytest.approx(one["losses"], rel=1e-4, abs=1e-5)


def test_a_run_that_loses_a_whole_node_goes_on_when_another_one_comes(
    cluster: Any, training: list[str], undisturbed: Path, tmp_path: Path
) -> None:
    run = train_with_ray(training, tmp_path / "run", variables={"RAY_ADDRESS": cluster.address})
    run.wait_for_checkpoint()
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    assert run.process.poll() is None, run.log
    cluster.add_node(num_cpus=1)
    run.finish()
    assert "going on after step 2" in run.log
    assert differing(run.output, undisturbed) == []


def test_an_elastic_run_goes_on_with_the_nodes_that_are_left(
    cluster: Any, training: list[str], undisturbed: Path, tmp_path: Path
) -> None:
    elastic = [*training, "cluster.min_workers=1"]
    # Ray first tries two workers again, for so long.
    patience = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15"}
    variables = {"RAY_ADDRESS": cluster.address, **patience}
    run = train_with_ray(elastic, tmp_path / "run", variables=variables)
    run.wait_for_checkpoint()
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    run.finish()
    # One worker alone has nothing to compare its checksum with.
    records = read_log(run.output / "log.jsonl")
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    assert ["checksum_spread" in record for record in records] == [True, True, False, False, False]
    assert largest_difference(run.output, undisturbed)[0] < 1e-5


def test_the_config_asks_ray_for_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from seamless_pr.pipelines.ray_training import scaling_config

    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 64.0, "GPU": 8.0})
    scaling = scaling_config(ClusterConfig(num_workers=8, min_workers=4, cpus_per_worker=6))
    assert scaling.num_workers == (4, 8)
    assert scaling.use_gpu
    assert scaling.resources_per_worker == {"CPU": 6, "GPU": 1}
    scaling = scaling_config(ClusterConfig(num_workers=3, use_gpu=False))
    assert scaling.num_workers == 3
    assert not scaling.use_gpu
    assert scaling.resources_per_worker == {"CPU": 1}
