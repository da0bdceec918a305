"""The console command, the scripts, and what an installation brings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from seamless_pr import __version__
from seamless_pr.pipelines import cli

ROOT = Path(__file__).resolve().parents[2]


def test_help_names_each_stage_with_the_sentence_of_its_module(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, sentence in cli.STAGES.items():
        doc = import_module(f"seamless_pr.pipelines.{name}").__doc__
        assert " ".join(doc.partition("\n\n")[0].split()) == sentence
        assert f"{name} {sentence}" in shown


def test_each_stage_has_a_script_for_clones_and_no_script_lacks_a_stage() -> None:
    assert {path.stem for path in (ROOT / "pipelines").glob("*.py")} == set(cli.STAGES)
    for name in cli.STAGES:
        source = (ROOT / f"pipelines/{name}.py").read_text(encoding="utf-8")
        assert f"from seamless_pr.pipelines.{name} import main" in source
        assert len(source.splitlines()) < 20


def test_help_and_version_do_not_import_what_stages_need() -> None:
    script = (
        "import sys; from seamless_pr.pipelines.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert not {'torch', 'ray', 'numpy', 'cv2'} & set(sys.modules)"
    )
    for argument in ("--help", "--version"):
        command = [sys.executable, "-c", script, argument]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == __version__


@pytest.mark.parametrize("arguments", [[], ["fly"], ["train", "--fly"]])
def test_unknown_words_are_wrong_arguments(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize("name", sorted(cli.STAGES))
def test_the_help_of_a_stage_names_the_command_and_the_exit_codes(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: seamless-pr {name} ")
    assert "exit codes: 0 done; 1 not done" in shown


def test_exit_codes_of_a_stage_are_those_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["prepare", "cityscapes", "--root", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err.startswith("error: no folder")


def test_an_installation_brings_the_library_and_the_command_and_no_other_package(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    (metadata,) = tmp_path.iterdir()
    assert (metadata / "top_level.txt").read_text() == "seamless_pr\n"
    entries = (metadata / "entry_points.txt").read_text().splitlines()
    assert entries == ["[console_scripts]", "seamless-pr = seamless_pr.pipelines.cli:main"]
    sources = (metadata / "SOURCES.txt").read_text().splitlines()
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "seamless_pr").rglob("*.py")}
    assert modules <= set(sources)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(cli.STAGES))
def test_a_copied_script_finds_the_installed_package(name: str, tmp_path: Path) -> None:
    # What `ray submit` does; the package is on the path then, not beside the script.
    script = shutil.copy(ROOT / f"pipelines/{name}.py", tmp_path)
    installed = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script, "--help"], cwd=tmp_path, env=installed, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {name}.py".encode())
