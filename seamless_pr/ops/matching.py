"""Assignment of ground-truth boxes to anchors and proposals, and random subsampling.

Letters: A anchors or proposals, G ground-truth boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seamless_pr.ops.boxes import box_area, box_iou, crowd_overlap
from seamless_pr.ops.vectors import vector

# Values of a match vector below the valid indices of ground-truth boxes.
BACKGROUND = -1
UNUSED = -2

# Pairs of boxes per block of the IoU matrix: a few temporaries of this size stay in the processor's
# cache.
_PAIRS_PER_BLOCK = 1 << 19


@torch.no_grad()
def assign_anchors(
    anchors: Tensor,
    gt_boxes: Tensor,
    image_size: tuple[int, int],
    crowd_mask: Tensor | None,
    *,
    positive_iou: float,
    negative_iou: float,
    max_crowd_overlap: float,
    forced_iou: float = 0.0,
    forces_equals: bool = False,
    inside_only: bool = True,
    inside_excludes_end: bool = False,
) -> Tensor:
    """Says for every anchor which object it should find.

    Rules of the Seamless reference: an anchor takes its best object from `positive_iou` on, is
    background below `negative_iou` and is not used between. Then each object that overlaps any
    anchor takes its best one (the first of equals) whatever its IoU; if two objects want the same
    anchor, the later object gets it.

    Args:
        anchors: [A, 4].
        gt_boxes: [G, 4]; G may be 0: then every usable anchor is background.
        image_size: (height, width) of the valid pixels.
        crowd_mask: [H, W] bool, or None if there is no crowd.
        positive_iou: in (0, 1].
        negative_iou: at most `positive_iou`.
        max_crowd_overlap: anchors with at least this share of crowd pixels are not used.
        forced_iou: objects take their best anchor only from this IoU on.
        forces_equals: they take all anchors that equal the best one, not the first.
        inside_only: use only anchors that lie inside the image.
        inside_excludes_end: those that end on its last edge are not inside.

    Returns:
        [A] int64: index of a ground-truth box, `BACKGROUND` or `UNUSED`.
    """
    usable = anchors.new_ones(len(anchors), dtype=torch.bool)
    if inside_only:
        end = anchors[:, 2:]
        limit = vector([image_size[1], image_size[0]], anchors)
        ends_inside = end < limit if inside_excludes_end else end <= limit
        usable = (anchors[:, :2] >= 0).all(1) & ends_inside.all(1)
    if crowd_mask is not None:
        usable &= crowd_overlap(anchors, crowd_mask) < max_crowd_overlap
    candidates = torch.nonzero(usable).flatten()
    matches = candidates.new_full((len(anchors),), UNUSED)
    if len(gt_boxes) == 0 or len(candidates) == 0:
        matches[candidates] = BACKGROUND
        return matches

    best_iou, best_gt, best_candidate_iou, best_candidate = _best_overlaps(
        anchors[candidates], gt_boxes
    )
    assigned = torch.full_like(best_gt, UNUSED)
    assigned[best_iou < negative_iou] = BACKGROUND
    assigned = torch.where(best_iou >= positive_iou, best_gt, assigned)
    wanted = (best_candidate_iou > 0) & (best_candidate_iou >= forced_iou)
    if forces_equals:
        forced = _equals_of_best(anchors[candidates], gt_boxes, best_candidate_iou, wanted)
    else:
        # Maximum = the later object; duplicates in plain indexing would win in any order.
        found = torch.nonzero(wanted).flatten()
        forced = torch.full_like(best_gt, UNUSED)
        forced.scatter_reduce_(0, best_candidate[found], found, "amax")
    matches[candidates] = torch.where(forced >= 0, forced, assigned)
    return matches


def _equals_of_best(boxes: Tensor, gt_boxes: Tensor, best_iou: Tensor, wanted: Tensor) -> Tensor:
    """[A] the last wanted object whose best IoU a box reaches, else UNUSED."""
    forced = torch.full((len(boxes),), UNUSED, device=boxes.device)
    block_size = max(1, _PAIRS_PER_BLOCK // len(gt_boxes))
    indices = torch.arange(len(gt_boxes), device=boxes.device)[:, None]
    for start in range(0, len(boxes), block_size):
        block = slice(start, start + block_size)
        equals = (box_iou(gt_boxes, boxes[block]) == best_iou[:, None]) & wanted[:, None]
        forced[block] = torch.where(equals, indices, UNUSED).amax(0)
    return forced


@torch.no_grad()
def assign_proposals(
    proposals: Tensor,
    gt_boxes: Tensor,
    crowd_mask: Tensor | None,
    *,
    positive_iou: float,
    max_crowd_overlap: float,
    num_own: int | None = None,
) -> Tensor:
    """Says for every proposal which object it shows.

    Where there is crowd, empty proposals are not used either: their share of crowd pixels is 0 / 0,
    which the reference does not count as small. Without crowd they are background.

    Args:
        proposals: [A, 4].
        gt_boxes: [G, 4]; G may be 0.
        crowd_mask: [H, W] bool, or None if there is no crowd.
        positive_iou: a proposal takes its best object from this IoU on, otherwise it is background.
        max_crowd_overlap: proposals with at least this share of crowd pixels are not used.
        num_own: the first so many proposals are the ground truth itself, in its order, and each
            object takes the best of the others, from `positive_iou` on, also if they overlap
            another object more (the later of two objects); None: no such rule.

    Returns:
        [A] int64: index of a ground-truth box, `BACKGROUND` or `UNUSED`.
    """
    matches = torch.full((len(proposals),), BACKGROUND, device=proposals.device)
    if len(gt_boxes) > 0 and len(proposals) > 0:
        best_iou, best_gt, _, _ = _best_overlaps(proposals, gt_boxes)
        matches = torch.where(best_iou >= positive_iou, best_gt, matches)
        if num_own is not None:
            others = proposals[num_own:]
            if len(others) > 0:
                _, _, best_of_gt, _ = _best_overlaps(others, gt_boxes)
                wanted = best_of_gt >= positive_iou
                forced = _equals_of_best(others, gt_boxes, best_of_gt, wanted)
                matches[num_own:] = torch.where(forced >= 0, forced, matches[num_own:])
            matches[:num_own] = torch.arange(num_own, device=matches.device)
    if crowd_mask is not None:
        unused = crowd_overlap(proposals, crowd_mask) >= max_crowd_overlap
        matches[unused | (box_area(proposals) <= 0)] = UNUSED
    return matches


def sample_matches(
    matches: Tensor, num_samples: int, positive_fraction: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draws the anchors or proposals of one image that take part in the losses.

    Args:
        matches: [A] int64 as `assign_anchors` returns it.
        num_samples: most draws; background fills up what objects leave.
        positive_fraction: largest share of objects among `num_samples`.
        generator: on the CPU, so that the draws are the same on every device.

    Returns:
        Indices of the drawn objects and of the drawn background, int64 each; ascending where
        nothing was left out.
    """
    positives = torch.nonzero(matches >= 0).flatten()
    negatives = torch.nonzero(matches == BACKGROUND).flatten()
    positives = _draw(positives, int(num_samples * positive_fraction), generator)
    negatives = _draw(negatives, num_samples - len(positives), generator)
    return positives, negatives


