"""Merging of views of one batch by branches that start from proposals.

Letters: V views, R proposals of an image, T thing classes.
Source: technical report of team FineGrainedSeg, 3D AI Challenge 2020, and its published code:
proposals are pooled, boxes and scores averaged proposal by proposal, mask probabilities averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seamless_pr.models.instances.box_branch import BoxOutput, suppressed
from seamless_pr.models.instances.rpn import Proposals
from seamless_pr.ops.boxes import clip_boxes, decode_boxes, nms
from seamless_pr.ops.masks import BoxMasks
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.settings import BoxSettings, RPNSettings
from seamless_pr.structures.views import SeenView

# Probabilities of 0 and 1 have no finite logit.
_LOGIT_EPSILON = 1e-6


@dataclass(frozen=True)
class ScoredBoxes:
    """What a box branch says about the proposals of one image.

    Attributes:
        probs: [R, T] of each class.
        boxes: [R, T, 4] xyxy, moved for each class and clipped to the image.
    """

    probs: Tensor
    boxes: Tensor


def scored_boxes(
    output: BoxOutput,
    proposals: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    settings: BoxSettings,
) -> list[ScoredBoxes]:
    """The outputs of a box head for the proposals of all images, image by image."""
    counts = [len(boxes) for boxes in proposals]
    probs = output.class_logits.float().softmax(dim=1)[:, 1:].split(counts)
    deltas = output.box_deltas.unflatten(1, (-1, 4)).split(counts)
    result = []
    for image_probs, image_deltas, boxes, size in zip(
        probs, deltas, proposals, image_sizes, strict=True
    ):
        decoded = decode_boxes(
            boxes[:, None],
            image_deltas,
            settings.delta_weights,
            limits_shrinking=settings.whole_pixels,
        )
        clipped = clip_boxes(decoded, size, keeps_pixel=settings.whole_pixels)
        result.append(ScoredBoxes(image_probs, clipped))
    return result


def pooled_proposals(
    views: Sequence[SeenView],
    proposals: Sequence[Sequence[Proposals]],
    base: ImageBatch,
    settings: RPNSettings,
) -> list[Tensor]:
    """[R, 4] proposals of each image in pixels of the base batch: the best of all views.

    Args:
        views: of the batch.
        proposals: per view, per image.
        base: the batch as it was.
        settings: threshold of the suppression, and how many are kept.
    """
    pooled = []
    for image in range(len(base)):
        boxes = torch.cat(
            [
                view.to_base(found[image].boxes, image, base, whole_pixels=settings.whole_pixels)
                for view, found in zip(views, proposals, strict=True)
            ]
        )
        logits = torch.cat([found[image].logits for found in proposals])
        kept = nms(boxes, logits, settings.nms_threshold, settings.post_nms_test)
        pooled.append(boxes[kept])
    return pooled


def averaged_boxes(
    views: Sequence[SeenView],
    scored: Sequence[Sequence[ScoredBoxes]],
    base: ImageBatch,
    settings: BoxSettings,
) -> list[Instances]:
    """Final boxes in pixels of the base batch, without masks.

    Args:
        views: of the batch.
        scored: per view, per image, for the same proposals.
        base: the batch as it was.
        settings: thresholds and limit.
    """
    found = []
    for image in range(len(base)):
        probs = torch.stack([view_scored[image].probs for view_scored in scored]).mean(0)
        boxes = torch.stack(
            [
                view.to_base(
                    view_scored[image].boxes, image, base, whole_pixels=settings.whole_pixels
                )
                for view, view_scored in zip(views, scored, strict=True)
            ]
        ).mean(0)
        things, rows = torch.nonzero(probs.t() > settings.score_threshold, as_tuple=True)
        candidates = Instances(probs[rows, things], things, boxes[rows, things])
        found.append(suppressed(candidates, settings))
    return found


def averaged_masks(
    views: Sequence[SeenView],
    instances: Sequence[Instances],
    base: ImageBatch,
    add_masks: Callable[[SeenView, list[Instances]], list[Instances]],
    *,
    whole_pixels: bool,
) -> list[Instances]:
    """The instances with the mean mask and the mean score of all views.

    Args:
        views: of the batch.
        instances: of each image, in pixels of the base batch.
        base: the batch as it was.
        add_masks: masks of instances in pixels of a view; it may change their scores.
        whole_pixels: as in `SeenView.from_base`.
    """
    totals: list[Tensor] = []
    scores: list[list[Tensor]] = []
    masked: list[Instances] = []
    for view in views:
        seen = [
            replace(
                found,
                boxes=view.from_base(found.require_boxes(), image, base, whole_pixels=whole_pixels),
            )
            for image, found in enumerate(instances)
        ]
        masked = add_masks(view, seen)
        scores.append([found.scores for found in masked])
        probs = [_logits(found).sigmoid() for found in masked]
        if view.flip:
            probs = [image_probs.flip(-1) for image_probs in probs]
        totals = [t + p for t, p in zip(totals, probs, strict=True)] if totals else probs
    pixel = 1.0 if whole_pixels else 0.0
    result = []
    means = [torch.stack(of_image).mean(0) for of_image in zip(*scores, strict=True)]
    for found, kind, total, mean in zip(instances, masked, totals, means, strict=True):
        logits = torch.logit(total / len(views), eps=_LOGIT_EPSILON)
        boxes = found.require_boxes()
        mask_boxes = boxes - boxes.new_tensor([0.0, 0.0, pixel, pixel])
        masks = kind.require_masks()
        assert isinstance(masks, BoxMasks)
        masks = replace(masks, logits=logits, boxes=mask_boxes)
        result.append(replace(found, scores=mean, masks=masks, box_scores=kind.box_scores))
    return result


def _logits(instances: Instances) -> Tensor:
    masks = instances.require_masks()
    assert isinstance(masks, BoxMasks)
    return masks.logits
