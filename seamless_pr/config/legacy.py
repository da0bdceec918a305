"""Configs of version 0.1, whose layout was another: refused by name, and converted on demand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from seamless_pr.weights.legacy import UPDATE_COMMAND, new_name

# Groups and values of `model` that only the old layout has.
_OLD_KEYS = {
    *("branches", "fpn", "rpn_head", "box_head", "mask_head", "semantic_head"),
    *("rpn", "roi", "box", "points", "semantic", "global_loss_counts"),
}
_REPLACED_AS_A_WHOLE = ("loss_weights", "options", "lr_multipliers")
# Old keys of a group that only some kinds have -> the kinds that kept them.
_BATCH_NORMS = ("inplace_abn", "abn", "inplace_abn_package", "batch_norm")
_NORM_KEYS = {
    "eps": (*_BATCH_NORMS, "frozen_batch_norm", "group_norm"),
    "momentum": _BATCH_NORMS,
    "sync": _BATCH_NORMS,
    "num_groups": ("group_norm",),
}
_OPTIMIZER_KEYS = {"momentum": ("sgd",), "nesterov": ("sgd",)}
_SCHEDULE_KEYS = {"milestones": ("multistep",), "gamma": ("multistep",), "power": ("poly",)}
_SEMANTIC_KINDS = {"mini_dl": "mini_dl", "fpn": "panoptic_fpn", "deeplab_v3": "deeplab"}
_SEMANTIC_KEYS = {"pooling_size": ("mini_dl", "deeplab"), "first_level": ("panoptic_fpn",)}
# Old keys of the point layers -> ours.
_POINT_LAYERS = {
    "point_channels": "hidden_channels",
    "num_point_layers": "num_layers",
    "coarse_each_layer": "coarse_each_layer",
}
_COARSE_LAYERS = {"coarse_hidden_channels": "hidden_channels", "coarse_roi_size": "roi_size"}
_CONV_LAYERS = ("hidden_channels", "norm_rois")
_SEMANTIC_POINTS = (
    *("hard_point_fraction", "num_train_points", "oversample_ratio"),
    *("importance_fraction", "subdivision_points"),
)


@dataclass(frozen=True)
class OldKinds:
    """What decides which keys of an old config have a meaning; defaults of version 0.1.

    Attributes:
        branches: "both", "instance", "semantic" or "separate".
        mask_head: "conv" or "point_rend".
        semantic_head: "mini_dl", "fpn" or "deeplab_v3".
        refinement: of semantics, "none" or "point_rend".
        norm_act: of the backbone.
        head_norm_act: of the other parts; "same": as in the backbone.
        semantic_norm_act: of the semantic head; "same": as in the other parts.
        optimizer: "sgd" or "adamw".
        schedule: "multistep", "poly" or "cosine".
    """

    branches: str = "both"
    mask_head: str = "point_rend"
    semantic_head: str = "mini_dl"
    refinement: str = "point_rend"
    norm_act: str = "inplace_abn"
    head_norm_act: str = "same"
    semantic_norm_act: str = "same"
    optimizer: str = "sgd"
    schedule: str = "multistep"

    @property
    def renders_masks(self) -> bool:
        return self.mask_head == "point_rend"

    @property
    def refines(self) -> bool:
        return self.refinement == "point_rend"


def is_old(values: Mapping[str, Any]) -> bool:
    """Whether these values are of the layout of version 0.1."""
    model = values.get("model")
    if not isinstance(model, Mapping) or "kind" in model:
        return False
    same = _group(model, "head_norm_act").get("kind") == "same"
    return same or not _OLD_KEYS.isdisjoint(model)


def check_layout(values: Mapping[str, Any], source: str) -> None:
    """Refuses values of an older layout.

    Raises:
        ValueError: names the source, and the command that converts it.
    """
    if is_old(values):
        raise ValueError(
            f"{source} has the layout of version 0.1 ('model' without 'kind'); convert it: "
            f"{UPDATE_COMMAND}"
        )


def converted(values: Mapping[str, Any], kinds: OldKinds | None = None) -> dict[str, Any]:
    """Values of the layout of version 0.1 in ours.

    Settings that had no effect on a network of its kinds are left out.

    Args:
        values: nested mappings; what they do not give keeps its default, which is the same in both
            layouts.
        kinds: what the kinds are where the values do not say it; None: the old defaults.

    Raises:
        ValueError: a part of the network that version 0.1 did not have.
    """
    kinds = old_kinds(values, kinds or OldKinds())
    model, new = _group(values, "model"), dict(values)
    new["model"] = _model(model, kinds)
    if "optimizer" in values:
        optimizer = _kept(_group(values, "optimizer"), _OPTIMIZER_KEYS, kinds.optimizer)
        if "lr_multipliers" in optimizer:
            optimizer["lr_multipliers"] = {
                new_name(part, renders_masks=kinds.renders_masks): factor
                for part, factor in optimizer["lr_multipliers"].items()
            }
        new["optimizer"] = optimizer
    if "schedule" in values:
        new["schedule"] = _kept(_group(values, "schedule"), _SCHEDULE_KEYS, kinds.schedule)
    if parts := _group(values, "initial_weights").get("random_parts"):
        renamed = [new_name(part, renders_masks=kinds.renders_masks) for part in parts]
        new["initial_weights"] = {**values["initial_weights"], "random_parts": renamed}
    if "global_loss_counts" in model:
        counts = {"global_loss_counts": model["global_loss_counts"]}
        new["training"] = {**_group(values, "training"), **counts}
    return new


def old_kinds(values: Mapping[str, Any], default: OldKinds) -> OldKinds:
    """The kinds that old values name; those of `default` where they name none."""
    model = _group(values, "model")
    semantic_head = _group(model, "semantic_head")
    given = {
        "branches": model.get("branches"),
        "mask_head": _group(model, "mask_head").get("kind"),
        "semantic_head": semantic_head.get("kind"),
        "refinement": semantic_head.get("refinement"),
        "norm_act": _group(model, "norm_act").get("kind"),
        "head_norm_act": _group(model, "head_norm_act").get("kind"),
        "semantic_norm_act": _group(semantic_head, "norm_act").get("kind"),
        "optimizer": _group(values, "optimizer").get("kind"),
        "schedule": _group(values, "schedule").get("kind"),
    }
    return OldKinds(**{**vars(default), **{name: kind for name, kind in given.items() if kind}})


def kinds_of_new(values: Mapping[str, Any]) -> OldKinds:
    """The old kinds of values in our layout: of the base that an old config changes."""
    model = _group(values, "model")
    instances, semantics = _group(model, "instances"), _group(model, "semantics")
    old_semantics = {new: old for old, new in _SEMANTIC_KINDS.items()}
    names = {(False, True): "semantic", (True, False): "instance"}
    branches = names.get((bool(instances), bool(semantics)), "both")
    return OldKinds(
        "separate" if model.get("kind") == "separate" else branches,
        "conv" if instances.get("kind") == "mask_rcnn" else "point_rend",
        old_semantics.get(semantics.get("kind", ""), "mini_dl"),
        "none" if semantics.get("points") is None else "point_rend",
        _group(model, "norm_act").get("kind", "inplace_abn"),
        _group(model, "head_norm_act").get("kind", "same"),
        _group(semantics, "norm_act").get("kind", "same"),
        _group(values, "optimizer").get("kind", "sgd"),
        _group(values, "schedule").get("kind", "multistep"),
    )


def laid_over(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Mappings merged group by group, later ones win: how version 0.1 laid a file over its base."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            is_group = isinstance(value, Mapping) and key not in _REPLACED_AS_A_WHOLE
            merged[key] = laid_over([_group(merged, key), value]) if is_group else value
    return merged


def _model(model: Mapping[str, Any], kinds: OldKinds) -> dict[str, Any]:
    known = {*_OLD_KEYS, *("backbone", "norm_act", "head_norm_act", "fusion")}
    new: dict[str, Any] = {
        "kind": "separate" if kinds.branches == "separate" else "two_branch",
        **{key: value for key, value in model.items() if key not in known},
    }
    if "backbone" in model:
        new["backbone"] = {"kind": "timm", **model["backbone"]}
    if "norm_act" in model:
        new["norm_act"] = _norm_act(model["norm_act"], kinds.norm_act)
    if "head_norm_act" in model:
        new["head_norm_act"] = _norm_act(model["head_norm_act"], kinds.head_norm_act)
    if kinds.semantic_head == "deeplab_v3":
        new["neck"] = None
    elif "fpn" in model:
        new["neck"] = {"kind": "fpn", **model["fpn"]}
    new["instances"] = None if kinds.branches == "semantic" else _instances(model, kinds)
    new["semantics"] = None if kinds.branches == "instance" else _semantics(model, kinds)
    if "fusion" in model:
        new["fusion"] = model["fusion"]
    return new


def _norm_act(values: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    return None if kind == "same" else _kept(values, _NORM_KEYS, kind)


def _instances(model: Mapping[str, Any], kinds: OldKinds) -> dict[str, Any]:
    roi = dict(_group(model, "roi"))
    mask_size = roi.pop("mask_size", None)
    new = {
        "rpn": {**_group(model, "rpn_head"), **_group(model, "rpn")},
        "roi": roi,
        "box": {**_group(model, "box_head"), **_group(model, "box")},
    }
    head = {key: v for key, v in _group(model, "mask_head").items() if key != "kind"}
    of_points = {key: head.pop(key) for key in _POINT_LAYERS if key in head}
    of_coarse = {key: head.pop(key) for key in _COARSE_LAYERS if key in head}
    if not kinds.renders_masks:
        if mask_size is not None:
            # 0 was the box head's map.
            head["roi_size"] = None if str(mask_size) == "0" else mask_size
        return {"kind": "mask_rcnn", **new, "mask": head}
    for key in _CONV_LAYERS:
        head.pop(key, None)
    return {
        "kind": "point_rend",
        **new,
        "mask": {**_renamed(of_coarse, _COARSE_LAYERS), **head},
        "points": {**_renamed(of_points, _POINT_LAYERS), **_group(model, "points")},
    }


def _semantics(model: Mapping[str, Any], kinds: OldKinds) -> dict[str, Any]:
    kind = _SEMANTIC_KINDS[kinds.semantic_head]
    head, numbers = _group(model, "semantic_head"), _group(model, "semantic")
    own = ("kind", "refinement", "norm_act", *_POINT_LAYERS)
    widths = {key: value for key, value in head.items() if key not in own}
    new = {"kind": kind, **_kept(widths, _SEMANTIC_KEYS, kind)}
    if "norm_act" in head:
        new["norm_act"] = _norm_act(head["norm_act"], kinds.semantic_norm_act)
    new |= {key: value for key, value in numbers.items() if key not in _SEMANTIC_POINTS}
    if not kinds.refines:
        return {**new, "points": None}
    # Nothing was upsampled that points refine.
    new.pop("upsample_to_input", None)
    points = {key: numbers[key] for key in _SEMANTIC_POINTS if key in numbers}
    return {**new, "points": {**_renamed(head, _POINT_LAYERS), **points}}


def _group(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    group = values.get(name)
    return group if isinstance(group, Mapping) else {}


def _kept(
    values: Mapping[str, Any], kinds_of_key: Mapping[str, tuple[str, ...]], kind: str
) -> dict[str, Any]:
    """The keys that mean something for this kind, with the kind."""
    kept = {key: v for key, v in values.items() if kind in kinds_of_key.get(key, (kind,))}
    return {**kept, "kind": kind}


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names[key]: value for key, value in values.items() if key in names}
