from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from seamless_pr.datasets.run_lengths import check_run_lengths, read_run_lengths


def _compressed(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def _listed(mask: np.ndarray) -> dict[str, Any]:
    pixels = mask.T.ravel().astype(int)
    changes = np.flatnonzero(np.diff(np.concatenate([[0], pixels])))
    edges = np.concatenate([[0], changes, [pixels.size]])
    return {"size": list(mask.shape), "counts": np.diff(edges).tolist()}


@pytest.mark.parametrize("seed", range(30))
def test_sound_run_lengths_give_the_mask_in_both_forms(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 90, 2)
    mask = np.kron(rng.random(size) < rng.choice([0.02, 0.5, 0.98]), np.ones((1, 3))).astype(bool)
    if seed == 0:
        mask[:] = False
    for run_lengths in (_compressed(mask), _listed(mask)):
        assert np.array_equal(coco_mask.decode(check_run_lengths(run_lengths)), mask)
        assert np.array_equal(read_run_lengths(run_lengths).mask(), mask)


def test_long_runs_are_read() -> None:
    mask = np.zeros((3000, 2000), bool)
    mask[1000:1010, 1990] = True
    assert int(coco_mask.area(check_run_lengths(_compressed(mask)))) == 10


@pytest.mark.parametrize("seed", range(5))
def test_cut_or_changed_texts_are_refused_or_cover_the_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sound = _compressed(rng.random((20, 30)) < 0.3)
    text = sound["counts"]
    refused = 0
    for _ in range(300):
        letters = list(text[: int(rng.integers(0, len(text) + 1))])
        for place in rng.integers(0, max(len(letters), 1), 2):
            if letters:
                letters[place] = chr(int(rng.integers(1, 127)))
        changed = "".join(letters)
        try:
            taken = check_run_lengths({**sound, "counts": changed})
        except ValueError:
            refused += 1
        else:
            assert coco_mask.decode(taken).shape == (20, 30)
    assert refused > 250


GOOD = {"size": [2, 3], "counts": [1, 2, 3]}


@pytest.mark.parametrize(
    "segmentation, message",
    [
        (None, "must be run lengths: an object"),
        ([[0, 0, 1, 1]], "must be run lengths: an object"),
        ({"size": [2, 3]}, "must be run lengths: an object"),
        ({**GOOD, "size": [3, 3]}, "the run lengths cover 6 pixels; the mask has 3x3, 9"),
        ({**GOOD, "counts": [1, 2]}, "the run lengths cover 3 pixels; the mask has 2x3, 6"),
        ({**GOOD, "counts": []}, "the run lengths cover 0 pixels"),
        ({**GOOD, "counts": [8, -2]}, "a run length is negative: -2"),
        ({**GOOD, "counts": [1, None, 5]}, "must be a whole number of pixels; got None"),
        ({**GOOD, "counts": [1, 2.5, 2.5]}, "must be a whole number of pixels; got 2.5"),
        ({**GOOD, "counts": [10**30]}, "must be a whole number of pixels; got 1000"),
        ({**GOOD, "counts": None}, "'counts' must be a list or a text"),
        ({**GOOD, "counts": 6}, "'counts' must be a list or a text"),
        ({**GOOD, "counts": ""}, "is no text of run lengths"),
        ({**GOOD, "counts": "é"}, "'counts' must be a list or a text"),
        ({**GOOD, "counts": "\n"}, "is no text of run lengths"),
        ({**GOOD, "counts": "P"}, "ends inside a number"),
        ({**GOOD, "counts": "PPPPPPPPPPPPPP1"}, "ends inside a number, or holds too large a one"),
        ({**GOOD, "size": [2, 3, 1]}, "'size' of a mask must be [height, width]"),
        ({**GOOD, "size": [2, None]}, "'size' of a mask must be [height, width]"),
        ({**GOOD, "size": [0, 3]}, "'size' of a mask must be [height, width]"),
        ({**GOOD, "size": [10**9, 10**9]}, "'size' of a mask must be [height, width]"),
        ({**GOOD, "size": "23"}, "'size' of a mask must be [height, width]"),
    ],
)
def test_unsound_run_lengths_say_what_is_wrong(segmentation: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        check_run_lengths(segmentation)
    assert message in str(error.value)


def test_whole_floats_are_runs_and_sizes() -> None:
    taken = check_run_lengths({"size": [2.0, 3.0], "counts": [1.0, 2.0, 3.0]})
    assert coco_mask.decode(taken).T.ravel().tolist() == [0, 1, 1, 0, 0, 0]
