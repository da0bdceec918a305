"""Prediction over Ray Data: the folder of one process, whatever dies on the way."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines import predict
from pipelines.ray_prediction import actor_resources, num_blocks
from tests.support.panoptic_files import write_png
from tests.support.processes import kill_all, kill_one, wait_until
from tests.support.tiny_checkpoint import write_tiny_checkpoint

ROOT = Path(__file__).resolve().parents[2]
NUM_IMAGES = 40
SECONDS = 900


def environment() -> dict[str, str]:
    free = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return {**free, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}


def options(**changes: object) -> argparse.Namespace:
    values = {"workers": None, "cpus_per_worker": 1, "threads": 2, "device": None, **changes}
    return argparse.Namespace(**values)


def test_a_network_gets_a_gpu_with_cores_for_its_threads_or_cores_alone() -> None:
    gpus = {"CPU": 96.0, "GPU": 8.0}
    assert actor_resources(options(), gpus) == (8, {"num_gpus": 1, "num_cpus": 4})
    assert actor_resources(options(threads=20), gpus) == (8, {"num_gpus": 1, "num_cpus": 12})
    assert actor_resources(options(device="cpu", cpus_per_worker=8), gpus) == (12, {"num_cpus": 8})
    assert actor_resources(options(cpus_per_worker=2), {"CPU": 1.0}) == (1, {"num_cpus": 2})
    assert actor_resources(options(workers=3), {"CPU": 2.0}) == (3, {"num_cpus": 1})


def test_blocks_are_small_enough_for_progress_and_never_empty() -> None:
    assert num_blocks(3, 2) == 3
    assert num_blocks(100, 2) == 8
    assert num_blocks(64_000, 8) == 2000
    assert num_blocks(64_000, 8, largest=256) == 250


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments of a prediction of two sizes of images in sub-folders, two of them no images.

    The folder is given as a URI, as of a bucket.
    """
    folder = tmp_path_factory.mktemp("job")
    rng = np.random.default_rng(0)
    for index in range(NUM_IMAGES):
        size = (96, 192) if index % 3 else (128, 160)
        path = folder / "images" / f"city_{index % 2}" / f"{index}.png"
        write_png(path, rng.integers(0, 256, (*size, 3)).astype(np.uint8))
    for index in (7, 30):
        path = folder / "images" / f"city_{index % 2}" / f"{index}.png"
        path.write_bytes(path.read_bytes()[: 40 if index == 7 else 0])
    weights = write_tiny_checkpoint(folder / "weights.safetensors")
    return ["--weights", str(weights), "--images", (folder / "images").as_uri(), "--instances"]


@pytest.fixture(scope="module")
def alone(job: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a plain run."""
    output = tmp_path_factory.mktemp("alone") / "out"
    command = [sys.executable, "pipelines/predict.py", *job, "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), check=False)
    assert done.returncode == predict.EXIT_SOME_FAILED
    return output


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def times_of_finished(folder: Path) -> dict[str, int]:
    """When each image got its result; an image that failed has none."""
    records = (folder / "records").rglob("*.json")
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in records
        if "error" not in json.loads(path.read_text())
    }


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_that_loses_a_worker_and_then_everything_ends_with_the_folder_of_a_plain_run(
    job: list[str], alone: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "pipelines/predict.py", *job, "--output", str(output)]
    command += ["--ray", "--workers", "2"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment())

    def finished() -> int:
        return len(list((output / "records").rglob("*.json")))

    def has(number: int) -> bool:
        return finished() >= number or process.poll() is not None

    wait_until(lambda: has(4), SECONDS, "the first images")
    assert kill_one(process.pid, "LabelImages") is not None
    wait_until(lambda: has(10), SECONDS, "more images")
    kill_all(process.pid)
    process.wait()
    # An image under way is finished in the second run; none is left in parts.
    assert not (output / "panoptic.json").exists()
    first = times_of_finished(output)
    assert 8 <= len(first) < NUM_IMAGES - 2

    again = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert again.returncode == predict.EXIT_SOME_FAILED, again.stderr
    assert "images are finished and skipped" in again.stdout
    # No image was labelled twice.
    second = times_of_finished(output)
    assert {name: second.get(name) for name in first} == first
    assert len(second) == NUM_IMAGES - 2
    ours, theirs = contents(output), contents(alone)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    errors = [json.loads(line) for line in (output / "errors.jsonl").read_text().splitlines()]
    assert sorted(error["image_id"] for error in errors) == ["city_0/30", "city_1/7"]
    assert len(json.loads((output / "panoptic.json").read_text())["images"]) == NUM_IMAGES - 2
