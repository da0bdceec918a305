"""Networks from their config: here config meets the classes of `models` and `layers`."""

from __future__ import annotations

from dataclasses import replace

from seamless_pr.config.schema import ModelConfig, NormActConfig
from seamless_pr.layers.abn import NormActFactory, make_norm_act
from seamless_pr.models.backbones.timm_backbone import TimmBackbone
from seamless_pr.models.instances.box_branch import BoxHead
from seamless_pr.models.instances.mask_rcnn import MaskHead
from seamless_pr.models.instances.rpn import RPNHead
from seamless_pr.models.necks.fpn import FPN
from seamless_pr.models.networks.separate import SeparateNets
from seamless_pr.models.networks.two_branch import PanopticNet
from seamless_pr.models.point_heads import CoarseMaskHead, PointHead
from seamless_pr.models.semantics.deeplab import DeepLabV3Head
from seamless_pr.models.semantics.mini_dl import SemanticHead, num_semantic_classes
from seamless_pr.models.semantics.panoptic_fpn import SemanticFPNHead
from seamless_pr.structures.label_space import LabelSpace

NUM_STAGES = 4


def build_network(config: ModelConfig, label_space: LabelSpace) -> PanopticNet | SeparateNets:
    """The network, or the pair of networks, with random weights.

    Args:
        config: architecture and settings; `branches` decides which.
        label_space: decides the number of outputs.
    """
    if config.branches != "separate":
        return build_model(config, label_space)
    # Levels beyond P5 are for large boxes; the semantic branch has no use for them.
    semantic_fpn = replace(config.fpn, num_extra_levels=0)
    return SeparateNets(
        build_model(replace(config, branches="instance"), label_space),
        build_model(replace(config, branches="semantic", fpn=semantic_fpn), label_space),
    )


def build_model(config: ModelConfig, label_space: LabelSpace) -> PanopticNet:
    """One network with random weights; `backbone.num_frozen` parts do not train.

    Args:
        config: architecture and settings.
        label_space: decides the number of outputs.
    """
    channels = config.fpn.channels
    backbone = TimmBackbone(
        config.backbone.name,
        build_norm_act(config.norm_act),
        stride_in_1x1=config.backbone.stride_in_1x1,
        output_stride=config.backbone.output_stride,
        multi_grid=config.backbone.multi_grid,
        **config.backbone.options,
    )
    backbone.freeze(config.backbone.num_frozen)
    norm_act = build_norm_act(_or_same(config.head_norm_act, config.norm_act))
    coarsest = backbone.strides[-1]
    extra_strides = [coarsest * 2**level for level in range(1, config.fpn.num_extra_levels + 1)]
    has_instances = config.branches != "semantic"
    mask_head, point_head = (
        _build_mask_heads(config, label_space, norm_act) if has_instances else (None, None)
    )
    has_semantics = config.branches != "instance"
    return PanopticNet(
        label_space=label_space,
        backbone=backbone,
        fpn=_build_fpn(config, backbone, norm_act),
        rpn_head=RPNHead(
            channels, len(config.rpn.anchor_ratios), norm_act, config.rpn_head.hidden_channels
        )
        if has_instances
        else None,
        box_head=BoxHead(
            channels,
            label_space.num_things,
            norm_act,
            config.box_head.hidden_channels,
            config.roi.size,
            config.box_head.pooling,
        )
        if has_instances
        else None,
        mask_head=mask_head,
        point_head=point_head,
        semantic_head=_build_semantic_head(config, label_space, backbone)
        if has_semantics
        else None,
        semantic_point_head=(
            _build_semantic_point_head(config, label_space, backbone) if has_semantics else None
        ),
        level_strides=(*backbone.strides, *extra_strides),
        rpn=config.rpn,
        roi=config.roi,
        box=config.box,
        points=config.points,
        semantic=config.semantic,
        fusion=config.fusion,
        pixel_mean=config.pixel_mean,
        pixel_std=config.pixel_std,
        size_divisor=config.size_divisor,
    )


def _or_same(part: NormActConfig, rest: NormActConfig) -> NormActConfig:
    return rest if part.kind == "same" else part


def build_norm_act(config: NormActConfig) -> NormActFactory:
    """The norm + activation layer of the network."""
    return make_norm_act(
        config.kind,
        slope=config.slope,
        eps=config.eps,
        momentum=config.momentum,
        sync=config.sync,
        num_groups=config.num_groups,
    )


def _reads_stages(config: ModelConfig) -> bool:
    """Whether the heads read the stages of the backbone, without a pyramid."""
    return config.branches == "semantic" and config.semantic_head.kind == "deeplab_v3"


def _build_fpn(config: ModelConfig, backbone: TimmBackbone, norm_act: NormActFactory) -> FPN | None:
    if _reads_stages(config):
        return None
    return FPN(
        backbone.out_channels,
        config.fpn.channels,
        norm_act,
        config.fpn.num_extra_levels,
        activation=config.fpn.activation,
        extra=config.fpn.extra,
    )


def _build_mask_heads(
    config: ModelConfig, label_space: LabelSpace, norm_act: NormActFactory
) -> tuple[MaskHead | CoarseMaskHead, PointHead | None]:
    channels, num_things = config.fpn.channels, label_space.num_things
    head = config.mask_head
    if head.kind == "conv":
        conv = MaskHead(
            channels,
            num_things,
            norm_act,
            hidden_channels=head.hidden_channels,
            norm_rois=head.norm_rois,
        )
        return conv, None
    coarse = CoarseMaskHead(
        channels,
        num_things,
        hidden_channels=head.coarse_hidden_channels,
        roi_size=head.coarse_roi_size,
    )
    points = PointHead(
        channels,
        num_things,
        hidden_channels=head.point_channels,
        num_layers=head.num_point_layers,
        coarse_each_layer=head.coarse_each_layer,
    )
    return coarse, points


def _build_semantic_head(
    config: ModelConfig, label_space: LabelSpace, backbone: TimmBackbone
) -> SemanticHead | SemanticFPNHead | DeepLabV3Head:
    head, channels = config.semantic_head, config.fpn.channels
    num_classes = num_semantic_classes(label_space, config.semantic)
    of_heads = _or_same(config.head_norm_act, config.norm_act)
    norm_act = build_norm_act(_or_same(head.norm_act, of_heads))
    if head.kind == "deeplab_v3":
        return DeepLabV3Head(
            backbone.out_channels[-1],
            num_classes,
            norm_act,
            hidden_channels=head.hidden_channels,
            pooling_size=head.pooling_size,
            stride=backbone.strides[-1],
        )
    if head.kind == "fpn":
        return SemanticFPNHead(
            channels,
            num_classes,
            norm_act,
            hidden_channels=head.hidden_channels,
            first_level=head.first_level,
            num_levels=NUM_STAGES - head.first_level,
        )
    return SemanticHead(
        channels,
        num_classes,
        norm_act,
        hidden_channels=head.hidden_channels,
        num_levels=NUM_STAGES,
        pooling_size=head.pooling_size,
    )


def _build_semantic_point_head(
    config: ModelConfig, label_space: LabelSpace, backbone: TimmBackbone
) -> PointHead | None:
    head = config.semantic_head
    if head.refinement == "none":
        return None
    return PointHead(
        backbone.out_channels[0] if _reads_stages(config) else config.fpn.channels,
        num_semantic_classes(label_space, config.semantic),
        hidden_channels=head.point_channels,
        num_layers=head.num_point_layers,
        coarse_each_layer=head.coarse_each_layer,
    )
