"""SOLOv2's weights: on other widths and grids, against the head of the 3D-FUTURE winner's fork."""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.layers.abn import make_norm_act
from seamless_pr.models.instances.solo_head import SoloHead
from tests.support.golden import golden_names, load_golden
from tests.support.mmdet_recipe import recipe_normal, recipe_tensor

SEED, WIDTH, GRIDS = 20, 32, (12, 10, 8, 6, 4)
SIZES = ((24, 32), (12, 16), (6, 8), (3, 4), (2, 2))
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


def test_grids_kernels_and_masks_are_those_of_the_winners_head():
    golden = load_golden("mmdet/ops_winner")
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
        output = head(levels)
    tower_sizes = [SIZES[1], SIZES[1], SIZES[2], SIZES[3], SIZES[3]]
    for number, (logits, kernels, size) in enumerate(
        zip(output.category_logits, output.kernels, tower_sizes, strict=True)
    ):
        expected = golden[f"fork_solo_category_l{number}"]
        torch.testing.assert_close(logits[0, ::4], expected, rtol=0, atol=1e-4)
        every7 = kernels[0].flatten(1).t()[::7]
        masks = torch.einsum("re,ehw->rhw", every7, output.mask_features[0])
        # It compares masks with their targets at twice the size of the level's map.
        doubled = (2 * size[0], 2 * size[1])
        masks = F.interpolate(masks[None], doubled, mode="bilinear", align_corners=False)[0]
        expected = golden[f"fork_solo_mask_logits_l{number}_sub"]
        torch.testing.assert_close(masks[:, 1::2, 1::2], expected, rtol=0, atol=1e-4)
