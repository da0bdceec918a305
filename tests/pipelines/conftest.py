"""What the tests of training over several machines have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.training_runs import train_with_torchrun, write_arguments


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments of pipelines/train.py for a run of seconds."""
    return write_arguments(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="session")
def undisturbed(training: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two workers' run to which nothing happened."""
    return train_with_torchrun(training, 2, tmp_path_factory.mktemp("undisturbed") / "run")
