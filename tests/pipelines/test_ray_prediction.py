"""Prediction over Ray Data: the folder of one process, whatever dies on the way."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.inference.folders import ImageOutcome, LabelledImage
from seamless_pr.inference.image_list import ImageItem
from seamless_pr.ops.masks import BoxMasks
from seamless_pr.pipelines import predict, ray_prediction, ray_tiles
from seamless_pr.pipelines.ray_prediction import network_resources, num_blocks
from seamless_pr.pipelines.ray_stages import packed, unpacked
from seamless_pr.pipelines.stage import ExitCode
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment
from tests.support.panoptic_files import write_png
from tests.support.processes import kill_all, kill_one, wait_until
from tests.support.ray_variables import RAY_VARIABLES
from tests.support.tiny_checkpoint import write_tiny_checkpoint

ROOT = Path(__file__).resolve().parents[2]
NUM_IMAGES = 40
SECONDS = 900


def environment() -> dict[str, str]:
    free = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return {**free, **RAY_VARIABLES, "OMP_NUM_THREADS": "1"}


def options(**changes: object) -> argparse.Namespace:
    values = {"workers": None, "cpus_per_worker": 1, "threads": 2, "device": None, **changes}
    return argparse.Namespace(**values)


def test_a_network_gets_a_gpu_and_no_core_or_cores_alone() -> None:
    gpus = {"CPU": 96.0, "GPU": 8.0}
    assert network_resources(options(), gpus) == (8, {"num_gpus": 1, "num_cpus": 0})
    assert network_resources(options(workers=2), gpus) == (2, {"num_gpus": 1, "num_cpus": 0})
    on_cpu = options(device="cpu", cpus_per_worker=8)
    assert network_resources(on_cpu, gpus) == (12, {"num_cpus": 8})
    assert network_resources(options(cpus_per_worker=2), {"CPU": 1.0}) == (1, {"num_cpus": 2})
    assert network_resources(options(workers=3), {"CPU": 2.0}) == (3, {"num_cpus": 1})


def test_blocks_are_small_enough_for_progress_and_never_empty() -> None:
    assert num_blocks(3, 2) == 3
    assert num_blocks(100, 2) == 8
    assert num_blocks(64_000, 8) == 2000


def test_pixels_travel_unchanged_and_maps_in_few_bytes() -> None:
    ids = torch.randint(0, 200, (64, 128), dtype=torch.int32)
    space = load_label_space("cityscapes")
    segments = tuple(Segment(number, number % 19, 1, 0.1 * number) for number in range(1, 200))
    scores, boxes = torch.rand(3), torch.rand(3, 4)
    labelled = LabelledImage(
        ImageItem(Path("a.png"), 7, "a"),
        PanopticSegmentation(ids, segments, space),
        Instances(scores, torch.arange(3), boxes, BoxMasks(torch.rand(3, 28, 28), boxes)),
        None,
    )
    batch = packed([labelled, ImageOutcome(labelled.item, "broken")])
    assert len(batch["image"][0]) < ids.numel() + 40_000
    found, failed = unpacked(batch)
    assert failed == ImageOutcome(labelled.item, "broken")
    assert found.item == labelled.item
    assert found.segmentation.id_map.dtype == torch.int32
    assert torch.equal(found.segmentation.id_map, ids)
    assert found.segmentation.segments == segments
    assert torch.equal(found.instances.scores, scores)
    assert torch.equal(found.instances.masks.logits, labelled.instances.masks.logits)


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
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # As in the processes of the other runs.
    ending = predict.main([*job, "--output", str(output), "--device", "cpu"])
    torch.set_num_threads(num_threads)
    assert ending == ExitCode.SOME_FAILED
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


ON_CPUS = ["pipelines/predict.py", "--ray", "--workers", "2"]
# Two networks, readers and writers.
ON_GPUS = ["-m", "tests.support.predict_on_gpus", "2"]


@pytest.mark.parametrize("more", [[], ["--tile", "64"]], ids=["images", "tiles"])
def test_a_gpu_that_nobody_has_is_refused_before_any_network_starts(
    more: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # As a cluster of this machine, if it has no GPU.
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    for module in (ray_prediction, ray_tiles):
        monkeypatch.setattr(module, "ray_cluster", lambda **_: nullcontext())
    weights = write_tiny_checkpoint(tmp_path / "weights.safetensors")
    write_png(tmp_path / "image.png", np.zeros((48, 64, 3), np.uint8))
    words = ["--weights", str(weights), "--images", str(tmp_path / "image.png"), *more]
    words += ["--output", str(tmp_path / "out"), "--ray", "--device", "cuda"]
    assert predict.main(words) == ExitCode.FAILED
    assert "Ray finds none on this machine; leave --device out" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "victims"),
    [
        (ON_CPUS, ["LabelFiles"]),
        (ON_GPUS, ["LabelImages", "read_files", "write_files"]),
    ],
    ids=["cpus", "gpus"],
)
def test_a_run_that_loses_workers_and_then_everything_ends_with_the_folder_of_a_plain_run(
    job: list[str], alone: Path, tmp_path: Path, program: list[str], victims: list[str]
) -> None:
    output = tmp_path / "out"
    command = [sys.executable, *program, *job, "--output", str(output)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment())

    def finished() -> int:
        return len(list((output / "records").rglob("*.json")))

    def has(number: int) -> bool:
        return finished() >= number or process.poll() is not None

    wait_until(lambda: has(4), SECONDS, "the first images")
    # A task may have just ended; an actor is always there.
    killed = [kill_one(process.pid, victim) for victim in victims]
    assert killed[0] is not None
    wait_until(lambda: has(10), SECONDS, "more images")
    kill_all(process.pid)
    process.wait()
    # An image under way is finished in the second run; none is left in parts.
    assert not (output / "panoptic.json").exists()
    first = times_of_finished(output)
    assert 8 <= len(first) < NUM_IMAGES - 2

    again = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert again.returncode == ExitCode.SOME_FAILED, again.stderr
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


@pytest.mark.ray
@pytest.mark.slow
def test_tiles_of_one_image_over_networks_make_the_map_of_a_plain_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = write_tiny_checkpoint(tmp_path / "best.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (90, 150, 3)).astype(np.uint8)
    write_png(tmp_path / "mosaic.png", pixels)
    outputs = []
    with monkeypatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        for name, value in RAY_VARIABLES.items():
            patch.setenv(name, value)
        for name, more in (("alone", []), ("cluster", ["--ray", "--workers", "2"])):
            output = tmp_path / name
            words = ["--weights", str(weights), *more, "--tile", "64", "--overlap", "16"]
            words += ["--images", str(tmp_path / "mosaic.png"), "--output", str(output)]
            assert predict.main([*words, "--device", "cpu"]) == ExitCode.DONE
            outputs.append(contents(output))
    assert outputs[0] == outputs[1]
