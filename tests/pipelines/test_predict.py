"""The prediction command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from seamless_pr.id_maps.id_png_files import read_id_png
from seamless_pr.pipelines.predict import main
from seamless_pr.pipelines.stage import ExitCode
from tests.support.kills import listing
from tests.support.tiny_checkpoint import write_tiny_checkpoint

REPOSITORY = Path(__file__).parents[2]
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("run") / "best.safetensors")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """One image of each awkward kind."""
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.RandomState(0)
    kinds = {
        "colour.png": random.randint(0, 256, (64, 96, 3)).astype(np.uint8),
        "grey.png": random.randint(0, 256, (96, 64)).astype(np.uint8),
        "alpha.png": random.randint(0, 256, (70, 70, 4)).astype(np.uint8),
        "sixteen bit.png": random.randint(0, 65536, (64, 96, 3)).astype(np.uint16),
        "größe_日本.jpg": random.randint(0, 256, (40, 200, 3)).astype(np.uint8),
        "tiny.png": random.randint(0, 256, (1, 3, 3)).astype(np.uint8),
    }
    for name, pixels in kinds.items():
        (folder / name).write_bytes(cv2.imencode(Path(name).suffix, pixels)[1].tobytes())
    return folder


def run(weights: Path, images: Path, output: Path, *more: str) -> int:
    arguments = ["--weights", str(weights), "--images", str(images), "--output", str(output)]
    return main([*arguments, "--device", "cpu", *more])


def test_images_of_every_kind_are_labelled_and_a_second_run_does_nothing(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert run(weights, images, output, "--overlays", "--instances", "--batch-size", "2") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"6 images in {output / 'panoptic.json'}"
    result = json.loads((output / "panoptic.json").read_text(encoding="utf-8"))
    sizes = {image["id"]: (image["height"], image["width"]) for image in result["images"]}
    assert sizes == {
        "alpha": (70, 70),
        "colour": (64, 96),
        "grey": (96, 64),
        "größe_日本": (40, 200),
        "sixteen bit": (64, 96),
        "tiny": (1, 3),
    }
    assert (output / "overlays" / "größe_日本.jpg").is_file()
    assert isinstance(json.loads((output / "instances.json").read_text()), list)

    before = {path: path.stat().st_mtime_ns for path in output.glob("panoptic/*.png")}
    assert run(weights, images, output, "--overlays", "--instances") == 0
    assert "6 images are finished and skipped" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in output.glob("panoptic/*.png")}


def test_broken_image_gives_exit_code_3_and_the_last_line_says_why(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "broken\x1b[2J.jpg").write_bytes(b"\xff\xd8 not a picture")
    assert run(weights, images, tmp_path / "out") == 3
    said = capsys.readouterr()
    last_line = said.out.splitlines()[-1]
    assert "6 images in" in last_line
    assert "1 images failed, reasons in" in last_line
    # A terminal does what the letter says.
    assert "broken\\x1b[2J.jpg" in last_line
    assert "broken\\x1b[2J.jpg" in said.err
    assert "\x1b" not in said.out + said.err
    (error,) = (tmp_path / "out" / "errors.jsonl").read_text().splitlines()
    assert json.loads(error)["image_id"] == "broken\x1b[2J"


def test_mistakes_are_one_line_on_the_error_stream(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "no.safetensors", images, tmp_path / "out") == 1
    assert run(weights, tmp_path / "nothing", tmp_path / "out") == 1
    assert run(weights, images, images) == 1
    assert run(weights, images, tmp_path / "out", "model.fusion.size=huge") == 1
    errors = capsys.readouterr().err
    for part in ("no weights at", "no images at", "not a prediction folder", "model.fusion.size"):
        assert part in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


def test_ids_come_from_a_json_whose_classes_must_be_those_of_the_network(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ground_truth = tmp_path / "gt.json"
    listed = [{"id": 17, "file_name": "grey.png", "height": 96, "width": 64}]
    ground_truth.write_text(json.dumps({"images": listed}))
    assert run(weights, images, tmp_path / "out", "--image-ids", str(ground_truth)) == 0
    result = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    assert [annotation["image_id"] for annotation in result["annotations"]] == [17]

    apple = {"id": 1, "name": "apple", "isthing": 1, "supercategory": "", "color": [1, 2, 3]}
    ground_truth.write_text(json.dumps({"images": listed, "categories": [apple]}))
    assert run(weights, images, tmp_path / "other", "--image-ids", str(ground_truth)) == 1
    assert "categories differ, for example 1 (no class instead of thing 'apple')" in (
        capsys.readouterr().err
    )


def test_instance_categories_may_give_ids_unless_they_contradict_the_network(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = [{"id": 17, "file_name": "grey.png"}]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": listed, "categories": [{"id": 26, "name": "Car"}]}))
    assert run(weights, images, tmp_path / "out", "--image-ids", str(path)) == 0
    path.write_text(json.dumps({"images": listed, "categories": [{"id": 26, "name": "crate"}]}))
    assert run(weights, images, tmp_path / "other", "--image-ids", str(path)) == 1
    assert "category 26 is 'crate' (of no stated kind) here and 'car' (a thing) in" in (
        capsys.readouterr().err
    )


def test_several_views_and_several_networks_are_options(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, other = images / "colour.png", write_tiny_checkpoint(tmp_path / "other.safetensors", 1)
    pooled = ["--ensemble", "--ensemble-scores", "30", "31.5", "--scales", "0.5", "1", "--flip"]
    command = ["--weights", str(weights), str(other), "model.fusion.score_threshold=0.1"]
    command += ["--images", str(image), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*command, *pooled]) == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["ensemble_weights"] == [0.6, 1.0]
    for member in record["ensemble"]:
        assert member["views"] == [[0.5, False], [0.5, True], [1.0, False], [1.0, True]]
        assert member["overrides"] == ["model.fusion.score_threshold=0.1"]
    assert main([*command[:3], *command[4:], *pooled, "--ensemble-scores", "1"]) == 1
    assert "one validation score for each of its 2 networks; got 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(command)
    assert "several --weights need --ensemble" in capsys.readouterr().err


def test_networks_of_an_ensemble_for_other_classes_are_named(
    weights: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_tiny_checkpoint(tmp_path / "idd.safetensors", label_space="idd")
    both = ["--ensemble", "--weights", str(weights), str(other)]
    assert run(weights, images, tmp_path / "out", *both) == 1
    message = capsys.readouterr().err
    assert "idd.safetensors was trained on label space 'idd', but 'cityscapes' is wanted" in message


def test_script_explains_itself() -> None:
    command = [sys.executable, "pipelines/predict.py", "--help"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for part in ("--weights", "--images", "--overlays", "examples:", "exit codes:"):
        assert part in done.stdout


def test_tiles_of_a_small_image_are_the_image_and_of_a_larger_one_its_map(
    weights: Path, images: Path, tmp_path: Path
) -> None:
    for name in ("alpha", "grey", "größe_日本", "sixteen bit", "tiny"):
        next(images.glob(f"{name}.*")).unlink()
    whole, tiled, parts = (tmp_path / name for name in ("whole", "tiled", "parts"))
    assert run(weights, images, whole) == 0
    assert run(weights, images, tiled, "--tile", "128") == 0
    assert run(weights, images, parts, "--tile", "40", "--overlap", "8") == 0
    read = read_id_png(whole / "panoptic" / "colour.png")
    assert np.mean(read_id_png(tiled / "panoptic" / "colour.png") == read) > 0.99
    assert read_id_png(parts / "panoptic" / "colour.png").shape == read.shape
    settings = json.loads((parts / "run.json").read_text())
    assert (settings["tile_pixels"], settings["overlap_pixels"]) == (40, 8)
    assert run(weights, images, parts, "--tile", "128") == ExitCode.FAILED


@pytest.mark.parametrize(
    "options, message",
    [
        (("--threads", "0"), "--threads must be at least 1"),
        (("--batch-size", "-1"), "--batch-size must be at least 1"),
        (("--scales", "nan"), "--scales: must be a number; got nan"),
        (("--overlap", "5"), "give --tile, too"),
        (("--tile", "64", "--overlap", "64"), "from 0 to 63"),
        (("--tile", "64", "--semantic-pngs"), "leave out --semantic-pngs"),
    ],
)
def test_what_neither_networks_nor_tiles_can_do_is_refused(
    weights: Path,
    images: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run(weights, images, tmp_path / "out", *options)
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_two_predictions_into_one_folder_at_once_end_as_one(weights: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    random = np.random.default_rng(0)
    for index in range(12):
        cv2.imwrite(str(images / f"{index}.png"), random.integers(0, 256, (48, 64, 3), np.uint8))
    alone, both = tmp_path / "alone", tmp_path / "both"
    assert run(weights, images, alone, "--overlays") == 0
    others = [os.fork() for _ in range(2)]
    if 0 in others:
        os._exit(run(weights, images, both, "--overlays"))
    assert [os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) for other in others] == [0, 0]
    names = listing(alone)
    assert listing(both) == names
    assert len(names) > 3 * 12
    for name in names:
        if (alone / name).is_file() and "records" not in name and name != "run.json":
            assert (alone / name).read_bytes() == (both / name).read_bytes(), name


@pytest.mark.slow
def test_photographs_of_24_million_pixels_with_overlays_stay_below_3_gb(
    weights: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    # More than are in hand at a time.
    rows = np.linspace(0, 255, 4000, dtype=np.uint8)[:, None, None]
    for index in range(3):
        photo = np.broadcast_to(np.roll(rows, 500 * index), (4000, 6000, 3))
        cv2.imwrite(str(images / f"{index}.jpg"), photo)
    arguments = ["--weights", weights, "--images", images, "--output", tmp_path / "out"]
    command = [sys.executable, "pipelines/predict.py", *map(str, arguments), "--overlays"]
    # A child of this process would begin with this process's peak.
    run = subprocess.run(
        [sys.executable, "-c", PEAK, *command, "--device", "cpu"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 3
    assert 0.3e9 < int(run.stdout.splitlines()[-1]) * 1024 < 3e9
