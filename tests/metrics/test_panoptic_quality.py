from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from seamless_pr.id_maps.overlap import count_overlap
from seamless_pr.metrics.panoptic_quality import (
    PanopticScores,
    PQCounts,
    compute_panoptic_scores,
    count_matches,
)
from seamless_pr.metrics.segment_matching import PQ_RULES, match_segments
from seamless_pr.metrics.segment_table import SegmentTable
from tests.metrics.maps import STUFF_AND_THINGS, FuzzedImage, draw, fuzz_image, table, to_table
from tests.oracles.official_pq import official_scores

ROAD, SKY, SIDEWALK, PERSON, CAR, BICYCLE = range(6)
NUM_CLASSES, NUM_STUFF = STUFF_AND_THINGS.num_classes, STUFF_AND_THINGS.num_stuff
GOLDEN = Path(__file__).parents[1] / "golden" / "seamseg" / "ops.npz"


def _count(
    gt_text: str, gt: SegmentTable, pred_text: str, pred: SegmentTable, rules: str = "official"
) -> PQCounts:
    overlap = count_overlap(draw(gt_text), draw(pred_text))
    matches = match_segments(overlap, gt, pred, NUM_CLASSES, PQ_RULES[rules])
    return count_matches(matches, gt, pred, NUM_CLASSES)


def _count_fuzzed(image: FuzzedImage) -> PQCounts:
    gt, pred = (
        to_table(segments, STUFF_AND_THINGS)
        for segments in (image.gt_segments, image.pred_segments)
    )
    overlap = count_overlap(image.gt_map, image.pred_map)
    return count_matches(match_segments(overlap, gt, pred, NUM_CLASSES), gt, pred, NUM_CLASSES)


def _scores(counts: PQCounts, rules: str = "official") -> PanopticScores:
    return compute_panoptic_scores(counts, NUM_STUFF, PQ_RULES[rules])


def _sum(counts: Sequence[PQCounts]) -> PQCounts:
    return functools.reduce(lambda a, b: a + b, counts)


@pytest.mark.parametrize(
    "evaluator",
    ["cityscapesscripts.evaluation.evalPanopticSemanticLabeling", "panopticapi.evaluation"],
)
@pytest.mark.parametrize("seed", range(4))
def test_pq_equals_the_official_evaluators_on_fuzzed_maps(
    seed: int, evaluator: str, tmp_path: Path
) -> None:
    module = pytest.importorskip(evaluator, reason="panopticapi is on no package index")
    rng = np.random.default_rng(seed)
    images = [fuzz_image(rng) for _ in range(60)]
    counts = _sum([_count_fuzzed(image) for image in images])
    official_means, official_counts = official_scores(images, STUFF_AND_THINGS, tmp_path, module)
    scores = _scores(counts)
    for name, means in (("All", scores.all), ("Things", scores.things), ("Stuff", scores.stuff)):
        assert means.num_categories == official_means[name]["n"]
        for key in ("pq", "sq", "rq"):
            assert getattr(means, key) == pytest.approx(official_means[name][key], abs=1e-12, rel=0)
    for train_id, category in enumerate(STUFF_AND_THINGS.categories):
        theirs = official_counts[category.category_id]
        ours = (counts.tp[train_id], counts.fp[train_id], counts.fn[train_id])
        assert ours == (theirs.tp, theirs.fp, theirs.fn)
        assert counts.iou_sum[train_id] == pytest.approx(theirs.iou, abs=1e-12, rel=0)


def test_the_fuzzed_maps_hold_what_evaluators_stumble_over() -> None:
    images = [fuzz_image(np.random.default_rng(seed)) for seed in range(240)]

    def occurs(condition: object) -> int:
        return sum(map(condition, images))  # type: ignore[call-overload]

    def crowds(image: FuzzedImage) -> list[int]:
        return [s["category_id"] for s in image.gt_segments if s["iscrowd"]]

    def ids(image: FuzzedImage) -> list[int]:
        return [s["id"] for s in image.gt_segments]

    assert occurs(lambda image: (image.gt_map == 0).any()) > 50
    assert occurs(lambda image: len(crowds(image)) > 0) > 20
    assert occurs(lambda image: len(crowds(image)) > len(set(crowds(image)))) > 5
    assert occurs(lambda image: not image.gt_segments) > 5
    assert occurs(lambda image: not image.pred_segments) > 5
    assert occurs(lambda image: any(s["area"] == 1 for s in image.gt_segments)) > 5
    assert occurs(lambda image: (1 << 24) - 1 in ids(image)) > 5


def test_unmatched_truth_counts_even_if_prediction_is_void() -> None:
    counts = _count("aab", table({"a": ROAD, "b": PERSON}), "aa.", table({"a": ROAD}))
    assert counts.fn[PERSON] == 1
    assert _scores(counts).all.pq == 0.5


