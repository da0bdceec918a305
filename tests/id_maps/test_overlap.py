from __future__ import annotations

import numpy as np
import pytest
import torch

from seamless_pr.id_maps.id_png import IdRuns
from seamless_pr.id_maps.overlap import count_overlap, count_overlap_of_runs
from tests.metrics.maps import draw


def _pairs(gt_map: object, pred_map: object) -> dict[tuple[int, int], int]:
    overlap = count_overlap(gt_map, pred_map)
    return dict(
        zip(
            zip(overlap.gt_ids.tolist(), overlap.pred_ids.tolist()),
            overlap.pixels.tolist(),
        )
    )


def test_pairs_of_a_drawn_map_are_counted() -> None:
    gt_map = draw("""
        aab
        aab
        ..b
    """)
    pred_map = draw("""
        aac
        a.c
        a.c
    """)
    assert _pairs(gt_map, pred_map) == {(1, 1): 3, (1, 0): 1, (0, 1): 1, (0, 0): 1, (2, 3): 3}


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.uint8, np.int16])
def test_every_integer_type_gives_the_same_pairs(dtype: type) -> None:
    rng = np.random.default_rng(0)
    gt_map, pred_map = rng.integers(0, 4, (2, 17, 23))
    assert _pairs(gt_map.astype(dtype), pred_map.astype(dtype)) == _pairs(gt_map, pred_map)


def test_tensors_and_transposed_arrays_are_read_as_they_look() -> None:
    rng = np.random.default_rng(1)
    gt_map, pred_map = rng.integers(0, 4, (2, 17, 23)).astype(np.int32)
    expected = _pairs(gt_map, pred_map)
    assert _pairs(torch.from_numpy(gt_map), torch.from_numpy(pred_map)) == expected
    assert _pairs(gt_map.T, pred_map.T) == expected


def test_more_pairs_than_the_first_table_holds_are_counted_exactly() -> None:
    rng = np.random.default_rng(2)
    gt_map = rng.integers(0, 1 << 24, (150, 200)).astype(np.int32)
    pred_map = rng.integers(0, 3, (150, 200)).astype(np.int32)
    keys, counts = np.unique(gt_map.astype(np.int64) * 4 + pred_map, return_counts=True)
    expected = {(int(key) // 4, int(key) % 4): int(count) for key, count in zip(keys, counts)}
    assert _pairs(gt_map, pred_map) == expected


def test_pairs_come_in_ascending_order() -> None:
    rng = np.random.default_rng(3)
    overlap = count_overlap(*rng.integers(0, 50, (2, 40, 40)))
    keys = list(zip(overlap.gt_ids.tolist(), overlap.pred_ids.tolist()))
    assert keys == sorted(set(keys))


def test_an_image_without_pixels_has_no_pair() -> None:
    empty = np.zeros((0, 5), dtype=np.int32)
    assert _pairs(empty, empty) == {}


def test_maps_of_different_size_are_refused_with_both_sizes() -> None:
    with pytest.raises(ValueError, match=r"4x6.*3x6"):
        count_overlap(np.zeros((4, 6), np.int32), np.zeros((3, 6), np.int32))


@pytest.mark.parametrize(
    "values, dtype, told",
    [
        ([[1, -1]], np.int64, -1),
        ([[1, -1]], np.int32, -1),
        ([[1, -3, -2]], np.int32, -3),
        ([[1, -128]], np.int8, -128),
        ([[1, -5]], np.int16, -5),
        ([[1, 2**32 + 1]], np.int64, 2**32 + 1),
        ([[1, 2**63]], np.uint64, 2**63),
    ],
)
@pytest.mark.parametrize("side", ["gt_map", "pred_map"])
def test_an_id_out_of_range_is_refused_under_its_own_value(
    values: list[list[int]], dtype: type, told: int, side: str
) -> None:
    odd = np.array(values, dtype)
    sound = np.ones_like(odd)
    maps = (odd, sound) if side == "gt_map" else (sound, odd)
    with pytest.raises(ValueError, match=f"{side} holds the id {told}; segment ids are in 0.."):
        count_overlap(*maps)


def test_the_largest_id_is_an_id() -> None:
    largest = np.array([[2**32 - 1]], np.uint32)
    overlap = count_overlap(largest, largest.astype(np.int64))
    assert (overlap.gt_ids.tolist(), overlap.pred_ids.tolist()) == ([2**32 - 1], [2**32 - 1])


def test_maps_that_are_no_integer_images_are_refused() -> None:
    with pytest.raises(TypeError, match="gt_map must hold integers; got float64"):
        count_overlap(np.zeros((2, 2)), np.zeros((2, 2), np.int32))
    with pytest.raises(ValueError, match=r"pred_map must be \[H, W\]"):
        count_overlap(np.zeros((2, 2), np.int32), np.zeros((2, 2, 3), np.int32))


@pytest.mark.parametrize("seed", range(6))
def test_runs_give_the_same_pairs_as_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 50, 2))
    gt_map, pred_map = rng.integers(0, 1 << 24, (2, 5))[:, rng.integers(0, 5, size)].astype(
        np.uint32
    )
    pred_map = np.roll(pred_map, 1, axis=1)
    expected = count_overlap(gt_map, pred_map)
    overlap = count_overlap_of_runs(IdRuns.from_map(gt_map), IdRuns.from_map(pred_map))
    assert overlap.image_size == expected.image_size
    for name in ("gt_ids", "pred_ids", "pixels"):
        np.testing.assert_array_equal(getattr(overlap, name), getattr(expected, name))


def test_runs_of_different_size_are_refused_with_both_sizes() -> None:
    maps = [IdRuns.from_map(np.zeros(size, np.uint32)) for size in ((4, 6), (6, 4))]
    with pytest.raises(ValueError, match=r"got \(4, 6\) and \(6, 4\)"):
        count_overlap_of_runs(*maps)
