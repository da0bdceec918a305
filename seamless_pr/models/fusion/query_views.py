"""Queries of several views of an image, merged into one set.

Letters: Q queries, R of a view that are of use, G merged ones, K classes, h, w cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seamless_pr.models.fusion.by_query import QueryOutputs
from seamless_pr.ops.mask_nms import mask_iou
from seamless_pr.ops.resize import resampled_valid

# Input pixels per cell of the merged masks, in pixels of the first view.
_STRIDE = 4
# A query whose every class is less likely than this in its view is none of an object.
_LEAST_PROB = 0.05
# Masks of two views that agree more than this show the same segment.
_SAME_IOU = 0.5
# Probabilities of 0 and 1 have no finite logarithm and logit.
_SMALLEST_PROB = 1e-12
_LOGIT_EPSILON = 1e-6


def queries_of_views(
    views: Sequence[QueryOutputs], flips: Sequence[bool], index: int
) -> QueryOutputs:
    """One image's queries as all views see them; no published network does this.

    Queries of two views show the same segment if their best class is the same and their masks
    overlap by an IoU above 0.5; each has at most one partner in another view, the best first. The
    probabilities of partners are averaged: of classes over all views, where one without partner
    says "no object"; of masks over those that there are.

    Args:
        views: what the queries say about each view.
        flips: whether the view is mirrored.
        index: of the image in its batch.

    Returns:
        Of one image; masks cover the valid pixels of the first view. A single view that is not
        mirrored is returned as it is.
    """
    first = views[0]
    image_size = first.image_sizes[index]
    if len(views) == 1 and not flips[0]:
        return QueryOutputs(
            first.class_logits[index : index + 1],
            first.mask_logits[index : index + 1],
            first.padded_size,
            (image_size,),
        )
    grid = (-(-image_size[0] // _STRIDE), -(-image_size[1] // _STRIDE))
    classes = first.class_logits.new_zeros(0, first.class_logits.shape[-1], dtype=torch.float32)
    masks = classes.new_zeros(0, *grid)
    members = classes.new_zeros(0)
    for view, flip in zip(views, flips, strict=True):
        view_classes, view_masks = _of_view(view, index, grid, flip=flip)
        partners = _partners(classes, masks, members, view_classes, view_masks)
        joined, is_new = partners[partners >= 0], partners < 0
        classes, masks, members = classes.clone(), masks.clone(), members.clone()
        classes[joined] += view_classes[~is_new]
        masks[joined] += view_masks[~is_new]
        members[joined] += 1
        classes = torch.cat([classes, view_classes[is_new]])
        masks = torch.cat([masks, view_masks[is_new]])
        members = torch.cat([members, members.new_ones(int(is_new.sum()))])
    classes[:, -1] += len(views) - members
    mean_masks = masks / members[:, None, None]
    return QueryOutputs(
        (classes / len(views)).clamp(min=_SMALLEST_PROB).log()[None],
        torch.logit(mean_masks, eps=_LOGIT_EPSILON)[None],
        image_size,
        (image_size,),
    )


def _of_view(
    view: QueryOutputs, index: int, grid: tuple[int, int], *, flip: bool
) -> tuple[Tensor, Tensor]:
    """Class probabilities [R, K + 1] and masks [R, *grid] of the queries that are of use."""
    probs = view.class_logits[index].float().softmax(-1)
    is_useful = probs[:, :-1].amax(-1) >= _LEAST_PROB
    masks = view.mask_logits[index][is_useful].float().sigmoid()
    image_size = view.image_sizes[index]
    return probs[is_useful], resampled_valid(masks, view.padded_size, image_size, grid, flip=flip)


def _partners(
    classes: Tensor, masks: Tensor, members: Tensor, view_classes: Tensor, view_masks: Tensor
) -> Tensor:
    """[R] int64: which of the merged queries each one of the view joins; -1: none."""
    means = masks / members[:, None, None]
    iou = mask_iou(view_masks >= 0.5, means >= 0.5)
    same_class = view_classes[:, :-1].argmax(-1)[:, None] == classes[:, :-1].argmax(-1)
    iou = torch.where(same_class, iou, 0.0)
    partners = torch.full((len(view_classes),), -1, device=classes.device)
    while iou.numel():
        best = int(iou.argmax())
        row, column = best // iou.shape[1], best % iou.shape[1]
        if float(iou[row, column]) <= _SAME_IOU:
            break
        partners[row] = column
        iou[row], iou[:, column] = 0, 0
    return partners
