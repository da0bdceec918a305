"""For every test: the same random numbers on every run and in every order of tests.

For tests beside a reference: measured differences, checked and kept as properties of the results.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from xdist.scheduler import LoadFileScheduling


class FilesAndClusters(LoadFileScheduling):
    """The tests of a file stay in one process, and so do all that start clusters.

    Those wait for each other (`tests/pipelines/conftest.py`): a second process would only wait.
    """

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "clusters" if file.startswith("tests/pipelines/test_ray_") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """For --dist loadfile; None: as xdist does."""
    return FilesAndClusters(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_configure() -> None:
    """Makes tests independent of how they are started, and quick."""
    # Nobody waits for the disk: what a crash of the machine would leave, no test can see.
    os.fsync = lambda _: None  # type: ignore[assignment]
    # A shell starts what runs in its background deaf to Ctrl-C, with all its children.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Seeds before the fixtures of a test, those of its module included, draw anything."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


Agree = Callable[[str, float, float], None]


@pytest.fixture
def agree(record_property: Callable[[str, Any], None]) -> Agree:
    """agree(name, difference, limit): records a measurement and fails above the limit.

    `tools/measure/fidelity.py` collects the records out of pytest's JUnit file.
    """

    def check(name: str, difference: float, limit: float) -> None:
        record_property(f"agreement:{name}", f"{difference:.6g} {limit:.6g}")
        assert difference <= limit, f"{name} differs by {difference:.3g}, allowed are {limit:.3g}"

    return check
