"""Plain numbers of the branches: nodes of the YAML config and arguments of the functions alike.

Ranges and choices stand at the field, once; whoever reads settings from a file checks them.
Defaults are the released Seamless Scene Segmentation code on Cityscapes, and PointRend as released.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval, Len, MultipleOf

Count = Annotated[int, Ge(1)]
CountOrZero = Annotated[int, Ge(0)]
# Weights of a stranger name their own settings: building more would take hours.
MAX_LAYERS = 1000
Layers = Annotated[int, Interval(ge=1, le=MAX_LAYERS)]
LayersOrZero = Annotated[int, Interval(ge=0, le=MAX_LAYERS)]
# Half as much again as the weights of the largest published network.
MAX_NETWORK_GIGABYTES = 1.4
# What no weight tells and memory grows with the square of; several times the published numbers.
RoICells = Annotated[int, Interval(ge=1, le=64)]
EvenRoICells = Annotated[int, Interval(ge=2, le=64), MultipleOf(2)]
MaskSide = Annotated[int, Interval(ge=1, le=1024)]
MaskSideOrZero = Annotated[int, Interval(ge=0, le=1024)]
GridSide = Annotated[int, Interval(ge=1, le=256)]
SizeDivisor = Annotated[int, Interval(ge=1, le=1024)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
PositiveFraction = Annotated[float, Interval(gt=0, le=1)]


@dataclass(frozen=True)
class RPNSettings:
    """Region proposals (head, anchors, matching, selection).

    Attributes:
        hidden_channels: width between the head's convolutions; null: that of the pyramid.
        anchor_scale: side of a square anchor in cells of its level (8: 32 px at stride 4).
        anchor_ratios: height / width.
        anchor_offset: where in its cell an anchor is centred, in cells (0.5: the middle; detectron2
            takes the corner, 0).
        whole_pixels: anchors and proposals cover whole pixels, as in mmdetection 1.x: an anchor is
            centred on the middle of its cell's pixels and rounded, and clipping leaves a pixel;
            `anchor_offset` is not used.
        pre_nms_train: proposals kept before NMS in training.
        post_nms_train: proposals kept after NMS in training.
        pre_nms_test: proposals kept before NMS in prediction.
        post_nms_test: proposals kept after NMS in prediction.
        nms_threshold: IoU from which (>=) a proposal is suppressed.
        nms_per_level: False: one NMS over all levels (Seamless); True: `pre_nms` and NMS per level
            (detectron2).
        drop_empty: leave out boxes that clipping makes empty, before the NMS (detectron2).
        positive_iou: anchors at or above are objects.
        negative_iou: anchors below are background; between both: not used.
        crowd_overlap: anchors whose share of crowd pixels reaches this are not used; above 1: no
            such rule.
        forced_iou: an object's best anchor is its own whatever else it overlaps, if their IoU
            exceeds 0 and reaches this.
        forces_equals: every anchor that equals the best one is (mmdetection); False: the first.
        inside_only: train only on anchors that lie inside the image.
        inside_excludes_end: anchors that end on the last edge of the image are not inside
            (mmdetection 2.x, 3.x).
        num_samples: anchors of an image in the loss.
        positive_fraction: largest share of objects among them.
        box_loss_beta: where smooth L1 turns linear (sigma = 3: beta = 1 / 9).
    """

    hidden_channels: Count | None = None
    anchor_scale: Positive = 8.0
    anchor_ratios: Annotated[tuple[Positive, ...], Len(1)] = (1.0, 0.5, 2.0)
    anchor_offset: Fraction = 0.5
    whole_pixels: bool = False
    pre_nms_train: Count = 12000
    post_nms_train: Count = 2000
    pre_nms_test: Count = 6000
    post_nms_test: Count = 1000
    nms_threshold: Fraction = 0.7
    nms_per_level: bool = False
    drop_empty: bool = False
    positive_iou: Fraction = 0.7
    negative_iou: Fraction = 0.3
    crowd_overlap: NotNegative = 0.7
    forced_iou: Fraction = 0.0
    forces_equals: bool = False
    inside_only: bool = True
    inside_excludes_end: bool = False
    num_samples: Count = 256
    positive_fraction: Fraction = 0.5
    box_loss_beta: NotNegative = 1.0 / 9.0

    def __post_init__(self) -> None:
        if self.negative_iou > self.positive_iou:
            raise ValueError(
                f"'negative_iou' must be at most 'positive_iou' ({self.positive_iou}); got "
                f"{self.negative_iou}"
            )


@dataclass(frozen=True)
class RoISettings:
    """Pooling of features under boxes.

    Attributes:
        sampler: "seamless" (one bilinear sample per bin, border replicated, exact stride),
            "aligned" (torchvision roi_align with aligned=True) or "unaligned" (the same without
            the shift by half a cell, and without a smallest box: mmdetection 1.x).
        num_samples: of the last two, samples per bin and axis; 0: as many as the bin has cells.
        canonical_size_pixels: a box of this side reads from `canonical_level`.
        canonical_level: index of a level, 0 = the finest.
        level_epsilon: added to the relative size of a box before its logarithm is taken.
        num_levels: levels that boxes may read from, finest first.
        size: side of the pooled map in cells.
    """

    sampler: Literal["seamless", "aligned", "unaligned"] = "seamless"
    num_samples: CountOrZero = 0
    canonical_size_pixels: Positive = 224.0
    canonical_level: CountOrZero = 2
    level_epsilon: NotNegative = 1e-6
    num_levels: Layers = 4
    size: RoICells = 14


@dataclass(frozen=True)
class BoxSettings:
    """Box branch.

    Attributes:
        hidden_channels: width of the head's hidden layers.
        num_layers: their number.
        class_agnostic: one box for all classes, not one per class.
        pooling: side of the windows of its input that are averaged first; 1: none.
        positive_iou: proposals at or above are objects, below background.
        forces_best: an object's best proposal above `positive_iou` is its own, also if it overlaps
            another object more (mmdetection, in some of its configs).
        crowd_overlap: proposals whose share of crowd pixels reaches this are not used; above 1: no
            such rule.
        num_samples: proposals of an image in the losses.
        positive_fraction: largest share of objects among them.
        background_without_objects: sample background in images without an object (the reference
            uses no RoI there).
        delta_weights: box deltas (x, y, w, h) are multiplied by these in targets.
        box_loss_beta: where smooth L1 turns linear.
        score_threshold: detections must exceed it.
        nms_threshold: IoU from which (>=) a detection of the same class is suppressed.
        max_detections: most detections of an image, over all classes.
        whole_pixels: clipping leaves a pixel of every box, as in mmdetection 1.x.
    """

    hidden_channels: Count = 1024
    num_layers: Layers = 2
    class_agnostic: bool = False
    pooling: Count = 2
    positive_iou: Fraction = 0.5
    forces_best: bool = False
    crowd_overlap: NotNegative = 0.7
    num_samples: Count = 512
    positive_fraction: Fraction = 0.25
    background_without_objects: bool = False
    delta_weights: tuple[Positive, Positive, Positive, Positive] = (10.0, 10.0, 5.0, 5.0)
    box_loss_beta: NotNegative = 1.0
    score_threshold: Fraction = 0.05
    nms_threshold: Fraction = 0.5
    max_detections: Count = 100
    whole_pixels: bool = False


@dataclass(frozen=True)
class ConvMaskSettings:
    """The 4-convolution mask head.

    Attributes:
        hidden_channels: width of its layers.
        norm_rois: RoIs that pass the convolutions in training and count in their batch statistics:
            "sampled" (all, as in the released Seamless code) or "positive" (those with a mask loss,
            a quarter of the work).
        roi_size: side of its pooled map in cells; null: it shares the box head's map.
        targets: what a cell should be: "nearest" (the object of the pixel under its centre; void is
            not counted, as in the released Seamless code) or "aligned" (whether half of it is the
            object's, as in detectron2 and mmdetection).
    """

    hidden_channels: Count = 256
    norm_rois: Literal["sampled", "positive"] = "positive"
    roi_size: RoICells | None = None
    targets: Literal["nearest", "aligned"] = "nearest"


@dataclass(frozen=True)
class CoarseMaskSettings:
    """The coarse mask head of PointRend.

    Attributes:
        hidden_channels: width of its layers.
        num_layers: their number.
        conv_channels: width of the convolution before them; null: that of its input.
        mixes_first: a 1x1 convolution brings the input to that width, before the other one halves
            its side; False: one convolution does both.
        background: it makes a mask of the background, too, which the point layers read and no loss
            trains (the 3D-FUTURE winner).
        whole_pixels: boxes are rows and columns of whole pixels, as in mmdetection 1.x: points lie
            between the centres of the corner pixels, targets are cut out and pasted at integers.
        roi_size: side of the point grid that it sees, twice that of the coarse mask.
    """

    hidden_channels: Count = 1024
    num_layers: Layers = 2
    conv_channels: Count | None = None
    mixes_first: bool = False
    background: bool = False
    whole_pixels: bool = False
    roi_size: EvenRoICells = 14


@dataclass(frozen=True)
class PointSettings:
    """PointRend of masks (paper section 3; numbers of the released code).

    Attributes:
        hidden_channels: width of the point layers.
        num_layers: their number, before the predictor.
        coarse_each_layer: every point layer sees the coarse logits, not the first only.
        num_levels: levels that points are read from, finest first; what they say is concatenated.
        num_train_points: points per box in training.
        train_points: "drawn" (by the next two numbers; the paper's table 4 compares (1, 0), (3,
            0.75) and (10, 1)) or "grid" (regular; `num_train_points` is a square).
        oversample_ratio: k, candidates per kept point.
        importance_fraction: beta, share of points taken where the coarse prediction is unsure.
        subdivision_points: N, points recomputed in each subdivision step.
        start_size: side of the first, complete grid of point predictions; 0: the coarse map itself
            (the paper's text).
        output_size: side of the refined mask.
        train_on_predicted_boxes: draw training points in the regressed boxes of the sampled objects
            (released code); False: in the proposals.
    """

    hidden_channels: Count = 256
    num_layers: Layers = 3
    coarse_each_layer: bool = True
    num_levels: Layers = 1
    num_train_points: Count = 196
    train_points: Literal["drawn", "grid"] = "drawn"
    oversample_ratio: Annotated[float, Ge(1)] = 3.0
    importance_fraction: Fraction = 0.75
    subdivision_points: Count = 784
    start_size: MaskSideOrZero = 28
    output_size: MaskSide = 224
    train_on_predicted_boxes: bool = True

    def __post_init__(self) -> None:
        side = math.isqrt(self.num_train_points)
        if self.train_points == "grid" and side * side != self.num_train_points:
            raise ValueError(
                f"'num_train_points' must be a square for 'train_points: grid'; got "
                f"{self.num_train_points}; use {side * side} or {(side + 1) ** 2}"
            )


@dataclass(frozen=True)
class WeightHeadSettings:
    """The head of Implicit PointRend that predicts the weights of each box's point network.

    Attributes:
        hidden_channels: width of its layers.
        num_layers: their number.
        roi_size: side of the point grid that it sees.
    """

    hidden_channels: Count = 1024
    num_layers: Layers = 2
    roi_size: EvenRoICells = 14


@dataclass(frozen=True)
class ImplicitPointSettings:
    """The point networks of Implicit PointRend (numbers of the released code).

    Attributes:
        hidden_channels: width of their layers.
        num_layers: their number, before the predictor.
        num_levels: levels that points are read from, finest first; what they say is concatenated.
        num_train_points: points per box in training, uniform.
        subdivision_points: points recomputed in each subdivision step.
        start_size: side of the first, complete grid of point predictions.
        output_size: side of the refined mask.
        train_on_predicted_boxes: draw training points in the regressed boxes of the sampled objects
            (released code); False: in the proposals.
    """

    hidden_channels: Count = 256
    num_layers: Layers = 3
    num_levels: Layers = 1
    num_train_points: Count = 196
    subdivision_points: Count = 784
    start_size: MaskSide = 28
    output_size: MaskSide = 224
    train_on_predicted_boxes: bool = True


@dataclass(frozen=True)
class SoloSettings:
    """SOLOv2: what cells learn, and how masks are chosen among them.

    Attributes:
        scale_ranges: smallest and largest sqrt(area) of the boxes that a level learns, in pixels of
            the network input, both included; per level.
        centre_fraction: side of the region around an object's centre of mass whose cells learn it,
            in sides of its box.
        dice_normalisation: the mask loss is divided by the number of cells with a target ("cells";
            mmdetection, whose cells may have several) or of mask targets ("masks"; the released
            code).
        objects_per_cell: "all" objects that meet in a cell teach it their masks, or the "last"
            alone, as it does its class (the 3D-FUTURE winner's code).
        focal_alpha: weight of cells with an object in the category loss; of the others: 1 minus it.
        focal_gamma: how little easy cells count there.
        score_threshold: categories of a cell must exceed it.
        mask_threshold: probability that a pixel of a mask must exceed.
        max_before_nms: most masks before the suppression.
        max_detections: most masks after it.
        nms_kernel: of matrix NMS, "gaussian" or "linear".
        nms_sigma: of the gaussian kernel.
        min_score: scores must reach it after the suppression.
    """

    scale_ranges: Annotated[tuple[tuple[NotNegative, Positive], ...], Len(1)] = (
        (1.0, 96.0),
        (48.0, 192.0),
        (96.0, 384.0),
        (192.0, 768.0),
        (384.0, 2048.0),
    )
    centre_fraction: Fraction = 0.2
    dice_normalisation: Literal["cells", "masks"] = "cells"
    objects_per_cell: Literal["all", "last"] = "all"
    focal_alpha: Fraction = 0.25
    focal_gamma: NotNegative = 2.0
    score_threshold: Fraction = 0.1
    mask_threshold: Fraction = 0.5
    max_before_nms: Count = 500
    max_detections: Count = 100
    nms_kernel: Literal["gaussian", "linear"] = "gaussian"
    nms_sigma: Positive = 2.0
    min_score: Fraction = 0.05


@dataclass(frozen=True)
class SemanticLossSettings:
    """The loss of pixels.

    Attributes:
        loss: "hard_pixels" (mean of the hardest pixels of each image) or "valid_mean" (mean of all
            pixels of the batch that are not void).
        hard_pixel_fraction: share of the hardest pixels in the loss (0.25: tau = 4 / (W H)); 1.0:
            all.
        things: "classes": one output per class; "merged": one output for each stuff class and a
            last one for all things together (Panoptic FPN).
    """

    loss: Literal["hard_pixels", "valid_mean"] = "hard_pixels"
    hard_pixel_fraction: PositiveFraction = 0.25
    things: Literal["classes", "merged"] = "classes"


@dataclass(frozen=True)
class SemanticPointSettings:
    """PointRend of semantics (paper section 3; numbers of the released code).

    Attributes:
        hidden_channels: width of the point layers.
        num_layers: their number, before the predictor.
        coarse_each_layer: every point layer sees the coarse logits (the paper's text); False: the
            first only, as released.
        residual: the point head says what to add to the coarse logits; False: the logits
            themselves (published).
        pixel_window: side of the square of pixels around a point whose colours the point head reads
            too, 0 or odd; 0: features only (published).
        num_train_points: points of an image in training; 0: as many as a stride-16 map of the
            batch has cells (2048 for a crop of 512x1024).
        hard_point_fraction: share of the hardest points in the loss, of those that are not void.
            The published networks take all points, and all pixels too.
        shared_gradient: the point loss also trains the features and coarse logits that the point
            head reads (as released); False: it trains the point head alone, so that the rest of
            the network learns as without it.
        uncertainty: gap between the two best classes, in "logits" (as released) or
            "probabilities" (the paper's text).
        only_where_surer: a refined point stays coarse where the point head is less sure of its
            class than the coarse logits of theirs; False: the point head decides (the paper).
        oversample_ratio: k, candidates per kept point.
        importance_fraction: beta, share of points taken where the coarse prediction is unsure.
        subdivision_points: N, points recomputed in each subdivision step; 0: as many as a
            stride-16 map has cells, whatever the size of the image (8192 for 1024x2048, section 5).
    """

    hidden_channels: Count = 256
    num_layers: Layers = 3
    coarse_each_layer: bool = False
    residual: bool = False
    pixel_window: CountOrZero = 0
    num_train_points: CountOrZero = 0
    hard_point_fraction: PositiveFraction = 1.0
    shared_gradient: bool = True
    uncertainty: Literal["logits", "probabilities"] = "logits"
    only_where_surer: bool = False
    oversample_ratio: Annotated[float, Ge(1)] = 3.0
    importance_fraction: Fraction = 0.75
    subdivision_points: CountOrZero = 0

    def __post_init__(self) -> None:
        if self.pixel_window and self.pixel_window % 2 == 0:
            raise ValueError(
                f"'pixel_window' has its point in the middle; got {self.pixel_window}; take 0 or "
                "an odd number"
            )


@dataclass(frozen=True)
class FusionSettings:
    """Panoptic fusion (facts of the released code).

    Attributes:
        size: "original": fuse at the size of the image file; "network": fuse at network size and
            resize the finished id map by nearest neighbour (the reference's way).
        score_threshold: instances must exceed it.
        overlap_threshold: an instance is dropped when more than this share of it is already taken.
        stuff_area_fraction: regions from the semantic branch below this share of the image become
            void (4096 px of 1024x2048).
        stuff_area_pixels: an absolute limit that replaces the share when it is positive.
        mask_threshold: mask probability that a pixel must exceed.
        mask_threshold_included: ... or reach (detectron2).
        semantic_things: what the semantic branch alone sees as things becomes "crowd" (segments of
            known class that are no objects) or "void" (the paper's text).
    """

    size: Literal["original", "network"] = "original"
    score_threshold: Fraction = 0.5
    overlap_threshold: Fraction = 0.5
    stuff_area_fraction: Fraction = 4096 / (1024 * 2048)
    stuff_area_pixels: CountOrZero = 0
    mask_threshold: Fraction = 0.5
    mask_threshold_included: bool = False
    semantic_things: Literal["crowd", "void"] = "crowd"