@pytest.mark.parametrize(
    "pred_row, expected_pq", [("ddddbbbbbb", 0.8), ("......bbbb", 0.25), ("dddd......", 0.5)]
)
def test_void_in_the_prediction_stays_in_the_union(pred_row: str, expected_pq: float) -> None:
    # Row one is one stuff segment, row two the thing "b" of ten pixels.
    gt = table({"a": ROAD, "b": PERSON})
    segments = {"a": ROAD} | ({"b": PERSON} if "b" in pred_row else {})
    pred_row = pred_row.replace("d", ".")
    counts = _count("aaaaaaaaaa\nbbbbbbbbbb", gt, f"aaaaaaaaaa\n{pred_row}", table(segments))
    assert _scores(counts).all.pq == pytest.approx({0.8: 0.8, 0.25: 0.5, 0.5: 0.5}[expected_pq])


def test_void_in_the_truth_leaves_the_union() -> None:
    counts = _count("aa..", table({"a": ROAD}), "aaaa", table({"a": ROAD}))
    assert _scores(counts).per_class[ROAD].pq == 1.0


def test_iou_of_exactly_one_half_is_no_match() -> None:
    counts = _count("ab", table({"a": ROAD, "b": SKY}), "aa", table({"a": ROAD}))
    assert (counts.tp[ROAD], counts.fp[ROAD], counts.fn[ROAD]) == (0, 1, 1)


def test_prediction_entirely_on_void_is_neither_right_nor_wrong() -> None:
    counts = _count("..a", table({"a": ROAD}), "bba", table({"a": ROAD, "b": CAR}))
    assert counts.tp.sum() == 1
    assert counts.fp.sum() == 0


def test_exactly_half_on_void_is_still_a_false_positive() -> None:
    counts = _count(".a", table({"a": ROAD}), "bb", table({"b": CAR}))
    assert counts.fp[CAR] == 1


def test_crowd_excuses_its_own_class_only() -> None:
    gt = table({"a": ROAD, "c": CAR}, crowd="c")
    assert _count("aaccc", gt, "aabbb", table({"a": ROAD, "b": CAR})).fp.sum() == 0
    assert _count("aaccc", gt, "aabbb", table({"a": ROAD, "b": PERSON})).fp[PERSON] == 1


def test_of_several_crowd_segments_the_last_listed_excuses() -> None:
    pred = table({"b": CAR})
    first_under = table({"c": CAR, "d": CAR}, crowd="cd")
    last_under = table({"d": CAR, "c": CAR}, crowd="cd")
    assert _count("cccd", first_under, "bbb.", pred).fp[CAR] == 1
    assert _count("cccd", last_under, "bbb.", pred).fp[CAR] == 0


def test_crowd_pixels_stay_in_the_union() -> None:
    gt = table({"a": CAR, "c": CAR}, crowd="c")
    counts = _count("aaaaaac", gt, "aaaaaaa", table({"a": CAR}))
    assert counts.iou_sum[CAR] == pytest.approx(6 / 7)


def test_stated_area_of_the_truth_is_believed() -> None:
    gt = table({"a": ROAD}, areas={"a": 8})
    counts = _count("aaaa", gt, "aaaa", table({"a": ROAD}))
    # I = 4, A(pred) = 4, A(gt) = 8: IoU exactly 0.5 is no match.
    assert (counts.tp[ROAD], counts.fn[ROAD]) == (0, 1)
    assert _count("aaaa", gt, "aaaa", table({"a": ROAD}), "seamseg").tp[ROAD] == 1


def test_impossible_stated_area_is_an_error_that_names_the_segment() -> None:
    with pytest.raises(ValueError, match="stated area of true segment 1 is smaller"):
        _count("aaaa", table({"a": ROAD}, areas={"a": 0}), "aaaa", table({"a": ROAD}))


def test_segments_without_pixels_are_no_segments() -> None:
    counts = _count(
        "aa", table({"a": ROAD, "b": PERSON}), "aa", table({"a": ROAD, "c": CAR, "d": SKY})
    )
    assert counts.tp.sum() == 1
    assert counts.fp.sum() == counts.fn.sum() == 0


def test_paper_rules_excuse_a_truth_that_is_mostly_predicted_void() -> None:
    gt, pred = table({"a": ROAD, "b": PERSON}), table({"a": ROAD})
    assert _count("abbb", gt, "a..a", pred, "official").fn[PERSON] == 1
    assert _count("abbb", gt, "a..a", pred, "paper").fn[PERSON] == 0
    assert _count("abb", gt, "a.a", pred, "paper").fn[PERSON] == 1  # exactly half


