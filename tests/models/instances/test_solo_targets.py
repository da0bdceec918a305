"""What SOLOv2's cells learn, and their losses in every precision of what the head says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seamless_pr.models.instances.solo_head import SoloOutput
from seamless_pr.models.instances.solo_targets import (
    LevelTarget,
    SoloTarget,
    focal_loss_sum,
    solo_losses,
    solo_target,
)
from seamless_pr.structures.object_truth import ObjectTruth
from seamless_pr.structures.settings import SoloSettings


def test_the_focal_loss_keeps_double_precision_and_raises_half():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    classes = torch.randint(-1, 3, (2, 4, 5), generator=generator)
    loss = focal_loss_sum(logits, classes, 0.25, 2.0)
    probs = logits.detach().sigmoid().movedim(1, -1).flatten(0, -2)
    expected = 0.0
    for row, own in zip(probs.tolist(), classes.flatten().tolist(), strict=True):
        for index, prob in enumerate(row):
            right, share = (prob, 0.25) if index == own else (1 - prob, 0.75)
            expected -= share * (1 - right) ** 2 * torch.tensor(right).double().log().item()
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert torch.autograd.gradcheck(lambda x: focal_loss_sum(x, classes, 0.25, 2.0), logits)
    for dtype in (torch.float16, torch.bfloat16):
        half = logits.detach().to(dtype)
        found = focal_loss_sum(half, classes, 0.25, 2.0)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, focal_loss_sum(half.float(), classes, 0.25, 2.0))


def test_autocast_changes_no_loss():
    draw = torch.Generator().manual_seed(0)
    output = SoloOutput(
        category_logits=[torch.randn(1, 3, 2, 2, generator=draw)],
        kernels=[torch.randn(1, 8, 2, 2, generator=draw)],
        mask_features=torch.randn(1, 8, 6, 5, generator=draw),
    )
    level = LevelTarget(
        torch.tensor([[0, -1], [-1, 2]]), torch.tensor([0, 3]), torch.tensor([0, 1])
    )
    masks = (torch.rand(2, 6, 5, generator=draw) > 0.5).float()
    targets = [SoloTarget((level,), masks)]
    losses = solo_losses(output, targets, SoloSettings())
    with torch.autocast("cpu", torch.bfloat16):
        same = solo_losses(output, targets, SoloSettings())
    assert {name: loss.total.item() for name, loss in same.items()} == {
        name: loss.total.item() for name, loss in losses.items()
    }


@pytest.mark.parametrize("normalisation", ["cells", "masks"])
@pytest.mark.parametrize("seed", range(3))
def test_losses_of_three_images_are_sums_of_a_plain_loop(seed, normalisation):
    """One image has no object; cells have none, one or two masks."""
    rng = np.random.default_rng(seed)
    sides = (4, 3)
    output = SoloOutput(
        tuple(torch.from_numpy(rng.normal(size=(3, 2, side, side))) for side in sides),
        tuple(torch.from_numpy(rng.normal(size=(3, 5, side, side))) for side in sides),
        torch.from_numpy(rng.normal(size=(3, 5, 6, 7))),
    )
    targets, dice, focal, num_masks, num_cells = [], 0.0, 0.0, 0, 0
    for image, num_objects in enumerate((3, 0, 2)):
        masks = torch.from_numpy((rng.random((num_objects, 6, 7)) > 0.5).astype(np.float32))
        levels = []
        for level, side in enumerate(sides):
            classes = torch.full((side, side), -1)
            pairs = [(0, 0), (0, num_objects - 1), (side + 1, 0)] if num_objects else []
            for cell, index in pairs:
                classes.view(-1)[cell] = (cell + index) % 2
                kernel = output.kernels[level][image].flatten(1)[:, cell]
                probs = 1 / (
                    1 + (-torch.einsum("e,ehw->hw", kernel, output.mask_features[image])).exp()
                )
                common = float((probs * masks[index]).sum())
                squares = float(probs.square().sum()) + float(masks[index].sum()) + 0.002
                dice += 1 - 2 * common / squares
            num_masks += len(pairs)
            num_cells += len({cell for cell, _ in pairs})
            cells, objects = torch.tensor(pairs or np.zeros((0, 2))).long().unbind(1)
            levels.append(LevelTarget(classes, cells, objects))
            for row in range(side):
                for column in range(side):
                    for thing in range(2):
                        logit = float(output.category_logits[level][image, thing, row, column])
                        is_own = int(classes[row, column]) == thing
                        right = 1 / (1 + np.exp(-logit if is_own else logit))
                        weight = 0.3 if is_own else 0.7
                        focal -= weight * (1 - right) ** 1.5 * np.log(right)
        targets.append(SoloTarget(tuple(levels), masks))
    settings = SoloSettings(dice_normalisation=normalisation, focal_alpha=0.3, focal_gamma=1.5)
    losses = solo_losses(output, targets, settings)
    assert losses["solo_mask"].total.item() == pytest.approx(dice, rel=1e-9)
    assert losses["solo_mask"].count == (num_cells if normalisation == "cells" else num_masks)
    assert losses["solo_category"].total.item() == pytest.approx(focal, rel=1e-9)
    assert losses["solo_category"].count == num_cells + 1


IMAGE_SIZE, PADDED_SIZE = (60, 52), (64, 64)
GRIDS = (12, 8)
SETTINGS = SoloSettings(scale_ranges=((1, 24), (16, 64)), centre_fraction=0.7)


def drawn_objects(seed: int, number: int = 7) -> ObjectTruth:
    """Rectangles without a random part of their pixels; the last one has none at all."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((number, *IMAGE_SIZE), bool)
    boxes = np.zeros((number, 4), np.float32)
    for index in range(number):
        height, width = rng.integers(3, 45, 2)
        top, left = rng.integers(0, IMAGE_SIZE[0] - 2), rng.integers(0, IMAGE_SIZE[1] - 2)
        bottom, right = min(top + height, IMAGE_SIZE[0]), min(left + width, IMAGE_SIZE[1])
        boxes[index] = left, top, right, bottom
        window = masks[index, top:bottom, left:right]
        window[:] = rng.random(window.shape) < rng.uniform(0.3, 1)
    masks[-1] = False
    things = torch.from_numpy(rng.integers(0, 3, number))
    return ObjectTruth.from_masks(torch.from_numpy(boxes), things, torch.from_numpy(masks))


