"""The table of results out of evaluation.json files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.measure.results_table import BEGIN, END, main


def write_evaluation(path: Path, pq: float | None) -> Path:
    group = {"pq": pq, "sq": 0.75, "rq": 0.5, "num_categories": 3}
    evaluation = dict.fromkeys(("all", "things", "stuff"), group)
    evaluation["pq_dagger"] = {"all": 0.4567, "things": 0.25, "stuff": 0.5}
    path.write_text(json.dumps(evaluation))
    return path


def test_each_result_is_a_row_in_percent(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first = write_evaluation(tmp_path / "a.json", pq=0.12345)
    second = write_evaluation(tmp_path / "b.json", pq=1.0)
    assert main([f"short={first}", f"long training={second}"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "|               |    PQ | PQ things | PQ stuff |   SQ |   RQ |  PQ† |",
        "| ------------- | ----: | --------: | -------: | ---: | ---: | ---: |",
        "| short         |  12.3 |      12.3 |     12.3 | 75.0 | 50.0 | 45.7 |",
        "| long training | 100.0 |     100.0 |    100.0 | 75.0 | 50.0 | 45.7 |",
    ]


def test_a_group_without_classes_gets_a_dash(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([f"a={write_evaluation(tmp_path / 'a.json', pq=None)}"]) == 0
    assert capsys.readouterr().out.splitlines()[2].count("–") == 3


def test_writing_replaces_the_old_table_and_nothing_else(tmp_path: Path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    result = f"a={write_evaluation(tmp_path / 'a.json', pq=0.5)}"
    assert main([result, "--write", str(readme)]) == 0
    once = readme.read_text()
    assert once.startswith(f"before\n{BEGIN}\n|")
    assert once.endswith(f"|\n{END}\nafter\n")
    assert "old" not in once
    assert main([result, "--write", str(readme)]) == 0
    assert readme.read_text() == once


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "does not exist"), ("{", "is not JSON"), ("{}", "has no 'all.pq'"), ("[]", "has no")],
)
def test_a_file_that_is_no_evaluation_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, reason: str
):
    path = tmp_path / "evaluation.json"
    if content is not None:
        path.write_text(content)
    assert main([f"a={path}"]) == 1
    message = capsys.readouterr().err
    assert str(path) in message
    assert reason in message


def test_a_file_without_marks_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    readme = tmp_path / "README.md"
    readme.write_text("text")
    result = f"a={write_evaluation(tmp_path / 'a.json', pq=0.5)}"
    assert main([result, "--write", str(readme)]) == 1
    assert BEGIN in capsys.readouterr().err
    assert readme.read_text() == "text"


def test_an_argument_without_a_name_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["evaluation.json"])
    assert "NAME=evaluation.json" in capsys.readouterr().err
