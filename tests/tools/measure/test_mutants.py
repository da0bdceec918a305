from __future__ import annotations

from pathlib import Path

import pytest

from tools.measure import mutants as tool

SOURCE = '''"""A text stays."""

def f(x: int = 0, y: float = 0.5) -> int:
    if not x < 3 and y:
        return -x + max(1, x.detach())
    return True
'''


def test_every_kind_of_place_is_changed_once_at_a_time() -> None:
    found = {(m.line, m.before, m.after) for m in tool.mutants_of(Path("seamless_pr/f.py"), SOURCE)}
    assert found == {
        (3, "0", "1"),
        (3, "0", "-1"),
        (3, "0.5", "1.0"),
        (4, "not x < 3 and y", "not x < 3 or y"),
        (4, "not x < 3", "x < 3"),
        (4, "x < 3", "x <= 3"),
        (4, "3", "4"),
        (4, "3", "2"),
        (5, "-x + max(1, x.detach())", "-x - max(1, x.detach())"),
        (5, "-x", "x"),
        (5, "max", "min"),
        (5, "1", "2"),
        (5, "1", "0"),
        (5, "x.detach()", "x"),
        (6, "True", "False"),
    }


def test_a_changed_file_differs_in_that_place_alone() -> None:
    found = tool.mutants_of(Path("seamless_pr/f.py"), SOURCE)
    plain = tool.ast.unparse(tool.ast.parse(SOURCE)).splitlines()
    for mutant in found:
        lines = mutant.source.splitlines()
        assert sum(a != b for a, b in zip(plain, lines, strict=True)) == 1, mutant


def test_the_tests_of_a_file_are_its_mirror_then_those_that_import_it() -> None:
    mirror, others = tool.tests_of(Path("seamless_pr/id_maps/overlap.py"))
    assert mirror == ["tests/id_maps/test_overlap.py"]
    assert "tests/metrics/test_against_vernier.py" in others
    assert "tests/id_maps/test_segments.py" not in others


def test_a_file_that_no_test_imports_has_the_tests_of_the_files_that_import_it() -> None:
    (tests,) = tool.tests_of(Path("seamless_pr/metrics/instance_ap.py"))
    assert tests == ["tests/evaluation/test_instances.py", "tests/evaluation/test_lvis.py"]


def test_a_change_that_no_test_notices_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "seamless_pr"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "f.py").write_text("def f(x):\n    return x + 1\n\n\ndef g(x):\n    return x + 1\n")
    (tmp_path / "tests").mkdir()
    test = "from seamless_pr.f import f\n\n\ndef test_f():\n    assert f(1) == 2\n"
    (tmp_path / "tests" / "test_f.py").write_text(test)
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(tool, "tests_of", lambda path: [["tests/test_f.py"]])
    found = tool.mutants_of(Path("seamless_pr/f.py"), (package / "f.py").read_text())
    chosen = [mutant for mutant in found if " - 1" in mutant.after]
    left = tool.survivors(chosen, slow=False, say=print)
    assert [m.line for m in left] == [6]
    assert "failed   seamless_pr/f.py:2: x + 1  ->  x - 1" in capsys.readouterr().out
