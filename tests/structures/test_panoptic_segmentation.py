"""Finished panoptic maps."""

from __future__ import annotations

import pytest
import torch

from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment

LABEL_SPACE = LabelSpace(
    "toy", (Category(7, "road", False, (128, 64, 128)), Category(26, "car", True, (0, 0, 142)))
)
IGNORE = LabelSpace.IGNORE_TRAIN_ID
IDS = torch.tensor([[1, 1, 2], [3, 0, 2]], dtype=torch.int32)
SEGMENTS = (Segment(1, 0, 2), Segment(2, 1, 2, is_crowd=True), Segment(3, 1, 1))


def test_crowd_regions_become_void_and_nothing_else_changes() -> None:
    segmentation = PanopticSegmentation(IDS, SEGMENTS, LABEL_SPACE)
    without = segmentation.without_crowd()
    assert without.id_map.tolist() == [[1, 1, 0], [3, 0, 0]]
    assert without.segments == (SEGMENTS[0], SEGMENTS[2])
    assert segmentation.id_map.tolist() == IDS.tolist()
    assert without.without_crowd() is without


def test_semantic_map_holds_train_ids_and_ignore_for_void() -> None:
    segmentation = PanopticSegmentation(IDS, SEGMENTS, LABEL_SPACE)
    assert segmentation.semantic_map().tolist() == [[0, 0, 1], [1, IGNORE, 1]]
    void = PanopticSegmentation(torch.zeros(1, 2, dtype=torch.int32), (), LABEL_SPACE)
    assert void.semantic_map().tolist() == [[IGNORE, IGNORE]]


def test_ids_must_be_unique_and_not_void() -> None:
    with pytest.raises(ValueError, match="unique and not 0"):
        PanopticSegmentation(IDS, (Segment(1, 0, 1), Segment(1, 1, 1)), LABEL_SPACE)
    with pytest.raises(ValueError, match="unique and not 0"):
        PanopticSegmentation(IDS, (Segment(0, 0, 1),), LABEL_SPACE)
    with pytest.raises(ValueError, match="int32"):
        PanopticSegmentation(IDS.long(), (), LABEL_SPACE)
