from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.measure import evaluation_processes as tool


@pytest.mark.slow
def test_a_small_run_measures_fresh_processes_and_adds_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, page = tmp_path / "results.json", tmp_path / "benchmarks.md"
    page.write_text("kept\n")
    one = {"seconds": [0.5], "seconds_often": [0.9], "mebibytes": [9000.0]}
    other = {
        "num_rounds": 1,
        "num_cores": 4,
        "load_average": [0.1, 0.2],
        "python": "3.11",
        "versions": {},
        "tasks": {"4 pairs of 64x128": {"seamless_pr": one}},
    }
    output.write_text(json.dumps({"Another processor": other}))
    monkeypatch.setattr(tool, "SIZES", ((64, 128), (64, 128)))
    few = {name: tool.EVALUATORS[name] for name in ("seamless_pr", "cityscapesscripts")}
    monkeypatch.setattr(tool, "EVALUATORS", few)
    arguments = ["--rounds", "1", "--small-pairs", "4", "--large-pairs", "4"]
    assert tool.main([*arguments, "--output", str(output), "--page", str(page)]) == 0
    stored = json.loads(output.read_text())
    assert len(stored) == 2
    (measured,) = (stored[name] for name in stored if name != "Another processor")
    rows = measured["tasks"]["4 pairs of 64x128"]
    assert {"seamless_pr", "cityscapesscripts"} <= rows.keys()
    assert all(
        values["seconds"][0] > 0 and 20 < values["mebibytes"][0] < 2000 for values in rows.values()
    )
    # (0.9 - 0.5) s over three times four pairs.
    assert tool._further("4 pairs of 64x128", one) == pytest.approx([33.3], abs=0.1)
    text = page.read_text()
    assert "kept" in text
    assert "| 4 pairs of 64x128 | seamless_pr | " in text
    assert " to 9000 |" in text
