"""Settings of networks by kind: what a YAML config says under `model`.

A group that comes in kinds has a `kind` key; which kinds there are, and what is built of each,
is one dictionary of `seamless_pr.build.networks`. A class here holds the keys of its kinds only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Interval, Len

from seamless_pr.structures.kinds import Kinded, OneOf
from seamless_pr.structures.settings import (
    BoxSettings,
    CoarseMaskSettings,
    ConvMaskSettings,
    Count,
    CountOrZero,
    Fraction,
    FusionSettings,
    GridSide,
    ImplicitPointSettings,
    Layers,
    LayersOrZero,
    NotNegative,
    PointSettings,
    Positive,
    PositiveFraction,
    RoISettings,
    RPNSettings,
    SemanticLossSettings,
    SemanticPointSettings,
    SizeDivisor,
    SoloSettings,
    WeightHeadSettings,
)

# Of the backbone: c2, c3, c4, c5.
NUM_STAGES = 4

NormActGroup = Annotated[Any, OneOf("norm_acts")]
BackboneGroup = Annotated[Any, OneOf("backbones")]
NeckGroup = Annotated[Any, OneOf("necks")]
InstancesGroup = Annotated[Any, OneOf("instances")]
SemanticsGroup = Annotated[Any, OneOf("semantics")]
NetworkGroup = Annotated[Any, OneOf("networks")]

# RGB in [0, 1].
Color = Annotated[tuple[float, ...], Len(3, 3)]
PositiveColor = Annotated[tuple[Positive, ...], Len(3, 3)]


# Normalisation and activation, one pair after most convolutions


@dataclass(frozen=True, kw_only=True)
class ABNSettings(Kinded):
    """Batch norm and leaky ReLU, in place or (the plain twin) not.

    Attributes:
        slope: of LeakyReLU below 0; not 0, because the layer inverts its activation.
        eps: added to the variance.
        momentum: of the running statistics.
        sync: share the batch statistics between all workers.
    """

    kind: str = "inplace_abn"
    slope: Positive = 0.01
    eps: Positive = 1e-5
    momentum: PositiveFraction = 0.1
    sync: bool = True


@dataclass(frozen=True, kw_only=True)
class BatchNormSettings(Kinded):
    """Batch norm and activation as in torch.nn.

    Attributes:
        slope: of LeakyReLU below 0; 0: ReLU.
        eps: added to the variance.
        momentum: of the running statistics.
        sync: share the batch statistics between all workers.
    """

    kind: str = "batch_norm"
    slope: NotNegative = 0.01
    eps: Positive = 1e-5
    momentum: PositiveFraction = 0.1
    sync: bool = True


@dataclass(frozen=True, kw_only=True)
class FrozenBatchNormSettings(Kinded):
    """Batch norm whose statistics and weights never change.

    Attributes:
        slope: of LeakyReLU below 0; 0: ReLU.
        eps: added to the variance.
    """

    kind: str = "frozen_batch_norm"
    slope: NotNegative = 0.01
    eps: Positive = 1e-5


@dataclass(frozen=True, kw_only=True)
class FixedBatchNormSettings(Kinded):
    """Batch norm whose statistics never change; its scale and bias train.

    Attributes:
        slope: of LeakyReLU below 0; 0: ReLU.
        eps: added to the variance.
    """

    kind: str = "fixed_batch_norm"
    slope: NotNegative = 0.01
    eps: Positive = 1e-5


@dataclass(frozen=True, kw_only=True)
class GroupNormSettings(Kinded):
    """Group norm.

    Attributes:
        slope: of LeakyReLU below 0; 0: ReLU.
        eps: added to the variance.
        num_groups: most groups.
    """

    kind: str = "group_norm"
    slope: NotNegative = 0.01
    eps: Positive = 1e-5
    num_groups: Count = 16


@dataclass(frozen=True, kw_only=True)
class BiasSettings(Kinded):
    """A bias in place of a norm.

    Attributes:
        slope: of LeakyReLU below 0; 0: ReLU.
    """

    kind: str = "bias"
    slope: NotNegative = 0.01


# Trunk


@dataclass(frozen=True, kw_only=True)
class TimmBackboneSettings(Kinded):
    """A network of timm.

    Attributes:
        name: model name in timm, of a family with batch norm.
        stride_in_1x1: bottleneck blocks halve the resolution in their first convolution, as those
            of the original ResNet do.
        output_stride: input pixels per cell of the last stage; 16 or 8: the last stages are dilated
            instead of halved. No weight depends on it, so prediction may take a finer one than
            training.
        multi_grid: dilations of the last stage's blocks in cells of stride 32; []: timm's.
        deformable: the 3x3 convolutions of `deformable_stages` are deformable: "v1" (offsets) or
            "v2" (offsets and weights).
        deformable_stages: any of c2, c3, c4, c5.
        context_ratio: width of the global context block at the end of each block of
            `context_stages`, in its channels; 0: none.
        context_stages: any of c2, c3, c4, c5.
        pools_split_of_c2: the first block of a Res2Net pools its last split, as in the original;
            false: as in mmdetection 2.x and 3.x.
        checkpointing: training keeps only what residual blocks pass on and computes the rest again
            in the backward pass: less memory, a third more time, the same gradients.
        options: further arguments of `timm.create_model`.
        weights: file with ImageNet weights (torchvision or timm layout), or the name of weights to
            download (`torchvision:resnet50`, `timm:resnext101_64x4d.c1_in1k`); null: random ones.
        num_frozen: first parts that do not train (1: the stem, 2: stem and first stage, ..., 5:
            all).
    """

    kind: str = "timm"
    name: str = "resnet50"
    stride_in_1x1: bool = False
    output_stride: Literal[8, 16, 32] = 32
    multi_grid: tuple[Count, ...] = ()
    deformable: Literal["none", "v1", "v2"] = "none"
    deformable_stages: tuple[Literal["c2", "c3", "c4", "c5"], ...] = ("c3", "c4", "c5")
    context_ratio: Fraction = 0.0
    context_stages: tuple[Literal["c2", "c3", "c4", "c5"], ...] = ("c3", "c4", "c5")
    pools_split_of_c2: bool = True
    checkpointing: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    num_frozen: Annotated[int, Interval(ge=0, le=5)] = 0


@dataclass(frozen=True, kw_only=True)
class FPNSettings(Kinded):
    """Feature pyramid.

    Attributes:
        channels: width of all levels.
        num_extra_levels: levels above p5.
        activation: "leaky_relu" or "identity" after its convolutions.
        extra: levels above p5 by strided convolution ("conv") or subsampling ("pool").
    """

    kind: str = "fpn"
    channels: Count = 256
    num_extra_levels: LayersOrZero = 1
    activation: Literal["leaky_relu", "identity"] = "leaky_relu"
    extra: Literal["conv", "pool"] = "conv"


@dataclass(frozen=True, kw_only=True)
class BalancedPyramidSettings(FPNSettings):
    """Feature pyramid whose levels are averaged, refined together and given back (BFP).

    Attributes:
        refine: what refines the mean: "non_local" blocks, "conv" (3x3 convolutions) or "none".
        num_refinements: blocks in a row.
        level: index of the level at whose size it happens.
    """

    kind: str = "bfp"
    refine: Literal["non_local", "conv", "none"] = "non_local"
    num_refinements: Layers = 1
    level: CountOrZero = 2

    def __post_init__(self) -> None:
        if self.level >= NUM_STAGES + self.num_extra_levels:
            raise ValueError(
                f"'level' must be below {NUM_STAGES + self.num_extra_levels}, the number of "
                f"levels; got {self.level}"
            )


# Instance branches


@dataclass(frozen=True, kw_only=True)
class MaskRCNNSettings(Kinded):
    """Mask R-CNN: proposals, boxes, and the 4-convolution mask head (28x28 masks).

    Attributes:
        rpn: proposals.
        roi: pooling of features under boxes.
        box: boxes.
        mask: masks.
    """

    kind: str = "mask_rcnn"
    rpn: RPNSettings = field(default_factory=RPNSettings)
    roi: RoISettings = field(default_factory=RoISettings)
    box: BoxSettings = field(default_factory=BoxSettings)
    mask: ConvMaskSettings = field(default_factory=ConvMaskSettings)


@dataclass(frozen=True, kw_only=True)
class PointRendSettings(Kinded):
    """Mask R-CNN whose masks PointRend renders: coarse masks, refined by points.

    Attributes:
        rpn: proposals.
        roi: pooling of features under boxes, for the box head.
        box: boxes.
        mask: coarse masks.
        points: points.
    """

    kind: str = "point_rend"
    rpn: RPNSettings = field(default_factory=RPNSettings)
    roi: RoISettings = field(default_factory=RoISettings)
    box: BoxSettings = field(default_factory=BoxSettings)
    mask: CoarseMaskSettings = field(default_factory=CoarseMaskSettings)
    points: PointSettings = field(default_factory=PointSettings)


@dataclass(frozen=True, kw_only=True)
class ImplicitPointRendSettings(Kinded):
    """Mask R-CNN whose masks are drawn by a point network of each box's own.

    Attributes:
        rpn: proposals.
        roi: pooling of features under boxes, for the box head.
        box: boxes.
        mask: the head that predicts the point networks' weights.
        points: the point networks.
    """

    kind: str = "implicit_point_rend"
    rpn: RPNSettings = field(default_factory=RPNSettings)
    roi: RoISettings = field(default_factory=RoISettings)
    box: BoxSettings = field(default_factory=BoxSettings)
    mask: WeightHeadSettings = field(default_factory=WeightHeadSettings)
    points: ImplicitPointSettings = field(default_factory=ImplicitPointSettings)


@dataclass(frozen=True, kw_only=True)
class HTCSettings(Kinded):
    """Hybrid Task Cascade: boxes refined in stages, mask heads that see the ones before.

    Attributes:
        rpn: proposals.
        roi: pooling of features under boxes, for the box heads.
        box: boxes; each stage has its own `positive_iou` and `delta_weights`.
        mask: the mask heads; `norm_rois` and `targets` are not used.
        stage_ious: IoU from which a proposal is an object, of each stage.
        stage_delta_weights: what box deltas (x, y, w, h) are multiplied by in targets, of each
            stage.
        average_masks: masks are the mean of all heads' (mmdetection 1.x and 2.x) or the last head's
            (3.x).
        mask_scoring: scores are multiplied by the IoU that a head predicts for the mask.
        context: a semantic map of all levels, which box and mask features are added from; it has a
            loss of its own.
        context_classes: classes of that map; null: those of the dataset.
        shares_semantics: in place of that map, a 1x1 convolution of what the semantic branch of the
            network (mini_dl or panoptic_fpn) sees before it names classes.
    """

    kind: str = "htc"
    rpn: RPNSettings = field(default_factory=RPNSettings)
    roi: RoISettings = field(default_factory=RoISettings)
    box: BoxSettings = field(
        default_factory=lambda: BoxSettings(class_agnostic=True, score_threshold=1e-3)
    )
    mask: ConvMaskSettings = field(default_factory=ConvMaskSettings)
    stage_ious: Annotated[tuple[Fraction, ...], Len(1)] = (0.5, 0.6, 0.7)
    stage_delta_weights: tuple[tuple[Positive, Positive, Positive, Positive], ...] = (
        (10.0, 10.0, 5.0, 5.0),
        (20.0, 20.0, 10.0, 10.0),
        (1 / 0.033, 1 / 0.033, 1 / 0.067, 1 / 0.067),
    )
    average_masks: bool = True
    mask_scoring: bool = False
    context: bool = False
    context_classes: Count | None = None
    shares_semantics: bool = False

    def __post_init__(self) -> None:
        if self.context and self.shares_semantics:
            raise ValueError(
                "'context' and 'shares_semantics' are two sources of one thing; set one of them"
            )
        if not self.box.class_agnostic:
            raise ValueError(
                "'box.class_agnostic' must be true in a cascade: the next stage starts from one "
                "box, whatever its class"
            )
        if len(self.stage_ious) != len(self.stage_delta_weights):
            raise ValueError(
                f"'stage_ious' and 'stage_delta_weights' need one entry per stage; got "
                f"{len(self.stage_ious)} and {len(self.stage_delta_weights)}"
            )


@dataclass(frozen=True, kw_only=True)
class SoloV2Settings(SoloSettings, Kinded):
    """SOLOv2: masks of grid cells, without boxes; needs a pyramid of five levels.

    Attributes:
        grid_sizes: cells along a side of each level's grid.
        hidden_channels: width of the towers.
        feature_channels: width of the mask feature's levels.
        kernel_channels: of the mask feature and the kernels.
        deformable: convolutions of towers and mask feature: "none", "v1" or "v2".
        norm_act: norm and activation of the head; null: those of the heads.
    """

    kind: str = "solov2"
    grid_sizes: Annotated[tuple[GridSide, ...], Len(1)] = (40, 36, 24, 16, 12)
    hidden_channels: Count = 512
    feature_channels: Count = 128
    kernel_channels: Count = 256
    deformable: Literal["none", "v1", "v2"] = "none"
    norm_act: NormActGroup | None = field(
        default_factory=lambda: GroupNormSettings(slope=0.0, num_groups=32)
    )

    def __post_init__(self) -> None:
        if len(self.grid_sizes) != len(self.scale_ranges):
            raise ValueError(
                f"'grid_sizes' and 'scale_ranges' need one entry per level; got "
                f"{len(self.grid_sizes)} and {len(self.scale_ranges)}"
            )


# Semantic branches


@dataclass(frozen=True, kw_only=True)
class SemanticSettings(SemanticLossSettings, Kinded):
    """What semantic branches of every kind have.

    Attributes:
        has_neck: whether the head reads levels of a neck or stages of the backbone.
        points: PointRend's refinement to the network input; null: none.
        upsample_to_input: logits that no points refine are first upsampled to the network input,
            then to the image file (detectron2), not from their own size at once.
        norm_act: norm and activation of its head; null: those of the heads.
    """

    has_neck: ClassVar[bool] = True

    points: SemanticPointSettings | None = None
    upsample_to_input: bool = False
    norm_act: NormActGroup | None = None

    def __post_init__(self) -> None:
        if self.points is not None and self.upsample_to_input:
            raise ValueError(
                "'upsample_to_input' is for logits that no points refine; set 'points' to null, or "
                "leave it out"
            )

    @property
    def shared_channels(self) -> int:
        """Channels of what its head sees before it names classes; 0: it has nothing to share."""
        return 0


@dataclass(frozen=True, kw_only=True)
class MiniDLSettings(SemanticSettings):
    """One MiniDL module per level (Seamless).

    Attributes:
        hidden_channels: width of each module.
        pooling_size: side of its average pooling, in cells.
    """

    kind: str = "mini_dl"
    hidden_channels: Count = 128
    pooling_size: Count = 64

    @property
    def shared_channels(self) -> int:
        return NUM_STAGES * self.hidden_channels


@dataclass(frozen=True, kw_only=True)
class PanopticFPNSettings(SemanticSettings):
    """Levels upsampled step by step and added (Panoptic FPN, SemanticFPN).

    Attributes:
        hidden_channels: width of the blocks.
        first_level: index of the finest level read; 0: p2.
    """

    kind: str = "panoptic_fpn"
    hidden_channels: Count = 128
    first_level: Annotated[int, Interval(ge=0, le=3)] = 0

    @property
    def shared_channels(self) -> int:
        return self.hidden_channels


@dataclass(frozen=True, kw_only=True)
class DeepLabSettings(SemanticSettings):
    """DeepLabV3: ASPP on the last stage; for a network without neck.

    Attributes:
        hidden_channels: width of the ASPP.
        pooling_size: side of its average pooling, in cells of 16 pixels.
    """

    has_neck: ClassVar[bool] = False

    kind: str = "deeplab"
    hidden_channels: Count = 256
    pooling_size: Count = 48


# Networks


@dataclass(frozen=True, kw_only=True)
class TwoBranchSettings(Kinded):
    """A shared trunk with an instance branch, a semantic branch, or both.

    Attributes:
        backbone: images to stages.
        norm_act: norm and activation of the backbone.
        head_norm_act: of the neck and all heads; null: as in the backbone.
        neck: stages to levels; null: branches read the stages.
        instances: the instance branch; null: none.
        semantics: the semantic branch; null: none.
        fusion: how both are put together.
        pixel_mean: of RGB values in [0, 1].
        pixel_std: of RGB values in [0, 1].
        size_divisor: batches are padded to multiples of this height and width.
    """

    kind: str = "two_branch"
    backbone: BackboneGroup = field(default_factory=TimmBackboneSettings)
    norm_act: NormActGroup = field(default_factory=ABNSettings)
    head_norm_act: NormActGroup | None = None
    neck: NeckGroup | None = field(default_factory=FPNSettings)
    instances: InstancesGroup | None = None
    semantics: SemanticsGroup | None = None
    fusion: FusionSettings = field(default_factory=FusionSettings)
    pixel_mean: Color = (0.41738699, 0.45732192, 0.46886091)
    pixel_std: PositiveColor = (0.25685097, 0.26509955, 0.29067996)
    size_divisor: SizeDivisor = 1

    def __post_init__(self) -> None:
        if self.instances is None and self.semantics is None:
            raise ValueError("'instances' and 'semantics' are both null; give one of them or both")
        if self.instances is not None and self.neck is None:
            raise ValueError("'instances' needs levels of one width; give a 'neck'")
        self._check_semantics()
        output_stride = getattr(self.backbone, "output_stride", 32)
        if self.neck is not None and output_stride < 32:
            raise ValueError(
                f"'backbone.output_stride' must be 32 under a neck; got {output_stride}; set "
                "'neck' to null, or leave it out"
            )

    def _check_semantics(self) -> None:
        semantics = self.semantics
        if semantics is None:
            return
        if semantics.has_neck != (self.neck is not None):
            needs = (
                "levels of a 'neck'" if semantics.has_neck else "the stages; 'neck' must be null"
            )
            raise ValueError(f"'semantics.kind: {semantics.kind}' reads {needs}")
        if semantics.things == "merged" and self.fusion.semantic_things != "void":
            raise ValueError(
                "'semantics.things: merged' does not tell things apart, so "
                "'fusion.semantic_things' must be 'void'"
            )


@dataclass(frozen=True, kw_only=True)
class SeparateSettings(TwoBranchSettings):
    """Two networks that share nothing, each with one branch: the baseline of Seamless."""

    kind: str = "separate"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.instances is None or self.semantics is None:
            raise ValueError("'kind: separate' needs both 'instances' and 'semantics'")
