"""Hybrid Task Cascade: boxes refined in stages, masks that build on those of the stages before.

Letters: R boxes, C channels, T thing classes, S side of the mask RoI.
Source: Hybrid Task Cascade (CVPR 2019); details of mmdetection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.layers.abn import NormActFactory
from seamless_pr.layers.conv_norm_act import ConvNormAct
from seamless_pr.models.instances.box_branch import (
    BoxHead,
    BoxOutput,
    SampledRoIs,
    box_losses,
    detect_boxes,
    draw_proposals,
    fixed_detections,
)
from seamless_pr.models.instances.box_views import ScoredBoxes, scored_boxes
from seamless_pr.models.instances.branch import FixedDetections
from seamless_pr.models.instances.mask_iou import MaskIoUHead, mask_iou_loss
from seamless_pr.models.instances.mask_rcnn import MaskHead
from seamless_pr.models.instances.positive_rois import (
    PositiveRoIs,
    positive_rois,
    targets_of_masks,
)
from seamless_pr.models.instances.rpn import RPNHead, fixed_proposals, propose, rpn_losses
from seamless_pr.models.instances.semantic_context import SemanticContext, context_loss
from seamless_pr.models.instances.two_stage import ProposingBranch
from seamless_pr.ops.boxes import clip_boxes, decode_boxes, last_pixels
from seamless_pr.ops.masks import BoxMasks, PixelBoxMasks
from seamless_pr.ops.precision import at_least_single
from seamless_pr.ops.roi_sampling import align_rois, pool_rois
from seamless_pr.structures.features import Features
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import BoxSettings, RoISettings, RPNSettings

# Side of the context under a box, before it is averaged to the size of what it is added to.
_CONTEXT_SIZE = 14
# Probabilities of 0 and 1 have no finite logit.
_LOGIT_EPSILON = 1e-6


class CascadeMaskHead(MaskHead):
    """The 4-convolution head, which also sees what the head of the stage before computed.

    forward: [R, C, S, S] and the last hidden maps of the head before, or None -> hidden maps
    [R, hidden, S, S] and logits [R, T, 2 S, 2 S].

    Args:
        carries: whether there is a head before it.
    """

    def __init__(
        self,
        in_channels: int,
        num_things: int,
        norm_act: NormActFactory,
        *,
        hidden_channels: int = 256,
        carries: bool = False,
    ) -> None:
        super().__init__(in_channels, num_things, norm_act, hidden_channels=hidden_channels)
        self.carry = ConvNormAct(hidden_channels, in_channels, 1, norm_act) if carries else None

    def hidden(self, roi_features: Tensor, carried: Tensor | None) -> Tensor:
        """The maps that the next head sees: the input, and what is carried, through the convs."""
        if self.carry is not None and carried is not None:
            roi_features = roi_features + self.carry(carried)
        result: Tensor = self.convs(roi_features)
        return result

    def logits(self, hidden: Tensor) -> Tensor:
        """Mask logits out of the hidden maps."""
        result: Tensor = self.predictor(self.upsample_norm(self.upsample(hidden)))
        return result


@dataclass(frozen=True)
class CascadeFeatures:
    """What RoIs are pooled from.

    Attributes:
        features: of the trunk.
        context: [N, C, h, w] embedding that is added to them; None: nothing is.
        padded_size: (height, width) of the network input.
    """

    features: Features
    context: Tensor | None
    padded_size: tuple[int, int]


class CascadeBranch(ProposingBranch):
    """Hybrid Task Cascade.

    Every stage classifies and moves the boxes of the stage before; its masks train on its own,
    moved boxes (interleaved), and its mask head sees the maps of the heads before (information
    flow). In prediction class logits are averaged over the stages, boxes are the last stage's, and
    all mask heads see these.

    Args:
        rpn_head: proposals.
        box_heads: class-agnostic, one per stage.
        mask_heads: one per stage; all but the first carry.
        mask_iou_head: scores the masks of the last stage; None: they are not scored.
        context: semantic context of its own; None: none.
        shared_context: what the semantic branch of the network sees -> a context, in its place;
            None: none.
        rpn: numbers of the proposals.
        roi, mask_roi: pooling for boxes and masks.
        boxes: numbers of each stage; thresholds of the last count in prediction.
        average_masks: masks are the mean of all heads' (mmdetection 1.x, 2.x) or the last head's
            (3.x).
        whole_pixels: boxes are rows and columns of whole pixels, as in mmdetection 1.x.
    """

    has_fixed_shapes = True

    def __init__(
        self,
        rpn_head: RPNHead,
        box_heads: Sequence[BoxHead],
        mask_heads: Sequence[CascadeMaskHead],
        mask_iou_head: MaskIoUHead | None = None,
        context: SemanticContext | None = None,
        shared_context: nn.Module | None = None,
        *,
        rpn: RPNSettings,
        roi: RoISettings,
        mask_roi: RoISettings,
        boxes: Sequence[BoxSettings],
        average_masks: bool = True,
        whole_pixels: bool = False,
    ) -> None:
        super().__init__(rpn_head, rpn)
        if not len(box_heads) == len(mask_heads) == len(boxes):
            raise ValueError(
                f"a cascade needs a box head, a mask head and numbers for each stage; got "
                f"{len(box_heads)}, {len(mask_heads)} and {len(boxes)}"
            )
        self.box_heads = nn.ModuleList(box_heads)
        self.mask_heads = nn.ModuleList(mask_heads)
        self.mask_iou_head = mask_iou_head
        if context is not None and shared_context is not None:
            raise ValueError("a cascade has one semantic context: its own, or that of the network")
        self.context = context
        self.shared_context = shared_context
        self.reads_semantics = shared_context is not None
        self.roi, self.mask_roi, self.boxes = roi, mask_roi, tuple(boxes)
        self.average_masks = average_masks
        self.whole_pixels = whole_pixels
        stages = (
            f"{name}_{stage}"
            for stage in range(1, len(boxes) + 1)
            for name in ("box_class", "box_delta", "mask")
        )
        extra = ("mask_iou",) * (mask_iou_head is not None) + ("context",) * (context is not None)
        self.loss_names = ("rpn_objectness", "rpn_box", *stages, *extra)

    # Training

    def losses(
        self,
        features: Features,
        batch: ImageBatch,
        targets: Sequence[PanopticTarget],
        generators: Sequence[torch.Generator],
    ) -> dict[str, LossSum]:
        output, anchors = self.score_anchors(features)
        losses = rpn_losses(output, anchors, targets, batch.image_sizes, self.rpn, generators)
        proposals = propose(output, anchors, batch.image_sizes, self.rpn, training=True)
        source = CascadeFeatures(features, self._shared(features), batch.padded_size)
        semantic: dict[str, LossSum] = {}
        if self.context is not None:
            logits, embedding = self.context(features.levels)
            semantic = context_loss(logits, targets, batch.padded_size)
            source = replace(source, context=embedding)
        boxes = [proposal.boxes for proposal in proposals]
        staged = self.stage_losses(source, boxes, batch.image_sizes, targets, generators)
        return losses | staged | semantic

    def stage_losses(
        self,
        source: CascadeFeatures,
        boxes: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
        targets: Sequence[PanopticTarget],
        generators: Sequence[torch.Generator],
    ) -> dict[str, LossSum]:
        """Losses of all stages, given the proposals [R, 4] of each image."""
        losses: dict[str, LossSum] = {}
        for stage, settings in enumerate(self.boxes):
            drawn = self._draw(boxes, targets, settings, generators)
            rois = [image_rois for image_rois, _ in drawn]
            output = self._box_output(stage, source, [image_rois.boxes for image_rois in rois])
            found = box_losses(output, rois, targets, settings)
            boxes = refined_boxes(output, drawn, image_sizes, settings)
            # Again, on the boxes that this stage has moved.
            moved = [
                image_rois for image_rois, _ in self._draw(boxes, targets, settings, generators)
            ]
            found |= self.mask_losses(stage, source, positive_rois(moved, targets), targets)
            losses |= {
                name if name == "mask_iou" else f"{name}_{stage + 1}": loss
                for name, loss in found.items()
            }
        return losses

    @staticmethod
    def _draw(
        boxes: Sequence[Tensor],
        targets: Sequence[PanopticTarget],
        settings: BoxSettings,
        generators: Sequence[torch.Generator],
    ) -> list[tuple[SampledRoIs, Tensor]]:
        return [
            draw_proposals(image_boxes, target, settings, generator)
            for image_boxes, target, generator in zip(boxes, targets, generators, strict=True)
        ]

    def mask_losses(
        self,
        stage: int,
        source: CascadeFeatures,
        rois: PositiveRoIs,
        targets: Sequence[PanopticTarget],
    ) -> dict[str, LossSum]:
        """Loss `mask` of a stage, mean over boxes and cells; of the last one `mask_iou`, too."""
        per_image = rois.boxes.split(rois.rois_per_image(len(targets)))
        roi_features = self._pooled(source, per_image, self.mask_roi)
        logits = at_least_single(self._stage_mask_logits(roi_features, stage))
        own = logits[torch.arange(len(logits), device=logits.device), rois.thing_indices]
        if self.whole_pixels:
            rois = replace(rois, boxes=last_pixels(rois.boxes))
        wanted = targets_of_masks(rois, targets, own.shape[-1], whole_pixels=self.whole_pixels)
        wanted = wanted.to(own)
        total = F.binary_cross_entropy_with_logits(own, wanted, reduction="sum")
        losses = {"mask": LossSum(total, own.numel())}
        if self.mask_iou_head is not None and stage == len(self.boxes) - 1:
            predicted = self.mask_iou_head(roi_features, own)
            losses |= mask_iou_loss(
                predicted, own, wanted, rois, targets, whole_pixels=self.whole_pixels
            )
        return losses

    # Prediction

    def detect(
        self,
        features: Features,
        batch: ImageBatch,
        proposals: Sequence[Tensor] | None = None,
    ) -> list[Instances]:
        boxes = self.propose(features, batch) if proposals is None else list(proposals)
        return self.scored_masks(features, batch, self.detect_boxes(features, batch, boxes))

    def detect_fixed(self, features: Features, batch: ImageBatch) -> FixedDetections:
        output, anchors = self.score_anchors(features)
        proposals = fixed_proposals(output, anchors, batch.image_sizes, self.rpn)
        last, boxes = self._last_boxes(features, batch, list(proposals.boxes))
        proposals = replace(proposals, boxes=torch.stack(boxes))
        found = fixed_detections(last, proposals, batch.image_sizes, self.final_box)
        return found.rescored(self.scored_masks(features, batch, found.instances))

    @property
    def final_box(self) -> BoxSettings:
        return self.boxes[-1]

    def score_boxes(
        self, features: Features, batch: ImageBatch, proposals: Sequence[Tensor]
    ) -> list[ScoredBoxes]:
        output, boxes = self._last_boxes(features, batch, proposals)
        return scored_boxes(output, boxes, batch.image_sizes, self.final_box)

    def detect_boxes(
        self, features: Features, batch: ImageBatch, proposals: Sequence[Tensor]
    ) -> list[Instances]:
        """Final boxes out of proposals, without masks."""
        output, boxes = self._last_boxes(features, batch, proposals)
        return detect_boxes(output, boxes, batch.image_sizes, self.final_box)

    def _last_boxes(
        self, features: Features, batch: ImageBatch, proposals: Sequence[Tensor]
    ) -> tuple[BoxOutput, list[Tensor]]:
        """Averaged class logits and the last stage's deltas, and the boxes these are about."""
        source = self._source(features, batch)
        boxes = list(proposals)
        logits: list[Tensor] = []
        for stage, settings in enumerate(self.boxes):
            output = self._box_output(stage, source, boxes)
            logits.append(output.class_logits)
            if stage < len(self.boxes) - 1:
                boxes = moved_boxes(output, boxes, batch.image_sizes, settings)
        averaged = BoxOutput(torch.stack(logits).mean(0), output.box_deltas)
        return averaged, boxes

    def add_masks(
        self, features: Features, batch: ImageBatch, instances: Sequence[Instances]
    ) -> list[Instances]:
        return self._with_masks(features, batch, instances, rescores=False)

    def scored_masks(
        self, features: Features, batch: ImageBatch, instances: Sequence[Instances]
    ) -> list[Instances]:
        return self._with_masks(features, batch, instances, rescores=True)

    def _with_masks(
        self,
        features: Features,
        batch: ImageBatch,
        instances: Sequence[Instances],
        *,
        rescores: bool,
    ) -> list[Instances]:
        boxes = [found.require_boxes() for found in instances]
        counts = [len(image_boxes) for image_boxes in boxes]
        roi_features = self._pooled(self._source(features, batch), boxes, self.mask_roi)
        things = torch.cat([found.thing_indices for found in instances])
        own = self.own_mask_logits(roi_features, things)
        scores = torch.cat([found.scores for found in instances])
        rescores = rescores and self.mask_iou_head is not None
        if rescores:
            # Trained to lie in 0..1, which nothing enforces.
            scores = scores * self.mask_iou(roi_features, own, things).clamp(0, 1)
        merged = own[-1]
        if self.average_masks:
            merged = torch.logit(own.sigmoid().mean(0), eps=_LOGIT_EPSILON)
        with_masks = []
        per_image = zip(instances, boxes, scores.split(counts), merged.split(counts), strict=True)
        for found, image_boxes, image_scores, logits in per_image:
            masks = BoxMasks(logits, image_boxes)
            if self.whole_pixels:
                masks = PixelBoxMasks(logits, last_pixels(image_boxes))
            box_scores = found.scores if rescores else None
            with_masks.append(
                replace(found, scores=image_scores, masks=masks, box_scores=box_scores)
            )
        return with_masks

    def own_mask_logits(self, roi_features: Tensor, thing_indices: Tensor) -> Tensor:
        """[stages, R, 2 S, 2 S] logits of each box's class, of all heads."""
        rows = torch.arange(len(thing_indices), device=thing_indices.device)
        hidden, per_head = None, []
        for head in self.mask_heads:
            assert isinstance(head, CascadeMaskHead)
            hidden = head.hidden(roi_features, hidden)
            per_head.append(at_least_single(head.logits(hidden)[rows, thing_indices]))
        return torch.stack(per_head)

    def mask_iou(self, roi_features: Tensor, own: Tensor, thing_indices: Tensor) -> Tensor:
        """[R] predicted IoU of each box's mask; it sees the mean of all heads' logits."""
        assert self.mask_iou_head is not None
        rows = torch.arange(len(thing_indices), device=thing_indices.device)
        predicted: Tensor = self.mask_iou_head(roi_features, own.mean(0))
        return at_least_single(predicted[rows, thing_indices])

    # Shared by both

    def _source(self, features: Features, batch: ImageBatch) -> CascadeFeatures:
        embedding = self._shared(features)
        if self.context is not None:
            embedding = self.context(features.levels)[1]
        return CascadeFeatures(features, embedding, batch.padded_size)

    def _shared(self, features: Features) -> Tensor | None:
        if self.shared_context is None:
            return None
        if features.semantic is None:
            raise ValueError("this cascade reads `Features.semantic`; the network must fill it in")
        context: Tensor = self.shared_context(features.semantic)
        return context

    def _pooled(self, source: CascadeFeatures, boxes: Sequence[Tensor], roi: RoISettings) -> Tensor:
        """[R, C, size, size] features under boxes, with the context."""
        pooled = pool_rois(source.features.levels, boxes, source.padded_size, roi)
        if source.context is None:
            return pooled
        images = torch.cat(
            [torch.full_like(image_boxes[:, :1], index) for index, image_boxes in enumerate(boxes)]
        )
        rois = torch.cat([images, torch.cat(list(boxes)).detach()], dim=1)
        scale = source.context.shape[-1] / source.padded_size[1]
        settings = replace(self.roi, size=_CONTEXT_SIZE)
        context = align_rois(source.context, rois, scale, settings)
        return pooled + F.adaptive_avg_pool2d(context, pooled.shape[-1])

    def _box_output(
        self, stage: int, source: CascadeFeatures, boxes: Sequence[Tensor]
    ) -> BoxOutput:
        output: BoxOutput = self.box_heads[stage](self._pooled(source, boxes, self.roi))
        return output

    def _stage_mask_logits(self, roi_features: Tensor, stage: int) -> Tensor:
        """[R, T, 2 S, 2 S] of one stage; the heads before only pass on what they see."""
        hidden, logits = None, roi_features
        for index, head in enumerate(list(self.mask_heads)[: stage + 1]):
            assert isinstance(head, CascadeMaskHead)
            hidden = head.hidden(roi_features, hidden)
            if index == stage:
                logits = head.logits(hidden)
        return logits


@torch.no_grad()
def moved_boxes(
    output: BoxOutput,
    boxes: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    settings: BoxSettings,
) -> list[Tensor]:
    """Boxes [R, 4] of each image where a class-agnostic head moves them, clipped to the image."""
    deltas = output.box_deltas[:, :4].split([len(image_boxes) for image_boxes in boxes])
    return [
        clip_boxes(
            decode_boxes(
                image_boxes,
                image_deltas,
                settings.delta_weights,
                limits_shrinking=settings.whole_pixels,
            ),
            image_size,
            keeps_pixel=settings.whole_pixels,
        )
        for image_boxes, image_deltas, image_size in zip(boxes, deltas, image_sizes, strict=True)
    ]


def refined_boxes(
    output: BoxOutput,
    drawn: Sequence[tuple[SampledRoIs, Tensor]],
    image_sizes: Sequence[tuple[int, int]],
    settings: BoxSettings,
) -> list[Tensor]:
    """Sampled boxes of each image where the head moves them, without the objects' own."""
    moved = moved_boxes(output, [rois.boxes for rois, _ in drawn], image_sizes, settings)
    return [boxes[~is_own] for boxes, (_, is_own) in zip(moved, drawn, strict=True)]
