"""Suppression that lowers the scores of overlapping boxes instead of dropping them.

Letters: R boxes.
Source: Soft-NMS (ICCV 2017). Implementations differ in details that decide results; each detail is
a setting here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seamless_pr.ops.boxes import box_iou

METHODS = ("linear", "gaussian", "hard")


@dataclass(frozen=True)
class SoftNMS:
    """How overlap lowers scores.

    Attributes:
        method: "linear" (times 1 - IoU from the threshold on), "gaussian" (times
            exp(-IoU^2 / sigma), without threshold) or "hard" (times 0 from the threshold on).
        iou_threshold: of "linear" and "hard".
        includes_threshold: boxes that just reach it count, too (mmcv); False: they must exceed it.
        sigma: of "gaussian".
        min_score: boxes that fall below it are dropped. Whoever is selected first never is.
        tests_all: in each round every remaining box is held against `min_score` (mmcv); False:
            only those that overlap the selected one (the 3D-FUTURE winner's ensemble).
    """

    method: str = "linear"
    iou_threshold: float = 0.5
    includes_threshold: bool = True
    sigma: float = 0.5
    min_score: float = 1e-3
    tests_all: bool = True

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {METHODS}; got '{self.method}'")
        if self.sigma <= 0:
            raise ValueError(f"sigma must be positive; got {self.sigma}")

    def factors(self, iou: Tensor) -> Tensor:
        """What scores are multiplied by, given the IoU with the selected box."""
        if self.method == "gaussian":
            return (-iou.square() / self.sigma).exp()
        is_over = iou >= self.iou_threshold if self.includes_threshold else iou > self.iou_threshold
        lowered = 1 - iou if self.method == "linear" else torch.zeros_like(iou)
        return torch.where(is_over, lowered, torch.ones_like(iou))


@torch.no_grad()
def soft_nms(boxes: Tensor, scores: Tensor, settings: SoftNMS) -> tuple[Tensor, Tensor]:
    """Selects boxes by score, lowering those that overlap the selected ones.

    Ties go to whoever stands first; dropped boxes are replaced by the last ones, as in the
    published code, so that equal scores come in its order, too.

    Args:
        boxes: [R, 4].
        scores: [R].
        settings: method and thresholds.

    Returns:
        Indices of the selected boxes in the order of selection, int64, and their new scores,
        float32.
    """
    boxes, scores = boxes.float(), scores.float().clone()
    order = torch.arange(len(boxes), device=boxes.device)
    num_selected = 0
    while num_selected < len(order):
        best = num_selected + int(scores[order[num_selected:]].argmax())
        order[[num_selected, best]] = order[[best, num_selected]]
        selected, rest = order[num_selected], order[num_selected + 1 :]
        iou = box_iou(boxes[selected][None], boxes[rest])[0]
        scores[rest] *= settings.factors(iou)
        is_dropped = scores[rest] < settings.min_score
        if not settings.tests_all:
            is_dropped &= iou > 0
        num_selected += 1
        order = torch.cat([order[:num_selected], _filled(rest, is_dropped)])
    return order, scores[order]


def _filled(indices: Tensor, is_dropped: Tensor) -> Tensor:
    """What is left, each gap filled with the last of the rest."""
    num_kept = len(indices) - int(is_dropped.sum())
    kept = indices[:num_kept].clone()
    kept[is_dropped[:num_kept]] = indices[num_kept:][~is_dropped[num_kept:]].flip(0)
    return kept


@torch.no_grad()
def class_soft_nms(
    boxes: Tensor,
    scores: Tensor,
    class_indices: Tensor,
    settings: SoftNMS,
    max_kept: int | None = None,
) -> tuple[Tensor, Tensor]:
    """`soft_nms` among the boxes of each class.

    Args:
        boxes: [R, 4].
        scores: [R].
        class_indices: [R] int64.
        settings: method and thresholds.
        max_kept: most boxes over all classes; None keeps all.

    Returns:
        Indices by descending new score, int64, and these scores; equal ones by class.
    """
    kept, lowered = [class_indices.new_zeros(0)], [scores.new_zeros(0, dtype=torch.float32)]
    for class_index in class_indices.unique().tolist():
        members = torch.nonzero(class_indices == class_index).flatten()
        order, new_scores = soft_nms(boxes[members], scores[members], settings)
        kept.append(members[order])
        lowered.append(new_scores)
    indices, new_scores = torch.cat(kept), torch.cat(lowered)
    best = new_scores.argsort(descending=True, stable=True)[:max_kept]
    return indices[best], new_scores[best]
