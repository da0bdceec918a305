"""The page on fidelity: its readings are those of the config, its numbers those of test results."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from seamless_pr.build.configs import load_config
from tools.measure import fidelity as tool


def junit(path: Path, *cases: str) -> Path:
    path.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    return path


def case(name: str, value: str, outcome: str = "") -> str:
    record = f'<properties><property name="agreement:{name}" value="{value}"/></properties>'
    return f'<testcase name="t">{record}{outcome}</testcase>'


def test_numbers_come_from_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    results = junit(
        tmp_path / "r.xml", case("net/fpn0", "1.5e-06 7e-06"), case("ops/nms (boxes)", "0 0")
    )
    assert tool.main(["--results", str(results), "--output", str(tmp_path / "f.md")]) == 0
    text = (tmp_path / "f.md").read_text()
    assert (
        "### net\n\n| tensor | difference | allowed |\n|---|---:|---:|\n| fpn0 | 1.5e-06 |" in text
    )
    assert "| nms (boxes) | 0 | 0 |" in text


@pytest.mark.parametrize(
    "cases, message",
    [
        ([], "holds no measured differences"),
        ([case("a/b", "1 0", "<failure/>")], "1 comparisons failed: t"),
    ],
)
def test_no_page_is_written_without_sound_results(tmp_path: Path, capsys, cases, message):
    output = tmp_path / "f.md"
    results = junit(tmp_path / "r.xml", *cases)
    assert tool.main(["--results", str(results), "--output", str(output)]) == 1
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_values_in_braces_are_those_of_the_config():
    config = load_config(tool.CONFIG)
    instances = "{model.instances.roi.sampler}, {model.instances.rpn.anchor_ratios}"
    text = f"{instances}, {{optimizer.lr}}, {{optimizer.nesterov}}"
    assert tool.filled(text, config) == "seamless, 1 0.5 2, 0.01, True"


def test_every_option_of_the_page_loads_and_changes_something():
    groups = yaml.safe_load(tool.ITEMS.read_text())
    options = [
        (option, tool.CONFIGS.get(title, tool.CONFIG))
        for title, rows in groups.items()
        for row in rows
        for option in row.get("options", [])
    ]
    assert len(options) > 20
    for option, base in options:
        tool.check_option(option, base)
    with pytest.raises(ValueError, match="is the default already"):
        tool.check_option("model.instances.roi.sampler=seamless", tool.CONFIG)
    with pytest.raises(ValueError, match="unknown key"):
        tool.check_option("model.instances.roi.sampling=aligned", tool.CONFIG)


def test_the_stored_page_has_the_readings_and_the_differences_of_today():
    text = tool.OUTPUT.read_text(encoding="utf-8")
    assert text == tool.document(tool.stored_measurements()), (
        "run python tools/measure/fidelity.py --stored"
    )