def test_seamseg_rules_turn_crowd_into_void_for_every_class() -> None:
    gt = table({"a": ROAD, "c": CAR}, crowd="c")
    pred = table({"a": ROAD, "b": PERSON})
    assert _count("aaaccc", gt, "aabbbb", pred, "official").fp[PERSON] == 1
    assert _count("aaaccc", gt, "aabbbb", pred, "seamseg").fp[PERSON] == 0
    one_class = table({"a": CAR, "c": CAR}, crowd="c")
    counts = _count("aaaaaac", one_class, "aaaaaaa", table({"a": CAR}), "seamseg")
    assert counts.iou_sum[CAR] == 1.0


def test_seamseg_rules_turn_predicted_crowd_into_void() -> None:
    gt = table({"a": CAR})
    flagged = table({"a": CAR}, crowd="a")
    assert _count("aa", gt, "aa", flagged, "official").tp[CAR] == 1
    counts = _count("aa", gt, "aa", flagged, "seamseg")
    assert (counts.tp[CAR], counts.fp[CAR], counts.fn[CAR]) == (0, 0, 1)


def test_seamseg_rules_count_an_absent_class_as_zero() -> None:
    counts = _count("aa", table({"a": ROAD}), "aa", table({"a": ROAD}))
    assert _scores(counts, "official").all.pq == 1.0
    assert _scores(counts, "seamseg").all.pq == pytest.approx(1 / NUM_CLASSES)


def test_seamseg_rules_agree_with_that_code() -> None:
    golden = np.load(GOLDEN)

    def segments(categories: np.ndarray, crowd: np.ndarray | None = None) -> SegmentTable:
        ids = np.flatnonzero(categories != 255)
        ids = ids[ids > 0]
        is_crowd = np.zeros(len(ids), bool) if crowd is None else crowd[ids].astype(bool)
        return SegmentTable(ids.astype(np.int64), categories[ids].astype(np.int64), is_crowd)

    gt, pred = segments(golden["ps_cat"]), segments(golden["pp_out_cat"], golden["pp_out_iscrowd"])
    num_classes = len(golden["ps_tp"])
    overlap = count_overlap(golden["ps_msk"], golden["pp_out_msk"])
    matches = match_segments(overlap, gt, pred, num_classes, PQ_RULES["seamseg"])
    counts = count_matches(matches, gt, pred, num_classes)
    assert counts.tp.tolist() == golden["ps_tp"].tolist()
    assert counts.fp.tolist() == golden["ps_fp"].tolist()
    assert counts.fn.tolist() == golden["ps_fn"].tolist()
    np.testing.assert_allclose(counts.iou_sum, golden["ps_iou"], rtol=1e-6)


def test_pq_dagger_of_a_worked_example() -> None:
    # Image 1: road 6 px predicted with 4 of them: IoU 4/6. Sky 4 px predicted with 1: IoU 1/4,
    # which is no match. The person is found exactly.
    first = _count(
        """
        aaaaaa
        bbbb.p
        """,
        table({"a": ROAD, "b": SKY, "p": PERSON}),
        """
        aaaa..
        b....p
        """,
        table({"a": ROAD, "b": SKY, "p": PERSON}),
    )
    # Image 2: road predicted exactly. No sky in the truth, but one is predicted on the sidewalk
    # (IoU of sidewalk 4/6): the invented sky costs PQ and not PQ†. The person is missed.
    second = _count(
        """
        aaaaaa
        cccccc
        p.....
        """,
        table({"a": ROAD, "c": SIDEWALK, "p": PERSON}),
        """
        aaaaaa
        ccccbb
        ......
        """,
        table({"a": ROAD, "b": SKY, "c": SIDEWALK}),
    )
    scores = _scores(first + second)
    road, sky, sidewalk, person, car, bicycle = scores.per_class
    assert road.pq_dagger == pytest.approx((4 / 6 + 1) / 2)
    assert sky.pq_dagger == pytest.approx((1 / 4) / 1)
    assert sky.pq == 0.0
    assert sidewalk.pq_dagger == pytest.approx(4 / 6)
    assert person.pq_dagger == person.pq == pytest.approx(1 / 1.5)
    assert car.pq_dagger is None
    assert bicycle.pq_dagger is None
    expected_stuff = ((4 / 6 + 1) / 2 + 1 / 4 + 4 / 6) / 3
    assert scores.stuff.pq_dagger == pytest.approx(expected_stuff)
    assert scores.things.pq_dagger == pytest.approx(1 / 1.5)
    assert scores.all.pq_dagger == pytest.approx((3 * expected_stuff + 1 / 1.5) / 4)


