"""Masks pasted all at once against the crops, one by one."""

import pytest
import torch

from seamless_pr.ops import mask_paste
from seamless_pr.ops import masks as mask_kinds
from seamless_pr.ops.masks import BoxMasks, ImageMasks, PixelBoxMasks, pooled_masks

SIZE = (37, 53)


def drawn_masks(kind):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(40, 14, 14, generator=generator)
    if kind is ImageMasks:
        return ImageMasks(logits.sigmoid(), (40, 64), (34, 51))
    corners = torch.rand(40, 2, generator=generator) * torch.tensor([58, 43]) - 8
    boxes = torch.cat([corners, corners + 25 * torch.rand(40, 2, generator=generator)], 1)
    boxes[0] = torch.tensor([5.0, 5, 5, 9])
    if kind is BoxMasks:  # The other kind's come from boxes that were clipped.
        boxes[1] = torch.tensor([60.0, 5, 70, 9])
    boxes[2] = torch.tensor([-30.0, -20, 90, 60])
    boxes[3] = torch.tensor([4.5, 3.5, 9.5, 8.5])
    return kind(logits, boxes)


@pytest.mark.parametrize("kind", [BoxMasks, PixelBoxMasks, ImageMasks])
@pytest.mark.parametrize("includes", [False, True])
def test_pasted_masks_are_the_crops_in_their_place(kind, includes, monkeypatch):
    for module in (mask_paste, mask_kinds):
        monkeypatch.setattr(module, "PIXELS_AT_ONCE", 7 * SIZE[0] * SIZE[1])
    masks = drawn_masks(kind)
    pasted = masks.paste(SIZE, 0.5, includes_threshold=includes)
    assert pasted.shape == (40, *SIZE)
    for index in range(40):
        crop = masks.crop(index, SIZE, 0.5, includes_threshold=includes)
        expected = torch.zeros(SIZE, dtype=torch.bool)
        expected[crop.window] = crop.mask
        assert torch.equal(pasted[index], expected), index
    assert 0 < pasted.float().mean() < 1


def test_masks_of_several_networks_are_pasted_in_the_order_of_their_pool():
    parts = [drawn_masks(BoxMasks), drawn_masks(ImageMasks)]
    pooled = pooled_masks(parts, torch.device("cpu")).select(torch.tensor([41, 3, 79, 0]))
    pasted = pooled.paste(SIZE, 0.5)
    expected = [parts[1].paste(SIZE, 0.5)[[1, 39]], parts[0].paste(SIZE, 0.5)[[3, 0]]]
    assert torch.equal(pasted[[0, 2]], expected[0])
    assert torch.equal(pasted[[1, 3]], expected[1])
