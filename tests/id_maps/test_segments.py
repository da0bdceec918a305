"""Areas and boxes of all segments of a map."""

from __future__ import annotations

import numpy as np
import pytest

from seamless_pr.id_maps.segments import measure_segments


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.uint16, np.uint32, np.int64])
def test_areas_and_boxes_of_a_drawn_map(dtype: type) -> None:
    rows = ["..11..", "22.1.5", "2....5", "2...22"]
    id_map = np.array([[0 if mark == "." else int(mark) for mark in row] for row in rows], dtype)
    measures = measure_segments(id_map)
    assert measures.segment_ids.tolist() == [0, 1, 2, 5]
    assert measures.areas.tolist() == [13, 3, 6, 2]
    assert measures.boxes_xywh.tolist() == [[0, 0, 6, 4], [2, 0, 2, 2], [0, 1, 6, 3], [5, 1, 1, 2]]


def test_random_maps_agree_with_one_mask_per_segment() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        ids = rng.choice([0, 3, 700, 26000, 2**24 - 1], size=rng.integers(1, 12, 2))
        measures = measure_segments(ids.astype(np.int32)[:, ::-1])
        for segment_id, area, (x, y, width, height) in zip(
            measures.segment_ids, measures.areas, measures.boxes_xywh
        ):
            rows, columns = np.nonzero(ids[:, ::-1] == segment_id)
            assert area == len(rows)
            assert (x, y) == (columns.min(), rows.min())
            assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
        np.testing.assert_array_equal(measures.segment_ids, np.unique(ids))


@pytest.mark.parametrize("size", [(0, 0), (0, 4), (4, 0)])
def test_map_without_pixels_has_no_segments(size: tuple[int, int]) -> None:
    measures = measure_segments(np.zeros(size, np.int32))
    assert measures.segment_ids.shape == (0,)
    assert measures.boxes_xywh.shape == (0, 4)


@pytest.mark.parametrize("value", [-1, 2**24])
def test_ids_outside_24_bits_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match=f"must be in 0..16777215; got .*{value}"):
        measure_segments(np.array([[value]]))
