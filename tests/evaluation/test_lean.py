"""What scoring COCO files may import: its start-up time and memory are part of its speed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.evaluation.files import PanopticFiles, street

ROOT = Path(__file__).parents[2]
HEAVY = (
    *("torch", "numba", "cv2", "PIL", "scipy", "matplotlib", "jinja2", "ray", "pycocotools"),
    # Small, and yet as long in loading as several pairs take.
    *("numpy.ma", "numpy.random", "asyncio", "concurrent.futures", "multiprocessing", "email"),
)


@pytest.mark.slow
def test_scoring_coco_files_imports_nothing_heavy(tmp_path: Path) -> None:
    files = PanopticFiles(tmp_path, street())
    arguments = files.arguments("--output", str(tmp_path / "out"))
    code = (
        "import sys\n"
        "from seamless_pr.pipelines.evaluate import main\n"
        f"status = main({arguments!r})\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
        "sys.exit(status)\n"
    )
    for _ in range(2):  # the first one may have to compile
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
    assert done.stderr.splitlines()[-1] == "[]"
    assert (tmp_path / "out" / "evaluation.json").is_file()
