"""Box branch: classifies proposals, refines their boxes, and turns them into detections.

Letters: R RoIs (of the batch in the head and the losses, of an image elsewhere), C channels, T
thing classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.layers.abn import NormActFactory
from seamless_pr.models.instances.branch import FixedDetections
from seamless_pr.models.instances.rpn import FixedProposals, Proposals
from seamless_pr.ops.boxes import class_nms, clip_boxes, decode_boxes, encode_boxes
from seamless_pr.ops.fixed_nms import fixed_nms
from seamless_pr.ops.matching import assign_proposals, sample_matches
from seamless_pr.ops.precision import at_least_single
from seamless_pr.ops.vectors import vector
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import BoxSettings

_LEAKY_SLOPE = 0.01
# Near-zero starts: classes begin equally likely, boxes begin as the proposals.
_CLASS_GAIN = 0.01
_DELTA_GAIN = 0.001
# Below every probability: of rows that are no detections.
NO_SCORE = -1.0


@dataclass(frozen=True)
class BoxOutput:
    """Predictions for all RoIs of the batch.

    Attributes:
        class_logits: [R, T + 1]; 0 = background, thing t at t + 1.
        box_deltas: [R, 4T]; column = thing * 4 + (dx, dy, dw, dh), times the delta weights.
    """

    class_logits: Tensor
    box_deltas: Tensor


@dataclass(frozen=True)
class SampledRoIs:
    """Proposals of one image that train the box and mask branches; objects first.

    Attributes:
        boxes: [R, 4] float32 xyxy.
        matched_segment: [R] int64 index into the target's segments, or -1 for background.
        thing_indices: [R] int64 class of the matched object, or -1 for background.
        num_objects: leading rows that show an object.
    """

    boxes: Tensor
    matched_segment: Tensor
    thing_indices: Tensor
    num_objects: int

    def __len__(self) -> int:
        return len(self.boxes)


class BoxHead(nn.Module):
    """Average pooling, fully connected layers with norm, and two predictors.

    The pooling to half the RoI size is the released Seamless code's; the paper does not mention it,
    and Mask R-CNN has none (`pooling=1`).

    `forward` takes pooled features [R, C, roi_size, roi_size], R >= 0, and returns a `BoxOutput`.

    Args:
        in_channels: C.
        num_things: T.
        norm_act: makes norm + activation (for [R, hidden_channels]) from a number of channels.
        hidden_channels: width of the fully connected layers.
        roi_size: side of the pooled features; a multiple of `pooling`.
        pooling: side of the windows that are averaged first.
        num_layers: fully connected layers.
        class_agnostic: one box for all classes; the output repeats it for each.
    """

    def __init__(
        self,
        in_channels: int,
        num_things: int,
        norm_act: NormActFactory,
        hidden_channels: int = 1024,
        roi_size: int = 14,
        pooling: int = 2,
        *,
        num_layers: int = 2,
        class_agnostic: bool = False,
    ) -> None:
        super().__init__()
        if roi_size % pooling:
            raise ValueError(f"roi_size must be a multiple of pooling ({pooling}); got {roi_size}")
        self.pooling = pooling
        self.num_things = num_things
        self.num_layers = num_layers
        self.class_agnostic = class_agnostic
        inputs = in_channels * (roi_size // pooling) ** 2
        for index in range(1, num_layers + 1):
            self.add_module(f"fc{index}", nn.Linear(inputs, hidden_channels, bias=False))
            self.add_module(f"norm{index}", norm_act(hidden_channels))
            inputs = hidden_channels
        self.class_logits = nn.Linear(inputs, num_things + 1)
        self.box_deltas = nn.Linear(inputs, 4 if class_agnostic else num_things * 4)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier weights as in the reference; predictors start near 0."""
        gain = nn.init.calculate_gain("leaky_relu", _LEAKY_SLOPE)
        for index in range(1, self.num_layers + 1):
            layer = self.get_submodule(f"fc{index}")
            assert isinstance(layer, nn.Linear)
            nn.init.xavier_normal_(layer.weight, gain)
        nn.init.xavier_normal_(self.class_logits.weight, _CLASS_GAIN)
        nn.init.xavier_normal_(self.box_deltas.weight, _DELTA_GAIN)
        nn.init.zeros_(self.class_logits.bias)
        nn.init.zeros_(self.box_deltas.bias)

    def forward(self, roi_features: Tensor) -> BoxOutput:
        pooled = F.avg_pool2d(roi_features, self.pooling) if self.pooling > 1 else roi_features
        hidden = pooled.flatten(1)
        for index in range(1, self.num_layers + 1):
            layer, norm = self.get_submodule(f"fc{index}"), self.get_submodule(f"norm{index}")
            hidden = norm(layer(hidden))
        deltas = self.box_deltas(hidden)
        if self.class_agnostic:
            deltas = deltas.repeat(1, self.num_things)
        return BoxOutput(self.class_logits(hidden), deltas)


def sample_proposals(
    proposals: Proposals, target: PanopticTarget, settings: BoxSettings, generator: torch.Generator
) -> SampledRoIs:
    """The RoIs of `draw_proposals`."""
    return draw_proposals(proposals.boxes, target, settings, generator)[0]