def _draw(indices: Tensor, count: int, generator: torch.Generator) -> Tensor:
    if len(indices) <= count:
        return indices
    chosen = torch.randperm(len(indices), generator=generator)[:count]
    return indices[chosen.to(indices.device, non_blocking=True)]


def _best_overlaps(boxes: Tensor, gt_boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """IoU and index of the best ground truth per box [A], and of the best box per ground truth [G].

    Works on blocks of boxes, so that the memory does not grow with A times G. The first of equals
    wins.
    """
    block_size = max(1, _PAIRS_PER_BLOCK // len(gt_boxes))
    per_box_iou, per_box_gt = [], []
    per_gt_iou = gt_boxes.new_full((len(gt_boxes),), -1.0)
    per_gt_box = torch.zeros(len(gt_boxes), dtype=torch.int64, device=gt_boxes.device)
    for start in range(0, len(boxes), block_size):
        # [G, block]: the long axis is contiguous in both reductions.
        iou = box_iou(gt_boxes, boxes[start : start + block_size])
        best_iou, best_gt = iou.max(0)
        per_box_iou.append(best_iou)
        per_box_gt.append(best_gt)
        block_iou, block_box = iou.max(1)
        better = block_iou > per_gt_iou
        per_gt_iou = torch.where(better, block_iou, per_gt_iou)
        per_gt_box = torch.where(better, block_box + start, per_gt_box)
    return torch.cat(per_box_iou), torch.cat(per_box_gt), per_gt_iou, per_gt_box