def test_stuff_predicted_but_never_true_has_pq_zero_and_no_pq_dagger() -> None:
    counts = _count("aaaa", table({"a": ROAD}), "aaab", table({"a": ROAD, "b": SKY}))
    scores = _scores(counts)
    assert (scores.per_class[SKY].pq, scores.per_class[SKY].pq_dagger) == (0.0, None)
    assert (scores.stuff.num_categories, scores.stuff.num_dagger_categories) == (2, 1)
    assert scores.stuff.pq_dagger == pytest.approx(3 / 4)
    assert scores.stuff.pq == pytest.approx(3 / 8)


@pytest.mark.parametrize("rules", sorted(PQ_RULES))
def test_a_thing_predicted_but_never_true_keeps_its_pq_of_zero_in_pq_dagger(rules: str) -> None:
    maps = "aaap", "aabp"
    gt, pred = table({"a": ROAD, "p": PERSON}), table({"a": ROAD, "b": CAR, "p": PERSON})
    scores = _scores(_count(maps[0], gt, maps[1], pred, rules), rules)
    assert (scores.per_class[CAR].pq, scores.per_class[CAR].pq_dagger) == (0.0, 0.0)
    assert scores.per_class[BICYCLE].pq_dagger is None
    assert (scores.things.num_dagger_categories, scores.things.pq_dagger) == (2, 0.5)
    assert scores.all.pq_dagger == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_a_group_without_any_class_has_no_mean() -> None:
    scores = _scores(_count("aa", table({"a": ROAD}), "aa", table({"a": ROAD})))
    assert scores.things.pq is None
    assert scores.things.num_categories == 0
    assert _scores(PQCounts.zeros(NUM_CLASSES)).all.pq_dagger is None


def test_two_predictions_that_share_a_truth_count_both_pairs_in_pq_dagger() -> None:
    counts = _count("aaaa", table({"a": ROAD}), "bbbc", table({"b": ROAD, "c": ROAD}))
    assert counts.all_iou_sum[ROAD] == pytest.approx(3 / 4 + 1 / 4)
    assert counts.iou_sum[ROAD] == pytest.approx(3 / 4)


def test_sums_are_the_same_to_the_last_bit_in_any_order_and_split() -> None:
    rng = np.random.default_rng(5)
    counts = [_count_fuzzed(fuzz_image(rng)) for _ in range(60)]
    expected = _scores(_sum(counts))
    for _ in range(5):
        shuffled = [counts[index] for index in rng.permutation(len(counts))]
        split = int(rng.integers(1, len(counts)))
        assert _scores(_sum(shuffled[:split]) + _sum(shuffled[split:])) == expected


def test_permuted_segment_ids_change_nothing() -> None:
    image = fuzz_image(np.random.default_rng(11))
    gt, pred = (to_table(s, STUFF_AND_THINGS) for s in (image.gt_segments, image.pred_segments))
    renamed_map = np.where(image.pred_map > 0, (1 << 24) - image.pred_map, 0)
    renamed = SegmentTable((1 << 24) - pred.segment_ids, pred.train_ids, pred.is_crowd, pred.areas)
    overlap = count_overlap(image.gt_map, renamed_map)
    counts = count_matches(
        match_segments(overlap, gt, renamed, NUM_CLASSES), gt, renamed, NUM_CLASSES
    )
    assert _scores(counts) == _scores(_count_fuzzed(image))


def test_counts_of_different_label_spaces_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="counts of 3 and 4 classes do not add up"):
        _ = PQCounts.zeros(3) + PQCounts.zeros(4)


def test_a_prediction_may_list_the_id_of_void_and_the_ground_truth_may_not() -> None:
    rest = SegmentTable(np.array([0]), np.array([ROAD]), np.array([False]))
    counts = _count("aaab", table({"a": ROAD, "b": SKY}), "...b", rest_and_sky(rest))
    assert (counts.tp[ROAD], counts.iou_sum[ROAD], counts.tp[SKY]) == (1, 1.0, 1)
    with pytest.raises(ValueError, match="the ground truth lists a segment with the id 0"):
        _count("...b", rest_and_sky(rest), "aaab", table({"a": ROAD, "b": SKY}))


def rest_and_sky(rest: SegmentTable) -> SegmentTable:
    return SegmentTable(
        np.append(rest.segment_ids, 2), np.append(rest.train_ids, SKY), np.array([False, False])
    )


def test_segment_tables_refuse_ids_that_repeat_or_are_negative() -> None:
    classes, crowd = np.array([0, 1]), np.array([False, False])
    with pytest.raises(ValueError, match="must be unique"):
        SegmentTable(np.array([3, 3]), classes, crowd)
    with pytest.raises(ValueError, match="must be at least 0; got -1"):
        SegmentTable(np.array([-1, 3]), classes, crowd)
    with pytest.raises(ValueError, match="must have one length"):
        SegmentTable(np.array([3]), classes, crowd)
