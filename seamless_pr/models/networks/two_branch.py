"""The whole network: shared trunk, Mask R-CNN branch, semantic branch, PointRend in either, fusion.

Letters: N images of a batch, R boxes, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from seamless_pr.models.fusion.by_score import (
    fuse,
    resample_grid,
    resampled_classes,
    resized_segmentation,
)
from seamless_pr.models.instances.box_branch import (
    BoxHead,
    BoxOutput,
    SampledRoIs,
    box_losses,
    detect,
    regressed_boxes,
    sample_proposals,
)
from seamless_pr.models.instances.mask_rcnn import MaskHead, PositiveRoIs, mask_loss, positive_rois
from seamless_pr.models.instances.point_rend import point_mask_logits, point_mask_losses
from seamless_pr.models.instances.rpn import (
    RPNHead,
    RPNOutput,
    generate_anchors,
    propose,
    rpn_losses,
)
from seamless_pr.models.necks.fpn import FPN
from seamless_pr.models.point_heads import CoarseMaskHead, PointHead
from seamless_pr.models.semantics.deeplab import DeepLabV3Head
from seamless_pr.models.semantics.mini_dl import SemanticHead, semantic_loss, upsample_logits
from seamless_pr.models.semantics.panoptic_fpn import SemanticFPNHead
from seamless_pr.models.semantics.points import refine_semantic_logits, semantic_point_loss
from seamless_pr.ops.roi_sampling import pool_rois
from seamless_pr.structures.detections import Detections
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.settings import (
    BoxSettings,
    FusionSettings,
    PointSettings,
    RoISettings,
    RPNSettings,
    SemanticSettings,
)


@dataclass(frozen=True)
class InstanceOutput:
    """What the instance branch knows before the final boxes."""

    rpn: RPNOutput
    anchors: tuple[Tensor, ...]


@dataclass(frozen=True)
class BranchOutputs:
    """What the branches say about a batch, before they are fused.

    Attributes:
        batch: the network input, padded as the network wants it.
        detections: of each image, with masks; boxes in pixels of the network input.
        semantic_logits: [N, K, h, w] covering the padded images; None without semantic branch.
    """

    batch: ImageBatch
    detections: list[Detections]
    semantic_logits: Tensor | None


class PanopticNet(nn.Module):
    """Seamless Scene Segmentation, with PointRend where point heads are given.

    Without `rpn_head`, `box_head` and `mask_head` it is a semantic network, without `semantic_head`
    one for instances; what the missing branch would give is void.

    `losses` (training): batch, one target and one random generator per image -> name -> sum and
    count, unweighted.
    `predict` (inference): batch, original sizes -> one panoptic segmentation and the detections
    per image.

    Args:
        label_space: classes; stuff and things.
        backbone: images [N, 3, H, W] -> stage maps C2..C5; has `out_channels` and `strides`.
        fpn: stage maps -> levels P2, P3, ...; None: heads and points read the stage maps.
        rpn_head, box_head: proposals and boxes; None: no instance branch.
        mask_head: the 4-convolution head, or the coarse head of PointRend (then `point_head` is
            needed).
        point_head: refines masks.
        semantic_head: levels -> logits; None: no semantic branch.
        semantic_point_head: refines semantics; None: bilinear upsampling.
        level_strides: input pixels per cell of each FPN level.
        rpn, roi, box, points, semantic, fusion: numbers of the branches.
        pixel_mean, pixel_std: of RGB in [0, 1].
        size_divisor: batches are padded further, to multiples of this height and width.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        label_space: LabelSpace,
        backbone: nn.Module,
        fpn: FPN | None,
        rpn_head: RPNHead | None,
        box_head: BoxHead | None,
        mask_head: MaskHead | CoarseMaskHead | None,
        point_head: PointHead | None,
        semantic_head: SemanticHead | SemanticFPNHead | DeepLabV3Head | None,
        semantic_point_head: PointHead | None,
        level_strides: Sequence[int],
        rpn: RPNSettings,
        roi: RoISettings,
        box: BoxSettings,
        points: PointSettings,
        semantic: SemanticSettings,
        fusion: FusionSettings,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisor: int = 1,
    ) -> None:
        super().__init__()
        if len({part is None for part in (rpn_head, box_head, mask_head)}) > 1:
            raise ValueError("rpn_head, box_head and mask_head come together; got some of them")
        if rpn_head is None and semantic_head is None:
            raise ValueError("a network needs an instance or a semantic branch; got neither")
        if isinstance(mask_head, CoarseMaskHead) != (point_head is not None):
            raise ValueError(
                "a CoarseMaskHead and a point_head come together; got "
                f"{type(mask_head).__name__} {'with' if point_head else 'without'} point_head"
            )
        self.label_space = label_space
        self.backbone = backbone
        self.fpn = fpn
        self.rpn_head = rpn_head
        self.box_head = box_head
        self.mask_head = mask_head
        self.point_head = point_head
        self.semantic_head = semantic_head
        self.semantic_point_head = semantic_point_head
        self.level_strides = tuple(level_strides)
        self.rpn, self.roi, self.box = rpn, roi, box
        self.points, self.semantic, self.fusion = points, semantic, fusion
        self.size_divisor = size_divisor
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(3, 1, 1), persistent=False)

    # Shared trunk

    def normalized(self, batch: ImageBatch) -> Tensor:
        """Pixels minus mean over std, zeros in the padding: [N, 3, H, W] float32."""
        images = (batch.images / 255 - self.pixel_mean) / self.pixel_std
        for image, (height, width) in zip(images, batch.image_sizes):
            image[:, height:] = 0
            image[:, :, width:] = 0
        return images

    def features(self, batch: ImageBatch) -> tuple[Tensor, ...]:
        """Pyramid levels, finest first; those that boxes and points read are channels-last."""
        return self.pyramid(self.backbone(self.normalized(batch)))

    def pyramid(self, stages: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """`features`, out of the stage maps of the backbone."""
        levels = tuple(stages if self.fpn is None else self.fpn(stages))
        pooled = self.roi.num_levels
        return (
            *(level.contiguous(memory_format=torch.channels_last) for level in levels[:pooled]),
            *levels[pooled:],
        )

    def _rpn(self, levels: Sequence[Tensor]) -> InstanceOutput:
        assert self.rpn_head is not None
        output = self.rpn_head(levels)
        sizes = [(level.shape[-2], level.shape[-1]) for level in levels]
        anchors = generate_anchors(sizes, self.level_strides, self.rpn, levels[0].device)
        return InstanceOutput(output, anchors)

    # Training

    def losses(
        self,
        batch: ImageBatch,
        targets: Sequence[PanopticTarget],
        generators: Sequence[torch.Generator],
    ) -> dict[str, LossSum]:
        """Losses of a batch; all randomness comes from `generators`, on the CPU, one per image."""
        batch = batch.padded_to(self.size_divisor)
        levels = self.features(batch)
        losses: dict[str, LossSum] = {}
        if self.rpn_head is not None:
            losses |= self._instance_losses(levels, batch, targets, generators)
        if self.semantic_head is not None:
            losses |= self._semantic_losses(levels, batch, targets, generators)
        return losses

    def _instance_losses(
        self,
        levels: Sequence[Tensor],
        batch: ImageBatch,
        targets: Sequence[PanopticTarget],
        generators: Sequence[torch.Generator],
    ) -> dict[str, LossSum]:
        assert self.box_head is not None
        assert self.mask_head is not None
        found = self._rpn(levels)
        losses = rpn_losses(
            found.rpn, found.anchors, targets, batch.image_sizes, self.rpn, generators
        )
        proposals = propose(found.rpn, found.anchors, batch.image_sizes, self.rpn, training=True)
        sampled = [
            sample_proposals(proposal, target, self.box, generator)
            for proposal, target, generator in zip(proposals, targets, generators, strict=True)
        ]
        boxes: Sequence[Tensor] = [rois.boxes for rois in sampled]
        roi_features = pool_rois(levels, boxes, batch.padded_size, self.roi)
        output = self.box_head(roi_features)
        losses |= box_losses(output, sampled, targets, self.box)
        positive = positive_rois(sampled, targets)
        if self.point_head is None:
            assert isinstance(self.mask_head, MaskHead)
            kept: Tensor | None = torch.cat([rois.matched_segment >= 0 for rois in sampled])
            if self.mask_head.norm_rois == "positive":
                boxes = positive.boxes.split(positive.rois_per_image(len(targets)))
                roi_features, kept = roi_features[kept], None
            if self.roi.mask_size:
                roi_features = self._mask_features(levels, boxes, batch.padded_size)
            return losses | mask_loss(self.mask_head(roi_features, kept), positive, targets)
        if self.points.train_on_predicted_boxes:
            positive = self._on_predicted_boxes(positive, output, sampled, batch)
        assert isinstance(self.mask_head, CoarseMaskHead)
        return losses | point_mask_losses(
            self.mask_head,
            self.point_head,
            levels[0],
            positive,
            targets,
            batch.padded_size,
            self.points,
            generators,
        )

    def _mask_features(
        self, levels: Sequence[Tensor], boxes: Sequence[Tensor], padded_size: tuple[int, int]
    ) -> Tensor:
        """What the 4-convolution head sees of boxes."""
        settings = replace(self.roi, size=self.roi.mask_size or self.roi.size)
        return pool_rois(levels, boxes, padded_size, settings)

    def _on_predicted_boxes(
        self,
        positive: PositiveRoIs,
        output: BoxOutput,
        sampled: Sequence[SampledRoIs],
        batch: ImageBatch,
    ) -> PositiveRoIs:
        """The same objects on the boxes that the box branch regresses for them; no gradient."""
        is_positive = torch.cat([rois.matched_segment >= 0 for rois in sampled])
        sizes = [batch.image_sizes[index] for index in positive.image_indices.tolist()]
        deltas = output.box_deltas.detach()[is_positive]
        boxes = regressed_boxes(positive.boxes, deltas, positive.thing_indices, sizes, self.box)
        return replace(positive, boxes=boxes)

    def _semantic_losses(
        self,
        levels: Sequence[Tensor],
        batch: ImageBatch,
        targets: Sequence[PanopticTarget],
        generators: Sequence[torch.Generator],
    ) -> dict[str, LossSum]:
        assert self.semantic_head is not None
        logits = self.semantic_head(levels)
        losses = semantic_loss(logits, targets, batch.image_sizes, batch.padded_size, self.semantic)
        if self.semantic_point_head is not None:
            losses |= semantic_point_loss(
                self.semantic_point_head,
                levels[0],
                logits,
                targets,
                batch.padded_size,
                self.semantic,
                generators,
            )
        return losses

    # Inference

    @torch.no_grad()
    def predict(
        self, batch: ImageBatch, original_sizes: Sequence[tuple[int, int]]
    ) -> list[tuple[PanopticSegmentation, Detections]]:
        """Panoptic map and detections of each image.

        Args:
            batch: network input.
            original_sizes: (height, width) of each image file.

        Returns:
            Per image the segmentation at original size (on the CPU) and the detections in its
            pixels.
        """
        return self.fuse_batch(self.branches(batch), original_sizes)

    def branches(self, batch: ImageBatch) -> BranchOutputs:
        """Runs the network up to the fusion."""
        batch = batch.padded_to(self.size_divisor)
        levels = self.features(batch)
        detections = self.detect(levels, batch)
        logits = None
        if self.semantic_head is not None:
            logits = self.semantic_logits(levels, batch.padded_size)
        return BranchOutputs(batch, detections, logits)

    def fuse_batch(
        self, outputs: BranchOutputs, original_sizes: Sequence[tuple[int, int]]
    ) -> list[tuple[PanopticSegmentation, Detections]]:
        """The results of the branches, put together image by image; see `predict`."""
        batch, logits = outputs.batch, outputs.semantic_logits
        per_image = [None] * len(batch) if logits is None else list(logits)
        return [
            self.fused(image_logits, found, batch.padded_size, image_size, size)
            for image_logits, found, image_size, size in zip(
                per_image, outputs.detections, batch.image_sizes, original_sizes, strict=True
            )
        ]

    def detect(self, levels: Sequence[Tensor], batch: ImageBatch) -> list[Detections]:
        """Detections with masks, boxes in pixels of the network input; none without heads."""
        if self.box_head is None:
            return [_no_detections(levels[0].device) for _ in range(len(batch))]
        found = self._rpn(levels)
        proposals = propose(found.rpn, found.anchors, batch.image_sizes, self.rpn, training=False)
        boxes = [proposal.boxes for proposal in proposals]
        output = self.box_head(pool_rois(levels, boxes, batch.padded_size, self.roi))
        detections = detect(output, boxes, batch.image_sizes, self.box)
        return self.add_masks(levels, detections, batch.padded_size)

    def add_masks(
        self,
        levels: Sequence[Tensor],
        detections: Sequence[Detections],
        padded_size: tuple[int, int],
    ) -> list[Detections]:
        """Runs the mask branch on final boxes, which are in pixels of the network input."""
        assert self.mask_head is not None
        if self.point_head is not None:
            assert isinstance(self.mask_head, CoarseMaskHead)
            masks = point_mask_logits(
                self.mask_head, self.point_head, levels[0], detections, padded_size, self.points
            )
        else:
            boxes = [found.boxes for found in detections]
            logits = self.mask_head(self._mask_features(levels, boxes, padded_size)).float()
            things = torch.cat([found.thing_indices for found in detections])
            own = logits[torch.arange(len(logits), device=logits.device), things]
            masks = list(own.split([len(found) for found in detections]))
        return [
            replace(found, mask_logits=logits)
            for found, logits in zip(detections, masks, strict=True)
        ]

    def semantic_logits(self, levels: Sequence[Tensor], padded_size: tuple[int, int]) -> Tensor:
        """[N, K, h, w] covering the padded image: of the head, or refined to the input size."""
        assert self.semantic_head is not None
        logits: Tensor = self.semantic_head(levels)
        if self.semantic_point_head is None:
            if self.semantic.upsample_to_input:
                return upsample_logits(logits, padded_size)
            return logits
        return refine_semantic_logits(
            self.semantic_point_head, levels[0], logits, padded_size, self.semantic
        )

    def fused(
        self,
        logits: Tensor | None,
        detections: Detections,
        padded_size: tuple[int, int],
        image_size: tuple[int, int],
        original_size: tuple[int, int],
    ) -> tuple[PanopticSegmentation, Detections]:
        """One image's results of the branches, put together.

        Args:
            logits: [K, h, w] of the padded image; None: no semantics, what is no object is void.
            detections: with masks, boxes in pixels of the network input.
            padded_size, image_size: (height, width) of the network input and its valid part.
            original_size: (height, width) of the image file.

        Returns:
            As `predict`.
        """
        scale_y, scale_x = (original / valid for original, valid in zip(original_size, image_size))
        in_file = detections.scaled(scale_x, scale_y)
        at_network_size = self.fusion.size == "network"
        fusion_size = image_size if at_network_size else original_size
        if logits is None:
            classes = torch.full(fusion_size, self.label_space.IGNORE_TRAIN_ID)
        else:
            classes = _classes(logits, padded_size, image_size, fusion_size)
        segmentation = fuse(
            classes, detections if at_network_size else in_file, self.label_space, self.fusion
        )
        return resized_segmentation(segmentation, original_size), in_file.to("cpu")


def _classes(
    logits: Tensor,
    padded_size: tuple[int, int],
    image_size: tuple[int, int],
    output_size: tuple[int, int],
) -> Tensor:
    """[output_size] best classes of the valid part of [K, h, w] logits of the padded image."""
    map_size = (logits.shape[-2], logits.shape[-1])
    if map_size == padded_size:
        # Cropped, so that the last pixels are not mixed with the padding.
        logits = logits[:, : image_size[0], : image_size[1]]
        map_size = padded_size = image_size
    return resampled_classes(logits, resample_grid(map_size, padded_size, image_size, output_size))


def _no_detections(device: torch.device) -> Detections:
    return Detections(
        torch.zeros(0, 4, device=device),
        torch.zeros(0, device=device),
        torch.zeros(0, dtype=torch.int64, device=device),
        torch.zeros(0, 1, 1, device=device),
    )
