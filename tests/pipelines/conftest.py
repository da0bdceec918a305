"""What the tests of training over several machines have in common."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.training_runs import train_with_torchrun, write_arguments


@pytest.fixture(scope="module", autouse=True)
def one_cluster_at_a_time(request: pytest.FixtureRequest) -> Iterator[None]:
    """Modules that start clusters wait for each other: Ray's dashboard has one port."""
    if "test_ray_" not in request.module.__name__:
        yield
        return
    with open(Path(tempfile.gettempdir()) / "seamless_pr_ray_tests.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments of pipelines/train.py for a run of seconds."""
    return write_arguments(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="session")
def undisturbed(training: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two workers' run to which nothing happened."""
    return train_with_torchrun(training, 2, tmp_path_factory.mktemp("undisturbed") / "run")
