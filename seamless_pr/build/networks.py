"""Networks from their settings: every kind that a config may name stands in one dictionary here.

A new head is one file in `models`, one settings class in `config`, and one entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from seamless_pr.build.network_size import few_tensors, refuse_large
from seamless_pr.build.query_networks import (
    fpn_pixel_decoder,
    maskformer,
    per_pixel,
    swin_backbone,
    transformer_pixel_decoder,
)
from seamless_pr.config.networks import (
    NUM_STAGES,
    ABNSettings,
    BalancedPyramidSettings,
    BatchNormSettings,
    BiasSettings,
    DeepLabSettings,
    FixedBatchNormSettings,
    FPNSettings,
    FrozenBatchNormSettings,
    GroupNormSettings,
    HTCSettings,
    ImplicitPointRendSettings,
    MaskRCNNSettings,
    MiniDLSettings,
    PanopticFPNSettings,
    PointRendSettings,
    SemanticSettings,
    SeparateSettings,
    SoloV2Settings,
    TimmBackboneSettings,
    TwoBranchSettings,
)
from seamless_pr.config.query_networks import (
    FPNPixelDecoderSettings,
    MaskFormerSettings,
    PerPixelSettings,
    PixelNetworkSettings,
    SwinBackboneSettings,
    TransformerPixelDecoderSettings,
)
from seamless_pr.layers.abn import NormActFactory, make_norm_act
from seamless_pr.layers.conv_norm_act import ConvNormAct
from seamless_pr.layers.non_local import NonLocal2d
from seamless_pr.layers.point_head import PointHead
from seamless_pr.models.backbones.stage_extras import StageExtras
from seamless_pr.models.backbones.timm_backbone import TimmBackbone
from seamless_pr.models.fusion.by_score import ScoreFusion
from seamless_pr.models.instances.box_branch import BoxHead
from seamless_pr.models.instances.branch import InstanceBranch
from seamless_pr.models.instances.cascade import CascadeBranch, CascadeMaskHead
from seamless_pr.models.instances.coarse_masks import BoxVectorHead, CoarseMaskHead
from seamless_pr.models.instances.implicit_point_rend import (
    ImplicitPointHead,
    ImplicitPointMasks,
)
from seamless_pr.models.instances.mask_iou import MaskIoUHead
from seamless_pr.models.instances.mask_rcnn import ConvMasks, MaskHead
from seamless_pr.models.instances.point_rend import PointRendMasks
from seamless_pr.models.instances.rpn import RPNHead
from seamless_pr.models.instances.semantic_context import SemanticContext
from seamless_pr.models.instances.solo_head import SoloHead
from seamless_pr.models.instances.solov2 import SoloV2
from seamless_pr.models.instances.two_stage import MaskPart, TwoStageBranch
from seamless_pr.models.necks.bfp import BalancedPyramid
from seamless_pr.models.necks.fpn import FPN
from seamless_pr.models.networks.byte_normalization import BytePixelNormalization
from seamless_pr.models.networks.maskformer import MaskFormer
from seamless_pr.models.networks.network import Network, PixelNormalization
from seamless_pr.models.networks.per_pixel import PerPixelNet
from seamless_pr.models.networks.separate import SeparateNets
from seamless_pr.models.networks.trunk import Trunk
from seamless_pr.models.networks.two_branch import TwoBranchNet
from seamless_pr.models.semantics.branch import SemanticBranch
from seamless_pr.models.semantics.deeplab import DeepLabV3Head
from seamless_pr.models.semantics.mini_dl import MiniDLHead
from seamless_pr.models.semantics.panoptic_fpn import SemanticFPNHead
from seamless_pr.models.semantics.pixels import PixelSemantics, num_semantic_classes
from seamless_pr.models.semantics.points import PointSemantics
from seamless_pr.structures.faults import first_line
from seamless_pr.structures.kinds import Kinded
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.settings import BoxSettings, RoISettings, RPNSettings


@dataclass(frozen=True)
class Kind:
    """One kind of a group.

    Attributes:
        settings: class of its settings, the keys of the config.
        build: makes the part; takes the settings, and what parts of this place get besides.
    """

    settings: type[Kinded]
    build: Callable[..., Any]


@dataclass(frozen=True)
class Inputs:
    """What a branch is built for.

    Attributes:
        channels: of each level, finest first.
        strides: input pixels per cell of each level.
        norm_act: norm and activation of the heads.
        label_space: decides the number of outputs.
        semantic_channels: of `Features.semantic`, for branches that read it; 0: there is none.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    norm_act: NormActFactory
    label_space: LabelSpace
    semantic_channels: int = 0


