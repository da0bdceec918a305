"""Magnified places of images with their maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from seamless_pr.build.configs import load_config
from seamless_pr.build.runs import build_images, build_label_space
from seamless_pr.datasets.loader import PanopticImages
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment
from tests.support.tiny_run import tiny_run_values, write_tiny_data
from tools.measure.zoom_sheet import (
    TRUTH,
    as_segmentation,
    differing_places,
    draw_place,
    draw_sheet,
    magnify,
    main,
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_tiny_data(tmp_path / "data")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tiny_run_values(tmp_path / "data")))
    return path


@pytest.fixture
def images(config: Path) -> PanopticImages:
    values = load_config(config)
    return build_images(values, build_label_space(values), is_training=False)


def test_each_pixel_becomes_a_square():
    values = torch.tensor([[1, 2], [3, 4]])
    assert magnify(values, 2).tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]


def test_the_truth_has_the_areas_of_its_map(images: PanopticImages):
    target = images[1][1]
    found = as_segmentation(target)
    for segment in found.segments:
        assert segment.area == int((target.id_map == segment.segment_id).sum())
    assert sum(s.area for s in found.segments) == int((target.id_map > 0).sum()) > 0


def test_panels_show_the_window_and_nothing_else(images: PanopticImages):
    image, target = images[0]
    panels = draw_place(image, {TRUTH: as_segmentation(target)}, (4, 6), (10, 20), zoom=3)
    assert {title: panel.shape for title, panel in panels.items()} == {
        "image": (30, 60, 3),
        TRUTH: (30, 60, 3),
    }
    window = image[:, 4:14, 6:26].permute(1, 2, 0).numpy()
    assert np.array_equal(panels["image"][1::3, 1::3], window)


def test_a_sheet_has_a_row_for_each_place(images: PanopticImages):
    one = draw_sheet(images, {}, [("val_0", 0, 0)], (16, 16), zoom=4)
    two = draw_sheet(images, {}, [("val_0", 0, 0), ("val_1", 8, 8)], (16, 16), zoom=4)
    assert two.shape == (2 * one.shape[0], *one.shape[1:])
    assert np.array_equal(two[: len(one)], one)


def test_places_differ_most_first_and_one_an_image(images: PanopticImages):
    space = images[0][1].label_space

    def painted(*corners: tuple[int, int, int]) -> Any:
        """Sky, with a square of road of a side at (top, left) in the last image."""

        def predict(image: torch.Tensor) -> PanopticSegmentation:
            ids = torch.ones(image.shape[1:], dtype=torch.int32)
            is_last = image.equal(images[len(images) - 1][0])
            for top, left, side in corners if is_last else ():
                ids[top : top + side, left : left + side] = 2
            segments = (Segment(1, 0, int((ids == 1).sum())), Segment(2, 1, int((ids == 2).sum())))
            return PanopticSegmentation(ids, segments, space)

        return predict

    last = images.annotations[len(images) - 1].image_id
    found = differing_places(images, painted(), painted((0, 0, 4), (17, 34, 8)), (16, 16), 3)
    assert found == [(last, 16, 32)]
    assert differing_places(images, painted((9, 9, 2)), painted((9, 9, 2)), (16, 16), 3) == []


@pytest.mark.parametrize(
    "place, message",
    [(("none", 0, 0), "no image 'none'; there are val_0"), (("val_0", 40, 0), "leaves the image")],
)
def test_a_place_that_is_not_there_is_named(
    images: PanopticImages, place: tuple[str, int, int], message: str
):
    with pytest.raises(ValueError, match=message):
        draw_sheet(images, {}, [place], (16, 16), zoom=4)


def test_missing_weights_end_with_a_message(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["--config", str(config), "--place", "val_0", "0", "0", "--output", "a.png"]
    assert main([f"a={tmp_path / 'none'}", *arguments]) == 1
    assert "no weights at" in capsys.readouterr().err
