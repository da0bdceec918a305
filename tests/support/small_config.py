"""Configs with the keys that every config must give, and no more."""

from __future__ import annotations

from typing import Any

PATHS = {"train": {"json": "t.json", "images": "t"}, "val": {"json": "v.json", "images": "v"}}
LOSSES = (
    *("rpn_objectness", "rpn_box", "box_class", "box_delta", "mask_coarse", "mask_point"),
    *("semantic", "semantic_point"),
)


def model(**groups: Any) -> dict[str, Any]:
    """A network of both branches, with PointRend in both."""
    instances = {"kind": "point_rend", **groups.pop("instances", {})}
    semantics = {"kind": "mini_dl", "points": {}, **groups.pop("semantics", {})}
    return {"kind": "two_branch", "instances": instances, "semantics": semantics, **groups}


def smallest(**sections: Any) -> dict[str, Any]:
    """The values of a config; sections that are given replace its own."""
    return {
        "model": model(),
        "data": PATHS,
        "loss_weights": dict.fromkeys(LOSSES, 1.0),
        **sections,
    }
