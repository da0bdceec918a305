"""Maps out of queries: the original's numbers, a slow oracle, and what must not matter."""

from __future__ import annotations

import json

import pytest
import torch

from seamless_pr.models.fusion import frame_bands
from seamless_pr.models.fusion.by_query import QueryFusion, QueryOutputs, class_segments
from seamless_pr.models.fusion.by_score import FrameSizes
from seamless_pr.structures.query_settings import QueryFusionSettings
from tests.oracles import query_rules
from tests.support.maskformer_golden import drawn_queries, load_arrays
from tests.support.maskformer_networks import numbered_space, reference_order

OPS = load_arrays("ops")
# Classes 0..5 of the reference are things.
SPACE = numbered_space(12, range(6))
ORDER = torch.tensor(reference_order(SPACE))
# Golden case: seed of its queries.
SEEDS = {"infA": 18, "infB": 2}
SIZES = FrameSizes((96, 128), (91, 121), (140, 100))


def queries(name, dtype=torch.float64):
    classes, masks = drawn_queries(SEEDS[name], (24, 32), 40, 12, 16)
    return torch.cat([classes[:, ORDER], classes[:, -1:]], 1).to(dtype), masks.to(dtype)


def fusion(task, object_threshold=0.8, overlap_threshold=0.8):
    return QueryFusion(
        SPACE,
        QueryFusionSettings(
            task=task, object_threshold=object_threshold, overlap_threshold=overlap_threshold
        ),
    )


@pytest.mark.parametrize(("task", "key"), [("panoptic", "before"), ("semantic", "after")])
@pytest.mark.parametrize("name", sorted(SEEDS))
def test_semantic_scores_are_those_of_the_original_in_both_orders(name, task, key):
    assert OPS[f"{name}_sizes_padded_image_output"].tolist() == [[96, 128], [91, 121], [140, 100]]
    logits = queries(name)
    scores = fusion(task).semantic_scores(*logits, SIZES)
    in_order = torch.empty_like(scores).index_copy_(0, ORDER, scores)
    expected = torch.from_numpy(OPS[f"{name}_sem_{key}_sub"]).double()
    torch.testing.assert_close(in_order[:, 2::6, 2::6], expected, rtol=0, atol=1e-6)
    found = ORDER[fusion(task)(*logits, SIZES).semantic_map]
    assert torch.equal(found, torch.from_numpy(OPS[f"{name}_sem_{key}_argmax"]).long())


@pytest.mark.parametrize(
    ("object_threshold", "overlap_threshold", "key"),
    [
        (0.8, 0.8, "0.8_0.8"),
        (0.7, 0.8, "0.7_0.8"),
        (0.3, 0.8, "0.3_0.8"),
        (0.3, 0.0, "0.3_0"),
        (0.0, 0.0, "0_0"),
        (0.9999999, 0.8, "1_0.8"),
    ],
)
@pytest.mark.parametrize("name", sorted(SEEDS))
def test_panoptic_maps_are_those_of_the_original(name, object_threshold, overlap_threshold, key):
    panoptic = fusion("panoptic", object_threshold, overlap_threshold)(
        *queries(name), SIZES
    ).panoptic
    expected = torch.from_numpy(OPS[f"{name}_pan_{key}_seg"]).int()
    assert torch.equal(panoptic.id_map, expected)
    listed = [
        {
            "id": segment.segment_id,
            "isthing": SPACE.is_thing(segment.train_id),
            "category_id": SPACE.categories[segment.train_id].category_id,
        }
        for segment in panoptic.segments
    ]
    assert listed == json.loads(str(OPS[f"{name}_pan_{key}_info_json"]))


