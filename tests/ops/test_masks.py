"""Pasting against grid sampling."""

import pytest
import torch
import torch.nn.functional as F

from seamless_pr.ops.masks import BoxMasks, PixelBoxMasks, paste_mask


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


@pytest.mark.parametrize("kind", [BoxMasks, PixelBoxMasks])
def test_masks_of_boxes_stay_of_their_kind_however_they_are_handled(kind: type[BoxMasks]):
    masks = kind(torch.arange(2.0).view(2, 1, 1), torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 5]]))
    handled = masks.select(torch.tensor([1])).scaled(2.0, 3.0).to("cpu")
    assert type(handled) is kind
    assert handled.logits.tolist() == [[[1.0]]]
    assert handled.boxes.tolist() == [[2.0, 3.0, 6.0, 15.0]]
