"""Class probabilities of pixels, averaged over views of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.views import ChangedBatch

# Probabilities of 0 have no finite logarithm.
_SMALLEST_PROB = 1e-12


def averaged_logits(
    logits: Sequence[Tensor], views: Sequence[ChangedBatch], base: ImageBatch
) -> Tensor:
    """[N, K, H, W]: logarithms of the mean class probabilities over the padded base batch.

    Args:
        logits: [N, K, h, w] over each padded view.
        views: of the batch.
        base: the batch as it was.
    """
    total: Tensor | None = None
    for view_logits, view in zip(logits, views, strict=True):
        probs = semantic_probs(view_logits, view, base)
        total = probs if total is None else total.add_(probs)
    assert total is not None
    return (total / len(views)).clamp(min=_SMALLEST_PROB).log()


def semantic_probs(logits: Tensor, view: ChangedBatch, base: ImageBatch) -> Tensor:
    """[N, K, H, W] class probabilities over the base batch of the logits of a view.

    Args:
        logits: [N, K, h, w] over the padded view.
        view: that view.
        base: the batch as it was; what its padding says is of no meaning.
    """
    upsampled = _resized(logits.float(), view.batch.padded_size).softmax(1)
    result = upsampled.new_full((*upsampled.shape[:2], *base.padded_size), 1 / logits.shape[1])
    for image, (height, width) in enumerate(view.batch.image_sizes):
        valid = upsampled[image : image + 1, :, :height, :width]
        valid = valid.flip(-1) if view.flip else valid
        base_height, base_width = base.image_sizes[image]
        result[image, :, :base_height, :base_width] = _resized(valid, (base_height, base_width))[0]
    return result


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
