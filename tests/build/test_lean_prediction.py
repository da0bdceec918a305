"""What a prediction may import: machines with GPUs are slow to set up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tiny_checkpoint import write_tiny_checkpoint

ROOT = Path(__file__).parents[2]
NEEDLESS = ("numba", "llvmlite", "pycocotools", "ray", "transformers", "detectron2")
CODE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {needless}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
import numpy as np
from seamless_pr.build.predictor import load_predictor
import seamless_pr.inference.folders
segmentation = load_predictor(sys.argv[1], "cpu")(np.zeros((64, 96, 3), np.uint8))
print(*segmentation.image_size)
"""


@pytest.mark.slow
def test_a_prediction_needs_neither_compilers_nor_clusters(tmp_path: Path) -> None:
    weights = write_tiny_checkpoint(tmp_path / "best.safetensors")
    code = CODE.replace("{needless}", repr(NEEDLESS))
    command = [sys.executable, "-c", code, str(weights)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["64", "96"], done.stderr