@dataclass(frozen=True)
class Neck:
    """A built neck, and what it hands to the branches."""

    module: nn.Module
    channels: tuple[int, ...]
    strides: tuple[int, ...]


def build_network(
    settings: Kinded,
    label_space: LabelSpace,
    check: Callable[[Network], None] = refuse_large,
) -> Network:
    """A network with random weights.

    Args:
        settings: of one of `KINDS["networks"]`.
        label_space: decides the number of outputs.
        check: sees the outline of the network before it takes memory, and may refuse it.

    Raises:
        ValueError: no such network can be made, the message begins with the key of the config; or
            what `check` raises.
    """
    check(outline_network(settings, label_space))
    return _network(settings, label_space)


def outline_network(settings: Kinded, label_space: LabelSpace) -> Network:
    """The network on the meta device: names and shapes without memory, whatever the settings say.

    Raises:
        ValueError: no such network can be made; the message begins with the key of the config.
    """
    with torch.device("meta"), few_tensors():
        return _network(settings, label_space)


def _network(settings: Kinded, label_space: LabelSpace) -> Network:
    try:
        network: Network = _build("networks", settings, label_space)
    # Of PyTorch and timm, about sizes that no tensor has.
    except (IndexError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"'model' cannot be built: {first_line(error)}") from error
    return network


def _build(place: str, settings: Kinded, *arguments: Any) -> Any:
    return KINDS[place][settings.kind].build(settings, *arguments)


# Normalisation and activation


def build_norm_act(settings: Kinded) -> NormActFactory:
    """The norm + activation layer of a part."""
    norm_act: NormActFactory = _build("norm_acts", settings)
    return norm_act


def _norm_act(settings: ABNSettings | BatchNormSettings) -> NormActFactory:
    return make_norm_act(
        settings.kind,
        slope=settings.slope,
        eps=settings.eps,
        momentum=settings.momentum,
        sync=settings.sync,
    )


def _constant_batch_norm(
    settings: FrozenBatchNormSettings | FixedBatchNormSettings,
) -> NormActFactory:
    return make_norm_act(settings.kind, slope=settings.slope, eps=settings.eps)


def _group_norm(settings: GroupNormSettings) -> NormActFactory:
    return make_norm_act(
        settings.kind, slope=settings.slope, eps=settings.eps, num_groups=settings.num_groups
    )


def _bias(settings: BiasSettings) -> NormActFactory:
    return make_norm_act(settings.kind, slope=settings.slope)


# Trunk


def _timm_backbone(settings: TimmBackboneSettings, norm_act: NormActFactory) -> TimmBackbone:
    extras = StageExtras(
        settings.deformable,
        settings.deformable_stages,
        settings.context_ratio,
        settings.context_stages,
        settings.pools_split_of_c2,
    )
    try:
        backbone = TimmBackbone(
            settings.name,
            norm_act,
            stride_in_1x1=settings.stride_in_1x1,
            output_stride=settings.output_stride,
            multi_grid=settings.multi_grid,
            extras=extras,
            checkpointing=settings.checkpointing,
            **settings.options,
        )
        backbone.freeze(settings.num_frozen)
    except ValueError as error:
        raise ValueError(f"'backbone': {error}") from error
    return backbone


