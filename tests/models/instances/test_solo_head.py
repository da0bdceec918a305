"""SOLOv2 on other widths and grids, against the head of the 3D-FUTURE winner's fork."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.layers.abn import make_norm_act
from seamless_pr.models.instances.solo_head import SoloHead, SoloOutput
from seamless_pr.models.instances.solo_targets import (
    SoloTarget,
    dice_losses,
    solo_losses,
    solo_target,
)
from seamless_pr.models.instances.solov2 import solo_instances
from seamless_pr.ops.opencv_resize import resize_mask
from seamless_pr.structures.object_truth import ObjectTruth
from seamless_pr.structures.settings import SoloSettings
from tests.support.golden import golden_names, load_golden
from tests.support.mmdet_recipe import (
    Objects,
    recipe_normal,
    recipe_objects,
    recipe_tensor,
    unpacked,
)

SEED, WIDTH, GRIDS = 20, 32, (12, 10, 8, 6, 4)
SIZES = ((24, 32), (12, 16), (6, 8), (3, 4), (2, 2))
TOWER_SIZES = (SIZES[1], SIZES[1], SIZES[2], SIZES[3], SIZES[3])
IMAGE_SIZE, PADDED_SIZE, FILE_SIZE = (90, 120), (96, 128), (60, 80)
GOLDEN = load_golden("mmdet/ops_winner")
# Its ranges are not known: these give its five objects, sides of 12 to 74 pixels, their levels.
SETTINGS = SoloSettings(
    scale_ranges=((1, 20), (20, 40), (40, 100), (40, 100), (100, 512)),
    objects_per_cell="last",
    dice_normalisation="masks",
)
# Theirs -> ours.
NAMES = {
    r"feature_convs\.(\d)\.conv(\d)\.conv\.": r"mask_feature.levels.\1.\2.conv.",
    r"solo_mask\.conv\.": "mask_feature.prediction.conv.",
    r"solo_mask\.gn\.": "mask_feature.prediction.norm.",
    r"kernel_convs\.(\d)\.conv\.": r"kernel_tower.\1.conv.",
    r"kernel_convs\.(\d)\.gn\.": r"kernel_tower.\1.norm.",
    r"cate_convs\.(\d)\.conv\.": r"category_tower.\1.conv.",
    r"cate_convs\.(\d)\.gn\.": r"category_tower.\1.norm.",
    r"solo_kernel\.": "kernels.",
    r"solo_cate\.": "category_logits.",
}


def fork_weights() -> dict[str, Tensor]:
    weights = {}
    for line in golden_names("mmdet/ops_winner", "fork_solo_keys"):
        theirs, _, sides = line.partition(" ")
        shape = tuple(int(side) for side in re.findall(r"\d+", sides))
        ours = theirs
        for pattern, name in NAMES.items():
            ours = re.sub(f"^{pattern}", name, ours)
        weights[ours] = recipe_tensor(f"solo_fork.{theirs}", shape, SEED)
    # Its kernels come from one cell each: the middle of three by three.
    weights["kernels.weight"] = F.pad(weights["kernels.weight"], (1, 1, 1, 1))
    return weights


@cache
def fork_output() -> SoloOutput:
    head = SoloHead(
        WIDTH,
        34,
        make_norm_act("group_norm", slope=0.0, num_groups=32),
        grid_sizes=GRIDS,
        hidden_channels=WIDTH,
        feature_channels=WIDTH,
        kernel_channels=WIDTH,
    )
    # Its mask feature has no norms before the last layer.
    for blocks in head.mask_feature.levels:
        for block in blocks:
            block.norm = nn.ReLU()
    head.load_state_dict(fork_weights())
    levels = [
        recipe_normal(f"fork_solo_f{number}", (1, WIDTH, *size), SEED)
        for number, size in enumerate(SIZES)
    ]
    with torch.no_grad():
        return head(levels)


def fork_mask_logits(cells: Tensor, level: int) -> Tensor:
    """Of some cells of a level; compared with their targets at twice the size of its map."""
    kernels = fork_output().kernels[level][0].flatten(1).t()[cells]
    masks = torch.einsum("re,ehw->rhw", kernels, fork_output().mask_features[0])
    height, width = TOWER_SIZES[level]
    doubled = (2 * height, 2 * width)
    return F.interpolate(masks[:, None], doubled, mode="bilinear", align_corners=False)[:, 0]


def fork_target() -> tuple[Objects, SoloTarget]:
    objects = recipe_objects(*IMAGE_SIZE, 5, 34, SEED + 1)
    truth = ObjectTruth.from_masks(objects.boxes, objects.classes, objects.masks)
    return objects, solo_target(truth, PADDED_SIZE, GRIDS, SETTINGS)


def test_grids_kernels_and_masks_are_those_of_the_winners_head():
    for level, logits in enumerate(fork_output().category_logits):
        torch.testing.assert_close(
            logits[0, ::4], GOLDEN[f"fork_solo_category_l{level}"], rtol=0, atol=1e-4
        )
        masks = fork_mask_logits(torch.arange(0, GRIDS[level] ** 2, 7), level)
        expected = GOLDEN[f"fork_solo_mask_logits_l{level}_sub"]
        torch.testing.assert_close(masks[:, 1::2, 1::2], expected, rtol=0, atol=1e-4)


def test_cells_learn_what_they_learn_in_the_winners_code():
    objects, target = fork_target()
    bottom, right = PADDED_SIZE[0] - IMAGE_SIZE[0], PADDED_SIZE[1] - IMAGE_SIZE[1]
    padded = F.pad(objects.masks, (0, right, 0, bottom)).bool()
    for number, level in enumerate(target.levels):
        # There 0 is the background.
        labels = GOLDEN[f"fork_solo_target_l{number}_labels"].long()
        assert torch.equal(level.classes + 1, labels)
        assert level.cells.tolist() == GOLDEN[f"fork_solo_target_l{number}_cells"].tolist()
        height, width = (2 * side for side in TOWER_SIZES[number])
        masks = torch.zeros(len(level.cells), height, width, dtype=torch.bool)
        for mask, index in zip(masks, level.objects.tolist(), strict=True):
            mask[:] = resize_mask(padded[index], (height, width))
        expected = unpacked(GOLDEN[f"fork_solo_target_l{number}_masks_packed"], width)
        assert torch.equal(masks, expected)
        if (height, width) == tuple(target.masks.shape[1:]):
            assert torch.equal(target.masks[level.objects].bool(), expected)


def test_both_losses_are_those_of_the_winners_code():
    """But for the size at which masks are compared: ours is that of the mask feature."""
    _, target = fork_target()
    losses = solo_losses(fork_output(), [target], SETTINGS)
    category = losses["solo_category"]
    expected = GOLDEN["fork_solo_loss_cate"].item()
    assert category.total.item() / category.count == pytest.approx(expected, rel=1e-5)
    dice = []
    for number, level in enumerate(target.levels):
        width = 2 * TOWER_SIZES[number][1]
        masks = unpacked(GOLDEN[f"fork_solo_target_l{number}_masks_packed"], width)
        dice.append(dice_losses(fork_mask_logits(level.cells, number).sigmoid(), masks.float()))
    mean = 3 * torch.cat(dice).mean().item()
    assert mean == pytest.approx(GOLDEN["fork_solo_loss_ins"].item(), rel=1e-5)
    assert losses["solo_mask"].count == len(torch.cat(dice))


def test_objects_are_those_that_the_winners_code_finds():
    found = solo_instances(fork_output(), 0, PADDED_SIZE, IMAGE_SIZE, SETTINGS)
    torch.testing.assert_close(found.scores, GOLDEN["fork_solo_scores"], rtol=0, atol=1e-5)
    assert found.thing_indices.tolist() == GOLDEN["fork_solo_classes"].tolist()
    masks = unpacked(GOLDEN["fork_solo_masks_packed"], FILE_SIZE[1])
    for index, mask in enumerate(masks):
        crop = found.masks.crop(index, FILE_SIZE, 0.5)
        assert int((crop.mask != mask).sum()) <= 1
