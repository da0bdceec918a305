"""Plain numbers of the branches: nodes of the YAML config and arguments of the functions alike.

Defaults are the released Seamless Scene Segmentation code on Cityscapes, and PointRend as released.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RPNSettings:
    """Region proposals (anchors, matching, selection).

    Attributes:
        anchor_scale: side of a square anchor in cells of its level (8: 32 px at stride 4).
        anchor_ratios: height / width.
        anchor_offset: where in its cell an anchor is centred, in cells (0.5: the middle; detectron2
            takes the corner, 0).
        pre_nms_train, post_nms_train, pre_nms_test, post_nms_test: proposals kept before and after
            NMS.
        nms_threshold: IoU from which (>=) a proposal is suppressed.
        nms_per_level: False: one NMS over all levels (Seamless); True: `pre_nms` and NMS per level
            (detectron2).
        drop_empty: leave out boxes that clipping makes empty, before the NMS (detectron2).
        positive_iou, negative_iou: anchors at or above / below are objects / background; between:
            not used.
        crowd_overlap: anchors whose share of crowd pixels reaches this are not used.
        inside_only: train only on anchors that lie inside the image.
        num_samples, positive_fraction: anchors per image in the loss, and the largest share of
            objects.
        box_loss_beta: where smooth L1 turns linear (sigma = 3: beta = 1 / 9).
    """

    anchor_scale: float = 8.0
    anchor_ratios: tuple[float, ...] = (1.0, 0.5, 2.0)
    anchor_offset: float = 0.5
    pre_nms_train: int = 12000
    post_nms_train: int = 2000
    pre_nms_test: int = 6000
    post_nms_test: int = 1000
    nms_threshold: float = 0.7
    nms_per_level: bool = False
    drop_empty: bool = False
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    crowd_overlap: float = 0.7
    inside_only: bool = True
    num_samples: int = 256
    positive_fraction: float = 0.5
    box_loss_beta: float = 1.0 / 9.0


@dataclass(frozen=True)
class RoISettings:
    """Pooling of features under boxes.

    Attributes:
        sampler: "seamless" (one bilinear sample per bin, border replicated, exact stride) or
            "aligned" (torchvision roi_align with aligned=True and adaptive sampling).
        canonical_size_pixels, canonical_level: a box of this side reads from this level (0 = the
            finest).
        level_epsilon: added to the relative size of a box before its logarithm is taken.
        num_levels: levels that boxes may read from, finest first.
        size: side of the pooled map in cells.
        mask_size: the same for the 4-convolution mask head; 0: it shares the box head's map.
    """

    sampler: str = "seamless"
    canonical_size_pixels: float = 224.0
    canonical_level: int = 2
    level_epsilon: float = 1e-6
    num_levels: int = 4
    size: int = 14
    mask_size: int = 0


@dataclass(frozen=True)
class BoxSettings:
    """Box branch.

    Attributes:
        positive_iou: proposals at or above are objects, below background.
        crowd_overlap: proposals whose share of crowd pixels reaches this are not used.
        num_samples, positive_fraction: proposals per image in the losses, and the largest share of
            objects.
        background_without_objects: sample background in images without an object (the reference
            uses no RoI there).
        delta_weights: box deltas (x, y, w, h) are multiplied by these in targets.
        box_loss_beta: where smooth L1 turns linear.
        score_threshold: detections must exceed it.
        nms_threshold: IoU from which (>=) a detection of the same class is suppressed.
        max_detections: most detections of an image, over all classes.
    """

    positive_iou: float = 0.5
    crowd_overlap: float = 0.7
    num_samples: int = 512
    positive_fraction: float = 0.25
    background_without_objects: bool = False
    delta_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    box_loss_beta: float = 1.0
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 100


@dataclass(frozen=True)
class PointSettings:
    """PointRend of one branch (paper section 3; numbers of the released code).

    Attributes:
        num_train_points: points per box (instance) in training.
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

    num_train_points: int = 196
    train_points: str = "drawn"
    oversample_ratio: float = 3.0
    importance_fraction: float = 0.75
    subdivision_points: int = 784
    start_size: int = 28
    output_size: int = 224
    train_on_predicted_boxes: bool = True


@dataclass(frozen=True)
class SemanticSettings:
    """Semantic branch.

    Attributes:
        loss: "hard_pixels" (mean of the hardest pixels of each image) or "valid_mean" (mean of all
            pixels of the batch that are not void).
        hard_pixel_fraction: share of the hardest pixels in the loss (0.25: tau = 4 / (W H)); 1.0:
            all.
        hard_point_fraction: the same for PointRend's points, of those that are not void. The
            published networks take all points, and all pixels too: a point head that learns from
            all beside logits that learn from the hardest forgets rare classes (docs/results.md).
        things: "classes": one output per class; "merged": one output for each stuff class and a
            last one for all things together (Panoptic FPN).
        upsample_to_input: logits that no points refine are first upsampled to the network input,
            then to the image file (detectron2), not from their own size at once.
        num_train_points: PointRend points of an image in training; 0: as many as a stride-16 map
            has cells.
        oversample_ratio, importance_fraction, subdivision_points: as in `PointSettings`.
    """

    loss: str = "hard_pixels"
    hard_pixel_fraction: float = 0.25
    hard_point_fraction: float = 1.0
    things: str = "classes"
    upsample_to_input: bool = False
    num_train_points: int = 0
    oversample_ratio: float = 3.0
    importance_fraction: float = 0.75
    subdivision_points: int = 8192


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

    size: str = "original"
    score_threshold: float = 0.5
    overlap_threshold: float = 0.5
    stuff_area_fraction: float = 4096 / (1024 * 2048)
    stuff_area_pixels: int = 0
    mask_threshold: float = 0.5
    mask_threshold_included: bool = False
    semantic_things: str = "crowd"