def _fpn(settings: FPNSettings, backbone: Any, norm_act: NormActFactory) -> Neck:
    fpn = FPN(
        backbone.out_channels,
        settings.channels,
        norm_act,
        settings.num_extra_levels,
        activation=settings.activation,
        extra=settings.extra,
    )
    coarsest = backbone.strides[-1]
    extra = [coarsest * 2**level for level in range(1, settings.num_extra_levels + 1)]
    strides = (*backbone.strides, *extra)
    return Neck(fpn, (settings.channels,) * len(strides), strides)


def _bfp(settings: BalancedPyramidSettings, backbone: Any, norm_act: NormActFactory) -> Neck:
    pyramid = _fpn(settings, backbone, norm_act)
    channels = settings.channels
    makers: dict[str, Callable[[], nn.Module]] = {
        "non_local": lambda: NonLocal2d(channels),
        "conv": lambda: ConvNormAct(channels, channels, 3, norm_act),
        "none": nn.Identity,
    }
    blocks = [makers[settings.refine]() for _ in range(settings.num_refinements)]
    refine = blocks[0] if len(blocks) == 1 else nn.Sequential(*blocks)
    return replace(pyramid, module=BalancedPyramid(pyramid.module, refine, settings.level))


def build_trunk(settings: TwoBranchSettings, label_space: LabelSpace) -> tuple[Trunk, Inputs]:
    """Normalisation, backbone and neck, and what branches on them are built for."""
    backbone = _build("backbones", settings.backbone, build_norm_act(settings.norm_act))
    head_norm_act = build_norm_act(settings.head_norm_act or settings.norm_act)
    if settings.neck is None:
        neck = Neck(nn.Identity(), tuple(backbone.out_channels), tuple(backbone.strides))
    else:
        neck = _build("necks", settings.neck, backbone, head_norm_act)
    normalization = PixelNormalization(settings.pixel_mean, settings.pixel_std)
    trunk = Trunk(normalization, backbone, neck.module, neck.strides)
    return trunk, Inputs(neck.channels, neck.strides, head_norm_act, label_space)


# Instance branches


def _mask_rcnn(settings: MaskRCNNSettings, inputs: Inputs) -> InstanceBranch:
    mask, roi = settings.mask, settings.roi
    head = MaskHead(
        inputs.channels[0],
        inputs.label_space.num_things,
        inputs.norm_act,
        hidden_channels=mask.hidden_channels,
    )
    mask_roi = replace(roi, size=mask.roi_size or roi.size)
    masks = ConvMasks(
        head,
        roi=mask_roi,
        norm_rois=mask.norm_rois,
        aligned_targets=mask.targets == "aligned",
    )
    return _two_stage(settings, inputs, masks)


def _point_rend(settings: PointRendSettings, inputs: Inputs) -> InstanceBranch:
    mask, points = settings.mask, settings.points
    channels = sum(inputs.channels[: points.num_levels])
    coarse = CoarseMaskHead(
        channels,
        inputs.label_space.num_things,
        hidden_channels=mask.hidden_channels,
        roi_size=mask.roi_size,
        num_layers=mask.num_layers,
        conv_channels=mask.conv_channels,
        mixes_first=mask.mixes_first,
        background=mask.background,
    )
    point_head = PointHead(
        channels,
        coarse.num_outputs,
        hidden_channels=points.hidden_channels,
        num_layers=points.num_layers,
        coarse_each_layer=points.coarse_each_layer,
    )
    masks = PointRendMasks(coarse, point_head, points, whole_pixels=mask.whole_pixels)
    return _two_stage(settings, inputs, masks)


