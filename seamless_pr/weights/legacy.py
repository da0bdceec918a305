"""Names of weights in files of version 0.1, whose networks were put together otherwise."""

from __future__ import annotations

from collections.abc import Iterable

UPDATE_COMMAND = "python tools/convert_weights.py update OLD NEW"

# First names of weights: those of version 0.1 -> ours.
_PARTS = {
    "backbone": "trunk.backbone",
    "fpn": "trunk.neck",
    "rpn_head": "instances.rpn_head",
    "box_head": "instances.box_head",
    "point_head": "instances.masks.point_head",
    "semantic_head": "semantics.head",
    "semantic_point_head": "semantics.point_head",
}
# Two networks that share nothing hold the same parts once more under these.
_NETWORKS = ("instance_net", "semantic_net")


def has_old_names(names: Iterable[str]) -> bool:
    """Whether these are all the weights of a network of version 0.1."""
    parts = {_split(name)[1] for name in names}
    return "backbone" in parts and parts <= {*_PARTS, "mask_head"}


def check_names(names: Iterable[str], source: str) -> None:
    """Refuses weights of version 0.1.

    Raises:
        ValueError: names the source, and the command that converts it.
    """
    if has_old_names(names):
        raise ValueError(
            f"{source} holds weights under the names of version 0.1; convert it: {UPDATE_COMMAND}"
        )


def new_name(old_name: str, *, renders_masks: bool) -> str:
    """Our name of a weight, or of a part of a network, of version 0.1.

    Args:
        old_name: such as `fpn.lateral.0.conv.weight` or `fpn`.
        renders_masks: whether PointRend renders the masks of its network.

    Raises:
        ValueError: version 0.1 had no such part.
    """
    network, part, rest = _split(old_name)
    masks = "instances.masks.coarse_head" if renders_masks else "instances.masks.head"
    new_part = {**_PARTS, "mask_head": masks}.get(part)
    if new_part is None:
        raise ValueError(f"'{old_name}' is no weight of a network of version 0.1")
    return f"{network}{new_part}{rest}"


def _split(name: str) -> tuple[str, str, str]:
    """`semantic_net.fpn.lateral` -> `semantic_net.`, `fpn`, `.lateral`."""
    network, _, inner = name.partition(".")
    prefix = f"{network}." if network in _NETWORKS else ""
    part, dot, rest = (inner if prefix else name).partition(".")
    return prefix, part, dot + rest
