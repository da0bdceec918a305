"""Region proposal network: head, anchors, proposals and losses.

Letters: N images, A anchors per cell, h and w the map of a level, R boxes of an image, P all
anchors of an image, in the order level, row, column, ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.layers.abn import NormActFactory
from seamless_pr.ops.boxes import clip_boxes, decode_boxes, encode_boxes, nms
from seamless_pr.ops.fixed_nms import fixed_nms, kept_first
from seamless_pr.ops.matching import assign_anchors, sample_matches
from seamless_pr.ops.precision import at_least_single
from seamless_pr.ops.vectors import vector
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import RPNSettings

# Slope of the leaky rectifiers that the initialisation assumes.
_LEAKY_SLOPE = 0.01
# The predictors start close to zero, so that all anchors begin undecided.
_PREDICTOR_GAIN = 0.01


@dataclass(frozen=True)
class RPNOutput:
    """Predictions of all levels, finest first.

    Attributes:
        objectness_logits: [N, A, h, w] per level.
        box_deltas: [N, 4A, h, w] per level; channel = anchor * 4 + (dx, dy, dw, dh).
    """

    objectness_logits: tuple[Tensor, ...]
    box_deltas: tuple[Tensor, ...]

    def flat_logits(self) -> Tensor:
        """[N, P] in the order of the anchors, at least float32."""
        levels = [logits.movedim(1, -1).flatten(1) for logits in self.objectness_logits]
        return at_least_single(torch.cat(levels, dim=1))

    def flat_deltas(self) -> Tensor:
        """[N, P, 4] in the order of the anchors."""
        levels = [
            deltas.movedim(1, -1).flatten(1).unflatten(1, (-1, 4)) for deltas in self.box_deltas
        ]
        return torch.cat(levels, dim=1)


@dataclass(frozen=True)
class Proposals:
    """Candidate boxes of one image by descending objectness.

    Attributes:
        boxes: [R, 4] float32 xyxy, clipped to the valid pixels; may be empty boxes; no gradient.
        logits: [R] float32 objectness before sigmoid.
    """

    boxes: Tensor
    logits: Tensor

    def __len__(self) -> int:
        return len(self.boxes)


class RPNHead(nn.Module):
    """3x3 convolution, norm and activation, then two 1x1 predictors; shared by all levels.

    The convolution has stride 1 (released Seamless code; the paper's text says 2).

    `forward` takes [N, C, h, w] per level and returns an `RPNOutput`.

    Args:
        in_channels: C of every level.
        num_anchors: A, anchors per cell.
        norm_act: makes norm + activation from a number of channels.
        hidden_channels: channels between the convolutions; as many as `in_channels` if None.
    """

    def __init__(
        self,
        in_channels: int,
        num_anchors: int,
        norm_act: NormActFactory,
        hidden_channels: int | None = None,
    ) -> None:
        super().__init__()
        hidden_channels = hidden_channels or in_channels
        self.conv = nn.Conv2d(in_channels, hidden_channels, 3, padding=1, bias=False)
        self.norm = norm_act(hidden_channels)
        self.objectness = nn.Conv2d(hidden_channels, num_anchors, 1)
        self.box_deltas = nn.Conv2d(hidden_channels, num_anchors * 4, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier weights as in the reference; predictors start near 0."""
        gain = nn.init.calculate_gain("leaky_relu", _LEAKY_SLOPE)
        nn.init.xavier_normal_(self.conv.weight, gain)
        for predictor in (self.objectness, self.box_deltas):
            nn.init.xavier_normal_(predictor.weight, _PREDICTOR_GAIN)
            assert predictor.bias is not None
            nn.init.zeros_(predictor.bias)

    def forward(self, features: Sequence[Tensor]) -> RPNOutput:
        hidden = [self.norm(self.conv(level)) for level in features]
        return RPNOutput(
            tuple(self.objectness(level) for level in hidden),
            tuple(self.box_deltas(level) for level in hidden),
        )


def generate_anchors(
    feature_sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    settings: RPNSettings,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, ...]:
    """Anchors of every level, not rounded.

    Args:
        feature_sizes: (h, w) per level.
        strides: pixels per cell of each level; an anchor of ratio 1 has the side stride *
            anchor_scale.
        settings: scale, ratios (height / width; area is the same for all) and place in the cell.
        device: where to make them.

    Returns:
        [h * w * A, 4] float32 xyxy per level, in the order row, column, ratio.
    """
    if len(feature_sizes) != len(strides):
        raise ValueError(
            f"got {len(feature_sizes)} feature sizes but {len(strides)} strides; give one per level"
        )
    numbers = torch.empty(0, device=device)
    roots = vector(settings.anchor_ratios, numbers).sqrt()
    first_cells = _cell_anchors(vector(strides, numbers), roots, settings)
    anchors = []
    for (height, width), stride, cell in zip(feature_sizes, strides, first_cells):
        x = torch.arange(0, width * stride, stride, device=device)
        y = torch.arange(0, height * stride, stride, device=device)
        corners = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        # [h, w, A, start and end, x and y]
        anchors.append((corners[:, :, None, None] + cell.unflatten(1, (2, 2))).view(-1, 4))
    return tuple(anchors)


def _cell_anchors(strides: Tensor, roots: Tensor, settings: RPNSettings) -> Tensor:
    """Anchors of the first cell of each of L levels, [L, A, 4].

    Args:
        strides: [L] pixels per cell.
        roots: [A] of the ratios.
    """
    strides = strides[:, None, None]
    side = strides[:, 0] * settings.anchor_scale
    size = torch.stack([side / roots, side * roots], dim=2)
    if settings.whole_pixels:
        # Indices of the first and the last pixel; a box ends where the last one does.
        middle, half = 0.5 * (strides - 1), 0.5 * (size - 1)
        return torch.cat([(middle - half).round(), (middle + half).round() + 1], dim=2)
    centre, half = settings.anchor_offset * strides, size / 2
    return torch.cat([centre - half, centre + half], dim=2)


@torch.no_grad()
def propose(
    output: RPNOutput,
    anchors: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    settings: RPNSettings,
    training: bool,
) -> list[Proposals]:
    """Decodes, clips and thins out the best anchors of each image.

    Anchors that reach over the border take part. By default all levels compete in one selection and
    one NMS (the reference); `settings.nms_per_level` does both per level and then takes the best of
    all.

    Args:
        output: of `RPNHead` for N images.
        anchors: per level, from `generate_anchors`.
        image_sizes: (height, width) of the valid pixels of each image.
        settings: numbers before and after NMS, threshold.
        training: which of the two pairs of numbers to use.

    Returns:
        One record per image.
    """
    if training:
        pre_nms, post_nms = settings.pre_nms_train, settings.post_nms_train
    else:
        pre_nms, post_nms = settings.pre_nms_test, settings.post_nms_test
    flat_logits, flat_deltas = output.flat_logits(), output.flat_deltas()
    flat_anchors = torch.cat(list(anchors))
    groups = [len(level) for level in anchors] if settings.nms_per_level else [len(flat_anchors)]
    proposals = []
    for logits, deltas, image_size in zip(flat_logits, flat_deltas, image_sizes, strict=True):
        parts = [
            _select_proposals(*group, image_size, pre_nms, post_nms, settings)
            for group in zip(logits.split(groups), deltas.split(groups), flat_anchors.split(groups))
        ]
        boxes = torch.cat([part.boxes for part in parts])
        scores = torch.cat([part.logits for part in parts])
        if len(parts) > 1:
            scores, order = scores.topk(min(post_nms, len(scores)))
            boxes = boxes[order]
        proposals.append(Proposals(boxes, scores))
    return proposals


def _select_proposals(
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    image_size: tuple[int, int],
    pre_nms: int,
    post_nms: int,
    settings: RPNSettings,
) -> Proposals:
    best_logits, best = logits.topk(min(pre_nms, len(logits)))
    boxes = decode_boxes(anchors[best], deltas[best], limits_shrinking=settings.whole_pixels)
    boxes = clip_boxes(boxes, image_size, keeps_pixel=settings.whole_pixels)
    if settings.drop_empty:
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(1)
        boxes, best_logits = boxes[has_area], best_logits[has_area]
    kept = nms(boxes, best_logits, settings.nms_threshold, post_nms)
    return Proposals(boxes[kept], best_logits[kept])


@dataclass(frozen=True)
class FixedProposals:
    """Candidate boxes of a batch, as many rows for every image.

    Attributes:
        boxes: [N, R, 4] as in `Proposals`, best first.
        valid: [N, R] bool; the other rows are no proposals.
        converged: [N] bool: the suppression came to its end.
    """

    boxes: Tensor
    valid: Tensor
    converged: Tensor


@torch.no_grad()
def fixed_proposals(
    output: RPNOutput,
    anchors: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    settings: RPNSettings,
) -> FixedProposals:
    """`propose` of a prediction in shapes that depend on no number: nothing waits for the host.

    Args:
        output, anchors, image_sizes, settings: as for `propose`.
    """
    flat_logits, flat_deltas = output.flat_logits(), output.flat_deltas()
    flat_anchors = torch.cat(list(anchors))
    groups = [len(level) for level in anchors] if settings.nms_per_level else [len(flat_anchors)]
    images = []
    for logits, deltas, image_size in zip(flat_logits, flat_deltas, image_sizes, strict=True):
        parts = [
            _select_fixed(*group, image_size, settings)
            for group in zip(logits.split(groups), deltas.split(groups), flat_anchors.split(groups))
        ]
        images.append(_best_of_levels(parts, settings.post_nms_test))
    boxes, valid, converged = (torch.stack(values) for values in zip(*images, strict=True))
    return FixedProposals(boxes, valid, converged)


_FixedPart = tuple[Tensor, Tensor, Tensor, Tensor]


def _select_fixed(
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    image_size: tuple[int, int],
    settings: RPNSettings,
) -> _FixedPart:
    """Boxes, logits, validity and convergence of one group of anchors."""
    best_logits, best = logits.topk(min(settings.pre_nms_test, len(logits)))
    boxes = decode_boxes(anchors[best], deltas[best], limits_shrinking=settings.whole_pixels)
    boxes = clip_boxes(boxes, image_size, keeps_pixel=settings.whole_pixels)
    valid = torch.ones_like(best_logits, dtype=torch.bool)
    if settings.drop_empty:
        valid = (boxes[:, 2:] > boxes[:, :2]).all(1)
    kept, converged = fixed_nms(boxes, valid, settings.nms_threshold)
    rows = kept_first(kept, min(settings.post_nms_test, len(kept)))
    return boxes[rows], best_logits[rows], kept[rows], converged


def _best_of_levels(parts: Sequence[_FixedPart], count: int) -> tuple[Tensor, Tensor, Tensor]:
    boxes, logits, valid, converged = zip(*parts, strict=True)
    if len(parts) == 1:
        return boxes[0], valid[0], converged[0]
    all_logits = torch.where(torch.cat(valid), torch.cat(logits), float("-inf"))
    scores, order = all_logits.topk(min(count, len(all_logits)))
    return torch.cat(boxes)[order], scores > float("-inf"), torch.stack(converged).all()


def rpn_losses(
    output: RPNOutput,
    anchors: Sequence[Tensor],
    targets: Sequence[PanopticTarget],
    image_sizes: Sequence[tuple[int, int]],
    settings: RPNSettings,
    generators: Sequence[torch.Generator],
) -> dict[str, LossSum]:
    """Objectness and box losses of sampled anchors.

    Args:
        output: of `RPNHead` for N images.
        anchors: per level, from `generate_anchors`.
        targets: ground truth per image, on the device of the output.
        image_sizes: (height, width) of the valid pixels of each image.
        settings: matching and sampling.
        generators: one CPU generator per image.

    Returns:
        "rpn_objectness": binary cross-entropy summed over the sampled anchors, and "rpn_box":
        smooth L1 summed over the four deltas of the sampled objects. Both are counted in sampled
        anchors, objects and background together.
    """
    flat_anchors = torch.cat(list(anchors))
    positives, negatives, target_deltas = [], [], []
    per_image = zip(targets, image_sizes, generators, strict=True)
    for image, (target, image_size, generator) in enumerate(per_image):
        gt_boxes = target.boxes[target.object_indices]
        matches = assign_anchors(
            flat_anchors,
            gt_boxes,
            image_size,
            target.crowd_mask if target.has_crowd else None,
            positive_iou=settings.positive_iou,
            negative_iou=settings.negative_iou,
            max_crowd_overlap=settings.crowd_overlap,
            forced_iou=settings.forced_iou,
            forces_equals=settings.forces_equals,
            inside_only=settings.inside_only,
            inside_excludes_end=settings.inside_excludes_end,
        )
        positive, negative = sample_matches(
            matches, settings.num_samples, settings.positive_fraction, generator
        )
        target_deltas.append(encode_boxes(flat_anchors[positive], gt_boxes[matches[positive]]))
        positives.append(positive + image * len(flat_anchors))
        negatives.append(negative + image * len(flat_anchors))

    flat_logits = output.flat_logits().flatten()
    positive_logits = flat_logits[torch.cat(positives)]
    negative_logits = flat_logits[torch.cat(negatives)]
    # Cross-entropy with label 1 is softplus(-x), with label 0 softplus(x).
    objectness = F.softplus(-positive_logits).sum() + F.softplus(negative_logits).sum()
    deltas = at_least_single(output.flat_deltas().flatten(0, 1)[torch.cat(positives)])
    box = F.smooth_l1_loss(
        deltas, torch.cat(target_deltas).to(deltas), reduction="sum", beta=settings.box_loss_beta
    )
    count = len(positive_logits) + len(negative_logits)
    return {"rpn_objectness": LossSum(objectness, count), "rpn_box": LossSum(box, count)}
