"""Each pipeline is killed, given again, and ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path

import pytest

from tests.robustness.campaign import working_folder
from tests.robustness.kills import PIPELINES, kill_pipeline


@pytest.fixture
def folder() -> Iterator[Path]:
    with working_folder() as path:
        yield path


@pytest.mark.slow
@pytest.mark.parametrize("name", PIPELINES)
def test_a_killed_pipeline_ends_as_if_undisturbed_when_it_is_given_again(
    name: str, folder: Path, clean_process: Executor
) -> None:
    kills = clean_process.submit(kill_pipeline, name, folder, every_rename=4, num_moments=2)
    tally = kills.result()
    assert tally.failures == []
    assert tally.num_renames > 2
