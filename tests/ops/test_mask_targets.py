"""Mask targets against stacks of full-size masks."""

import torch
import torch.nn.functional as F
from torchvision.ops import roi_align

from seamless_pr.ops.mask_targets import (
    aligned_mask_targets,
    nearest_mask_targets,
    pixel_mask_targets,
)


def random_id_map(seed, size=(50, 70), num_ids=5):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, num_ids, (1, 1, 7, 9), generator=generator).float()
    return F.interpolate(coarse, size=size)[0, 0].int()


def random_boxes(seed, num_boxes, size=(50, 70)):
    generator = torch.Generator().manual_seed(seed)
    limit = torch.tensor([size[1], size[0]]).float()
    corners = torch.rand(num_boxes, 2, 2, generator=generator) * limit
    return torch.cat([corners.amin(1), corners.amax(1) + 0.5], dim=1).clamp(max=70.0)


def test_coarse_targets_equal_roi_align_of_the_bit_masks():
    id_map, boxes = random_id_map(0), random_boxes(1, 40)
    ids = torch.randint(1, 5, (40,), generator=torch.Generator().manual_seed(2)).int()
    masks = torch.stack([(id_map == i).float() for i in ids])[:, None]
    rois = torch.cat([torch.arange(40.0)[:, None], boxes], dim=1)
    expected = roi_align(masks, rois, 7, aligned=True)[:, 0]
    extents = []
    for object_id in ids:
        rows, columns = torch.nonzero(id_map == object_id).unbind(1)
        extents.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    targets = aligned_mask_targets(id_map, ids, boxes, torch.tensor(extents).float(), 7)
    decided = (expected - 0.5).abs() > 1e-4
    assert torch.equal(targets[decided], (expected >= 0.5).float()[decided])
    assert 0.02 < targets.mean() < 0.9


def test_nearest_targets_read_one_pixel_per_cell_and_leave_void_out():
    id_map = torch.tensor([[1, 1, 0, 2], [1, 2, 2, 2]]).int()
    targets, valid = nearest_mask_targets(
        id_map, torch.tensor([1, 2]), torch.tensor([[0.0, 0.0, 4.0, 2.0], [1.0, 0.0, 3.0, 2.0]]), 2
    )
    assert targets.tolist() == [[[1, 0], [0, 0]], [[0, 0], [1, 1]]]
    assert valid.tolist() == [[[True, True], [True, True]], [[True, False], [True, True]]]


def test_a_box_beyond_the_image_reads_no_object_there():
    id_map, ids = random_id_map(3), torch.tensor([1, 2, 3]).int()
    boxes = torch.tensor(
        [[40.0, 20.0, 70.0, 50.0], [0.0, 30.0, 30.5, 53.9], [60.0, 3.0, 75.0, 40.0]]
    )
    padded = F.pad(id_map, (0, 10, 0, 10))
    found = pixel_mask_targets(id_map, ids, boxes, 7)
    assert torch.equal(found, pixel_mask_targets(padded, ids, boxes, 7))
    assert not torch.equal(found, pixel_mask_targets(id_map, ids, boxes.clamp(max=49), 7))


def test_no_boxes_give_empty_targets():
    id_map, none = random_id_map(0), torch.zeros(0, 4)
    ids = torch.zeros(0, dtype=torch.int32)
    assert aligned_mask_targets(id_map, ids, none, none, 7).shape == (0, 7, 7)
    targets, valid = nearest_mask_targets(id_map, ids, none, 28)
    assert targets.shape == (0, 28, 28)
    assert valid.dtype == torch.bool
