"""Two-stage instance branches: proposals, boxes, and a mask part of either kind on them.

Letters: R boxes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from seamless_pr.models.instances.box_branch import (
    BoxHead,
    BoxOutput,
    SampledRoIs,
    box_losses,
    detect_boxes,
    fixed_detections,
    object_rows,
    sample_proposals,
)
from seamless_pr.models.instances.box_views import (
    ScoredBoxes,
    averaged_boxes,
    averaged_masks,
    pooled_proposals,
    scored_boxes,
)
from seamless_pr.models.instances.branch import FixedDetections, InstanceBranch
from seamless_pr.models.instances.rpn import (
    RPNHead,
    RPNOutput,
    fixed_proposals,
    generate_anchors,
    propose,
    rpn_losses,
)
from seamless_pr.ops.roi_sampling import pool_rois
from seamless_pr.structures.features import Features
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import BoxSettings, RoISettings, RPNSettings
from seamless_pr.structures.views import SeenView


@dataclass(frozen=True)
class SampledBatch:
    """What the boxes of a training batch are when the masks' turn comes.

    Attributes:
        features, batch, targets, generators: as `InstanceBranch.losses` got them.
        rois: RoIs of each image that train the branch.
        roi_features: [R, C, size, size], pooled for the box head by `roi`.
        roi: how `roi_features` were pooled.
        box_output: predictions for these RoIs.
        box: numbers of the box branch.
    """

    features: Features
    batch: ImageBatch
    targets: Sequence[PanopticTarget]
    generators: Sequence[torch.Generator]
    rois: Sequence[SampledRoIs]
    roi_features: Tensor
    roi: RoISettings
    box_output: BoxOutput
    box: BoxSettings

    @property
    def objects(self) -> Tensor:
        """Rows of the RoIs that were matched to an object, int64."""
        return object_rows(self.rois, self.roi_features.device)


class MaskPart(nn.Module):
    """The masks of a two-stage branch.

    Attributes:
        loss_names: the names that `losses` returns, always all of them.
    """

    loss_names: tuple[str, ...]

    @abstractmethod
    def losses(self, sampled: SampledBatch) -> dict[str, LossSum]:
        """Losses on the sampled RoIs, as sums and counts."""

    @abstractmethod
    def add_masks(
        self, features: Features, instances: Sequence[Instances], padded_size: tuple[int, int]
    ) -> list[Instances]:
        """Masks for final boxes, which are in pixels of the network input."""


class ProposingBranch(InstanceBranch):
    """What branches that start from proposals share.

    Args:
        rpn_head: scores anchors.
        rpn: numbers around it.
    """

    def __init__(self, rpn_head: RPNHead, rpn: RPNSettings) -> None:
        super().__init__()
        self.rpn_head = rpn_head
        self.rpn = rpn

    def score_anchors(self, features: Features) -> tuple[RPNOutput, tuple[Tensor, ...]]:
        """Predictions of the proposal head, and the anchors that they are about."""
        output = self.rpn_head(features.levels)
        device = features.finest.device
        return output, generate_anchors(features.sizes, features.strides, self.rpn, device)

    def propose(self, features: Features, batch: ImageBatch) -> list[Tensor]:
        """[R, 4] proposals of each image, best first, in pixels of the network input."""
        output, anchors = self.score_anchors(features)
        proposals = propose(output, anchors, batch.image_sizes, self.rpn, training=False)
        return [proposal.boxes for proposal in proposals]

    @abstractmethod
    def score_boxes(
        self, features: Features, batch: ImageBatch, proposals: Sequence[Tensor]
    ) -> list[ScoredBoxes]:
        """What the box heads say about the proposals of each image, before any is left out."""

    @property
    @abstractmethod
    def final_box(self) -> BoxSettings:
        """Thresholds and limits of the final boxes."""

    def scored_masks(
        self, features: Features, batch: ImageBatch, instances: Sequence[Instances]
    ) -> list[Instances]:
        """`add_masks`, and scores as far as masks decide about them."""
        return self.add_masks(features, batch, instances)

    @torch.no_grad()
    def detect_views(self, views: Sequence[SeenView], base: ImageBatch) -> list[Instances]:
        proposals = []
        for view in views:
            output, anchors = self.score_anchors(view.features)
            sizes = view.batch.image_sizes
            proposals.append(propose(output, anchors, sizes, self.rpn, training=False))
        pooled = pooled_proposals(views, proposals, base, self.rpn)
        return averaged_masks(
            views,
            self.boxes_of_views(views, base, pooled),
            base,
            lambda view, seen: self.scored_masks(view.features, view.batch, seen),
            whole_pixels=self.final_box.whole_pixels,
        )

    def boxes_of_views(
        self, views: Sequence[SeenView], base: ImageBatch, proposals: Sequence[Tensor]
    ) -> list[Instances]:
        """Final boxes by all views, without masks, out of proposals in pixels of the base batch."""
        settings = self.final_box
        whole_pixels = settings.whole_pixels
        scored = [
            self.score_boxes(
                view.features,
                view.batch,
                [
                    view.from_base(boxes, image, base, whole_pixels=whole_pixels)
                    for image, boxes in enumerate(proposals)
                ],
            )
            for view in views
        ]
        return averaged_boxes(views, scored, base, settings)


class TwoStageBranch(ProposingBranch):
    """Faster R-CNN with a mask part: Mask R-CNN, or PointRend.

    Args:
        rpn_head, box_head: proposals and boxes.
        masks: what draws masks into the boxes.
        rpn, roi, box: numbers of the procedures around them.
    """

    has_fixed_shapes = True

    def __init__(
        self,
        rpn_head: RPNHead,
        box_head: BoxHead,
        masks: MaskPart,
        *,
        rpn: RPNSettings,
        roi: RoISettings,
        box: BoxSettings,
    ) -> None:
        super().__init__(rpn_head, rpn)
        self.box_head = box_head
        self.masks = masks
        self.roi, self.box = roi, box
        self.loss_names = ("rpn_objectness", "rpn_box", "box_class", "box_delta", *masks.loss_names)

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
        rois = [
            sample_proposals(proposal, target, self.box, generator)
            for proposal, target, generator in zip(proposals, targets, generators, strict=True)
        ]
        boxes = [image_rois.boxes for image_rois in rois]
        roi_features = pool_rois(features.levels, boxes, batch.padded_size, self.roi)
        box_output = self.box_head(roi_features)
        losses |= box_losses(box_output, rois, targets, self.box)
        sampled = SampledBatch(
            features,
            batch,
            targets,
            generators,
            rois,
            roi_features,
            self.roi,
            box_output,
            self.box,
        )
        return losses | self.masks.losses(sampled)

    def detect(
        self,
        features: Features,
        batch: ImageBatch,
        proposals: Sequence[Tensor] | None = None,
    ) -> list[Instances]:
        boxes = self.propose(features, batch) if proposals is None else list(proposals)
        return self.add_masks(features, batch, self.detect_boxes(features, batch, boxes))

    def detect_fixed(self, features: Features, batch: ImageBatch) -> FixedDetections:
        output, anchors = self.score_anchors(features)
        proposals = fixed_proposals(output, anchors, batch.image_sizes, self.rpn)
        rois = pool_rois(features.levels, list(proposals.boxes), batch.padded_size, self.roi)
        found = fixed_detections(self.box_head(rois), proposals, batch.image_sizes, self.box)
        return replace(found, instances=self.add_masks(features, batch, found.instances))

    def detect_boxes(
        self, features: Features, batch: ImageBatch, proposals: Sequence[Tensor]
    ) -> list[Instances]:
        """Final boxes out of proposals, without masks."""
        output = self.box_head(pool_rois(features.levels, proposals, batch.padded_size, self.roi))
        return detect_boxes(output, proposals, batch.image_sizes, self.box)

    @property
    def final_box(self) -> BoxSettings:
        return self.box

    def score_boxes(
        self, features: Features, batch: ImageBatch, proposals: Sequence[Tensor]
    ) -> list[ScoredBoxes]:
        output = self.box_head(pool_rois(features.levels, proposals, batch.padded_size, self.roi))
        return scored_boxes(output, proposals, batch.image_sizes, self.box)

    def add_masks(
        self, features: Features, batch: ImageBatch, instances: Sequence[Instances]
    ) -> list[Instances]:
        return self.masks.add_masks(features, instances, batch.padded_size)
