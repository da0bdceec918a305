"""Fusion: hand-drawn maps, and the reference's golden case."""

import numpy as np
import pytest
import torch

from seamless_pr.models.fusion import by_score
from seamless_pr.models.fusion.by_score import fuse, resized_segmentation
from seamless_pr.ops import class_maps
from seamless_pr.ops.class_maps import resample_grid, resampled_classes
from seamless_pr.ops.masks import BoxMasks
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.structures.settings import FusionSettings
from tests.support.golden import GOLDEN_FOLDER
from tests.support.smooth_logits import smooth_logits

GOLDEN = GOLDEN_FOLDER / "seamseg" / "ops.npz"
COLOR = (0, 0, 0)


def label_space(num_stuff, num_things):
    categories = [
        Category(i + 1, f"class{i}", i >= num_stuff, COLOR) for i in range(num_stuff + num_things)
    ]
    return LabelSpace("drawn", tuple(categories))


SPACE = label_space(2, 2)
TINY = FusionSettings(stuff_area_pixels=1)


def drawn(text):
    return torch.tensor([[int(c) for c in line] for line in text.split()])


def full_boxes(*rows, side=28):
    """(box, score, thing_index) rows with masks that fill their box."""
    boxes = torch.tensor([row[0] for row in rows]).float().reshape(-1, 4)
    scores = torch.tensor([row[1] for row in rows])
    things = torch.tensor([row[2] for row in rows], dtype=torch.int64)
    masks = BoxMasks(torch.full((len(rows), side, side), 20.0), boxes)
    return Instances(scores, things, boxes, masks)


def test_the_best_score_wins_and_classes_fill_the_rest():
    classes = drawn("000111 000111 000111")
    found = full_boxes(([0, 0, 3, 2], 0.6, 0), ([2, 0, 5, 2], 0.9, 1))
    result = fuse(classes, found, SPACE, TINY)
    assert torch.equal(result.id_map, drawn("221114 221114 333444").int())
    assert [(s.train_id, s.area, s.is_crowd) for s in result.segments] == [
        (3, 6, False),
        (2, 4, False),
        (0, 3, False),
        (1, 5, False),
    ]
    assert [round(s.score, 4) for s in result.segments] == [0.9, 0.6, 1.0, 1.0]


def test_an_instance_more_than_half_hidden_is_dropped_but_exactly_half_is_kept():
    classes = drawn("0000 0000")
    hidden = fuse(classes, full_boxes(([0, 0, 3, 2], 0.9, 0), ([0, 0, 4, 2], 0.8, 0)), SPACE, TINY)
    assert [s.train_id for s in hidden.segments] == [2, 0]
    half = fuse(classes, full_boxes(([0, 0, 2, 2], 0.9, 0), ([0, 0, 4, 2], 0.8, 1)), SPACE, TINY)
    assert torch.equal(half.id_map, drawn("1122 1122").int())


def test_scores_must_exceed_the_threshold():
    result = fuse(drawn("00 00"), full_boxes(([0, 0, 2, 2], 0.5, 0)), SPACE, TINY)
    assert [s.train_id for s in result.segments] == [0]


def test_an_instance_without_a_pixel_keeps_its_segment():
    result = fuse(drawn("00 00"), full_boxes(([0.6, 0, 1.4, 2], 0.9, 0)), SPACE, TINY)
    assert [(s.segment_id, s.train_id, s.area) for s in result.segments] == [(1, 2, 0), (2, 0, 4)]


def test_small_regions_become_void_and_thing_regions_become_crowd():
    classes = drawn("0001 0022 0022")
    result = fuse(classes, full_boxes(), SPACE, FusionSettings(stuff_area_pixels=2))
    assert torch.equal(result.id_map, drawn("1110 1122 1122").int())
    assert [(s.train_id, s.is_crowd) for s in result.segments] == [(0, False), (2, True)]


def test_the_area_limit_follows_the_size_of_the_image():
    classes = torch.zeros(64, 128, dtype=torch.int64)
    classes[:4, :4] = 1
    assert len(fuse(classes, full_boxes(), SPACE, FusionSettings()).segments) == 2
    classes[0, 0] = 0
    assert len(fuse(classes, full_boxes(), SPACE, FusionSettings()).segments) == 1


def test_detections_without_masks_are_refused():
    found = Instances(torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    with pytest.raises(ValueError, match="no masks"):
        fuse(drawn("00"), found, SPACE, TINY)


@pytest.mark.parametrize("prefix, num_rows", [("pp", None), ("pp0", 0)])
def test_fusion_equals_the_reference(prefix, num_rows):
    golden = np.load(GOLDEN)
    boxes, scores, things, masks = (
        torch.from_numpy(golden[f"pp_{name}"][:num_rows]) for name in ("bbx", "obj", "cls", "msk")
    )
    boxes = boxes[:, [1, 0, 3, 2]]
    found = Instances(scores, things, boxes, BoxMasks(masks, boxes))
    result = fuse(
        torch.from_numpy(golden["pp_sem"]),
        found,
        label_space(4, 3),
        FusionSettings(stuff_area_pixels=400),
    )
    assert np.array_equal(result.id_map.numpy(), golden[f"{prefix}_out_msk"])
    assert [s.train_id for s in result.segments] == golden[f"{prefix}_out_cat"][1:].tolist()
    assert [s.is_crowd for s in result.segments] == golden[f"{prefix}_out_iscrowd"][1:].tolist()


@pytest.mark.parametrize("noise", [0.0, 5.0])
def test_strips_of_a_large_image_give_the_same_map(noise, monkeypatch):
    """Both where few pixels are undecided and where most are."""
    generator = torch.Generator().manual_seed(0)
    logits = smooth_logits(0)
    logits = logits + noise * torch.randn(logits.shape, generator=generator)
    grid = resample_grid((13, 17), (26, 34), (26, 34), (101, 67))
    maps = []
    for rows, numbers in ((1024, 2**19), (8, 500)):
        monkeypatch.setattr(by_score, "_STRIP_ROWS", rows)
        monkeypatch.setattr(class_maps, "_NUMBERS_IN_CACHE", numbers)
        classes = resampled_classes(logits, grid)
        maps.append(fuse(classes, None, label_space(4, 3), TINY).id_map)
    assert torch.equal(*maps)
    assert len(maps[0].unique()) > 3


def test_a_map_fused_at_network_size_grows_by_nearest_neighbour():
    small = fuse(drawn("01 01"), full_boxes(), SPACE, TINY)
    large = resized_segmentation(small, (4, 6))
    assert torch.equal(large.id_map, drawn("111222 111222 111222 111222").int())
    assert [s.area for s in large.segments] == [12, 12]
    assert resized_segmentation(small, (2, 2)) is small
