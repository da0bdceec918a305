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


def focal_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean of the focal loss over the pixels of each mask: [T, ...], [T, ...] in {0, 1} -> [T]."""
    inside, outside = focal_terms(logits)
    return (masks * inside + (1 - masks) * outside).flatten(1).mean(1)


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - (2 |P G| + 1) / (|P| + |G| + 1) of each mask: [T, ...], [T, ...] in {0, 1} -> [T]."""
    probs, masks = logits.sigmoid().flatten(1), masks.flatten(1)
    shared = 2 * (probs * masks).sum(1) + _DICE_SMOOTHING
    return 1 - shared / (probs.sum(1) + masks.sum(1) + _DICE_SMOOTHING)


def pairwise_focal_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """`focal_loss` of every prediction against every target: [Q, n], [T, n] -> [Q, T]."""
    inside, outside = focal_terms(logits)
    # sum(g inside + (1 - g) outside), without a tensor of Q T n.
    sums = (inside - outside) @ masks.t() + outside.sum(1, keepdim=True)
    return sums / max(1, logits.shape[1])


def pairwise_dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """`dice_loss` of every prediction against every target: [Q, n], [T, n] -> [Q, T]."""
    probs = logits.sigmoid()
    shared = 2 * (probs @ masks.t()) + _DICE_SMOOTHING
    return 1 - shared / (probs.sum(1)[:, None] + masks.sum(1) + _DICE_SMOOTHING)
