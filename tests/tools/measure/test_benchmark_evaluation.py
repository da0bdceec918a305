from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.measure import benchmark_evaluation as tool


@pytest.mark.slow
def test_a_small_run_measures_every_installed_tool_and_writes_the_page(tmp_path: Path) -> None:
    output, page = tmp_path / "results" / "benchmark.json", tmp_path / "benchmarks.md"
    page.write_text("# Benchmarks\n\n## Training\n\nkept\n")
    arguments = ["--pairs", "2", "--rounds", "1", "--size", "128x256"]
    arguments += ["--report-images", "5", "--json-megabytes", "1"]
    arguments += ["--output", str(output), "--page", str(page)]
    for _ in range(2):
        assert tool.main(arguments) == 0
    result = json.loads(output.read_text())
    times = result["milliseconds_per_pair"]
    assert {"decoding only: seamless_pr", "maps in memory: seamless_pr"} <= times.keys()
    assert all(len(values) == 1 and values[0] > 0 for values in times.values())
    # The drawn prediction is neither perfect nor hopeless.
    assert 0.05 < result["pq"] < 0.95
    assert result["report"]["num_pictured"] == 5
    assert 0 < result["report"]["first_page_megabytes"] < 2
    assert result["large_json"]["num_images"] > 1
    text = page.read_text()
    assert "kept" in text
    assert text.count(f"<!-- {tool.MARK} -->") == text.count(f"<!-- /{tool.MARK} -->") == 1
    assert "| decoding only | seamless_pr |" in text
