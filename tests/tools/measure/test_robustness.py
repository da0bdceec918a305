"""The page of the robustness campaign says what the stored result says."""

from __future__ import annotations

import json

import pytest

from tests.robustness.campaign import PARTS
from tools.measure.robustness import PAGE, STORED_RESULT, page


@pytest.fixture(scope="module")
def stored() -> dict:
    return json.loads(STORED_RESULT.read_text())


def test_the_page_is_that_of_the_stored_result(stored: dict) -> None:
    assert PAGE.read_text() == page(stored)


def test_every_kind_of_input_and_every_pipeline_was_tried_without_a_failure(stored: dict) -> None:
    assert [row["name"] for row in stored["inputs"]] == [part.name for part in PARTS]
    assert [row["name"] for row in stored["kills"]] == ["prepare", "train", "predict", "evaluate"]
    for row in (*stored["inputs"], *stored["kills"], *stored["large"]):
        assert row["failures"] == []
    for row in stored["inputs"]:
        assert 3 * row["passed_header"] >= row["count"] == sum(row["outcomes"].values())
    for row in stored["kills"]:
        assert row["same_result"] == row["renames"] + row["moments"]
