"""Results in COCO form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from seamless_pr.datasets.coco_results import encode_run_lengths, to_coco, to_coco_instances
from seamless_pr.ops.masks import BoxMasks, ImageMasks
from seamless_pr.structures.instances import Instances, MaskCrop
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment

LABEL_SPACE = LabelSpace(
    "toy",
    (
        Category(7, "road", False, (128, 64, 128)),
        Category(23, "sky", False, (70, 130, 180)),
        Category(26, "car", True, (0, 0, 142)),
    ),
)


def drawn(rows: str) -> torch.Tensor:
    return torch.tensor([[int(cell) for cell in row] for row in rows.split()], dtype=torch.int32)


def test_segments_carry_category_area_and_box_of_the_map() -> None:
    segmentation = PanopticSegmentation(
        drawn("22200 21120 21100 33330"),
        (Segment(1, 2, 99, score=0.75), Segment(2, 1, 5, score=1.0), Segment(3, 0, 4)),
        LABEL_SPACE,
    )
    picture, segments_info = to_coco(segmentation)
    assert segments_info == [
        {"id": 1, "category_id": 26, "area": 4, "bbox": [1, 1, 2, 2], "iscrowd": 0, "score": 0.75},
        {"id": 2, "category_id": 23, "area": 6, "bbox": [0, 0, 4, 3], "iscrowd": 0, "score": 1.0},
        {"id": 3, "category_id": 7, "area": 4, "bbox": [0, 3, 4, 1], "iscrowd": 0},
    ]
    assert picture.dtype == np.uint8
    assert picture[..., 0].tolist() == segmentation.id_map.tolist()
    assert not picture[..., 1:].any()
    assert all("score" not in info for info in to_coco(segmentation, scores=False)[1])


def test_large_ids_use_all_three_channels() -> None:
    large = 1 + 2 * 256 + 3 * 65536
    segmentation = PanopticSegmentation(
        torch.tensor([[large, 0]], dtype=torch.int32), (Segment(large, 0, 1),), LABEL_SPACE
    )
    picture, segments_info = to_coco(segmentation)
    assert picture.tolist() == [[[1, 2, 3], [0, 0, 0]]]
    assert segments_info[0]["bbox"] == [0, 0, 1, 1]


def test_segment_without_a_pixel_is_left_out() -> None:
    segmentation = PanopticSegmentation(
        drawn("11 00"), (Segment(1, 0, 2), Segment(2, 2, 0), Segment(9, 2, 0)), LABEL_SPACE
    )
    assert [info["id"] for info in to_coco(segmentation)[1]] == [1]


def test_image_of_pure_void_has_no_segments() -> None:
    picture, segments_info = to_coco(PanopticSegmentation(drawn("00 00"), (), LABEL_SPACE))
    assert segments_info == []
    assert not picture.any()


def test_ids_without_a_segment_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ids \[4\] are in the map"):
        to_coco(PanopticSegmentation(drawn("44 11"), (Segment(1, 0, 2),), LABEL_SPACE))
    huge = torch.tensor([[1 << 24]], dtype=torch.int32)
    with pytest.raises(ValueError, match="24 bits"):
        to_coco(PanopticSegmentation(huge, (Segment(1 << 24, 0, 1),), LABEL_SPACE))


@pytest.mark.parametrize("fill", ["random", "empty", "full"])
def test_run_lengths_of_a_crop_equal_those_of_the_whole_mask(fill: str) -> None:
    random = np.random.RandomState(3)
    for _ in range(20):
        height, width = random.randint(1, 30, 2)
        top, left = random.randint(0, height), random.randint(0, width)
        size = (random.randint(0, height - top + 1), random.randint(0, width - left + 1))
        crop = {
            "random": random.rand(*size) > 0.5,
            "empty": np.zeros(size, bool),
            "full": np.ones(size, bool),
        }[fill]
        whole = np.zeros((height, width), np.uint8, order="F")
        whole[top : top + size[0], left : left + size[1]] = crop
        encoded = encode_run_lengths(
            MaskCrop(torch.from_numpy(crop), int(top), int(left)), (int(height), int(width))
        )
        expected = coco_mask.encode(whole)
        assert encoded == {"size": [height, width], "counts": expected["counts"].decode()}


def test_instances_are_listed_by_score_with_pasted_masks() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [2.0, 1.0, 6.0, 3.0]])
    masks = BoxMasks(torch.full((2, 4, 4), 9.0), boxes)
    instances = Instances(torch.tensor([0.25, 0.5]), torch.tensor([0, 0]), boxes, masks)
    first, second = to_coco_instances(instances, (5, 8), LABEL_SPACE, "town/a", mask_threshold=0.4)
    assert (first["score"], second["score"]) == (0.5, 0.25)
    assert first["image_id"] == "town/a"
    assert first["category_id"] == 26
    assert first["bbox"] == [2.0, 1.0, 4.0, 2.0]
    pasted = coco_mask.decode(first["segmentation"])
    expected = np.zeros((5, 8), np.uint8)
    expected[1:3, 2:6] = 1
    np.testing.assert_array_equal(pasted, expected)


def test_masks_without_boxes_are_listed_with_the_box_of_their_pixels() -> None:
    probs = torch.zeros(2, 5, 8)
    probs[0, 1:3, 2:6] = 0.9
    masks = ImageMasks(probs, (5, 8), (5, 8))
    found = Instances(torch.tensor([0.9, 0.8]), torch.tensor([0, 0]), None, masks)
    first, empty = to_coco_instances(found, (5, 8), LABEL_SPACE, 1)
    assert first["bbox"] == [2.0, 1.0, 4.0, 2.0]
    expected = np.zeros((5, 8), np.uint8)
    expected[1:3, 2:6] = 1
    np.testing.assert_array_equal(coco_mask.decode(first["segmentation"]), expected)
    assert empty["bbox"] == [0.0, 0.0, 0.0, 0.0]


def test_image_without_instances_has_no_records() -> None:
    boxes, none = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    nothing = Instances(torch.zeros(0), none, boxes, BoxMasks(torch.zeros(0, 4, 4), boxes))
    assert to_coco_instances(nothing, (5, 8), LABEL_SPACE, 1) == []
    without_masks = Instances(torch.zeros(0), none, boxes)
    with pytest.raises(ValueError, match="no masks"):
        to_coco_instances(without_masks, (5, 8), LABEL_SPACE, 1)
