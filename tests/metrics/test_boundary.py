from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from seamless_pr.id_maps.overlap import count_overlap
from seamless_pr.metrics.boundary import (
    BoundaryIoUCounts,
    boundary_width,
    class_map,
    compute_boundary_iou,
    count_boundary_iou,
    count_trimaps,
    distance_to_border,
)
from seamless_pr.metrics.segment_matching import PQ_RULES, match_segments
from seamless_pr.metrics.semantic_iou import compute_semantic_scores
from tests.metrics.maps import STUFF_AND_THINGS, draw, table

ROAD, SKY, SIDEWALK, PERSON, CAR, BICYCLE = range(6)
NUM_CLASSES = STUFF_AND_THINGS.num_classes


def _map(text: str) -> NDArray[np.uint32]:
    return draw(text).view(np.uint32)


def test_distance_counts_pixels_to_the_nearest_other_label() -> None:
    distance = distance_to_border(_map("aaabbbb\naaabbbb"), count_image_border=False)
    assert distance.tolist() == [[3, 2, 1, 1, 2, 3, 4]] * 2


def test_diagonal_neighbours_are_at_distance_one() -> None:
    id_map = np.zeros((5, 5), np.uint32)
    id_map[2, 2] = 9
    distance = distance_to_border(id_map, count_image_border=False)
    assert distance.tolist() == [
        [2, 2, 2, 2, 2],
        [2, 1, 1, 1, 2],
        [2, 1, 1, 1, 2],
        [2, 1, 1, 1, 2],
        [2, 2, 2, 2, 2],
    ]


def test_the_image_border_counts_only_if_asked_for() -> None:
    one_label = np.ones((3, 5), np.uint32)
    assert distance_to_border(one_label, count_image_border=True).tolist() == [
        [1, 1, 1, 1, 1],
        [1, 2, 2, 2, 1],
        [1, 1, 1, 1, 1],
    ]
    assert np.isinf(distance_to_border(one_label, count_image_border=False)).all()


def test_distance_equals_a_search_over_all_pixels() -> None:
    id_map = np.random.default_rng(0).choice([1, 1, 1, 1, 1, 1, 2], (17, 23)).astype(np.uint32)
    rows, columns = np.indices(id_map.shape)
    distance = distance_to_border(id_map, count_image_border=False)
    for row in range(17):
        for column in range(23):
            other = id_map != id_map[row, column]
            steps = np.maximum(abs(rows - row), abs(columns - column))
            assert distance[row, column] == steps[other].min()


def test_band_width_is_a_share_of_the_diagonal_and_at_least_one_pixel() -> None:
    assert boundary_width((1024, 2048), 0.005) == 11
    assert boundary_width((10, 10), 0.001) == 1
    with pytest.raises(ValueError, match=r"dilation_ratio must be in \(0, 1\); got 1.5"):
        boundary_width((10, 10), 1.5)


def test_class_map_looks_up_every_run_and_gives_void_zero() -> None:
    classes = class_map(_map("abz\n.ba"), table({"a": ROAD, "b": CAR}))
    assert classes.tolist() == [[ROAD + 1, CAR + 1, 0], [0, CAR + 1, ROAD + 1]]


def test_boundary_iou_of_a_worked_example() -> None:
    # Width 1 on 6x6: the band of a full image is its frame of 20 pixels.
    gt_map, pred_map = _map("\n".join(["aaaaaa"] * 6)), _map("\n".join(["aaabbb"] * 6))
    gt, pred = table({"a": ROAD}), table({"a": ROAD, "b": SKY})
    counts = count_boundary_iou(gt_map, pred_map, gt, pred, NUM_CLASSES, 0.1)
    # The predicted road is 6x3: 18 pixels less 4 inside; 10 of its band lie on the frame.
    assert (counts.gt[ROAD], counts.pred[ROAD], counts.shared[ROAD]) == (20, 14, 10)
    scores = compute_boundary_iou(counts)
    assert scores[ROAD] == pytest.approx(10 / 24)
    assert scores[SKY] == 0.0
    assert scores[CAR] is None


def test_boundary_counts_add_up() -> None:
    zeros = BoundaryIoUCounts.zeros(NUM_CLASSES)
    maps, segments = _map("aab"), table({"a": ROAD, "b": SKY})
    counts = count_boundary_iou(maps, maps, segments, segments, NUM_CLASSES, 0.1)
    twice = zeros + counts + counts
    assert twice.shared.tolist() == (2 * counts.shared).tolist()


def test_what_is_predicted_on_void_leaves_the_band() -> None:
    gt, pred = table({"a": ROAD}), table({"a": ROAD})
    counts = count_boundary_iou(_map("aa.."), _map("aaaa"), gt, pred, NUM_CLASSES, 0.1)
    assert (counts.pred[ROAD], counts.shared[ROAD]) == (2, 2)


def test_trimap_iou_looks_only_near_true_borders() -> None:
    # The border lies between columns 3 and 4; the mistake in the last column is 4 pixels away.
    gt_map, pred_map = _map("aaaabbbb"), _map("aaabbbba")
    segments = table({"a": ROAD, "b": SKY})
    near, wide = count_trimaps(gt_map, pred_map, segments, segments, NUM_CLASSES, (1, 4))
    assert compute_semantic_scores(near).per_class[ROAD] == 0.0
    assert compute_semantic_scores(near).per_class[SKY] == pytest.approx(1 / 2)
    assert compute_semantic_scores(wide).per_class[ROAD] == pytest.approx(3 / 5)
    assert near.pixels.sum() == 2
    assert wide.pixels.sum() == 8


@pytest.mark.parametrize("train_id", range(NUM_CLASSES))
def test_a_change_to_void_is_a_border_of_a_trimap_for_every_class(train_id: int) -> None:
    segments = table({"a": train_id})
    maps = _map("aaaa....")
    near, wide = count_trimaps(maps, maps, segments, segments, NUM_CLASSES, (1, 3))
    assert near.pixels.sum() == near.pixels[train_id, train_id] == 1
    assert wide.pixels.sum() == wide.pixels[train_id, train_id] == 3


def test_objects_of_one_class_have_no_border_in_a_trimap() -> None:
    segments = table({"a": CAR, "b": CAR})
    maps = _map("aabb")
    (counts,) = count_trimaps(maps, maps, segments, segments, NUM_CLASSES, (2,))
    assert counts.pixels.sum() == 0


def test_boundary_pq_is_refused_where_crowd_is_void() -> None:
    segments, maps = table({"a": ROAD}), _map("aa")
    overlap = count_overlap(maps, maps)
    with pytest.raises(ValueError, match="Boundary PQ is not defined for the rules 'seamseg'"):
        match_segments(
            overlap, segments, segments, NUM_CLASSES, PQ_RULES["seamseg"], boundary=overlap
        )
