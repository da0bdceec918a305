"""Segments as detections of supervision."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
import torch

from seamless_pr.integrations.supervision import to_supervision
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment
from tests.support.maskformer_networks import numbered_space

SPACE = numbered_space(3, range(1))  # train ids 0, 1 are stuff, 2 a thing
ID_MAP = torch.tensor([[1, 1, 0, 2], [1, 1, 2, 2], [3, 3, 3, 3]], dtype=torch.int32)
SEGMENTATION = PanopticSegmentation(
    ID_MAP,
    (
        Segment(1, 2, 4, 0.75),
        Segment(2, 2, 3, 0.5),
        Segment(3, 0, 4, None),
        Segment(4, 1, 0, 1.0),
    ),
    SPACE,
)


def test_every_segment_with_a_pixel_is_a_detection():
    pytest.importorskip("supervision", reason="pip install supervision")
    found = to_supervision(SEGMENTATION)
    assert found.class_id.tolist() == [2, 2, 0]
    assert found.confidence.tolist() == [0.75, 0.5, 1.0]
    assert found.xyxy.tolist() == [[0, 0, 1, 1], [2, 0, 3, 1], [0, 2, 3, 2]]
    assert np.array_equal(found.mask[1], (ID_MAP == 2).numpy())
    assert found.data["class_name"].tolist() == ["class 0", "class 0", "class 1"]
    assert found.data["segment_id"].tolist() == [1, 2, 3]
    assert found.data["is_thing"].tolist() == [True, True, False]


def test_objects_alone_or_nothing_at_all():
    pytest.importorskip("supervision", reason="pip install supervision")
    assert to_supervision(SEGMENTATION, stuff=False).class_id.tolist() == [2, 2]
    void = PanopticSegmentation(torch.zeros(2, 2, dtype=torch.int32), (), SPACE)
    assert len(to_supervision(void)) == 0


def test_it_draws_in_supervision():
    supervision = pytest.importorskip("supervision", reason="pip install supervision")
    picture = np.zeros((3, 4, 3), np.uint8)
    drawn = supervision.MaskAnnotator().annotate(picture.copy(), to_supervision(SEGMENTATION))
    assert (drawn[0, 0] != 0).any()
    assert (drawn[0, 2] == 0).all()


def test_without_supervision_it_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == "supervision":
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match="pip install supervision"):
        to_supervision(SEGMENTATION)