def _implicit_point_rend(settings: ImplicitPointRendSettings, inputs: Inputs) -> InstanceBranch:
    mask, points = settings.mask, settings.points
    channels = sum(inputs.channels[: points.num_levels])
    point_head = ImplicitPointHead(
        channels,
        inputs.label_space.num_things,
        hidden_channels=points.hidden_channels,
        num_layers=points.num_layers,
    )
    weight_head = BoxVectorHead(
        channels,
        point_head.num_weights,
        hidden_channels=mask.hidden_channels,
        num_layers=mask.num_layers,
        roi_size=mask.roi_size,
    )
    return _two_stage(settings, inputs, ImplicitPointMasks(weight_head, point_head, points))


def _two_stage(
    settings: MaskRCNNSettings | PointRendSettings | ImplicitPointRendSettings,
    inputs: Inputs,
    masks: MaskPart,
) -> TwoStageBranch:
    _check_levels(settings, inputs)
    return TwoStageBranch(
        _rpn_head(settings.rpn, inputs),
        _box_head(settings.box, settings.roi, inputs),
        masks,
        rpn=settings.rpn,
        roi=settings.roi,
        box=settings.box,
    )


def _check_levels(settings: Any, inputs: Inputs) -> None:
    """What boxes and points read is there."""
    for group in ("roi", "points"):
        wanted = getattr(getattr(settings, group, None), "num_levels", 0)
        if wanted > len(inputs.channels):
            raise ValueError(
                f"model.instances.{group}.num_levels is {wanted}, but the neck makes "
                f"{len(inputs.channels)} levels; lower it, or raise model.neck.num_extra_levels"
            )


def _rpn_head(rpn: RPNSettings, inputs: Inputs) -> RPNHead:
    num_anchors = len(rpn.anchor_ratios)
    return RPNHead(inputs.channels[0], num_anchors, inputs.norm_act, rpn.hidden_channels)


def _box_head(box: BoxSettings, roi: RoISettings, inputs: Inputs) -> BoxHead:
    return BoxHead(
        inputs.channels[0],
        inputs.label_space.num_things,
        inputs.norm_act,
        box.hidden_channels,
        roi.size,
        box.pooling,
        num_layers=box.num_layers,
        class_agnostic=box.class_agnostic,
    )


def _htc(settings: HTCSettings, inputs: Inputs) -> InstanceBranch:
    _check_levels(settings, inputs)
    channels, num_things = inputs.channels[0], inputs.label_space.num_things
    num_stages, roi_size = len(settings.stage_ious), settings.mask.roi_size or settings.roi.size
    hidden_channels = settings.mask.hidden_channels
    mask_heads = [
        CascadeMaskHead(
            channels,
            num_things,
            inputs.norm_act,
            hidden_channels=hidden_channels,
            carries=stage > 0,
        )
        for stage in range(num_stages)
    ]
    if settings.shares_semantics and not inputs.semantic_channels:
        raise ValueError(
            "model.instances.shares_semantics needs a semantic branch that has something to share; "
            "set model.semantics.kind to mini_dl or panoptic_fpn"
        )
    num_classes = settings.context_classes or inputs.label_space.num_classes
    return CascadeBranch(
        _rpn_head(settings.rpn, inputs),
        [_box_head(settings.box, settings.roi, inputs) for _ in range(num_stages)],
        mask_heads,
        MaskIoUHead(channels, num_things, roi_size) if settings.mask_scoring else None,
        SemanticContext(
            channels,
            num_classes,
            inputs.norm_act,
            num_levels=len(inputs.channels),
            hidden_channels=channels,
        )
        if settings.context
        else None,
        ConvNormAct(inputs.semantic_channels, channels, 1, inputs.norm_act)
        if settings.shares_semantics
        else None,
        rpn=settings.rpn,
        roi=settings.roi,
        mask_roi=replace(settings.roi, size=roi_size),
        boxes=[
            replace(settings.box, positive_iou=iou, delta_weights=weights)
            for iou, weights in zip(settings.stage_ious, settings.stage_delta_weights, strict=True)
        ],
        average_masks=settings.average_masks,
        whole_pixels=settings.box.whole_pixels,
    )


