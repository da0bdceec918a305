"""Tiles beside images that are seen whole, with the shipped network, and what mosaics need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from seamless_pr.build.predictor import load_predictor
from seamless_pr.inference.tile_grid import Tiling
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment
from tools.measure.mosaics import (
    LEAST,
    LESS_RIGHT,
    MARKS,
    MEAN,
    PAGE,
    RESULTS,
    WEIGHTS,
    agreement,
    main,
    measure_seams,
    section,
)

SPACE = LabelSpace(
    "two", (Category(1, "road", False, (1, 1, 1)), Category(2, "car", True, (2, 2, 2)))
)


def test_agreement_counts_pixels_of_one_class_and_objects_with_a_partner():
    def segmentation(ids: list[int], cars: int) -> PanopticSegmentation:
        id_map = torch.tensor([ids], dtype=torch.int32)
        areas = [ids.count(index) for index in range(1, cars + 2)]
        segments = tuple(
            Segment(index, int(index > 1), area, 0.9) for index, area in enumerate(areas, start=1)
        )
        return PanopticSegmentation(id_map, segments, SPACE)

    found = agreement(
        segmentation([1, 1, 2, 2, 3, 3, 3, 1], 2), segmentation([1, 1, 2, 1, 2, 2, 2, 1], 1)
    )
    # Of three objects two are partners: three of four pixels are the same.
    assert found == {"pixels": 7 / 8, "things": 2 / 3}


@pytest.mark.slow
def test_a_panorama_in_tiles_says_what_the_whole_one_says_within_the_stated_tolerance():
    predictor = load_predictor(WEIGHTS, "cpu")
    found = measure_seams(predictor, (256, 1024), Tiling(256, 64), 1)["least"]
    assert found["pixels"] >= LEAST["pixels"]
    assert found["things"] >= LEAST["things"]
    assert found["tiled_right"] >= found["whole_right"] - LESS_RIGHT


@pytest.mark.slow
def test_a_mosaic_is_drawn_labelled_and_measured(tmp_path: Path):
    pytest.importorskip("rasterio")
    path = tmp_path / "results.json"
    arguments = ["memory", "--side", "300", "--tile", "200", "--overlap", "50", "--json", str(path)]
    assert main(arguments) == 0
    found = json.loads(path.read_text())["memory"]
    assert found["side"] == 300
    assert found["num_segments"] > 3
    assert found["peak_bytes"] >= found["peak_bytes_before"] > 2**20


def test_what_was_measured_of_panoramas_is_within_the_tolerance():
    stored = json.loads(RESULTS.read_text())["seams"]
    for limits, found in ((LEAST, stored["least"]), (MEAN, stored["mean"])):
        assert all(found[key] >= limit for key, limit in limits.items())
    # Wider than the network was trained on: tiles are right more often than the whole.
    assert stored["mean"]["tiled_right"] >= stored["mean"]["whole_right"] - LESS_RIGHT


def test_the_page_says_what_is_stored():
    page = PAGE.read_text(encoding="utf-8")
    begin, end = MARKS
    stored = page[page.index(begin) + len(begin) : page.index(end)].strip()
    assert stored == section(json.loads(RESULTS.read_text()))


def test_memory_is_said_in_gib_and_time_in_minutes():
    memory = {"side": 20_000, "tile": 1024, "peak_bytes": 3 << 30, "seconds": 1800}
    for how, end in (
        ({"threads": 2, "amp": "none"}, "2 threads."),
        ({"threads": 1, "amp": "bf16"}, "1 thread in bf16."),
    ):
        assert section({"memory": memory | how}) == (
            "A drawn mosaic of 20,000 x 20,000 in tiles of 1024: at most 3.00 GiB of memory, "
            f"30 minutes on {end}"
        )
