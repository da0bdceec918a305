"""Ranges and choices of config values; an error names the key, the value and what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from seamless_pr.config.schema import (
    BRANCHES,
    MASK_HEAD_KINDS,
    MASK_NORM_ROIS,
    SEMANTIC_HEAD_KINDS,
    SEMANTIC_REFINEMENTS,
    Config,
    loss_names,
)

_Rule = tuple[Callable[[Any], bool], str]


def _one_of(*choices: str) -> _Rule:
    return (lambda value: value in choices), "one of " + ", ".join(f"'{name}'" for name in choices)


_POSITIVE: _Rule = (lambda value: value > 0), "greater than 0"
_NOT_NEGATIVE: _Rule = (lambda value: value >= 0), "0 or more"
_FRACTION: _Rule = (lambda value: 0 <= value <= 1), "in [0, 1]"
_POSITIVE_FRACTION: _Rule = (lambda value: 0 < value <= 1), "above 0 and at most 1"
_AT_LEAST_ONE: _Rule = (lambda value: value >= 1), "1 or more"
_ALL_POSITIVE: _Rule = (
    (lambda value: len(value) > 0 and min(value) > 0),
    "one or more positive numbers",
)

_NORMS = (
    "inplace_abn",
    "abn",
    "batch_norm",
    "group_norm",
    "frozen_batch_norm",
    "bias",
    "inplace_abn_package",
)
# These invert their activation.
_NORMS_WITH_SLOPE = ("inplace_abn", "abn", "inplace_abn_package")

_RULES: dict[str, _Rule] = {
    "model.branches": _one_of(*BRANCHES),
    "model.size_divisor": _AT_LEAST_ONE,
    "model.backbone.num_frozen": (
        (lambda value: 0 <= value <= 5),
        "0 to 5 (the stem and four stages)",
    ),
    "model.backbone.output_stride": ((lambda value: value in (8, 16, 32)), "8, 16 or 32"),
    "model.backbone.multi_grid": (
        (lambda value: all(dilation > 0 for dilation in value)),
        "positive numbers or empty",
    ),
    "model.norm_act.kind": _one_of(*_NORMS),
    "model.head_norm_act.kind": _one_of(*_NORMS, "same"),
    "model.semantic_head.norm_act.kind": _one_of(*_NORMS, "same"),
    **{
        f"model.{part}.{key}": rule
        for part in ("norm_act", "head_norm_act", "semantic_head.norm_act")
        for key, rule in {
            "slope": _NOT_NEGATIVE,
            "eps": _POSITIVE,
            "momentum": _POSITIVE_FRACTION,
            "num_groups": _AT_LEAST_ONE,
        }.items()
    },
    "model.fpn.channels": _POSITIVE,
    "model.fpn.num_extra_levels": _NOT_NEGATIVE,
    "model.fpn.activation": _one_of("leaky_relu", "identity"),
    "model.fpn.extra": _one_of("conv", "pool"),
    "model.box_head.pooling": _AT_LEAST_ONE,
    "model.box_head.hidden_channels": _POSITIVE,
    "model.mask_head.kind": _one_of(*MASK_HEAD_KINDS),
    "model.mask_head.hidden_channels": _POSITIVE,
    "model.mask_head.norm_rois": _one_of(*MASK_NORM_ROIS),
    "model.mask_head.coarse_hidden_channels": _POSITIVE,
    "model.mask_head.coarse_roi_size": ((lambda value: value > 0 and value % 2 == 0), "even"),
    "model.mask_head.point_channels": _POSITIVE,
    "model.mask_head.num_point_layers": _AT_LEAST_ONE,
    "model.semantic_head.kind": _one_of(*SEMANTIC_HEAD_KINDS),
    "model.semantic_head.first_level": ((lambda value: 0 <= value <= 3), "0 (p2) to 3 (p5)"),
    "model.semantic_head.hidden_channels": _POSITIVE,
    "model.semantic_head.pooling_size": _POSITIVE,
    "model.semantic_head.refinement": _one_of(*SEMANTIC_REFINEMENTS),
    "model.semantic_head.point_channels": _POSITIVE,
    "model.semantic_head.num_point_layers": _AT_LEAST_ONE,
    "model.rpn.anchor_scale": _POSITIVE,
    "model.rpn.anchor_ratios": _ALL_POSITIVE,
    "model.rpn.nms_threshold": _FRACTION,
    "model.rpn.positive_iou": _FRACTION,
    "model.rpn.negative_iou": _FRACTION,
    "model.rpn.num_samples": _POSITIVE,
    "model.rpn.positive_fraction": _FRACTION,
    "model.rpn.box_loss_beta": _NOT_NEGATIVE,
    "model.rpn.anchor_offset": _FRACTION,
    "model.roi.sampler": _one_of("seamless", "aligned"),
    "model.roi.num_levels": _AT_LEAST_ONE,
    "model.roi.level_epsilon": _NOT_NEGATIVE,
    "model.roi.size": _POSITIVE,
    "model.roi.mask_size": _NOT_NEGATIVE,
    "model.box.positive_iou": _FRACTION,
    "model.box.box_loss_beta": _NOT_NEGATIVE,
    "model.box.num_samples": _POSITIVE,
    "model.box.positive_fraction": _FRACTION,
    "model.box.score_threshold": _FRACTION,
    "model.box.nms_threshold": _FRACTION,
    "model.box.max_detections": _POSITIVE,
    "model.points.num_train_points": _POSITIVE,
    "model.points.train_points": _one_of("drawn", "grid"),
    "model.points.oversample_ratio": _AT_LEAST_ONE,
    "model.points.importance_fraction": _FRACTION,
    "model.points.subdivision_points": _POSITIVE,
    "model.points.start_size": _NOT_NEGATIVE,
    "model.points.output_size": _POSITIVE,
    "model.semantic.loss": _one_of("hard_pixels", "valid_mean"),
    "model.semantic.things": _one_of("classes", "merged"),
    "model.semantic.hard_pixel_fraction": _POSITIVE_FRACTION,
    "model.semantic.hard_point_fraction": _POSITIVE_FRACTION,
    "model.semantic.num_train_points": _NOT_NEGATIVE,
    "model.semantic.oversample_ratio": _AT_LEAST_ONE,
    "model.semantic.importance_fraction": _FRACTION,
    "model.semantic.subdivision_points": _POSITIVE,
    "model.fusion.size": _one_of("original", "network"),
    "model.fusion.score_threshold": _FRACTION,
    "model.fusion.overlap_threshold": _FRACTION,
    "model.fusion.stuff_area_fraction": _FRACTION,
    "model.fusion.stuff_area_pixels": _NOT_NEGATIVE,
    "model.fusion.mask_threshold": _FRACTION,
    "model.fusion.semantic_things": _one_of("crowd", "void"),
    "model.pixel_std": _ALL_POSITIVE,
    "data.shortest_side_pixels": _POSITIVE,
    "data.longest_side_pixels": _POSITIVE,
    "data.scale_range": (
        lambda value: 0 < value[0] <= value[1],
        "two numbers, 0 < first <= second",
    ),
    "data.scale_step_pixels": _NOT_NEGATIVE,
    "data.flip_probability": _FRACTION,
    "data.crop_max_class_fraction": _POSITIVE_FRACTION,
    "data.color_strength": ((lambda value: 0 <= value < 1), "in [0, 1)"),
    "data.batch_size": _POSITIVE,
    "data.num_workers": _NOT_NEGATIVE,
    "optimizer.lr": _POSITIVE,
    "optimizer.lr_multipliers": (
        (lambda value: all(factor > 0 for factor in value.values())),
        "greater than 0 for every part",
    ),
    "optimizer.momentum": ((lambda value: 0 <= value < 1), "in [0, 1)"),
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.norm_weight_decay": _NOT_NEGATIVE,
    "optimizer.clip_grad_norm": _NOT_NEGATIVE,
    "optimizer.accumulation_steps": _AT_LEAST_ONE,
    "optimizer.kind": _one_of("sgd", "adamw"),
    "schedule.kind": _one_of("multistep", "poly", "cosine"),
    "schedule.milestones": (
        lambda value: list(value) == sorted(set(value)) and all(step > 0 for step in value),
        "ascending steps",
    ),
    "schedule.gamma": _POSITIVE_FRACTION,
    "schedule.power": _POSITIVE,
    "schedule.warmup_steps": _NOT_NEGATIVE,
    "schedule.warmup_factor": _POSITIVE_FRACTION,
    "training.steps": _POSITIVE,
    "training.max_minutes": _NOT_NEGATIVE,
    "training.amp": _one_of("none", "bf16", "fp16"),
    "training.log_interval_steps": _POSITIVE,
    "training.checkpoint_interval_steps": _POSITIVE,
    "training.evaluation_interval_steps": _NOT_NEGATIVE,
    "training.num_example_pictures": _NOT_NEGATIVE,
    "cluster.num_workers": _AT_LEAST_ONE,
    "cluster.cpus_per_worker": _AT_LEAST_ONE,
    "cluster.max_failures": _NOT_NEGATIVE,
    "cluster.num_checkpoints_kept": _AT_LEAST_ONE,
}


def validate(config: Config, source: str) -> None:
    """Raises ValueError, naming `source` and the key, for the first value out of range."""
    for key, (is_valid, allowed) in _RULES.items():
        value = reduce(getattr, key.split("."), config)
        if not is_valid(value):
            raise ValueError(f"{source}: '{key}' must be {allowed}; got {value!r}")
    _check_pairs(config, source)
    _check_loss_weights(config, source)


def _check_pairs(config: Config, source: str) -> None:
    rpn, data, optimizer = config.model.rpn, config.data, config.optimizer
    _check_norms(config, source)
    _check_deeplab(config, source)
    if config.model.semantic.things == "merged" and config.model.fusion.semantic_things != "void":
        raise ValueError(
            f"{source}: 'model.semantic.things: merged' does not tell things apart, so "
            "'model.fusion.semantic_things' must be 'void'"
        )
    initial = config.initial_weights
    if initial.random_parts and initial.file is None:
        raise ValueError(
            f"{source}: 'initial_weights.random_parts' says what 'initial_weights.file' does not "
            f"give, but there is no file; got {list(initial.random_parts)}; name a weights file"
        )
    if initial.file is not None and config.model.backbone.weights is not None:
        raise ValueError(
            f"{source}: 'initial_weights.file' ({initial.file}) and 'model.backbone.weights' "
            f"({config.model.backbone.weights}) both fill the backbone; set one of them to null"
        )
    if rpn.negative_iou > rpn.positive_iou:
        raise ValueError(
            f"{source}: 'model.rpn.negative_iou' must be at most 'model.rpn.positive_iou' "
            f"({rpn.positive_iou}); got {rpn.negative_iou}"
        )
    if data.longest_side_pixels < data.shortest_side_pixels:
        raise ValueError(
            f"{source}: 'data.longest_side_pixels' must be at least 'data.shortest_side_pixels' "
            f"({data.shortest_side_pixels}); got {data.longest_side_pixels}"
        )
    if data.crop_size_pixels is not None and min(data.crop_size_pixels) < 1:
        raise ValueError(
            f"{source}: 'data.crop_size_pixels' must be two positive numbers (height, width) or "
            f"null; got {data.crop_size_pixels}"
        )
    if data.crop_max_class_fraction < 1 and data.crop_size_pixels is None:
        raise ValueError(
            f"{source}: 'data.crop_max_class_fraction' ({data.crop_max_class_fraction}) chooses "
            "among crops, but 'data.crop_size_pixels' is null; give a size"
        )
    if data.batch_size % optimizer.accumulation_steps:
        raise ValueError(
            f"{source}: 'data.batch_size' ({data.batch_size}) must be a multiple of "
            f"'optimizer.accumulation_steps' ({optimizer.accumulation_steps})"
        )
    cluster = config.cluster
    if cluster.min_workers is not None and not 1 <= cluster.min_workers <= cluster.num_workers:
        raise ValueError(
            f"{source}: 'cluster.min_workers' must be 1 to 'cluster.num_workers' "
            f"({cluster.num_workers}) or null; got {cluster.min_workers}"
        )
    if optimizer.kind == "sgd" and optimizer.nesterov and optimizer.momentum == 0:
        raise ValueError(
            f"{source}: 'optimizer.nesterov' needs 'optimizer.momentum' above 0; got 0; "
            "set nesterov to false"
        )


def _check_deeplab(config: Config, source: str) -> None:
    model = config.model
    is_deeplab = model.semantic_head.kind == "deeplab_v3"
    if is_deeplab and model.branches != "semantic":
        raise ValueError(
            f"{source}: 'model.semantic_head.kind: deeplab_v3' has no pyramid for other branches; "
            f"'model.branches' must be 'semantic'; got '{model.branches}'"
        )
    if model.backbone.output_stride < 32 and not is_deeplab:
        raise ValueError(
            f"{source}: 'model.backbone.output_stride' must be 32 for a pyramid; got "
            f"{model.backbone.output_stride}; finer ones are for 'model.semantic_head.kind: "
            "deeplab_v3'"
        )


def _check_norms(config: Config, source: str) -> None:
    model = config.model
    norms = {
        "norm_act": model.norm_act,
        "head_norm_act": model.head_norm_act,
        "semantic_head.norm_act": model.semantic_head.norm_act,
    }
    for part, norm in norms.items():
        if norm.slope == 0 and norm.kind in _NORMS_WITH_SLOPE:
            raise ValueError(
                f"{source}: 'model.{part}.slope' must be greater than 0 for '{norm.kind}', which "
                "inverts its activation; got 0"
            )


def _check_loss_weights(config: Config, source: str) -> None:
    expected = loss_names(config.model)
    missing = [name for name in expected if name not in config.loss_weights]
    extra = [name for name in config.loss_weights if name not in expected]
    if missing or extra:
        raise ValueError(
            f"{source}: 'loss_weights' must name the losses of this network: "
            f"{', '.join(expected)}; missing: {', '.join(missing) or 'none'}; "
            f"extra: {', '.join(extra) or 'none'}"
        )
    negative = {name: weight for name, weight in config.loss_weights.items() if weight < 0}
    if negative:
        raise ValueError(f"{source}: 'loss_weights' must be 0 or more; got {negative}")