def _solov2(settings: SoloV2Settings, inputs: Inputs) -> InstanceBranch:
    if len(settings.grid_sizes) != len(inputs.channels):
        raise ValueError(
            f"model.instances.grid_sizes needs a number for each of the {len(inputs.channels)} "
            f"levels that the neck makes; got {len(settings.grid_sizes)}"
        )
    norm_act = inputs.norm_act if settings.norm_act is None else build_norm_act(settings.norm_act)
    head = SoloHead(
        inputs.channels[0],
        inputs.label_space.num_things,
        norm_act,
        grid_sizes=settings.grid_sizes,
        hidden_channels=settings.hidden_channels,
        feature_channels=settings.feature_channels,
        kernel_channels=settings.kernel_channels,
        deformable=settings.deformable,
    )
    return SoloV2(head, settings)


# Semantic branches


def _semantics(head: nn.Module, settings: SemanticSettings, inputs: Inputs) -> SemanticBranch:
    """The branch around a head: with PointRend, or without."""
    if settings.points is None:
        return PixelSemantics(head, settings, upsample_to_input=settings.upsample_to_input)
    points = settings.points
    point_head = PointHead(
        inputs.channels[0] + 3 * points.pixel_window**2,
        num_semantic_classes(inputs.label_space, settings),
        hidden_channels=points.hidden_channels,
        num_layers=points.num_layers,
        coarse_each_layer=points.coarse_each_layer,
        residual=points.residual,
    )
    return PointSemantics(head, point_head, settings, points)


def _semantic_norm_act(settings: SemanticSettings, inputs: Inputs) -> NormActFactory:
    return inputs.norm_act if settings.norm_act is None else build_norm_act(settings.norm_act)


def _mini_dl(settings: MiniDLSettings, inputs: Inputs) -> SemanticBranch:
    head = MiniDLHead(
        inputs.channels[0],
        num_semantic_classes(inputs.label_space, settings),
        _semantic_norm_act(settings, inputs),
        hidden_channels=settings.hidden_channels,
        num_levels=NUM_STAGES,
        pooling_size=settings.pooling_size,
    )
    return _semantics(head, settings, inputs)


def _panoptic_fpn(settings: PanopticFPNSettings, inputs: Inputs) -> SemanticBranch:
    head = SemanticFPNHead(
        inputs.channels[0],
        num_semantic_classes(inputs.label_space, settings),
        _semantic_norm_act(settings, inputs),
        hidden_channels=settings.hidden_channels,
        first_level=settings.first_level,
        num_levels=NUM_STAGES - settings.first_level,
    )
    return _semantics(head, settings, inputs)


def _deeplab(settings: DeepLabSettings, inputs: Inputs) -> SemanticBranch:
    head = DeepLabV3Head(
        inputs.channels[-1],
        num_semantic_classes(inputs.label_space, settings),
        _semantic_norm_act(settings, inputs),
        hidden_channels=settings.hidden_channels,
        pooling_size=settings.pooling_size,
        stride=inputs.strides[-1],
    )
    return _semantics(head, settings, inputs)


# Networks


def _two_branch(settings: TwoBranchSettings, label_space: LabelSpace) -> TwoBranchNet:
    if settings.instances is not None and not label_space.num_things:
        raise ValueError(
            f"the classes of '{label_space.name}' have no thing, so there are no instances to "
            "learn; set model.kind=two_branch, model.instances=null, and only the losses of the "
            "semantic branch in 'loss_weights'"
        )
    trunk, inputs = build_trunk(settings, label_space)
    instances, semantics = settings.instances, settings.semantics
    if semantics is not None:
        inputs = replace(inputs, semantic_channels=semantics.shared_channels)
    return TwoBranchNet(
        trunk,
        None if instances is None else _build("instances", instances, inputs),
        None if semantics is None else _build("semantics", semantics, inputs),
        ScoreFusion(label_space, settings.fusion),
        size_divisor=settings.size_divisor,
    )


