"""The image of a laid-out street: sky, ground, shadows, solids, leaves, haze, lens and sensor."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from seamless_pr.street_scenes.camera import Array
from seamless_pr.street_scenes.items import Item
from seamless_pr.street_scenes.layout import Scene
from seamless_pr.street_scenes.solids import Color, paint_patches, shadow_hull
from seamless_pr.street_scenes.textures import TILE, load_textures

GROUND_LABELS = ("road", "sidewalk", "parking", "terrain")


MAX_GROUND_METRES = 400.0


# Crowns of trees at their places, by the id() of the sprite: rows, columns, opacity, brightness.
Crowns = dict[int, tuple[slice, slice, Array, Array] | None]


def paint_image(
    scene: Scene,
    standing: Sequence[Item],
    index_map: Array,
    items: Sequence[Item],
    crowns: Crowns,
    rng: np.random.Generator,
) -> Array:
    image = _paint_sky(scene, rng)
    for item in scene.ground:
        paint_patches(image, item.patches)
    paint_patches(image, scene.marks)
    kept = {id(item) for item in standing}
    ground_x, ground_z = scene.camera.ground_coordinates()
    _shade_ground(scene, image, kept, (ground_x, ground_z), rng)
    for item in standing:
        paint_patches(image, item.patches)
        for sprite in item.sprites:
            _paste_sprite(image, crowns[id(sprite)], sprite.color)
    return _finish(scene, image, index_map, items, ground_z, rng)


def _paint_sky(scene: Scene, rng: np.random.Generator) -> Array:
    height, width = scene.camera.size
    share = np.clip(np.arange(height) / max(1.0, scene.camera.center[1]), 0, 1)[:, None]
    rows = np.asarray(scene.sky[0]) * (1 - share) + np.asarray(scene.sky[1]) * share
    rows = rows[:, None].astype(np.float32)
    # Only what may become sky is worth the clouds.
    limit = int(min(height, scene.camera.center[1] + 0.1 * height))
    upper: Array = np.repeat(rows[:limit], width, 1)
    if scene.cloudiness:
        cloud = load_textures().cloud
        x0, y0 = rng.integers(0, TILE, 2)
        x = (np.arange(width) * (700 / width) + x0).astype(np.int64) % TILE
        y = ((np.arange(limit) / height) ** 0.8 * 900 + y0).astype(np.int64) % TILE
        amount = np.clip((cloud[y][:, x] + 1.1 * scene.cloudiness - 0.55) * 1.5, 0, 1)[..., None]
        white = np.asarray([min(250.0, c + 34) for c in scene.sky[1]], np.float32)
        amount *= 0.375 if scene.cloudiness == 1.0 else 0.75
        upper += amount * (white - upper)
    image = np.empty((height, width, 3), np.uint8)
    image[:limit] = cv2.convertScaleAbs(upper)
    image[limit:] = np.rint(rows[limit:])
    return image


def _shade_ground(
    scene: Scene,
    image: Array,
    kept: set[int],
    ground: tuple[Array, Array],
    rng: np.random.Generator,
) -> None:
    """Roughness of the ground and the shadows that fall on it, in place."""
    camera, light = scene.camera, scene.light
    height, width = camera.size
    top = max(0, int(camera.center[1] - 0.06 * height))
    sun_shadow: Array = np.zeros((height - top, width), np.uint8)
    contact: Array = np.zeros_like(sun_shadow)
    offset = np.asarray([0, top << 4], np.int32)
    for placement in scene.placements:
        if placement.shadow_vertices is None or not any(id(i) in kept for i in placement.items):
            continue
        if light.diffuse > 0.2:
            hull = shadow_hull(placement.shadow_vertices, camera, light.sun, 1.0)
            if hull is not None:
                cv2.fillConvexPoly(sun_shadow, hull - offset, 255, cv2.LINE_AA, 4)
        if placement.items[0].label not in ("vegetation", "building"):
            hull = shadow_hull(placement.shadow_vertices, camera, light.sun, 0.12)
            if hull is not None:
                cv2.fillConvexPoly(contact, hull - offset, 255, cv2.LINE_AA, 4)
    sigma = height / 512
    sun_shadow = cv2.GaussianBlur(sun_shadow, (0, 0), 1.2 * sigma)
    contact = cv2.GaussianBlur(contact, (0, 0), 3.0 * sigma)
    depth = light.diffuse / (light.diffuse + light.ambient)
    factor = 1 - (0.85 * depth / 255) * sun_shadow.astype(np.float32)
    factor *= 1 - np.float32(0.5 / 255) * contact
    noise = _ground_noise(ground[0][top:], ground[1][top:], rng)
    factor *= 1 + noise
    part = image[top:]
    image[top:] = cv2.multiply(part, cv2.merge([factor] * 3), dtype=cv2.CV_8U)


def _ground_noise(world_x: Array, world_z: Array, rng: np.random.Generator) -> Array:
    """Roughness at world coordinates [H, W]; it fades where a pixel spans much ground."""
    world_x = np.clip(world_x, -MAX_GROUND_METRES, MAX_GROUND_METRES)
    world_z = np.minimum(world_z, MAX_GROUND_METRES)
    textures = load_textures()
    x0, z0 = rng.uniform(0, TILE, 2)
    fine_x = world_x * 40 + np.float32(x0)
    fine_z = world_z * 40 + np.float32(z0)
    fine = cv2.remap(textures.grain, fine_x, fine_z, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    coarse_x = world_x * 9 + np.float32(z0)
    coarse_z = world_z * 4 + np.float32(x0)
    coarse = cv2.remap(
        textures.cloud, coarse_x, coarse_z, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
    )
    fade = 1 / (1 + world_z / 9)
    return 0.16 * fade * fine + 0.1 * np.sqrt(fade) * coarse


def _paste_sprite(
    image: Array,
    warped: tuple[slice, slice, Array, Array] | None,
    color: Color,
) -> None:
    if warped is None:
        return
    rows, columns, alpha, shade = warped
    target = image[rows, columns]
    leaf = cv2.merge([cv2.convertScaleAbs(shade, alpha=c / 118.0) for c in color])
    weight = cv2.merge([alpha, alpha, alpha])
    blended = cv2.multiply(leaf, weight, scale=1 / 255) + cv2.multiply(
        target, 255 - weight, scale=1 / 255
    )
    target[...] = blended


def _finish(
    scene: Scene,
    image: Array,
    index_map: Array,
    items: Sequence[Item],
    world_z: Array,
    rng: np.random.Generator,
) -> Array:
    """Haze by distance, surface stains, lens blur, vignetting, exposure and sensor noise."""
    height, width = scene.camera.size
    textures = load_textures()
    depths = np.asarray([-item.depth / scene.haze_metres for item in items], np.float32)
    ground = np.asarray([item.label in GROUND_LABELS for item in items])
    rough = np.asarray([_roughness(item.label) for item in items], np.float32)
    world_z = np.minimum(world_z, MAX_GROUND_METRES) * np.float32(-1 / scene.haze_metres)
    haze = 1 - cv2.exp(np.where(ground[index_map], world_z, depths[index_map]))
    y0, x0 = rng.integers(0, TILE, 2)
    scale = 512 / height
    rows = ((np.arange(height) * scale).astype(np.int64) + y0) % TILE
    columns = ((np.arange(width) * scale).astype(np.int64) + x0) % TILE
    stains = 1 + rough[index_map] * textures.grain[rows][:, columns]
    exposure = float(rng.uniform(0.86, 1.1))
    y = (np.arange(height, dtype=np.float32) / height - 0.5)[:, None]
    x = (np.arange(width, dtype=np.float32) / width - 0.5)[None]
    vignette = exposure * (1 - np.float32(rng.uniform(0.1, 0.45)) * (x * x + y * y))
    gain = stains * (1 - haze) * vignette
    veil = haze * vignette
    result: Array = cv2.multiply(image, cv2.merge([gain] * 3), dtype=cv2.CV_32F)
    result += cv2.merge([veil * np.float32(c) for c in scene.sky[1]])
    sigma = float(rng.choice([0.35, 0.55, 0.8])) * max(0.6, height / 512)
    if sigma > 0.3:
        result = cv2.GaussianBlur(result, (0, 0), sigma)
    strength = float(rng.uniform(1.5, 6.0))
    y0, x0 = rng.integers(0, TILE, 2)
    side = 2 * TILE
    noise = textures.sensor
    if height + y0 > side or width + x0 > side:
        noise = np.tile(noise, (-(-(height + TILE) // side), -(-(width + TILE) // side), 1))
    result = cv2.scaleAdd(noise[y0 : y0 + height, x0 : x0 + width], strength, result)
    return cv2.convertScaleAbs(np.maximum(result, 0, out=result))


def _roughness(label: str) -> float:
    if label in ("building", "wall"):
        return 0.09
    if label in ("sky", *GROUND_LABELS):
        return 0.02 if label != "terrain" else 0.2
    return 0.05