@pytest.mark.parametrize("task", ["panoptic", "general"])
@pytest.mark.parametrize("seed", range(6))
def test_maps_are_those_of_the_slow_rules(task, seed):
    classes, masks = drawn_queries(seed, (10, 13), 20, 12, 14)
    sizes = FrameSizes((40, 52), (37, 50), [(37, 50), (50, 31), (23, 70)][seed % 3])
    thresholds = [(0.5, 0.5), (0.2, 0.9), (0.0, 0.3)][seed // 2 % 3]
    found = fusion(task, *thresholds)(classes.double(), masks.double(), sizes)
    stuff = set(range(SPACE.num_classes if task == "general" else SPACE.num_stuff))
    frame = (sizes.padded, sizes.image, sizes.original)
    ids, segments = query_rules.panoptic_map(
        classes.double(),
        masks.double(),
        *frame,
        stuff=stuff,
        object_threshold=thresholds[0],
        overlap_threshold=thresholds[1],
    )
    assert torch.equal(found.panoptic.id_map, ids)
    assert [(s.segment_id, s.train_id, s.area) for s in found.panoptic.segments] == segments
    scores = query_rules.semantic_scores(classes.double(), masks.double(), *frame, before=True)
    assert torch.equal(found.semantic_map, scores.argmax(0))


@pytest.mark.parametrize("task", ["panoptic", "semantic"])
def test_maps_do_not_depend_on_how_many_rows_fit_into_memory(task, monkeypatch):
    logits = queries("infB")
    whole = fusion(task, 0.3)(*logits, SIZES)
    scores = fusion(task).semantic_scores(*logits, SIZES)
    for numbers in (1, 20_000):
        monkeypatch.setattr(frame_bands, "_NUMBERS_AT_ONCE", numbers)
        parts = fusion(task, 0.3)(*logits, SIZES)
        assert torch.equal(parts.panoptic.id_map, whole.panoptic.id_map)
        assert parts.panoptic.segments == whole.panoptic.segments
        assert torch.equal(parts.semantic_map, whole.semantic_map)
        torch.testing.assert_close(fusion(task).semantic_scores(*logits, SIZES), scores)


@pytest.mark.parametrize(
    "sizes",
    [
        FrameSizes((96, 128), (96, 128), (96, 128)),
        FrameSizes((96, 128), (91, 121), (91, 121)),
        FrameSizes((96, 128), (1, 1), (50, 60)),
        FrameSizes((96, 128), (91, 121), (1, 1)),
        FrameSizes((97, 130), (97, 129), (400, 31)),
    ],
)
def test_resizing_in_bands_is_that_of_torch(sizes, monkeypatch):
    maps = queries("infA")[1][:5]
    expected = query_rules.resize(maps, sizes.padded)[:, : sizes.image[0], : sizes.image[1]]
    expected = query_rules.resize(expected, sizes.original)
    for numbers in (1 << 26, 1):
        monkeypatch.setattr(frame_bands, "_NUMBERS_AT_ONCE", numbers)
        found = frame_bands.stacked_bands(
            sizes, len(maps), lambda band: band.in_file(band.at_input(maps))
        )
        torch.testing.assert_close(found, expected)


def test_equal_pixels_go_to_the_first_query():
    classes = torch.tensor([[9.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 9.0, 0.0]])
    masks = torch.full((3, 4, 4), 2.0)
    space = numbered_space(2, range(2))
    rule = QueryFusion(space, QueryFusionSettings(object_threshold=0.5, overlap_threshold=0.5))
    found = rule(classes, masks, FrameSizes((4, 4), (4, 4), (4, 4))).panoptic
    assert [(s.segment_id, s.train_id, s.area) for s in found.segments] == [(1, 0, 16)]


def test_stuff_of_one_class_is_one_segment_and_things_are_many():
    # Two halves of one class; train id 0 is stuff, 1 a thing.
    space = numbered_space(2, range(1))
    left = torch.where(torch.arange(8) < 4, 9.0, -9.0).expand(6, 8)
    masks = torch.stack([left, -left])
    sizes = FrameSizes((6, 8), (6, 8), (6, 8))
    rule = QueryFusion(space, QueryFusionSettings())
    for train_id, areas in ((0, [48]), (1, [24, 24])):
        classes = torch.full((2, 3), -9.0)
        classes[:, train_id] = 9.0
        found = rule(classes, masks, sizes).panoptic
        assert [segment.area for segment in found.segments] == areas


def test_an_image_in_which_nothing_is_found_is_void_but_has_a_semantic_map():
    classes = torch.tensor([[0.0, 1.0, 9.0]]).repeat(3, 1)
    found = QueryFusion(numbered_space(2), QueryFusionSettings())(
        classes, torch.zeros(3, 2, 2), FrameSizes((8, 8), (8, 7), (5, 6))
    )
    assert found.panoptic.segments == ()
    assert torch.equal(found.panoptic.id_map, torch.zeros(5, 6, dtype=torch.int32))
    assert torch.equal(found.semantic_map, torch.ones(5, 6, dtype=torch.int64))


def test_half_precision_logits_are_decided_in_single_precision():
    logits = queries("infB", torch.bfloat16)
    single = [part.float() for part in logits]
    found = fusion("panoptic", 0.3)(*logits, SIZES)
    expected = fusion("panoptic", 0.3)(*single, SIZES)
    assert torch.equal(found.panoptic.id_map, expected.panoptic.id_map)
    assert torch.equal(found.semantic_map, expected.semantic_map)


def test_every_image_of_a_batch_has_its_own_frame():
    classes, masks = queries("infA")
    outputs = QueryOutputs(
        torch.stack([classes, classes]),
        torch.stack([masks, masks]),
        (96, 128),
        ((91, 121), (80, 70)),
    )
    first, second = fusion("panoptic").finish(outputs, [(140, 100), (33, 44)])
    assert torch.equal(
        first.panoptic.id_map, fusion("panoptic")(classes, masks, SIZES).panoptic.id_map
    )
    assert second.panoptic.image_size == (33, 44)


def test_a_class_map_becomes_a_segment_per_class_and_things_are_crowd():
    space = numbered_space(3, range(1))
    found = class_segments(torch.tensor([[2, 2, 0], [0, 0, 0]]), space)
    assert [(s.train_id, s.area, s.is_crowd) for s in found.segments] == [
        (0, 4, False),
        (2, 2, True),
    ]
    assert torch.equal(found.semantic_map(), torch.tensor([[2, 2, 0], [0, 0, 0]]))


@pytest.mark.parametrize("task", ["panoptic", "general", "semantic"])
def test_autocast_changes_no_score_and_no_map(task):
    logits = queries("infA", torch.float32)
    scores = fusion(task).semantic_scores(*logits, SIZES)
    whole = fusion(task, 0.3)(*logits, SIZES)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fusion(task).semantic_scores(*logits, SIZES), scores)
        same = fusion(task, 0.3)(*logits, SIZES)
    assert torch.equal(same.semantic_map, whole.semantic_map)
    assert torch.equal(same.panoptic.id_map, whole.panoptic.id_map)