def cells_by_hand(truth: ObjectTruth, side: int, scale_range: tuple[float, float]):
    """Per object of a level, in order: its index and its cells (row, column)."""
    found = []
    height, width = PADDED_SIZE
    for index, (x0, y0, x1, y1) in enumerate(truth.boxes.double().tolist()):
        rows, columns = np.nonzero(truth.mask(index).numpy())
        scale = ((x1 - x0) * (y1 - y0)) ** 0.5
        if not len(rows) or not scale_range[0] <= scale <= scale_range[1]:
            continue
        spans = []
        for middle, length, extent in (
            (rows.mean(), y1 - y0, height),
            (columns.mean(), x1 - x0, width),
        ):
            cell = int(middle / extent * side)
            half = 0.5 * SETTINGS.centre_fraction * length
            first = max(int(max(middle - half, 0) / extent * side), cell - 1)
            last = min(int((middle + half) / extent * side), side - 1, cell + 1)
            spans.append(range(first, last + 1))
        found.append((index, [(row, column) for row in spans[0] for column in spans[1]]))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_cells_around_the_centre_of_mass_learn_an_object(seed):
    truth = drawn_objects(seed)
    target = solo_target(truth, PADDED_SIZE, GRIDS, SETTINGS)
    last = solo_target(
        truth, PADDED_SIZE, GRIDS, SoloSettings(**vars(SETTINGS) | {"objects_per_cell": "last"})
    )
    for side, scale_range, level, last_level in zip(
        GRIDS, SETTINGS.scale_ranges, target.levels, last.levels, strict=True
    ):
        classes, pairs, owner = np.full((side, side), -1), [], {}
        for index, cells in cells_by_hand(truth, side, scale_range):
            for row, column in cells:
                classes[row, column] = truth.thing_indices[index]
                pairs.append((row * side + column, index))
                owner[row * side + column] = index
        assert pairs
        assert np.array_equal(level.classes.numpy(), classes)
        assert np.array_equal(last_level.classes.numpy(), classes)
        assert list(zip(level.cells.tolist(), level.objects.tolist())) == pairs
        found = list(zip(last_level.cells.tolist(), last_level.objects.tolist()))
        assert found == sorted(owner.items())
    assert target.num_cells == sum(int((level.classes >= 0).sum()) for level in target.levels)


def test_an_object_in_the_last_corner_has_no_cells_beyond_it():
    mask = torch.zeros(1, 64, 64)
    mask[0, 60:, 60:] = 1  # so that half a box from the centre of mass lies outside
    boxes = torch.tensor([[48.0, 48, 64, 64]])
    truth = ObjectTruth.from_masks(boxes, torch.tensor([2]), mask)
    whole = SoloSettings(scale_ranges=((1, 24), (1, 24)), centre_fraction=1.0)
    target = solo_target(truth, PADDED_SIZE, GRIDS, whole)
    for side, level in zip(GRIDS, target.levels, strict=True):
        expected = [row * side + column for row in (-2, -1) for column in (-2, -1)]
        assert level.cells.tolist() == [side * (side + 1) + cell for cell in expected]


def test_a_quarter_mask_has_cells_where_two_of_the_four_middle_pixels_are():
    truth = drawn_objects(0)
    masks = solo_target(truth, PADDED_SIZE, GRIDS, SETTINGS).masks
    assert masks.shape == (7, 16, 16)
    padded = np.zeros((7, *PADDED_SIZE), int)
    padded[:, : IMAGE_SIZE[0], : IMAGE_SIZE[1]] = truth.label_map.numpy()
    for row in range(16):
        for column in range(16):
            middle = padded[:, 4 * row + 1 : 4 * row + 3, 4 * column + 1 : 4 * column + 3]
            expected = middle.sum((1, 2)) >= 2
            assert np.array_equal(masks[:, row, column].numpy(), expected)


def test_sides_are_multiples_of_the_stride_of_masks():
    with pytest.raises(ValueError, match="multiples of 4; got 64x62"):
        solo_target(drawn_objects(0), (64, 62), GRIDS, SETTINGS)
