"""OpenCV's resizing against results that OpenCV gave."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from seamless_pr.ops.opencv_resize import resize_mask, resize_probs
from tests.support.golden import load_golden
from tests.support.mmdet_recipe import recipe_objects, recipe_uniform, unpacked

GOLDEN = load_golden("mmdet/ops_winner")
SIZE, SEED = (97, 113), 20


@pytest.mark.parametrize("side", [7, 13, 28])
def test_mask_targets_of_mmdetection_1_are_exact(side):
    objects = recipe_objects(*SIZE, 4, 34, SEED)
    corners = GOLDEN["mt_proposals"].int().tolist()
    found = torch.stack(
        [
            resize_mask(objects.masks[match, y0 : y1 + 1, x0 : x1 + 1], (side, side))
            for match, (x0, y0, x1, y1) in zip(GOLDEN["mt_matched"].tolist(), corners, strict=True)
        ]
    )
    expected = unpacked(GOLDEN[f"v1_mask_target_{side}_packed"], side)
    torch.testing.assert_close(found.bool(), expected)


def test_pasted_masks_of_mmdetection_1_are_exact():
    probs = recipe_uniform("paste_prob", (4, 1, 28, 28), SEED)[:, 0]
    expected = unpacked(GOLDEN["v1_paste_packed"], SIZE[1])
    for prob, box, mask in zip(probs, GOLDEN["v1_paste_boxes"].int().tolist(), expected):
        x0, y0, x1, y1 = box
        found = torch.zeros(SIZE, dtype=torch.bool)
        found[y0 : y1 + 1, x0 : x1 + 1] = resize_probs(prob, (y1 - y0 + 1, x1 - x0 + 1)) > 0.5
        torch.testing.assert_close(found, mask)


def test_any_mask_is_resized_as_opencv_does_it():
    random = np.random.default_rng(0)
    for _ in range(200):
        mask = (random.random(random.integers(1, 120, 2)) < 0.5).astype(np.uint8)
        size = tuple(random.integers(1, 60, 2).tolist())
        found = resize_mask(torch.from_numpy(mask), size)
        expected = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_LINEAR)
        assert found.tolist() == expected.tolist()


def test_the_same_size_changes_nothing():
    mask = torch.tensor([[0, 1, 1], [1, 0, 1]])
    torch.testing.assert_close(resize_mask(mask, (2, 3)), mask)
    torch.testing.assert_close(resize_probs(mask.float(), (2, 3)), mask.float())
