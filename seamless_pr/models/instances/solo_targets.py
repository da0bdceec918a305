"""What the cells of SOLOv2's grids should say, and the losses of the cells.

Letters: G objects, K classes, S side of a grid, M mask targets of a level, E kernel channels, h, w
mask feature.
Source: SOLO (ECCV 2020), section 3; details of the released code, as in mmdetection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.models.instances.solo_head import SoloOutput
from seamless_pr.ops.precision import at_least_single, without_autocast
from seamless_pr.ops.vectors import vector
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.object_truth import ObjectTruth
from seamless_pr.structures.settings import SoloSettings

MASK_STRIDE = 4
# Keeps the Dice coefficient of two empty masks finite, and its gradient small.
_DICE_EPSILON = 1e-3


@dataclass(frozen=True)
class LevelTarget:
    """What one grid of one image should say.

    Attributes:
        classes: [S, S] int64; -1 where no object is.
        cells: [M] int64, flat cell of each mask target; a cell may come more than once.
        objects: [M] int64, the object whose mask it is.
    """

    classes: Tensor
    cells: Tensor
    objects: Tensor


@dataclass(frozen=True)
class SoloTarget:
    """What the grids of one image should say.

    Attributes:
        levels: of each grid.
        masks: [G, h, w] float32 in {0, 1} at the mask feature's resolution.
    """

    levels: tuple[LevelTarget, ...]
    masks: Tensor
    num_cells: int = field(init=False)

    def __post_init__(self) -> None:
        found = sum(int((level.classes >= 0).sum()) for level in self.levels)
        object.__setattr__(self, "num_cells", found)


@torch.no_grad()
def solo_target(
    truth: ObjectTruth,
    padded_size: tuple[int, int],
    grid_sizes: Sequence[int],
    settings: SoloSettings,
) -> SoloTarget:
    """Assigns objects to cells.

    An object goes to every level whose range holds the root of its box's area, and there to the
    cells around its centre of mass: at most one cell away from the centre's, and within
    `centre_fraction` of the box. In the category map later objects overwrite earlier ones.

    Args:
        truth: of one image; objects without a pixel are left out.
        padded_size: (height, width) of the network input.
        grid_sizes: S per level.
        settings: ranges and fractions.

    Raises:
        ValueError: the padded size is no multiple of the mask feature's stride.
    """
    height, width = padded_size
    if height % MASK_STRIDE or width % MASK_STRIDE:
        raise ValueError(
            f"SOLOv2 learns from images whose sides are multiples of {MASK_STRIDE}; got "
            f"{height}x{width}; set model.size_divisor to 32"
        )
    masks = _quarter_masks(truth, padded_size)
    centres, has_pixels = _centres(truth)
    sizes = truth.boxes[:, 2:] - truth.boxes[:, :2]
    scales = (sizes[:, 0] * sizes[:, 1]).sqrt()
    half = 0.5 * settings.centre_fraction * sizes
    relative_size = vector([width, height], centres)
    levels = []
    for side, (lower, upper) in zip(grid_sizes, settings.scale_ranges, strict=True):

        def cell_of(points: Tensor, side: int = side) -> Tensor:
            # In the released code's order of float32 operations: a point on the border of two
            # cells goes where it does there.
            return torch.div(points / relative_size, 1.0 / side, rounding_mode="trunc").long()

        centre = cell_of(centres)
        first = torch.maximum(cell_of(centres - half).clamp(min=0), centre - 1)
        last = torch.minimum(cell_of(centres + half).clamp(max=side - 1), centre + 1)
        chosen = torch.nonzero((scales >= lower) & (scales <= upper) & has_pixels).flatten()
        levels.append(_level_target(truth, chosen, first, last, side, settings))
    return SoloTarget(tuple(levels), masks)


def _level_target(
    truth: ObjectTruth,
    chosen: Tensor,
    first: Tensor,
    last: Tensor,
    side: int,
    settings: SoloSettings,
) -> LevelTarget:
    """Cells of the chosen objects, object by object, row by row."""
    classes = torch.full((side, side), -1, dtype=torch.int64, device=truth.boxes.device)
    cells, objects = [chosen.new_zeros(0)], [chosen.new_zeros(0)]
    # A handful of objects per level: one transfer, then plain numbers.
    windows = torch.cat([first[chosen], last[chosen] + 1], dim=1).tolist()
    for index, (left, top, right, bottom) in zip(chosen.tolist(), windows):
        classes[top:bottom, left:right] = truth.thing_indices[index]
        rows = torch.arange(top, bottom, device=classes.device)[:, None]
        own = (rows * side + torch.arange(left, right, device=classes.device)).flatten()
        cells.append(own)
        objects.append(torch.full_like(own, index))
    all_cells, all_objects = torch.cat(cells), torch.cat(objects)
    if settings.objects_per_cell == "last":
        order = torch.arange(len(all_cells), device=classes.device)
        latest = torch.full((side * side,), -1, device=classes.device)
        latest.scatter_reduce_(0, all_cells, order, "amax")
        kept = latest[latest >= 0]
        all_cells, all_objects = all_cells[kept], all_objects[kept]
    return LevelTarget(classes, all_cells, all_objects)


def _centres(truth: ObjectTruth) -> tuple[Tensor, Tensor]:
    """Centre of mass (x, y) of each object in pixel indices [G, 2], and which have a pixel [G]."""
    height, width = truth.image_size
    device = truth.boxes.device
    columns = torch.arange(width, device=device, dtype=torch.float32)
    rows = torch.arange(height, device=device, dtype=torch.float32)
    centres, counts = truth.boxes.new_zeros(len(truth), 2), truth.boxes.new_zeros(len(truth))
    for index in range(len(truth)):
        mask = truth.mask(index)
        per_column, per_row = mask.sum(0).float(), mask.sum(1).float()
        counts[index] = per_row.sum()
        moments = torch.stack([(per_column * columns).sum(), (per_row * rows).sum()])
        centres[index] = moments / counts[index].clamp(min=1)
    return centres, counts > 0


def _quarter_masks(truth: ObjectTruth, padded_size: tuple[int, int]) -> Tensor:
    """Masks at the resolution of the mask feature: 1 where two of the four middle pixels are.

    That is what OpenCV's bilinear resize by a quarter gives for 8-bit masks.
    """
    height, width = padded_size
    masks = truth.boxes.new_zeros(len(truth), height // MASK_STRIDE, width // MASK_STRIDE)
    bottom, right = height - truth.image_size[0], width - truth.image_size[1]
    for index in range(len(truth)):
        padded = F.pad(truth.mask(index).to(torch.uint8), (0, right, 0, bottom))
        blocks = padded.unflatten(1, (-1, MASK_STRIDE)).unflatten(0, (-1, MASK_STRIDE))
        masks[index] = blocks[:, 1:3, :, 1:3].sum((1, 3), dtype=torch.uint8) >= 2
    return masks


def solo_losses(
    output: SoloOutput, targets: Sequence[SoloTarget], settings: SoloSettings
) -> dict[str, LossSum]:
    """Losses `solo_mask` (1 - Dice, see `dice_normalisation`) and `solo_category` (focal).

    The focal sum is counted in cells with an object, plus one: an image without objects gives the
    whole sum.
    """
    total = at_least_single(output.mask_features).sum() * 0
    num_masks = num_cells = 0
    for image, target in enumerate(targets):
        features = at_least_single(output.mask_features[image])
        for kernels, level in zip(output.kernels, target.levels, strict=True):
            if len(level.cells) == 0:
                continue
            own = at_least_single(kernels[image]).flatten(1)[:, level.cells]
            with without_autocast(features.device):
                logits = torch.einsum("em,ehw->mhw", own, features)
            total = total + dice_losses(logits.sigmoid(), target.masks[level.objects]).sum()
            num_masks += len(level.cells)
        num_cells += target.num_cells
    classes = [
        torch.stack(level)
        for level in zip(*([t.classes for t in target.levels] for target in targets))
    ]
    category = sum(
        focal_loss_sum(logits, level, settings.focal_alpha, settings.focal_gamma)
        for logits, level in zip(output.category_logits, classes, strict=True)
    )
    assert isinstance(category, Tensor)
    count = num_cells if settings.dice_normalisation == "cells" else num_masks
    return {"solo_mask": LossSum(total, count), "solo_category": LossSum(category, num_cells + 1)}


def dice_losses(probs: Tensor, masks: Tensor) -> Tensor:
    """1 - Dice of each pair, [M]; squares in the denominator (V-Net).

    Args:
        probs: [M, h, w] in [0, 1].
        masks: [M, h, w] in {0, 1}.
    """
    probs, masks = probs.flatten(1), masks.flatten(1)
    common = (probs * masks).sum(1)
    squares = probs.square().sum(1) + masks.square().sum(1) + 2 * _DICE_EPSILON
    return 1 - 2 * common / squares


def focal_loss_sum(logits: Tensor, classes: Tensor, alpha: float, gamma: float) -> Tensor:
    """Focal loss over all cells and classes, summed (RetinaNet, equation 5).

    Args:
        logits: [N, K, ...] before sigmoid.
        classes: [N, ...] int64 in 0..K-1; -1: no class.
    """
    logits = at_least_single(logits)
    one_hot = torch.zeros_like(logits)
    index = classes.clamp(min=0)[:, None]
    one_hot.scatter_(1, index, (classes >= 0)[:, None].to(one_hot.dtype))
    cross_entropy = F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none")
    probs = logits.sigmoid()
    wrong = probs + one_hot - 2 * probs * one_hot
    weight = alpha * one_hot + (1 - alpha) * (1 - one_hot)
    return (weight * wrong.pow(gamma) * cross_entropy).sum()
