"""Target masks of queries."""

from __future__ import annotations

import torch

from seamless_pr.models.queries.targets import MaskTargets, class_targets, segment_targets
from seamless_pr.structures.panoptic_target import PanopticTarget
from tests.support.maskformer_networks import numbered_space

SPACE = numbered_space(4, range(2))  # train ids 0, 1 are stuff; 2, 3 things
ID_MAP = torch.tensor([[1, 1, 0, 2], [3, 3, 5, 2], [3, 3, 5, 5]], dtype=torch.int32)
# Segment 4 has no pixel; segment 5 is crowd.
TARGET = PanopticTarget(
    ID_MAP,
    torch.tensor([0, 2, 2, 1, 3]),
    torch.tensor([False, False, False, False, True]),
    SPACE,
)


def test_segments_are_targets_unless_they_are_crowd_also_without_a_pixel():
    targets = segment_targets(TARGET)
    assert targets.train_ids.tolist() == [0, 2, 2, 1]
    masks = targets.masks(torch.bool)
    assert masks.flatten(1).sum(1).tolist() == [2, 2, 4, 0]
    assert torch.equal(masks[1], ID_MAP == 2)


def test_classes_are_targets_once_each_with_crowd_and_without_void():
    targets = class_targets(TARGET)
    assert targets.train_ids.tolist() == [0, 2, 3]
    assert targets.masks(torch.int64).flatten(1).sum(1).tolist() == [2, 6, 3]


def test_padding_belongs_to_no_mask():
    for targets in (segment_targets(TARGET), class_targets(TARGET)):
        before = targets.masks(torch.int64).sum()
        padded = targets.padded_to((5, 8))
        assert padded.masks(torch.int64).shape[1:] == (5, 8)
        assert padded.masks(torch.int64).sum() == before


def test_masks_are_reduced_to_the_pixels_that_nearest_resizing_takes():
    targets = segment_targets(TARGET).padded_to((6, 8))
    small = targets.resized_to((3, 4)).masks(torch.float32)
    expected = torch.nn.functional.interpolate(
        targets.masks(torch.float32)[None], (3, 4), mode="nearest"
    )[0]
    assert torch.equal(small, expected)


def test_an_image_of_pure_void_has_no_targets():
    void = PanopticTarget(
        torch.zeros(4, 6, dtype=torch.int32),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, dtype=torch.bool),
        SPACE,
    )
    for targets in (segment_targets(void), class_targets(void)):
        assert isinstance(targets, MaskTargets)
        assert len(targets) == 0
        assert targets.masks(torch.float32).shape == (0, 4, 6)
        assert targets.train_ids.dtype == torch.int64
