"""What went into the golden numbers can be made again: see tests/golden/seamseg/README.md."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.golden import GOLDEN_FOLDER
from tests.support.golden_network import (
    BATCH_NORM_CASE,
    INFERENCE_CASES,
    TRAINING_CASE,
    GoldenCase,
)
from tests.support.seamseg_images import drawn_image

VOID_COLUMNS, NUM_BANDS = 3, 4
# Of the first image of the batch: rows and columns of the five objects, each on top of the former.
OBJECTS = ((30, 42, 168, 173), (84, 89, 187, 207), (27, 84, 173, 216), (69, 126, 70, 112))
CROWD = (34, 77, 119, 160)


@pytest.mark.parametrize(
    "case", [*INFERENCE_CASES, TRAINING_CASE, BATCH_NORM_CASE], ids=lambda case: case.name
)
def test_images_are_drawn_from_ten_times_the_seed_of_the_weights(case: GoldenCase) -> None:
    with np.load(GOLDEN_FOLDER / f"seamseg/{case.name}.npz") as arrays:
        images = [arrays[f"img{i}"] for i in range(2) if f"img{i}" in arrays]
    for index, image in enumerate(images):
        made = drawn_image(10 * case.seed + index, *image.shape[:2])
        assert np.array_equal(made, image)


def test_labels_of_the_batch_are_bands_and_rectangles() -> None:
    with np.load(GOLDEN_FOLDER / f"seamseg/{BATCH_NORM_CASE.name}.npz") as arrays:
        first, second = arrays["msk0"], arrays["msk1"]
        crowd = np.flatnonzero(arrays["iscrowd0"]).tolist()
    for id_map in (first, second):
        bands = np.arange(len(id_map)) * NUM_BANDS // len(id_map) + 1
        expected = np.repeat(bands[:, None], id_map.shape[1], axis=1)
        expected[:, :VOID_COLUMNS] = 0
        if id_map is first:
            for segment_id, box in enumerate((*OBJECTS, CROWD), start=NUM_BANDS + 1):
                top, bottom, left, right = box
                expected[top:bottom, left:right] = segment_id
        assert np.array_equal(expected, id_map)
    assert crowd == [NUM_BANDS + 5]