@torch.no_grad()
def draw_proposals(
    proposals: Tensor, target: PanopticTarget, settings: BoxSettings, generator: torch.Generator
) -> tuple[SampledRoIs, Tensor]:
    """Assigns objects to proposals and draws those that train the branches.

    The boxes of the objects are added to the proposals. As in the reference, an image without
    objects gives no RoI, unless `settings.background_without_objects`.

    Args:
        proposals: [R, 4] xyxy of one image.
        target: its ground truth, on the same device.
        settings: matching and sampling.
        generator: on the CPU.

    Returns:
        At most `settings.num_samples` RoIs, objects first; possibly none. And for each of them
        whether it is an object's own box, bool.
    """
    objects = target.object_indices
    if len(objects) == 0 and not settings.background_without_objects:
        none = objects.new_zeros(0)
        return SampledRoIs(proposals.new_zeros(0, 4), none, none, 0), none.bool()
    gt_boxes = target.boxes[objects]
    candidates = torch.cat([gt_boxes, proposals])
    matches = assign_proposals(
        candidates,
        gt_boxes,
        target.crowd_mask if target.has_crowd else None,
        positive_iou=settings.positive_iou,
        max_crowd_overlap=settings.crowd_overlap,
        num_own=len(gt_boxes) if settings.forces_best else None,
    )
    positives, negatives = sample_matches(
        matches, settings.num_samples, settings.positive_fraction, generator
    )
    segments = objects[matches[positives]]
    things = target.label_space.thing_index(target.train_ids[segments])
    background = torch.full_like(negatives, -1)
    chosen = torch.cat([positives, negatives])
    rois = SampledRoIs(
        candidates[chosen],
        torch.cat([segments, background]),
        torch.cat([things, background]),
        len(positives),
    )
    return rois, chosen < len(gt_boxes)


def box_losses(
    output: BoxOutput,
    sampled: Sequence[SampledRoIs],
    targets: Sequence[PanopticTarget],
    settings: BoxSettings,
) -> dict[str, LossSum]:
    """Classification and box losses of the sampled RoIs.

    Args:
        output: of `BoxHead` for the RoIs of all images, in their order.
        sampled: per image.
        targets: ground truth per image, on the device of the output.
        settings: delta weights, beta.

    Returns:
        "box_class": cross-entropy summed over all RoIs, and "box_delta": smooth L1 summed over the
        four deltas of the objects' own class. Both are counted in RoIs, objects and background
        together.

    Raises:
        ValueError: the number of RoIs differs between `output` and `sampled`.
    """
    num_rois = sum(len(rois) for rois in sampled)
    if len(output.class_logits) != num_rois:
        raise ValueError(
            f"{num_rois} sampled RoIs but predictions for {len(output.class_logits)}; "
            "pass the RoIs that were pooled, in the same order"
        )
    thing_indices = torch.cat([rois.thing_indices for rois in sampled])
    class_logits = at_least_single(output.class_logits)
    class_loss = F.cross_entropy(class_logits, thing_indices + 1, reduction="sum")

    target_deltas = []
    for rois, target in zip(sampled, targets, strict=True):
        gt_boxes = target.boxes[rois.matched_segment[: rois.num_objects]]
        own_boxes = rois.boxes[: rois.num_objects]
        target_deltas.append(encode_boxes(own_boxes, gt_boxes, settings.delta_weights))
    objects = object_rows(sampled, thing_indices.device)
    deltas = output.box_deltas.unflatten(1, (-1, 4))[objects, thing_indices[objects]]
    deltas = at_least_single(deltas)
    delta_loss = F.smooth_l1_loss(
        deltas, torch.cat(target_deltas).to(deltas), reduction="sum", beta=settings.box_loss_beta
    )
    return {"box_class": LossSum(class_loss, num_rois), "box_delta": LossSum(delta_loss, num_rois)}


def object_rows(sampled: Sequence[SampledRoIs], device: torch.device) -> Tensor:
    """Rows of the objects among the RoIs of all images, in their order."""
    parts, first = [], 0
    for rois in sampled:
        parts.append(torch.arange(first, first + rois.num_objects, device=device))
        first += len(rois)
    return torch.cat(parts)


def regressed_boxes(
    boxes: Tensor,
    box_deltas: Tensor,
    thing_indices: Tensor,
    image_sizes: Sequence[tuple[int, int]],
    settings: BoxSettings,
) -> Tensor:
    """Boxes as the branch would move them for one given class each.

    Args:
        boxes: [R, 4] xyxy.
        box_deltas: [R, 4T] as in `BoxOutput`.
        thing_indices: [R] int64, the class of each box.
        image_sizes: (height, width) of the valid pixels of each box's image, R of them.
        settings: delta weights.

    Returns:
        [R, 4] float32, clipped to the images; may be empty boxes.
    """
    rows = torch.arange(len(boxes), device=boxes.device)
    deltas = box_deltas.unflatten(1, (-1, 4))[rows, thing_indices]
    decoded = decode_boxes(boxes, deltas, settings.delta_weights).clamp(min=0)
    limits = [decoded[:0]]
    for (height, width), same in groupby(image_sizes):
        limit = vector([width, height, width, height], decoded)
        limits.append(limit.expand(sum(1 for _ in same), -1))
    return torch.minimum(decoded, torch.cat(limits))


