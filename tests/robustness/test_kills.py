"""Each pipeline is killed, given again, and ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.robustness.campaign import working_folder
from tests.robustness.kills import Pipeline, kill_pipeline, pipelines
from tests.robustness.sandbox import Sandbox

NAMES = ("prepare", "train", "predict", "evaluate")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with working_folder() as path:
        yield path


@pytest.fixture(scope="module")
def by_name(folder: Path) -> dict[str, Pipeline]:
    return {pipeline.name: pipeline for pipeline in pipelines(Sandbox(folder / "box"))}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_killed_pipeline_ends_as_if_undisturbed_when_it_is_given_again(
    name: str, by_name: dict[str, Pipeline], folder: Path
) -> None:
    tally = kill_pipeline(by_name[name], folder / name, every_rename=4, num_moments=2)
    assert tally.failures == []
    assert tally.num_renames > 2