def _separate(settings: SeparateSettings, label_space: LabelSpace) -> SeparateNets:
    shared = {
        name: getattr(settings, name)
        for name in TwoBranchSettings.__dataclass_fields__
        if name not in ("kind", "instances", "semantics")
    }
    # Levels beyond P5 are for large boxes; the semantic branch has no use for them.
    semantic_neck = replace(settings.neck, num_extra_levels=0)  # type: ignore[type-var]
    return SeparateNets(
        _two_branch(TwoBranchSettings(**shared, instances=settings.instances), label_space),
        _two_branch(
            TwoBranchSettings(**shared | {"neck": semantic_neck}, semantics=settings.semantics),
            label_space,
        ),
    )


def _pixel_parts(settings: PixelNetworkSettings) -> tuple[Trunk, Any]:
    """Backbone with normalisation, and pixel decoder."""
    backbone = _build("backbones", settings.backbone, build_norm_act(settings.norm_act))
    normalization = BytePixelNormalization(settings.pixel_mean, settings.pixel_std)
    norm_act = build_norm_act(settings.pixel_decoder.norm_act)
    return (
        Trunk(normalization, backbone, nn.Identity(), backbone.strides),
        _build("pixel_decoders", settings.pixel_decoder, backbone, norm_act),
    )


def _maskformer(settings: MaskFormerSettings, label_space: LabelSpace) -> MaskFormer:
    return maskformer(settings, *_pixel_parts(settings), label_space)


def _per_pixel(settings: PerPixelSettings, label_space: LabelSpace) -> PerPixelNet:
    return per_pixel(settings, *_pixel_parts(settings), label_space)


KINDS: Mapping[str, dict[str, Kind]] = {
    "norm_acts": {
        "inplace_abn": Kind(ABNSettings, _norm_act),
        "abn": Kind(ABNSettings, _norm_act),
        "inplace_abn_package": Kind(ABNSettings, _norm_act),
        "batch_norm": Kind(BatchNormSettings, _norm_act),
        "frozen_batch_norm": Kind(FrozenBatchNormSettings, _constant_batch_norm),
        "fixed_batch_norm": Kind(FixedBatchNormSettings, _constant_batch_norm),
        "group_norm": Kind(GroupNormSettings, _group_norm),
        "bias": Kind(BiasSettings, _bias),
    },
    "backbones": {
        "timm": Kind(TimmBackboneSettings, _timm_backbone),
        "swin": Kind(SwinBackboneSettings, swin_backbone),
    },
    "necks": {
        "fpn": Kind(FPNSettings, _fpn),
        "bfp": Kind(BalancedPyramidSettings, _bfp),
    },
    "pixel_decoders": {
        "fpn": Kind(FPNPixelDecoderSettings, fpn_pixel_decoder),
        "transformer": Kind(TransformerPixelDecoderSettings, transformer_pixel_decoder),
    },
    "instances": {
        "mask_rcnn": Kind(MaskRCNNSettings, _mask_rcnn),
        "point_rend": Kind(PointRendSettings, _point_rend),
        "implicit_point_rend": Kind(ImplicitPointRendSettings, _implicit_point_rend),
        "htc": Kind(HTCSettings, _htc),
        "solov2": Kind(SoloV2Settings, _solov2),
    },
    "semantics": {
        "mini_dl": Kind(MiniDLSettings, _mini_dl),
        "panoptic_fpn": Kind(PanopticFPNSettings, _panoptic_fpn),
        "deeplab": Kind(DeepLabSettings, _deeplab),
    },
    "networks": {
        "two_branch": Kind(TwoBranchSettings, _two_branch),
        "separate": Kind(SeparateSettings, _separate),
        "maskformer": Kind(MaskFormerSettings, _maskformer),
        "per_pixel": Kind(PerPixelSettings, _per_pixel),
    },
}
