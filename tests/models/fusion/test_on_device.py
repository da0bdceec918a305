"""Fusion that is read once, against painting one instance after the other."""

import pytest
import torch

from seamless_pr.models.fusion import on_device
from seamless_pr.models.fusion.by_score import fuse, resized_segmentation
from seamless_pr.models.fusion.on_device import fuse_fixed, read
from seamless_pr.ops.masks import BoxMasks
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.settings import FusionSettings
from tests.models.fusion.test_by_score import SPACE, drawn, full_boxes, label_space

SIZE = (48, 64)


def crowded(num_instances, seed):
    """Blobs of which many hide each other."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(num_instances, 2, generator=generator) * torch.tensor([50, 35])
    sides = 4 + 30 * torch.rand(num_instances, 2, generator=generator)
    boxes = torch.cat([corners, corners + sides], 1)
    logits = torch.randn(num_instances, 7, 7, generator=generator) + 1
    scores = torch.rand(num_instances, generator=generator).sort(descending=True).values
    things = torch.randint(3, (num_instances,), generator=generator)
    return Instances(scores, things, boxes, BoxMasks(logits, boxes))


def class_map(seed):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(7, (6, 8), generator=generator)
    coarse[0, 0] = LabelSpace.IGNORE_TRAIN_ID
    return coarse.repeat_interleave(8, 0).repeat_interleave(8, 1).short()


@pytest.mark.parametrize("strip_bytes", [2**28, 1000])
@pytest.mark.parametrize("semantic_things", ["crowd", "void"])
@pytest.mark.parametrize("output_size", [SIZE, (60, 100)])
@pytest.mark.parametrize("num_instances", [0, 40, 300])
def test_maps_and_segments_are_those_of_painting_one_by_one(
    num_instances, output_size, semantic_things, strip_bytes, monkeypatch
):
    monkeypatch.setattr(on_device, "_BYTES_AT_ONCE", strip_bytes)
    monkeypatch.setattr(on_device, "NUM_SWEEPS", 16)
    space = label_space(4, 3)
    settings = FusionSettings(
        score_threshold=0.3, stuff_area_pixels=60, semantic_things=semantic_things
    )
    classes, instances = class_map(num_instances), crowded(num_instances, 1)
    expected = resized_segmentation(fuse(classes, instances, space, settings), output_size)
    found = read([fuse_fixed(classes, instances, None, space, settings, output_size)] * 2, space)
    for one in found:
        assert torch.equal(one.segmentation.id_map, expected.id_map)
        assert one.segmentation.segments == expected.segments
        assert one.count == num_instances
    assert len(expected.segments) > 3


def test_rows_beyond_the_count_are_no_instances():
    instances = full_boxes(([0, 0, 2, 2], 0.9, 0), ([2, 0, 4, 2], 0.8, 1))
    settings = FusionSettings(stuff_area_pixels=1)
    fused = fuse_fixed(
        drawn("0000 0000").short(), instances, torch.tensor(1), SPACE, settings, (2, 4)
    )
    (found,) = read([fused], SPACE)
    assert torch.equal(found.segmentation.id_map, drawn("1122 1122").int())
    assert found.count == 1


def test_a_chain_that_is_cut_short_gives_no_map(monkeypatch):
    """Each box hides most of the next one, unless it is hidden itself."""
    monkeypatch.setattr(on_device, "NUM_SWEEPS", 3)
    rows = [([2 * i, 0, 2 * i + 7, 2], 0.99 - 0.01 * i, 0) for i in range(9)]
    fused = fuse_fixed(
        torch.zeros(2, 24, dtype=torch.int16), full_boxes(*rows), None, SPACE, FusionSettings(),
        (2, 24),
    )  # fmt: skip
    assert read([fused], SPACE)[0].segmentation is None


def test_nothing_but_classes_gives_their_regions():
    settings = FusionSettings(stuff_area_pixels=1)
    fused = fuse_fixed(drawn("01 01").short(), None, None, SPACE, settings, (2, 2))
    (found,) = read([fused], SPACE)
    assert torch.equal(found.segmentation.id_map, drawn("12 12").int())
