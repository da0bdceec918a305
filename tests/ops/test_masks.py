"""Mask targets against stacks of full-size masks, and pasting against grid sampling."""

import torch
import torch.nn.functional as F
from torchvision.ops import roi_align

from seamless_pr.ops.masks import aligned_mask_targets, nearest_mask_targets, paste_mask


def pasted_on_whole_image(probs, box, size):
    """The slow way: every pixel of the image reads the mask, zeros outside."""
    x0, y0, x1, y1 = box
    y = (torch.arange(size[0]) + 0.5 - y0) / (y1 - y0) * 2 - 1
    x = (torch.arange(size[1]) + 0.5 - x0) / (x1 - x0) * 2 - 1
    grid = torch.stack([x.expand(size[0], -1), y[:, None].expand(-1, size[1])], -1)[None]
    return F.grid_sample(probs[None, None], grid, align_corners=False)[0, 0]


def test_pasting_equals_reading_the_mask_at_every_pixel():
    generator = torch.Generator().manual_seed(0)
    size = (40, 60)
    for _ in range(50):
        probs = torch.rand(7, 7, generator=generator)
        start = torch.rand(2, generator=generator) * torch.tensor([60.0, 40.0]) - 10
        extent = torch.rand(2, generator=generator) * 40 + 0.2
        box = (*start.tolist(), *(start + extent).tolist())
        expected = pasted_on_whole_image(probs, box, size)
        crop = paste_mask(probs, box, size, 0.5)
        whole = torch.zeros(size, dtype=torch.bool)
        whole[crop.window] = crop.mask
        decided = (expected - 0.5).abs() > 1e-4
        assert torch.equal(whole[decided], (expected > 0.5)[decided])


def test_boxes_without_a_pixel_centre_paste_to_nothing():
    probs = torch.ones(4, 4)
    for box in [
        (3.6, 3.0, 4.4, 9.0),
        (5.0, 5.0, 5.0, 9.0),
        (9.0, 2.0, 4.0, 5.0),
        (100.0, 0.0, 120.0, 9.0),
    ]:
        assert paste_mask(probs, box, (20, 20), 0.5).mask.numel() == 0


def test_a_full_mask_covers_exactly_the_pixels_whose_centres_are_inside():
    crop = paste_mask(torch.ones(8, 8), (2.4, 1.0, 5.6, 4.0), (10, 10), 0.5)
    assert (crop.top, crop.left, tuple(crop.mask.shape)) == (1, 2, (3, 4))
    # The outermost half cell fades into the zeros around the mask, but stays above one half.
    assert crop.mask.all()


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


def test_no_boxes_give_empty_targets():
    id_map, none = random_id_map(0), torch.zeros(0, 4)
    ids = torch.zeros(0, dtype=torch.int32)
    assert aligned_mask_targets(id_map, ids, none, none, 7).shape == (0, 7, 7)
    targets, valid = nearest_mask_targets(id_map, ids, none, 28)
    assert targets.shape == (0, 28, 28)
    assert valid.dtype == torch.bool
