"""The sheet of drawn scenes in the README."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.street_scenes.dataset import draw_street_scene
from tools.measure.contact_sheet import OUTPUT, ground_truth, main

MAX_BYTES = 1_500_000


def test_ground_truth_holds_evaluated_classes_only_and_marks_crowd():
    label_space = load_label_space("cityscapes")
    for index in range(4):
        scene = draw_street_scene(0, "train", index, (128, 256))
        truth = ground_truth(scene, label_space)
        for segment in truth.segments:
            is_thing = label_space.is_thing(segment.train_id)
            assert segment.is_crowd == (is_thing and segment.segment_id < 1000)
            assert segment.area == int((truth.id_map == segment.segment_id).sum())
        is_void = truth.id_map.numpy() == 0
        evaluated = [category.category_id for category in label_space.categories]
        assert np.array_equal(is_void, ~np.isin(scene.label_ids, evaluated))


def test_the_sheet_has_a_pair_for_each_scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = tmp_path / "sheet.png"
    main(["--output", str(output), "--size", "64x128", "--width", "100", "--columns", "2",
          "0", "1", "2"])  # fmt: skip
    sheet = cv2.imread(str(output))
    assert sheet is not None
    assert sheet.shape == (2 * 50 + 6, 2 * 202 + 6, 3)
    assert str(output) in capsys.readouterr().out


def test_the_sheet_of_the_readme_is_small_enough():
    assert 0 < OUTPUT.stat().st_size < MAX_BYTES


def test_a_network_adds_its_map(tmp_path: Path):
    output = tmp_path / "sheet.png"
    weights = OUTPUT.parents[2] / "checkpoints" / "street_scenes_256x512.safetensors"
    main(["--output", str(output), "--size", "64x128", "--width", "100", "--columns", "1",
          "--weights", str(weights), "0"])  # fmt: skip
    sheet = cv2.imread(str(output))
    assert sheet is not None
    assert sheet.shape == (50, 304, 3)
