"""Trees and hedges: trunks of capsules, crowns of leafy sprites."""

from __future__ import annotations

import cv2
import numpy as np

from seamless_pr.street_scenes.camera import Array, Camera
from seamless_pr.street_scenes.items import Item, Placement, Sprite
from seamless_pr.street_scenes.people import pick
from seamless_pr.street_scenes.solids import Color, Light, Model, place_model
from seamless_pr.street_scenes.textures import NUM_LEAF_SPRITES, SPRITE, load_textures


def tree(
    rng: np.random.Generator, x: float, z: float, green: Color, camera: Camera, light: Light
) -> Placement:
    """A street tree: trunk, branches and two to four leafy crowns; all of it is vegetation."""
    height = float(rng.uniform(5, 11))
    crown = height * float(rng.uniform(0.55, 0.72))
    clear = height - crown
    radius = float(rng.uniform(0.1, 0.22))
    bark = pick(rng, ((86, 72, 58), (104, 96, 84), (66, 56, 48)), 6)
    model = Model()
    model.capsule((0, 0, 0), (0, 0, clear + 0.3 * crown), radius, radius * 0.7, bark)
    for side in (-1, 1):
        model.capsule(
            (0, 0, clear * 0.95),
            (0, side * 0.22 * crown, clear + 0.4 * crown),
            radius * 0.5,
            radius * 0.25,
            bark,
        )
    item = Item("vegetation", place_model(model, camera, light, x, z, 0.0), depth=z)
    for _ in range(rng.integers(1, 4)):
        center = np.asarray(
            [x + rng.normal(0, 0.12) * crown, clear + crown * rng.uniform(0.4, 0.62), z]
        )
        spread = crown * float(rng.uniform(0.75, 1.1))
        sprite = leaf_sprite(
            rng, center, (spread, crown * rng.uniform(0.8, 1.0)), green, camera, light
        )
        item.sprites += sprite
    reach = 0.35 * crown
    around = [
        (x + reach * np.cos(a), clear + crown * h, z + reach * np.sin(a))
        for a in np.linspace(0, 6.28, 7)
        for h in (0.15, 0.85)
    ]
    footprint = (x - 0.3, x + 0.3, z - 0.3, z + 0.3)
    return Placement([item], footprint, np.asarray(around))


def hedge(
    rng: np.random.Generator,
    x: float,
    span_z: tuple[float, float],
    height: float,
    green: Color,
    camera: Camera,
    light: Light,
) -> Placement:
    """A row of bushes along the street."""
    item = Item("vegetation", depth=(span_z[0] + span_z[1]) / 2)
    for z in np.arange(span_z[1], span_z[0], -max(0.9, 0.7 * height)):
        center = np.asarray([x + rng.normal(0, 0.15), height * 0.45, z])
        size = (height * rng.uniform(1.3, 1.9), height * rng.uniform(0.95, 1.25))
        item.sprites += leaf_sprite(rng, center, size, green, camera, light)
    return Placement([item], (x - 0.5, x + 0.5, *span_z))


def leaf_sprite(
    rng: np.random.Generator,
    center: Array,
    size: tuple[float, float],
    green: Color,
    camera: Camera,
    light: Light,
) -> list[Sprite]:
    """A crown of `size` (width, height) metres around a world point; empty if behind the viewer."""
    in_camera = camera.to_camera(center)
    if in_camera[2] < 1.5:
        return []
    pixel = camera.to_image(in_camera)
    scale = camera.focal / in_camera[2]
    color = np.asarray(green) + rng.normal(0, 9, 3)
    color = color * (light.ambient + 0.6 * light.diffuse) * np.asarray(light.tint)
    red, green_value, blue = np.clip(color, 5, 250)
    return [
        Sprite(
            int(rng.integers(NUM_LEAF_SPRITES)),
            (float(pixel[0]), float(pixel[1])),
            (size[0] * scale, size[1] * scale),
            (float(red), float(green_value), float(blue)),
            bool(rng.random() < 0.5),
        )
    ]


def warp_sprite(sprite: Sprite, size: tuple[int, int]) -> tuple[slice, slice, Array, Array] | None:
    """Scales a sprite to its place: (rows, columns, alpha uint8, shade uint8), None if unseen."""
    height, width = size
    half_width, half_height = sprite.size[0] / 2 * 1.1, sprite.size[1] / 2 * 1.1
    left, right = (
        int(max(0, sprite.center[0] - half_width)),
        int(min(width, sprite.center[0] + half_width + 2)),
    )
    top, bottom = (
        int(max(0, sprite.center[1] - half_height)),
        int(min(height, sprite.center[1] + half_height + 2)),
    )
    if right - left < 1 or bottom - top < 1:
        return None
    textures = load_textures()
    level = int(
        np.clip(np.floor(np.log2(SPRITE / max(4.0, *sprite.size))), 0, len(textures.leaf_alpha) - 1)
    )
    side = SPRITE >> level
    scale_x, scale_y = 2 * half_width / side, 2 * half_height / side
    offset_x = sprite.center[0] - half_width - left
    offset_y = sprite.center[1] - half_height - top
    if sprite.mirrored:
        matrix = np.asarray([[-scale_x, 0, offset_x + 2 * half_width], [0, scale_y, offset_y]])
    else:
        matrix = np.asarray([[scale_x, 0, offset_x], [0, scale_y, offset_y]])
    shape = (right - left, bottom - top)
    alpha = cv2.warpAffine(textures.leaf_alpha[level][sprite.index], matrix, shape)
    shade = cv2.warpAffine(textures.leaf_shade[level][sprite.index], matrix, shape)
    return slice(top, bottom), slice(left, right), alpha, shade
