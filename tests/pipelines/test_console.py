"""What is printed never decides over results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seamless_pr.pipelines.console import tolerant_console
from tests.evaluation.files import PanopticFiles, street
from tests.pipelines.test_predict import weights  # noqa: F401 - a fixture
from tests.support.panoptic_files import write_png

ROOT = Path(__file__).resolve().parents[2]
PRINTS = """
import sys
from seamless_pr.pipelines.console import tolerant_console
with tolerant_console():
    for number in range(20_000):
        print("PQ† 日本", number)
        print("PQ† \\udcff", number, file=sys.stderr)
sys.exit(7)
"""


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def shell(line: str, script: str = PRINTS, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs `line` by bash, in which "$@" is Python with the script; its status is in the output."""
    command = ["bash", "-c", line, "bash", sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, env=environment(**more))


def test_a_letter_that_the_terminal_lacks_is_a_question_mark() -> None:
    done = shell('"$@"', PYTHONIOENCODING="ascii:strict")
    assert done.returncode == 7
    assert done.stdout.startswith("PQ? ?? 0\n")
    assert done.stderr.startswith("PQ? ? 0\n")
    assert len(done.stdout.splitlines()) == 20_000


@pytest.mark.parametrize(
    "line",
    [
        '{ "$@" 2> /dev/null; echo $? >&2; } | head -1',
        '{ "$@" 2>&1; echo $? >&3; } 3>&2 | head -1',
        '"$@" > /dev/full 2> /dev/full; echo $? >&2',
        '"$@" >&- 2> /dev/null; echo $? >&2',
        '"$@" > /dev/null 2>&-; echo $? >&2',
    ],
    ids=["head", "head of both", "full disk", "no stdout", "no stderr"],
)
def test_text_that_nobody_takes_is_dropped(line: str) -> None:
    assert shell(line).stderr == "7\n"


def test_files_opened_later_do_not_get_the_text_of_a_closed_stream(tmp_path: Path) -> None:
    script = f"""
import os
from seamless_pr.pipelines.console import tolerant_console
with tolerant_console():
    with open({str(tmp_path / "result")!r}, "w") as file:
        os.system("echo text of another program")
        file.write("result")
"""
    assert shell('"$@" >&-', script).returncode == 0
    assert (tmp_path / "result").read_text() == "result"


def test_streams_that_somebody_put_in_place_stay_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sys.stdout, sys.stderr
    with tolerant_console():
        assert (sys.stdout, sys.stderr) == before
        print("seen")
    assert capsys.readouterr().out == "seen\n"


CLOSED = '{ "$@"; echo $? > status; } 2> errors | true'
ASCII = '"$@" > text 2> errors; echo $? > status'


def run_in(folder: Path, line: str, *command: str) -> int:
    """The exit status of a stage whose text goes where the line says."""
    folder.mkdir(exist_ok=True)
    arguments = ["bash", "-c", line, "bash", sys.executable, *command]
    variables = environment(PYTHONIOENCODING="ascii:strict", OMP_NUM_THREADS="1")
    subprocess.run(arguments, cwd=folder, env=variables, check=True)
    assert "Traceback" not in (folder / "errors").read_text()
    return int((folder / "status").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("line", [CLOSED, ASCII], ids=["closed pipe", "ascii"])
def test_scores_are_written_whoever_reads_the_table(tmp_path: Path, line: str) -> None:
    files = PanopticFiles(tmp_path, street())
    output = tmp_path / "out"
    script = str(ROOT / "pipelines/evaluate.py")
    assert run_in(tmp_path, line, script, *files.arguments("--output", str(output))) == 0
    assert json.loads((output / "evaluation.json").read_text())["all"]["pq"] > 0
    if line == ASCII:
        assert "PQ?" in (tmp_path / "text").read_text()


@pytest.mark.slow
def test_images_are_labelled_whoever_reads_the_progress(
    tmp_path: Path,
    weights: Path,  # noqa: F811
) -> None:
    for name in ("größe_日本", "b"):
        write_png(tmp_path / f"images/{name}.png", np.zeros((32, 48, 3), np.uint8))
    (tmp_path / "images/größe.png").write_bytes(b"no image")
    script = str(ROOT / "pipelines/predict.py")
    arguments = ["--weights", str(weights), "--images", "images", "--output", "out"]
    assert run_in(tmp_path, CLOSED, script, *arguments, "--device", "cpu") == 3
    assert len(json.loads((tmp_path / "out/panoptic.json").read_text())["images"]) == 2
    assert "failed: images/gr??e.png" in (tmp_path / "errors").read_text()
