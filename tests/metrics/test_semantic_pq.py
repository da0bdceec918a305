from __future__ import annotations

import numpy as np
import pytest

from seamless_pr.id_maps.overlap import count_overlap
from seamless_pr.metrics.panoptic_quality import count_matches, score_classes
from seamless_pr.metrics.segment_matching import match_segments
from seamless_pr.metrics.semantic_pq import count_as_stuff
from tests.metrics.maps import STUFF_AND_THINGS, draw, fuzz_image, table, to_table

ROAD, SKY, SIDEWALK, PERSON, CAR, BICYCLE = range(6)
NUM_CLASSES = STUFF_AND_THINGS.num_classes


def test_objects_of_one_class_are_one_segment() -> None:
    # Two persons beside each other, predicted as one region: 4 of 5 pixels, void left out.
    gt_map, pred_map = draw("ppqqq.\nrrrrrr"), draw("xxxxrx\nrrrrrr")
    gt = table({"p": PERSON, "q": PERSON, "r": ROAD})
    pred = table({"x": PERSON, "r": ROAD})
    counts = count_as_stuff(count_overlap(gt_map, pred_map), gt, pred, NUM_CLASSES)
    assert (counts.tp[PERSON], counts.num_gt[PERSON]) == (1, 1)
    assert counts.iou_sum[PERSON] == pytest.approx(4 / 5)
    assert counts.iou_sum[ROAD] == pytest.approx(6 / 7)


def test_a_class_predicted_on_void_for_more_than_half_is_no_false_positive() -> None:
    gt, pred = table({"r": ROAD}), table({"r": ROAD, "c": CAR})
    counts = count_as_stuff(count_overlap(draw("rrr.."), draw("rrccc")), gt, pred, NUM_CLASSES)
    assert counts.fp.sum() == 0
    counts = count_as_stuff(count_overlap(draw("rrrr."), draw("rrccc")), gt, pred, NUM_CLASSES)
    assert counts.fp[CAR] == 1


def test_crowd_counts_with_its_class() -> None:
    gt, pred = table({"c": CAR, "g": CAR}, crowd="g"), table({"c": CAR})
    counts = count_as_stuff(count_overlap(draw("ccgg"), draw("cccc")), gt, pred, NUM_CLASSES)
    assert (counts.tp[CAR], counts.iou_sum[CAR]) == (1, 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_pq_of_maps_whose_segments_are_classes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(20):
        image = fuzz_image(rng)
        gt, pred = (to_table(s, STUFF_AND_THINGS) for s in (image.gt_segments, image.pred_segments))
        counts = count_as_stuff(count_overlap(image.gt_map, image.pred_map), gt, pred, NUM_CLASSES)
        maps = [
            np.append(segments.train_ids + 1, 0)[segments.find(ids.ravel().astype(np.int64))]
            for segments, ids in ((gt, image.gt_map), (pred, image.pred_map))
        ]
        overlap = count_overlap(*(classes.reshape(image.gt_map.shape) for classes in maps))
        tables = [
            table({chr(ord("a") + int(c) - 1): int(c) - 1 for c in np.unique(ids[ids > 0])})
            for ids in maps
        ]
        expected = count_matches(
            match_segments(overlap, *tables, NUM_CLASSES), *tables, NUM_CLASSES
        )
        assert np.array_equal(counts.columns, expected.columns)


def test_an_empty_image_counts_nothing() -> None:
    none = table({})
    counts = count_as_stuff(count_overlap(draw(".."), draw("..")), none, none, NUM_CLASSES)
    assert not counts.columns.any()
    assert not score_classes(counts.columns, np.zeros(NUM_CLASSES, bool)).is_counted.any()
