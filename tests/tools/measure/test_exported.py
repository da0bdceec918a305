"""The table of exported graphs: what stands on the page is what is stored."""

from __future__ import annotations

import json

from tools.measure import exported as tool


def test_the_page_shows_the_stored_result() -> None:
    result = json.loads(tool.STORED_RESULT.read_text(encoding="utf-8"))
    page = tool.PAGE.read_text(encoding="utf-8")
    assert tool.replaced(page, tool.section(result), tool.MARKS) == page
    assert set(result["checks"]) == set(tool.NAMES)


def test_pixels_and_seconds_are_those_of_an_image() -> None:
    checks = {
        "package": {"seconds": 4.0},
        "onnx": {"seconds": 3.0, "changed_pixels": 0.001, "score_difference": 2e-6},
    }
    result = {"size": [100, 200], "batch_size": 2, "threads": 2, "torch": "2", "rounds": 3}
    text = tool.section({**result, "cpu": "a processor", "checks": checks})
    assert "| the package | 2.000 |  |  |" in text
    assert "| `network.onnx` | 1.500 | 40 | 2e-06 |" in text
    assert "2 threads of a processor" in text
