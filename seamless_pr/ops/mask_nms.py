"""Suppression without boxes: among cells of a score map, and among whole masks (SOLOv2).

Letters: N images, K classes, R masks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.ops.precision import without_autocast

KERNELS = ("gaussian", "linear")


def local_maxima(probs: Tensor) -> Tensor:
    """Keeps the cells that no upper, left or upper-left neighbour exceeds; the others become 0.

    Args:
        probs: [N, K, H, W], at least 0.
    """
    largest = F.max_pool2d(probs, 2, stride=1, padding=1)[..., :-1, :-1]
    return probs * (largest == probs)


@torch.no_grad()
def matrix_nms(
    masks: Tensor,
    scores: Tensor,
    class_indices: Tensor,
    *,
    kernel: str = "gaussian",
    sigma: float = 2.0,
    max_before: int | None = None,
    min_score: float | None = None,
    max_kept: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Lowers the score of every mask at once by its overlap with better ones of its class.

    SOLOv2 (NeurIPS 2020), section 3.3. The factor of mask j is the least, over all better masks i,
    of f(iou_ij) / f(the largest IoU of i with a still better one), f = exp(-sigma iou^2) or
    1 - iou; never more than 1.

    Args:
        masks: [R, ...] bool.
        scores: [R].
        class_indices: [R] int64.
        kernel: "gaussian" or "linear".
        sigma: of the gaussian kernel.
        max_before: only so many of the best masks take part; None: all.
        min_score: masks must reach it after lowering; None: all stay.
        max_kept: most masks returned; None: all.

    Returns:
        Indices by descending new score, int64, and these scores.

    Raises:
        ValueError: unknown kernel.
    """
    indices = scores.argsort(descending=True, stable=True)[:max_before]
    scores = _lowered(scores[indices], masks[indices], class_indices[indices], kernel, sigma)
    if min_score is not None:
        is_kept = scores >= min_score
        indices, scores = indices[is_kept], scores[is_kept]
    best = scores.argsort(descending=True, stable=True)[:max_kept]
    return indices[best], scores[best]


@torch.no_grad()
def fixed_matrix_nms(
    masks: Tensor,
    scores: Tensor,
    class_indices: Tensor,
    valid: Tensor,
    *,
    kernel: str,
    sigma: float,
    min_score: float,
    max_kept: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """`matrix_nms` in shapes that depend on no number: nothing waits for the host.

    Args:
        masks, scores, class_indices: best first, those that are not valid last.
        valid: [R] bool.
        kernel, sigma, min_score, max_kept: as for `matrix_nms`.

    Returns:
        Indices by descending new score, at most `max_kept`, these scores, and how many of them
        from the first on are kept.
    """
    masks = masks & valid[(..., *[None] * (masks.ndim - 1))]
    scores = _lowered(scores, masks, class_indices, kernel, sigma)
    is_kept = valid & (scores >= min_score)
    # Below every score.
    ranked = torch.where(is_kept, scores, -1.0).sort(descending=True, stable=True)
    values, indices = ranked.values[:max_kept], ranked.indices[:max_kept]
    return indices, values, (values >= 0).sum()


def _lowered(
    scores: Tensor, masks: Tensor, class_indices: Tensor, kernel: str, sigma: float
) -> Tensor:
    """New scores of masks, best first, [R]."""
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {KERNELS}; got '{kernel}'")
    iou = _better_overlaps(masks, class_indices)
    if not len(iou):
        return scores
    worst = iou.amax(0)
    if kernel == "gaussian":
        ratios = (-sigma * (iou.square() - worst.square()[:, None])).exp()
    else:
        # A mask that repeats a better one decides nothing: the better one does.
        spare = 1 - worst[:, None]
        ratios = torch.where(spare > 0, (1 - iou) / spare, torch.ones_like(iou))
    return scores * ratios.amin(0)


def _better_overlaps(masks: Tensor, class_indices: Tensor) -> Tensor:
    """IoU of mask i with a later j of its class, [R, R]; 0 elsewhere."""
    same_class = class_indices[:, None] == class_indices
    return (mask_iou(masks, masks) * same_class).triu(diagonal=1)


def mask_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of every pair, [R, S] float32; 0 if both are empty.

    Args:
        first, second: [R, ...] and [S, ...] bool.
    """
    # Counts of pixels: exact in float32 up to 2^24 of them.
    ours, theirs = first.flatten(1).float(), second.flatten(1).float()
    with without_autocast(ours.device):
        intersection = ours @ theirs.t()
    union = ours.sum(1)[:, None] + theirs.sum(1) - intersection
    return intersection / union.clamp(min=1)
