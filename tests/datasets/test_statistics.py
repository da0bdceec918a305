"""Counts of a dataset, worked out by hand."""

from __future__ import annotations

from seamless_pr.datasets.panoptic_records import (
    AnnotationRecord,
    ImageRecord,
    PanopticDataset,
    SegmentRecord,
)
from seamless_pr.datasets.statistics import log_histogram, measure_dataset
from tests.support.panoptic_files import CATEGORIES


def test_classes_crowds_void_and_sizes_are_counted() -> None:
    first = (
        SegmentRecord(1, 7, 50),
        SegmentRecord(2, 26, 9),
        SegmentRecord(3, 26, 25),
        SegmentRecord(4, 26, 6, is_crowd=True),
    )
    second = (SegmentRecord(1, 26, 16),)
    dataset = PanopticDataset(
        (ImageRecord("a", "a.png", 10, 10), ImageRecord("b", "b.png", 5, 20)),
        (AnnotationRecord("a", "a.png", first), AnnotationRecord("b", "b.png", second)),
        CATEGORIES,
    )
    statistics = measure_dataset(dataset)
    road, sky, car = statistics.classes
    assert (road.num_images, road.num_segments, road.pixels, road.median_side) == (1, 1, 50, None)
    assert (sky.num_images, sky.pixels) == (0, 0)
    assert (car.num_images, car.num_segments, car.num_crowds) == (2, 3, 1)
    assert (car.pixels, car.crowd_pixels, car.median_side) == (56, 6, 4.0)
    assert statistics.void_share == 1 - 106 / 200
    assert statistics.crowd_share == 6 / 200
    assert dict(statistics.sizes) == {(10, 10): 1, (5, 20): 1}
    assert dict(statistics.things_per_image) == {2: 1, 1: 1}


def test_an_empty_dataset_has_no_shares() -> None:
    statistics = measure_dataset(PanopticDataset((), (), CATEGORIES))
    assert (statistics.void_share, statistics.crowd_share, statistics.num_images) == (0, 0, 0)


def test_bins_grow_by_a_factor_and_have_no_gaps() -> None:
    assert log_histogram([]) == []
    assert log_histogram([0.2, 1, 3.9, 8]) == [(1, 2, 2), (2, 4, 1), (4, 8, 0), (8, 16, 1)]
