"""The measurement for GPUs, tried on a processor at a tiny size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tools.measure import gpu as tool
from tools.measure.gpu_timing import Case

ROOT = Path(__file__).parents[3]
SMALL = [
    "model.backbone.name=resnet18",
    "model.neck.channels=16",
    "model.instances.rpn.pre_nms_test=50",
    "model.instances.rpn.post_nms_test=10",
    "model.instances.box.max_detections=5",
    "model.instances.box.hidden_channels=16",
    "model.semantics.hidden_channels=8",
]
CPU = torch.device("cpu")


def result(device: str = "cpu") -> dict:
    row = {"config": tool.NETWORKS["Seamless"], "batch_size": 8, "way": "CUDA graph"}
    row |= {"arithmetic": "bf16", "images_per_second": 62.0, "peak_bytes": 21e9}
    return {
        "size": [1024, 2048],
        "device": device,
        "torch": "2.15",
        "rounds": 10,
        "matrix_rates": {"bf16": 350e12},
        "stage_seconds": {tool.NETWORKS["Seamless"]: {"trunk": 0.004, "fusion": 0.0009}},
        "training": [{"norm": "inplace_abn", "batch_size": 2, "seconds": 0.25, "peak_bytes": 11e9}],
        "predictions": [row | {"share_of_peak": 0.11}],
        "left_out": [],
        "tests": {"outcome": "12 passed"},
    }


@pytest.mark.slow
def test_every_number_is_measured_on_a_processor_at_a_tiny_size(monkeypatch) -> None:
    monkeypatch.setattr(tool, "BATCH_SIZES", (1,))
    # One network, for speed alone.
    monkeypatch.setattr(tool, "NETWORKS", {"Seamless": tool.NETWORKS["Seamless + PointRend"]})
    # Compiling takes minutes; a run without that much time leaves it out.
    found = tool.measure(
        CPU, (64, 128), tool.Allowance(90), rounds=1, overrides=SMALL, matrix_side=64
    )
    names = {(row["config"], row["way"], row["arithmetic"]) for row in found["predictions"]}
    config = tool.NETWORKS["Seamless"]
    assert names == {(config, "eager", kind) for kind in ("bf16", "fp32")}
    assert all(row["images_per_second"] > 0 for row in found["predictions"])
    assert {row[2] for row in found["left_out"]} == {"compiled"}
    assert [row["norm"] for row in found["training"]] == ["inplace_abn", "batch_norm"]
    stages = found["stage_seconds"][config]
    assert list(stages) == ["trunk", "instances", "semantics", "fusion"]
    assert "Left out for want of time: 2 cases" in tool.section(found | {"tests": {"outcome": ""}})


def test_a_gpu_is_asked_for_the_best_cases_first() -> None:
    wanted = list(tool.cases(torch.device("cuda")))
    assert wanted[0] == Case(tool.NETWORKS["Seamless"], 1, "CUDA graph", "bf16")
    assert len(wanted) == len(set(wanted)) == 3 * 3 * 2 * 2
    assert wanted[-1].way == "compiled"


def test_an_allowance_runs_out() -> None:
    times = iter([10.0, 12.0, 21.0])
    allowance = tool.Allowance(10, lambda: next(times))
    assert [allowance.left(), allowance.left()] == [8, -1]


def test_the_page_takes_the_section() -> None:
    text = tool.section(result())
    assert "| Seamless | 8 | CUDA graph | bf16 | 62.0 | 11% | 21.0 |" in text
    assert "| Seamless | 4.0 | 0.9 |" in text
    page = tool.PAGE.read_text(encoding="utf-8")
    assert text in tool.replaced(page, text, tool.MARKS)


def test_all_tests_for_gpus_lie_where_the_command_looks_for_them() -> None:
    mark = "mark." + "gpu"
    files = [path for path in (ROOT / "tests").rglob("*.py") if mark in path.read_text("utf-8")]
    folders = [ROOT / folder for folder in tool.TESTS]
    assert len(files) > 1
    assert all(any(path.is_relative_to(folder) for folder in folders) for path in files)


def test_without_a_gpu_the_command_says_what_can_be_done(capsys, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        tool.main([])
    assert "--device cpu" in capsys.readouterr().err


def test_prediction_needs_neither_ray_nor_numba_nor_pycocotools() -> None:
    code = (
        "import sys, tools.measure.gpu, seamless_pr.inference.exported;"
        "print(sorted({'ray', 'numba', 'pycocotools', 'scipy'} & sys.modules.keys()))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
