"""The Ray benchmark: rates, tables and the merging of rounds; nothing here is timed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from seamless_pr.files import write_json
from tools.measure import benchmark_ray as tool

MACHINE = {"cores": 2, "cpu": "a", "python": "3", "torch": "2", "ray": "2"}


def timed(rate: float, start: float = 3.0) -> dict[str, float]:
    return {"start_seconds": start, "total_seconds": 60.0, "rate": rate}


def prediction_rounds() -> list[dict]:
    pairs = [(2.0, 1.9), (1.0, 1.2), (4.0, 4.0)]
    return [
        {"load": 0.5, "cores": 2, tool.PLAIN: timed(plain), tool.RAY: timed(ray, 12.0)}
        for plain, ray in pairs
    ]


def test_the_rate_leaves_out_the_start_and_takes_items_in_any_order():
    found = tool.timing(100.0, [116.0, 110.0, 112.0, 114.0, 118.0], 119.0, 1)
    assert found == tool.Timing(start_seconds=10.0, total_seconds=19.0, rate=0.5)
    in_pairs = tool.timing(0.0, [10.0, 10.0, 14.0, 14.0], 15.0, 2)
    assert in_pairs.rate == 0.5


@pytest.mark.parametrize("num_starting", [0, 2, 3])
def test_a_rate_needs_items_before_and_after_the_start(num_starting: int):
    with pytest.raises(ValueError, match="needs more than 2 items"):
        tool.timing(0.0, [1.0, 2.0], 3.0, num_starting)


def test_images_are_done_when_their_records_are_written(tmp_path: Path):
    for number, name in enumerate(("a", "city/b")):
        record = tmp_path / "records" / f"{name}.json"
        record.parent.mkdir(parents=True, exist_ok=True)
        record.touch()
        os.utime(record, (0, 50.0 + number))
    (tmp_path / "run.json").touch()
    assert sorted(tool.finishing_times(tmp_path)) == [50.0, 51.0]


def test_ways_take_turns_in_changing_order(capsys):
    called: list[str] = []

    def run(name: str) -> tool.Timing:
        called.append(name)
        return tool.Timing(1.0, 2.0, 3.0)

    runs = {name: lambda name=name: run(name) for name in "ab"}
    rounds = [tool.in_turns(index, runs) for index in range(2)]
    assert called == ["a", "b", "b", "a"]
    assert rounds[0]["a"] == {"start_seconds": 1.0, "total_seconds": 2.0, "rate": 3.0}
    assert "a: 3.00 a second after 1.0 s" in capsys.readouterr().out


def test_ratios_compare_runs_of_one_round():
    # The ratio of the medians would be 0.95: rounds differ in how busy the machine is.
    assert tool.ratios(prediction_rounds(), tool.RAY) == pytest.approx((0.95, 1.0, 1.2))
    lines = tool.throughput_table({"prediction, images": prediction_rounds()})
    assert lines[2] == "| prediction, images: plain loop | 2.00 | 1 | 3.0 s | 60 s |"
    assert lines[3] == "| prediction, images: Ray | 1.90 | 1.00 (0.95 to 1.20) | 12.0 s | 60 s |"


def test_the_driver_pays_for_the_pairs_after_the_start():
    cpu_seconds = [5.0] + [5.0 + 0.002 * number for number in range(1, 20)]
    # A tenth of twenty pairs is the start.
    assert tool.driver_ms_per_pair({"cpu_seconds": cpu_seconds}) == pytest.approx(2.0)


def test_the_gain_of_nodes_is_against_one_node_and_unmeasured_cells_are_dashes():
    plain = tool.PLAIN_PROCESSES
    one = {"prediction": 0.5, f"prediction{plain}": 0.4, "evaluation": 100.0}
    nodes = {
        "4": [{"evaluation": 150.0}],
        "1": [{**one, f"evaluation{plain}": 200.0}],
        "2": [
            {"prediction": 0.8, f"prediction{plain}": 0.6, "evaluation": 170.0},
            {"prediction": 1.0, f"prediction{plain}": 0.6, "evaluation": 190.0},
        ],
    }
    lines = tool.nodes_table(nodes)
    assert lines[2] == "| 1 | 0.50 | 0.40 | 100 | 200 |"
    assert lines[3] == "| 2 | 0.90 (× 1.80) | 0.60 (× 1.50) | 180 (× 1.80) | – |"
    assert lines[4] == "| 4 | – | – | 150 (× 1.50) | – |"


def test_rounds_of_equal_conditions_add_up_and_others_are_refused():
    first = {"num_pairs": 10, "rounds": ["a"]}
    stored = tool.merged({"machine": MACHINE}, "evaluation", first, False)
    stored = tool.merged(stored, "evaluation", {"num_pairs": 10, "rounds": ["b"]}, False)
    assert stored == {"machine": MACHINE, "evaluation": {"num_pairs": 10, "rounds": ["a", "b"]}}
    other = {"num_pairs": 20, "rounds": ["c"]}
    with pytest.raises(ValueError, match="num_pairs 10 before and 20 now; give --fresh"):
        tool.merged(stored, "evaluation", other, False)
    assert tool.merged(stored, "evaluation", other, True)["evaluation"] == other
    nodes = tool.merged({"nodes": {"1": ["a"]}}, "nodes", {"1": ["b"], "2": ["c"]}, False)
    assert nodes == {"nodes": {"1": ["a", "b"], "2": ["c"]}}


def test_the_page_has_what_was_measured_and_nothing_else():
    rounds = prediction_rounds()
    result = {
        "machine": MACHINE,
        "prediction": {"num_images": 24, "warm_up": 4, "rounds": rounds},
    }
    text = tool.section(result)
    assert "Prediction: 24 images of 512x1024" in text
    assert "3 rounds" in text
    assert "load of the machine before each round 0.5 to 0.5" in text
    assert "Evaluation" not in text
    assert "nodes" not in text
    page = tool.replaced(f"a\n{tool.BEGIN}\nold\n{tool.END}\nb", text)
    assert page == f"a\n{tool.BEGIN}\n{text}\n{tool.END}\nb"
    with pytest.raises(ValueError, match="add them"):
        tool.replaced("a page without marks", text)


def test_the_page_is_written_again_from_the_stored_result(tmp_path: Path, capsys):
    stored = {
        "machine": MACHINE,
        "prediction": {"num_images": 24, "warm_up": 4, "rounds": prediction_rounds()},
    }
    output, page = tmp_path / "result.json", tmp_path / "page.md"
    write_json(output, stored)
    page.write_text(f"# Benchmarks\n\n{tool.BEGIN}\n{tool.END}\n\nkept\n")
    paths = ["--output", str(output), "--page", str(page), "--folder", str(tmp_path / "work")]
    assert tool.main(["page", *paths]) == 0
    assert tool.stored_result(output) == stored
    assert tool.section(stored) in page.read_text()
    assert page.read_text().endswith("kept\n")
    assert tool.stored_result(tmp_path / "nothing.json") == {}


def test_children_start_without_the_callers_cluster_and_threads(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert not {"RAY_ADDRESS", "OMP_NUM_THREADS"} & tool.environment().keys()
    assert tool.environment(OMP_NUM_THREADS="2")["OMP_NUM_THREADS"] == "2"


def test_the_plan_on_the_page_of_clusters_is_that_of_the_stored_costs():
    planned = tool.plan(tool.stored_result(tool.STORED_RESULT))
    begin, end = tool.PLAN_MARKS
    assert f"{begin}\n{planned}\n{end}" in tool.PLAN_PAGE.read_text()
    assert "8 x 8 GPUs" not in tool.PAGE.read_text()
    assert tool.plan({}) is None
