"""What stands in a drawn street: items with one label each, placed on the ground together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from seamless_pr.street_scenes.camera import NEAR_PLANE_METRES, Array, Camera
from seamless_pr.street_scenes.solids import Color, Patch, to_fixed


@dataclass(frozen=True)
class Sprite:
    """A leafy crown to be pasted: which one, where (pixels), and its colour."""

    index: int
    center: tuple[float, float]
    size: tuple[float, float]
    color: Color
    mirrored: bool


@dataclass
class Item:
    """One labelled thing or stretch of stuff as it is seen: what is painted, what is labelled.

    Attributes:
        label: Cityscapes name; with the ending `group` for a crowd.
        patches: painted in order.
        sprites: painted after the patches.
        outline: patches whose silhouette is the label, where it differs from `patches`.
        depth: metres, for haze.
    """

    label: str
    patches: list[Patch] = field(default_factory=list)
    sprites: list[Sprite] = field(default_factory=list)
    outline: list[Patch] | None = None
    depth: float = 0.0


@dataclass
class Placement:
    """Items that stand together (a bicycle and its rider), and the ground they take.

    Attributes:
        items: far ones first.
        footprint: x0, x1, z0, z1 in metres.
        shadow_vertices: [V, 3] world points whose shadow falls on the ground; None for none.
    """

    items: list[Item]
    footprint: tuple[float, float, float, float]
    shadow_vertices: Array | None = None


def polygon_patch(
    camera: Camera, points: Array, color: Color, *, solid: bool = True
) -> list[Patch]:
    """A world polygon [M, 3] as no or one patch."""
    pixels = camera.project_polygon(np.asarray(points, dtype=np.float64))
    if pixels is None:
        return []
    return [Patch((to_fixed(pixels),), color, solid=solid)]


def quads_patch(camera: Camera, quads: Array, color: Color, min_pixels: float) -> list[Patch]:
    """Many world quads [Q, 4, 3] of one colour; those too small or too near are left out."""
    if not len(quads):
        return []
    in_camera = camera.to_camera(quads)
    pixels = camera.to_image(in_camera)
    extent = pixels.max(1) - pixels.min(1)
    height, width = camera.size
    kept = (in_camera[..., 2] > NEAR_PLANE_METRES).all(1) & (extent.min(1) > min_pixels)
    kept &= (pixels[..., 0].max(1) > 0) & (pixels[..., 0].min(1) < width)
    kept &= (pixels[..., 1].max(1) > 0) & (pixels[..., 1].min(1) < height)
    if not kept.any():
        return []
    return [Patch(tuple(to_fixed(pixels[kept])), color, solid=False)]
