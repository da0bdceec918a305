"""The typed tree behind a YAML config; its leaves are the arguments of what is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from seamless_pr.structures.settings import (
    BoxSettings,
    FusionSettings,
    PointSettings,
    RoISettings,
    RPNSettings,
    SemanticSettings,
)
from seamless_pr.structures.training_settings import (
    OptimizerSettings,
    ScheduleSettings,
    TrainingSettings,
)

MASK_HEAD_KINDS = ("conv", "point_rend")
MASK_NORM_ROIS = ("sampled", "positive")
SEMANTIC_HEAD_KINDS = ("mini_dl", "fpn", "deeplab_v3")
SEMANTIC_REFINEMENTS = ("none", "point_rend")
BRANCHES = ("both", "instance", "semantic", "separate")


@dataclass(frozen=True)
class NormActConfig:
    """Normalisation and activation, one pair after most convolutions.

    Attributes:
        kind: "inplace_abn", "abn" (its plain twin), "batch_norm" (as in torch.nn), "group_norm",
            "frozen_batch_norm", "bias" (no norm) or "inplace_abn_package"; "same", for parts of the
            network: as in the rest of it.
        slope: of LeakyReLU below 0; 0: ReLU (not for the two ABN, which invert it).
        eps, momentum: of the batch statistics.
        sync: share the batch statistics between all workers.
        num_groups: most groups of "group_norm".
    """

    kind: str = "inplace_abn"
    slope: float = 0.01
    eps: float = 1e-5
    momentum: float = 0.1
    sync: bool = True
    num_groups: int = 16


@dataclass(frozen=True)
class BackboneConfig:
    """A network of timm.

    Attributes:
        name: model name in timm, of a family with batch norm.
        stride_in_1x1: bottleneck blocks halve the resolution in their first convolution, as those
            of the original ResNet do.
        output_stride: input pixels per cell of the last stage; 16 or 8: the last stages are dilated
            instead of halved ("deeplab_v3" only). No weight depends on it, so prediction may take a
            finer one than training.
        multi_grid: dilations of the last stage's blocks in cells of stride 32; []: timm's.
        options: further arguments of `timm.create_model`.
        weights: file with ImageNet weights (torchvision or timm layout); null: random weights.
        num_frozen: first parts that do not train (1: the stem, 2: stem and first stage, ..., 5:
            all).
    """

    name: str = "resnet50"
    stride_in_1x1: bool = False
    output_stride: int = 32
    multi_grid: tuple[int, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    num_frozen: int = 0


@dataclass(frozen=True)
class FPNConfig:
    """Feature pyramid.

    Attributes:
        channels: width of all levels.
        num_extra_levels: levels above p5.
        activation: "leaky_relu" or "identity" after its convolutions.
        extra: levels above p5 by strided convolution ("conv") or subsampling ("pool").
    """

    channels: int = 256
    num_extra_levels: int = 1
    activation: str = "leaky_relu"
    extra: str = "conv"


@dataclass(frozen=True)
class RPNHeadConfig:
    """Region proposal head; `hidden_channels: null` is the width of the pyramid."""

    hidden_channels: int | None = None


@dataclass(frozen=True)
class BoxHeadConfig:
    """Box branch.

    Attributes:
        hidden_channels: width of its two hidden layers.
        pooling: side of the windows of its input that are averaged first; 1: none.
    """

    hidden_channels: int = 1024
    pooling: int = 2


@dataclass(frozen=True)
class MaskHeadConfig:
    """Mask branch.

    Attributes:
        kind: "conv" (four convolutions, 28x28 masks) or "point_rend" (coarse masks, refined by
            points).
        hidden_channels: width of the four convolutions ("conv").
        norm_rois: RoIs that pass the four convolutions in training and count in their batch
            statistics: "sampled" (all, as in the released Seamless code) or "positive" (those with
            a mask loss, a quarter of the work) ("conv").
        coarse_hidden_channels: width of the two coarse layers ("point_rend").
        coarse_roi_size: side of the point grid that the coarse layers see, twice that of the coarse
            mask ("point_rend").
        point_channels, num_point_layers: width and depth of the point layers ("point_rend").
        coarse_each_layer: every point layer sees the coarse logits, not the first only
            ("point_rend").
    """

    kind: str = "point_rend"
    hidden_channels: int = 256
    norm_rois: str = "positive"
    coarse_hidden_channels: int = 1024
    coarse_roi_size: int = 14
    point_channels: int = 256
    num_point_layers: int = 3
    coarse_each_layer: bool = True


@dataclass(frozen=True)
class SemanticHeadConfig:
    """Semantic branch.

    Attributes:
        kind: "mini_dl" (one MiniDL per level), "fpn" (levels upsampled step by step and added,
            Panoptic FPN) or "deeplab_v3" (ASPP on the last stage, without a pyramid; for a network
            of this branch alone).
        norm_act: its norm and activation; "same": those of the heads.
        hidden_channels: width of each MiniDL module, of the blocks ("fpn"), or of the ASPP.
        pooling_size: side of the average pooling of a MiniDL, in cells, or of the ASPP, in cells of
            16 pixels.
        first_level: index of the finest level read ("fpn"); 0: p2.
        refinement: "none" or "point_rend".
        point_channels, num_point_layers, coarse_each_layer: as in the mask head ("point_rend"); the
            released PointRend gives coarse logits to the first semantic point layer only.
    """

    kind: str = "mini_dl"
    norm_act: NormActConfig = field(default_factory=lambda: NormActConfig(kind="same"))
    hidden_channels: int = 128
    pooling_size: int = 64
    first_level: int = 0
    refinement: str = "point_rend"
    point_channels: int = 256
    num_point_layers: int = 3
    coarse_each_layer: bool = False


@dataclass(frozen=True)
class ModelConfig:
    """The whole network.

    Attributes:
        branches: "both", or only "instance" or "semantic" (settings of the other are not used), or
            "separate": two networks that share nothing, each with one branch.
        norm_act: of the backbone.
        head_norm_act: of the pyramid and all heads; "same": as in the backbone.
        backbone, fpn, rpn_head, box_head, mask_head, semantic_head: the parts with weights.
        rpn, roi, box, points, semantic, fusion: numbers of the branches' procedures.
        pixel_mean, pixel_std: of RGB values in [0, 1].
        size_divisor: batches are padded to multiples of this height and width.
        global_loss_counts: of no effect, in files of older runs; see `training`.
    """

    branches: str = "both"
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    norm_act: NormActConfig = field(default_factory=NormActConfig)
    head_norm_act: NormActConfig = field(default_factory=lambda: NormActConfig(kind="same"))
    fpn: FPNConfig = field(default_factory=FPNConfig)
    rpn_head: RPNHeadConfig = field(default_factory=RPNHeadConfig)
    box_head: BoxHeadConfig = field(default_factory=BoxHeadConfig)
    mask_head: MaskHeadConfig = field(default_factory=MaskHeadConfig)
    semantic_head: SemanticHeadConfig = field(default_factory=SemanticHeadConfig)
    rpn: RPNSettings = field(default_factory=RPNSettings)
    roi: RoISettings = field(default_factory=RoISettings)
    box: BoxSettings = field(default_factory=BoxSettings)
    points: PointSettings = field(default_factory=PointSettings)
    semantic: SemanticSettings = field(default_factory=SemanticSettings)
    fusion: FusionSettings = field(default_factory=FusionSettings)
    pixel_mean: tuple[float, float, float] = (0.41738699, 0.45732192, 0.46886091)
    pixel_std: tuple[float, float, float] = (0.25685097, 0.26509955, 0.29067996)
    size_divisor: int = 1
    global_loss_counts: bool = True


@dataclass(frozen=True)
class DatasetConfig:
    """One part of a dataset in the COCO panoptic format.

    Attributes:
        json: the panoptic JSON.
        images: folder of the image files that the JSON names.
        segments: folder of the id PNGs; null: the path of the JSON without ".json".
    """

    json: str = "???"
    images: str = "???"
    segments: str | None = None


@dataclass(frozen=True)
class DataConfig:
    """Where the data lie, and how images reach the network.

    Attributes:
        label_space: name of a built-in label table, or "json" to take the categories of the
            training JSON.
        train, val: the two parts.
        shortest_side_pixels: images are resized so that their shorter side has this many pixels ...
        longest_side_pixels: ... unless the longer side would then exceed this.
        scale_range: in training `shortest_side_pixels` is multiplied by a random factor of this
            range.
        scale_step_pixels: the shorter side is one of the ends of that range or a number between
            them in steps of this; 0: any number.
        flip_probability: of a horizontal mirror image in training.
        crop_size_pixels: (height, width) of a random crop in training; null: no crop.
        crop_max_class_fraction: crops are drawn again, up to ten times, until they show two classes
            and none fills this share of what is not void; 1: never.
        color_strength: brightness, contrast and saturation change in training by random factors of
            1 - strength .. 1 + strength.
        ssd_colors: brightness, contrast, saturation and hue change in training as those of SSD.
        batch_size: images of one optimiser step, over all workers and accumulation steps.
        num_workers: loading processes of each worker; 0: load in the training process.
    """

    label_space: str = "cityscapes"
    train: DatasetConfig = field(default_factory=DatasetConfig)
    val: DatasetConfig = field(default_factory=DatasetConfig)
    shortest_side_pixels: int = 1024
    longest_side_pixels: int = 4096
    scale_range: tuple[float, float] = (0.5, 2.0)
    scale_step_pixels: int = 0
    flip_probability: float = 0.5
    crop_size_pixels: tuple[int, int] | None = None
    crop_max_class_fraction: float = 1.0
    color_strength: float = 0.0
    ssd_colors: bool = False
    batch_size: int = 8
    num_workers: int = 2


@dataclass(frozen=True)
class InitialWeightsConfig:
    """Weights of another run to start from: fine-tuning, or new heads on a trained trunk.

    Attributes:
        file: weights file of the same network, but for `random_parts`; null: random weights.
        random_parts: first names of weights (`mask_head`, `semantic_head`, ...) that start at
            random all the same, whether the file has them or not; everything else must be in the
            file, and nothing else.
    """

    file: str | None = None
    random_parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClusterConfig:
    """How `pipelines/train.py` spreads over a Ray cluster; of no effect without Ray.

    Attributes:
        num_workers: training processes; with GPUs one per GPU.
        min_workers: after a loss go on with as few as these, and grow again when machines return.
            null: wait for `num_workers`.
        use_gpu: a GPU for each process; null: if the cluster has any.
        cpus_per_worker: cores of each process, its loading processes included.
        max_failures: restarts from the last checkpoint after a process or machine was lost.
        num_checkpoints_kept: checkpoints of highest PQ in Ray's storage, besides the last one.
    """

    num_workers: int = 1
    min_workers: int | None = None
    use_gpu: bool | None = None
    cpus_per_worker: int = 1
    max_failures: int = 3
    num_checkpoints_kept: int = 2


@dataclass(frozen=True)
class Config:
    """One run. `loss_weights` names every loss of the network, no more and no less."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    initial_weights: InitialWeightsConfig = field(default_factory=InitialWeightsConfig)
    loss_weights: dict[str, float] = field(default_factory=dict)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)


def loss_names(model: ModelConfig) -> tuple[str, ...]:
    """Names of the losses that this network returns."""
    mask = ("mask_coarse", "mask_point") if model.mask_head.kind == "point_rend" else ("mask",)
    refines = model.semantic_head.refinement == "point_rend"
    semantic = ("semantic", "semantic_point") if refines else ("semantic",)
    instance = ("rpn_objectness", "rpn_box", "box_class", "box_delta", *mask)
    return {"instance": instance, "semantic": semantic}.get(model.branches, (*instance, *semantic))
