from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from seamless_pr.metrics.segment_table import SegmentTable


def table(ids: list[int]) -> SegmentTable:
    return SegmentTable(np.array(ids), np.arange(len(ids)) % 3, np.zeros(len(ids), bool))


def test_records_become_columns_in_their_order() -> None:
    segments = (
        SimpleNamespace(segment_id=9, train_id=4, is_crowd=True),
        SimpleNamespace(segment_id=2, train_id=7),
    )
    found = SegmentTable.from_segments(segments)
    assert found.segment_ids.tolist() == [9, 2]
    assert found.train_ids.tolist() == [4, 7]
    assert found.is_crowd.tolist() == [True, False]
    assert found.areas is None
    none = SegmentTable.from_segments([])
    assert none.segment_ids.dtype == none.train_ids.dtype == np.int64
    assert none.is_crowd.dtype == bool


def test_ids_are_found_in_the_order_of_the_table_and_others_nowhere() -> None:
    rng = np.random.default_rng(0)
    ids = rng.permutation(40)[:25]
    asked = rng.integers(-2, 45, 200)
    place = {int(segment_id): index for index, segment_id in enumerate(ids)}
    expected = [place.get(segment_id, -1) for segment_id in asked.tolist()]
    assert table(ids.tolist()).find(asked).tolist() == expected
    assert table([]).find(asked[:2]).tolist() == [-1, -1]


def test_ids_are_unique_and_no_less_than_0() -> None:
    assert len(table([0, 1])) == 2
    with pytest.raises(ValueError, match="at least 0; got -1"):
        table([3, -1])
    with pytest.raises(ValueError, match="unique"):
        table([5, 2, 5])


def test_columns_have_one_length() -> None:
    ids, flags = np.arange(3), np.zeros(3, bool)
    with pytest.raises(ValueError, match=r"\[3, 3, 2\]"):
        SegmentTable(ids, ids, flags[:2])
    with pytest.raises(ValueError, match=r"\[3, 3, 3, 1\]"):
        SegmentTable(ids, ids, flags, ids[:1])
