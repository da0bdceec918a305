"""Focal and dice loss of masks, for training and, for all pairs at once, for matching.

Letters: Q predicted masks, T target masks, n pixels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

# Weight of pixels inside of the target, of RetinaNet; those outside have 1 - alpha.
FOCAL_ALPHA = 0.25
# Pixels of an empty mask against an empty target: the dice loss is 0 there, not 0 / 0.
_DICE_SMOOTHING = 1.0


def focal_terms(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The focal loss (gamma = 2) of every pixel if it were inside, and if it were outside.

    RetinaNet, section 3.

    Args:
        logits: any shape and float type.

    Returns:
        Two tensors of that shape.
    """
    probs = logits.sigmoid()
    inside = FOCAL_ALPHA * (1 - probs).square() * F.softplus(-logits)
    outside = (1 - FOCAL_ALPHA) * probs.square() * F.softplus(logits)
    return inside, outside


def mask_losses(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Focal and dice loss of each mask, in few passes over the pixels.

    The focal loss (gamma = 2; RetinaNet, section 3) is a mean over pixels, the dice loss is
    1 - (2 |P G| + 1) / (|P| + |G| + 1). Both follow from the probability of the wrong answer:
    p outside of the target, 1 - p inside.

    Args:
        logits: [T, ...], any float type.
        masks: of the same shape and type, 0 or 1.

    Returns:
        Two tensors [T].
    """
    masks = masks.flatten(1)
    wrong_logits = logits.flatten(1) * (1 - 2 * masks)
    wrong_probs = wrong_logits.sigmoid()
    terms = wrong_probs.square() * F.softplus(wrong_logits)
    outside = terms.sum(1)
    inside = (terms * masks).sum(1)
    focal = (1 - FOCAL_ALPHA) * outside + (2 * FOCAL_ALPHA - 1) * inside
    area, missed = masks.sum(1), (wrong_probs * masks).sum(1)
    shared = area - missed
    predicted = wrong_probs.sum(1) - missed + shared
    dice = 1 - (2 * shared + _DICE_SMOOTHING) / (predicted + area + _DICE_SMOOTHING)
    return focal / max(1, masks.shape[1]), dice


def pairwise_focal_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """The focal loss of every prediction against every target: [Q, n], [T, n] -> [Q, T]."""
    inside, outside = focal_terms(logits)
    # sum(g inside + (1 - g) outside), without a tensor of Q T n.
    sums = (inside - outside) @ masks.t() + outside.sum(1, keepdim=True)
    return sums / max(1, logits.shape[1])


def pairwise_dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """The dice loss of every prediction against every target: [Q, n], [T, n] -> [Q, T]."""
    probs = logits.sigmoid()
    shared = 2 * (probs @ masks.t()) + _DICE_SMOOTHING
    return 1 - shared / (probs.sum(1)[:, None] + masks.sum(1) + _DICE_SMOOTHING)
