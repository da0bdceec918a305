"""`export network`: graphs that other programs load, against the network itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from seamless_pr.build.predictor import load_predictor
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.inference.exported import ClassMap, segmentations
from seamless_pr.pipelines import network_export
from seamless_pr.pipelines.export import main
from seamless_pr.street_scenes.dataset import draw_street_scene
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment
from tests.support.golden import EVERY_GOLDEN_CASE

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "street_scenes_256x512.safetensors"
SIZE = (96, 192)
COMMAND = ["network", "--weights", str(CHECKPOINT), "--size", "96x192"]
# For speed alone.
FEW = [
    *("model.instances.rpn.pre_nms_test=100", "model.instances.rpn.post_nms_test=30"),
    *("model.instances.box.max_detections=10", "model.instances.points.output_size=56"),
    "model.semantics.points.subdivision_points=512",
]
# Between classes or masks whose numbers are equal but for rounding.
TIED_PIXELS = 3
# What a program does that has torch and nothing of this package.
LOADER = """
import json, sys
import numpy, torch
extra = {"network.json": ""}
graph = torch.export.load(sys.argv[1], extra_files=extra).module()
description = json.loads(extra["network.json"])
found = graph(torch.from_numpy(numpy.load(sys.argv[2])))
assert "seamless_pr" not in sys.modules
numpy.savez(sys.argv[3], **dict(zip(description["outputs"], (value.numpy() for value in found))))
"""


def drawn_pixels(count: int) -> np.ndarray:
    images = [draw_street_scene(0, "val", index, SIZE).image for index in range(count)]
    return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))


@pytest.mark.slow
def test_other_programs_label_images_with_a_graph_as_this_package_does(tmp_path: Path) -> None:
    output = ["--output", str(tmp_path / "graph")]
    # A graph of ONNX takes a minute more.
    formats = ["program", "onnx"] if EVERY_GOLDEN_CASE else ["program"]
    options = ["--formats", *formats, "--rounds", "1"]
    assert main([*COMMAND, *output, *options, *FEW]) == 0
    description = json.loads((tmp_path / "graph" / "network.json").read_text(encoding="utf-8"))
    for form in formats:
        assert description["checks"][form]["changed_pixels"] <= TIED_PIXELS / (SIZE[0] * SIZE[1])
        assert description["checks"][form]["score_difference"] < 1e-4
    pixels = drawn_pixels(1)
    np.save(tmp_path / "pixels.npy", pixels)
    files = [tmp_path / "graph" / "network.pt2", tmp_path / "pixels.npy", tmp_path / "found.npz"]
    # Isolated: neither this folder nor an editable installation is on the path.
    command = [sys.executable, "-I", "-c", LOADER, *map(str, files)]
    subprocess.run(command, check=True, cwd=tmp_path)
    found = np.load(tmp_path / "found.npz")
    predictor = load_predictor(CHECKPOINT, "cpu", overrides=FEW)
    images = [torch.from_numpy(image) for image in pixels]
    for index, prediction in enumerate(predictor.predict_resized(images, [SIZE])):
        segmentation = prediction.require_panoptic()
        assert found["settled"][index]
        moved_pixels = found["id_map"][index] != segmentation.id_map.numpy()
        assert moved_pixels.sum() <= TIED_PIXELS
        segments = [(s.segment_id, s.train_id) for s in segmentation.segments]
        is_there = found["segment_ids"][index] > 0
        columns = (found[name][index][is_there].tolist() for name in ("segment_ids", "train_ids"))
        assert list(zip(*columns, strict=True)) == segments
        areas = np.bincount(found["id_map"][index].ravel(), minlength=len(is_there) + 1)
        assert np.array_equal(
            found["areas"][index][is_there], areas[found["segment_ids"][index][is_there]]
        )
        assert len(segments) > 8


def test_the_dense_part_says_the_class_of_every_pixel() -> None:
    predictor = load_predictor(CHECKPOINT, "cpu", overrides=FEW, batch_size=2)
    pixels = torch.from_numpy(drawn_pixels(2))
    with torch.no_grad():
        class_maps = ClassMap(predictor.network).eval()(pixels)
    (outputs,) = segmentations([class_maps[:1]], predictor.label_space)
    for found, prediction in zip(
        class_maps, predictor.predict_resized(list(pixels), [SIZE] * 2), strict=True
    ):
        assert int((found != prediction.semantic_map).sum()) <= TIED_PIXELS
    assert torch.equal(outputs.semantic_map(), class_maps[0].long())
    assert sum(segment.area for segment in outputs.segments) == class_maps[0].numel()


def test_a_picture_of_another_size_is_refused_with_its_name(tmp_path: Path, capsys) -> None:
    picture = Path(__file__).parents[2] / "docs" / "images" / "result.png"
    output = ["--output", str(tmp_path / "graph")]
    assert main([*COMMAND, *output, "--image", str(picture)]) == 1
    message = capsys.readouterr().err
    assert str(picture) in message
    assert "96x192" in message
    assert not (tmp_path / "graph").exists()


def test_a_folder_of_anything_else_is_never_replaced(tmp_path: Path, capsys) -> None:
    (tmp_path / "work.txt").write_text("of years")
    (tmp_path / "network.pt2").write_text("of an earlier export")
    assert main([*COMMAND, "--output", str(tmp_path)]) == 1
    assert f"{tmp_path} holds files that are no export" in capsys.readouterr().err
    assert (tmp_path / "work.txt").read_text() == "of years"


@pytest.mark.parametrize(
    "options", [["--size", "100000x100000"], ["--rounds", "0"], ["--batch-size", "0"]]
)
def test_numbers_that_no_machine_bears_are_refused(tmp_path: Path, options: list[str]) -> None:
    with pytest.raises(SystemExit):
        main([*COMMAND, "--output", str(tmp_path / "graph"), *options])


def test_sixteen_bits_are_refused_for_onnx(tmp_path: Path, capsys) -> None:
    output = ["--output", str(tmp_path / "graph")]
    with pytest.raises(SystemExit):
        main([*COMMAND, *output, "--formats", "program", "onnx", "--amp", "bf16"])
    assert "--amp changes program and compiled" in capsys.readouterr().err


def panoptic(rows: list[list[int]], *segments: tuple[int, int, float]) -> PanopticSegmentation:
    id_map = torch.tensor(rows, dtype=torch.int32)
    found = tuple(Segment(number, train_id, 1, score) for number, train_id, score in segments)
    return PanopticSegmentation(id_map, found, load_label_space("cityscapes"))


def test_maps_are_compared_whatever_the_numbers_of_their_segments() -> None:
    expected = panoptic([[1, 1, 1, 2], [0, 0, 3, 3]], (1, 5, 0.9), (2, 11, 0.8), (3, 7, 0.7))
    renamed = panoptic([[4, 4, 4, 1], [0, 0, 2, 2]], (4, 5, 0.9), (1, 11, 0.5), (2, 7, 0.7))
    found = network_export._differences([renamed], [expected])
    assert found == {"changed_pixels": 0, "score_difference": pytest.approx(0.3)}
    # A pixel more here, half an object there, and another class.
    other = panoptic([[1, 1, 1, 2], [1, 0, 3, 0]], (1, 5, 0.9), (2, 12, 0.8), (3, 7, 0.1))
    found = network_export._differences([other], [expected])
    assert found == {"changed_pixels": 4 / 8, "score_difference": 0}