@torch.no_grad()
def detect_boxes(
    output: BoxOutput,
    boxes: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    settings: BoxSettings,
) -> list[Instances]:
    """Turns predictions for proposals into final boxes, without masks.

    Every proposal may give one detection per thing class. Rows are in class order, then descending
    score; if there are more than `max_detections`, the best of all classes are kept, by descending
    score (reference).

    Args:
        output: of `BoxHead` for the proposals of all images, in their order.
        boxes: [R, 4] proposals per image.
        image_sizes: (height, width) of the valid pixels, per image.
        settings: thresholds and limits.

    Returns:
        One record per image, in pixels of the network input.
    """
    counts = [len(image_boxes) for image_boxes in boxes]
    probs = output.class_logits.float().softmax(dim=1)[:, 1:].split(counts)
    deltas = output.box_deltas.unflatten(1, (-1, 4)).split(counts)
    per_image = zip(probs, deltas, boxes, image_sizes, strict=True)
    return [_detect_image(*image, settings) for image in per_image]


def _detect_image(
    probs: Tensor,
    deltas: Tensor,
    boxes: Tensor,
    image_size: tuple[int, int],
    settings: BoxSettings,
) -> Instances:
    # Transposed, so that candidates come class by class.
    things, rois = torch.nonzero(probs.t() > settings.score_threshold, as_tuple=True)
    scores = probs[rois, things]
    decoded = decode_boxes(
        boxes[rois],
        deltas[rois, things],
        settings.delta_weights,
        limits_shrinking=settings.whole_pixels,
    )
    decoded = clip_boxes(decoded, image_size, keeps_pixel=settings.whole_pixels)
    return suppressed(Instances(scores, things, decoded), settings)


@torch.no_grad()
def fixed_detections(
    output: BoxOutput,
    proposals: FixedProposals,
    image_sizes: Sequence[tuple[int, int]],
    settings: BoxSettings,
) -> FixedDetections:
    """`detect_boxes` in shapes that depend on no number: nothing waits for the host.

    Args:
        output: of `BoxHead` for all rows of the proposals.
        proposals: of the batch.
        image_sizes, settings: as for `detect_boxes`.

    Returns:
        As many rows as there may be detections, best first, without masks; equals in class order.
    """
    num_rows = proposals.boxes.shape[1]
    probs = output.class_logits.float().softmax(dim=1)[:, 1:].split(num_rows)
    deltas = output.box_deltas.unflatten(1, (-1, 4)).split(num_rows)
    per_image = zip(probs, deltas, proposals.boxes, proposals.valid, image_sizes, strict=True)
    found, counts, converged = zip(*(_detect_fixed(*image, settings) for image in per_image))
    return FixedDetections(found, torch.stack(counts), torch.stack(converged) & proposals.converged)


def _detect_fixed(
    probs: Tensor,
    deltas: Tensor,
    boxes: Tensor,
    valid: Tensor,
    image_size: tuple[int, int],
    settings: BoxSettings,
) -> tuple[Instances, Tensor, Tensor]:
    decoded = decode_boxes(
        boxes[:, None],
        deltas,
        settings.delta_weights,
        limits_shrinking=settings.whole_pixels,
    )
    decoded = clip_boxes(decoded, image_size, keeps_pixel=settings.whole_pixels)
    has_area = (decoded[..., 2:] > decoded[..., :2]).all(-1)
    is_candidate = (probs > settings.score_threshold) & has_area & valid[:, None]
    # [R, T] -> [T, R], each class best first
    scores = torch.where(is_candidate, probs, NO_SCORE).t()
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    by_class = decoded.movedim(1, 0).gather(1, order[..., None].expand(-1, -1, 4))
    kept, converged = fixed_nms(by_class, scores > NO_SCORE, settings.nms_threshold)
    ranked = torch.where(kept, scores, NO_SCORE).flatten()
    ranked, rows = ranked.sort(descending=True, stable=True)
    num_detections = min(settings.max_detections, len(ranked))
    ranked, rows = ranked[:num_detections], rows[:num_detections]
    things = rows.div(scores.shape[1], rounding_mode="floor")
    instances = Instances(ranked, things, by_class.flatten(0, 1)[rows])
    return instances, (ranked > NO_SCORE).sum(), converged.all()


def suppressed(candidates: Instances, settings: BoxSettings) -> Instances:
    """The best of overlapping boxes of each class; boxes without area are left out.

    Args:
        candidates: class by class, without masks.
        settings: threshold and limit.
    """
    boxes = candidates.require_boxes()
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(1)
    detections = candidates.select(has_area)
    kept = class_nms(
        detections.require_boxes(),
        detections.scores,
        detections.thing_indices,
        settings.nms_threshold,
    )
    detections = detections.select(kept)
    if len(detections) > settings.max_detections:
        detections = detections.select(detections.scores.topk(settings.max_detections).indices)
    return detections
