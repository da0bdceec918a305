"""Configs of the released Seamless code (INI), as values of our config."""

from __future__ import annotations

import ast
import configparser
from collections.abc import Mapping
from typing import Any

from seamless_pr.datasets import checked_values as checked
from seamless_pr.structures.faults import quoted

_NORMS: dict[str, dict[str, Any]] = {
    "syncbn": {"kind": "inplace_abn", "sync": True},
    "bn": {"kind": "inplace_abn", "sync": False},
    "gn": {"kind": "group_norm"},
}
_CONFIG_KEYS = {
    ("body", "body"): "model.backbone.name",
    ("body", "activation_slope"): "model.norm_act.slope",
    ("body", "num_frozen"): "model.backbone.num_frozen",
    ("fpn", "out_channels"): "model.neck.channels",
    ("fpn", "extra_scales"): "model.neck.num_extra_levels",
    ("rpn", "hidden_channels"): "model.instances.rpn.hidden_channels",
    ("rpn", "anchor_ratios"): "model.instances.rpn.anchor_ratios",
    ("rpn", "anchor_scale"): "model.instances.rpn.anchor_scale",
    ("rpn", "nms_threshold"): "model.instances.rpn.nms_threshold",
    ("rpn", "num_pre_nms_train"): "model.instances.rpn.pre_nms_train",
    ("rpn", "num_post_nms_train"): "model.instances.rpn.post_nms_train",
    ("rpn", "num_pre_nms_val"): "model.instances.rpn.pre_nms_test",
    ("rpn", "num_post_nms_val"): "model.instances.rpn.post_nms_test",
    ("rpn", "num_samples"): "model.instances.rpn.num_samples",
    ("rpn", "pos_ratio"): "model.instances.rpn.positive_fraction",
    ("rpn", "pos_threshold"): "model.instances.rpn.positive_iou",
    ("rpn", "neg_threshold"): "model.instances.rpn.negative_iou",
    ("rpn", "void_threshold"): "model.instances.rpn.crowd_overlap",
    ("roi", "num_samples"): "model.instances.box.num_samples",
    ("roi", "pos_ratio"): "model.instances.box.positive_fraction",
    ("roi", "pos_threshold"): "model.instances.box.positive_iou",
    ("roi", "void_threshold"): "model.instances.box.crowd_overlap",
    ("roi", "nms_threshold"): "model.instances.box.nms_threshold",
    ("roi", "score_threshold"): "model.instances.box.score_threshold",
    ("roi", "max_predictions"): "model.instances.box.max_detections",
    ("roi", "fpn_levels"): "model.instances.roi.num_levels",
    ("roi", "fpn_canonical_scale"): "model.instances.roi.canonical_size_pixels",
    ("roi", "fpn_canonical_level"): "model.instances.roi.canonical_level",
    ("sem", "ohem"): "model.semantics.hard_pixel_fraction",
    ("general", "score_threshold"): "model.fusion.score_threshold",
    ("general", "overlap_threshold"): "model.fusion.overlap_threshold",
    ("general", "min_stuff_area"): "model.fusion.stuff_area_pixels",
    ("dataloader", "shortest_size"): "data.shortest_side_pixels",
    ("dataloader", "longest_max_size"): "data.longest_side_pixels",
    ("dataloader", "rgb_mean"): "model.pixel_mean",
    ("dataloader", "rgb_std"): "model.pixel_std",
}
# What the network of this package can be and no more: (section, key) -> accepted values.
_SUPPORTED: dict[tuple[str, str], tuple[Any, ...]] = {
    ("body", "normalization_mode"): tuple(_NORMS),
    ("body", "activation"): ("leaky_relu",),
    ("fpn", "interpolation"): ("nearest",),
    ("fpn", "inputs"): (["mod2", "mod3", "mod4", "mod5"],),
    ("rpn", "min_size"): (0,),
    ("rpn", "fpn_min_level"): (0,),
    ("roi", "roi_size"): ((14, 14),),
    ("roi", "fpn_min_level"): (0,),
    ("roi", "neg_threshold_hi"): (0.5,),
    ("roi", "neg_threshold_lo"): (0,),
    ("roi", "sigma"): (1,),
    ("roi", "bbx_reg_weights"): ((10, 10, 5, 5),),
    ("roi", "void_is_background"): ("no",),
    ("sem", "fpn_min_level"): (0,),
    ("sem", "fpn_levels"): (4,),
}


def config_values(text: str, source: str) -> dict[str, Any]:
    """Settings of a seamseg config as nested mappings with the keys of our config.

    The released code merges its default file into what it stores; a config.ini alone lacks those
    values, and they stay at our defaults, which are the same for its Cityscapes network.

    Args:
        text: INI.
        source: names it in messages.

    Raises:
        ValueError: not INI, or a network that this package cannot build.
    """
    parser = configparser.ConfigParser(allow_no_value=True, interpolation=None)
    try:
        parser.read_string(text)
        raw = {section: dict(parser[section]) for section in parser.sections()}
    except configparser.Error as error:
        raise ValueError(f"{source} is not an INI file: {error}") from error
    _check_supported(raw, source)
    values: dict[str, Any] = {}
    for (section, key), ours in _CONFIG_KEYS.items():
        given = raw.get(section, {}).get(key)
        if given:
            _put(values, ours, _literal(given))
    mode = raw.get("body", {}).get("normalization_mode")
    if mode:
        for key, value in _NORMS[_literal(mode)].items():
            _put(values, f"model.norm_act.{key}", value)
    if sigma := raw.get("rpn", {}).get("sigma"):
        # Smooth L1 with sigma turns linear at 1 / sigma^2.
        number = checked.number(_literal(sigma))
        if not number:
            raise ValueError(f"{source}: [rpn] sigma must be a number above 0; got {quoted(sigma)}")
        _put(values, "model.instances.rpn.box_loss_beta", 1 / number**2)
    if window := raw.get("sem", {}).get("pooling_size"):
        sides = _literal(window)
        if not isinstance(sides, tuple) or not sides:
            raise ValueError(
                f"{source}: [sem] pooling_size must be (height, width); got {quoted(window)}"
            )
        _put(values, "model.semantics.pooling_size", sides[0])
    return values


def _check_supported(raw: Mapping[str, Mapping[str, str | None]], source: str) -> None:
    for (section, key), accepted in _SUPPORTED.items():
        given = raw.get(section, {}).get(key)
        if given and _literal(given) not in accepted:
            raise ValueError(
                f"{source}: [{section}] {key} = {given} is not supported; expected "
                f"{' or '.join(map(str, accepted))}; convert a snapshot trained with that"
            )


def _literal(text: str) -> Any:
    """A Python literal; any other text is itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _put(values: dict[str, Any], dotted: str, value: Any) -> None:
    *groups, leaf = dotted.split(".")
    for group in groups:
        values = values.setdefault(group, {})
    values[leaf] = value
