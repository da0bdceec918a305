"""From a laid-out street to an image, label maps and outlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from seamless_pr.data.street_layout import Scene
from seamless_pr.data.street_render import (
    Color,
    Patch,
    paint_patches,
    paint_silhouette,
    shadow_hull,
    to_fixed,
)
from seamless_pr.data.street_surroundings import Item, warp_sprite
from seamless_pr.data.street_textures import TILE, load_textures

# Cityscapes label ids of everything that is drawn; datasets.md section 2.3.
LABEL_IDS: dict[str, int] = {
    "unlabeled": 0,
    "ego vehicle": 1,
    "rectification border": 2,
    "static": 4,
    "dynamic": 5,
    "road": 7,
    "sidewalk": 8,
    "parking": 9,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "trailer": 30,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
THING_LABELS = frozenset(
    ("person", "rider", "car", "truck", "bus", "trailer", "train", "motorcycle", "bicycle")
)
GROUND_LABELS = ("road", "sidewalk", "parking", "terrain")
# Crowns of trees at their places, by the id() of the sprite: rows, columns, opacity, brightness.
Crowns = dict[int, tuple[slice, slice, np.ndarray, np.ndarray] | None]
MAX_INSTANCES = 60
# A thing is left out where fewer pixels than this share of the image would show it (12 px of 256x512).
MIN_VISIBLE_FRACTION = 12 / (256 * 512)
OUTLINE_TOLERANCE_PIXELS = 0.6
MAX_GROUND_METRES = 400.0


@dataclass(frozen=True)
class PolygonObject:
    """One entry of a Cityscapes polygons file: label and [M, 2] integer corners (x, y)."""

    label: str
    polygon: NDArray[np.int32]

    @property
    def is_group(self) -> bool:
        return self.label.endswith("group")

    @property
    def label_id(self) -> int:
        return LABEL_IDS[self.label.removesuffix("group") if self.is_group else self.label]


@dataclass(frozen=True)
class PaintedScene:
    """A scene as Cityscapes stores it.

    Attributes:
        image: [H, W, 3] uint8, RGB.
        label_ids: [H, W] uint8.
        instance_ids: [H, W] uint16; things label id * 1000 + k, everything else the label id.
        objects: outlines in painting order.
    """

    image: NDArray[np.uint8]
    label_ids: NDArray[np.uint8]
    instance_ids: NDArray[np.uint16]
    objects: tuple[PolygonObject, ...]

    @property
    def num_instances(self) -> int:
        return sum(item.label in THING_LABELS for item in self.objects)


def paint_scene(scene: Scene, rng: np.random.Generator) -> PaintedScene:
    """Paints image and ground truth; things that would show as a crumb are left out of both."""
    height, width = scene.camera.size
    sky = np.asarray([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.int32)
    base = [Item("sky", [Patch((to_fixed(sky),), scene.sky[0])], depth=0.0), *scene.ground]
    standing = [item for placement in scene.placements for item in placement.items]
    frame = _frame_items(scene, rng)
    items = [*base, *standing, *frame]
    crowns = {
        id(sprite): warp_sprite(sprite, (height, width))
        for item in items
        for sprite in item.sprites
    }
    outlines = [_outline(item, (height, width), crowns) for item in items]
    kept, index_map = _visible_items(items, outlines, (height, width))
    hidden = {id(items[i]) for i in range(len(items)) if i not in kept}
    image = _paint_image(
        scene, [i for i in standing if id(i) not in hidden], index_map, items, crowns, rng
    )
    paint_patches(image, [patch for item in frame for patch in item.patches])
    objects = [
        PolygonObject(items[i].label, polygon) for i in sorted(kept) for polygon in outlines[i]
    ]
    label_ids, instance_ids = _id_maps(objects, (height, width))
    return PaintedScene(image, label_ids, instance_ids, tuple(objects))


def _outline(item: Item, size: tuple[int, int], crowns: Crowns) -> list[NDArray[np.int32]]:
    """The outer outlines of an item; a thing has one, its largest, or none if it is out of view."""
    patches = item.patches if item.outline is None else item.outline
    solid = [p for patch in patches if patch.solid for p in patch.polygons]
    warped = [w for w in (crowns[id(sprite)] for sprite in item.sprites) if w is not None]
    boxes = [(p.min(0) >> 4, (p.max(0) >> 4) + 1) for p in solid]
    boxes += [
        (np.asarray([w[1].start, w[0].start]), np.asarray([w[1].stop, w[0].stop])) for w in warped
    ]
    if not boxes:
        return []
    low = np.maximum(np.min([b[0] for b in boxes], 0) - 1, 0)
    high = np.minimum(np.max([b[1] for b in boxes], 0) + 2, [size[1], size[0]])
    if (high <= low).any():
        return []
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    shift = (low << 4).astype(np.int32)
    moved = [
        Patch(tuple(p - shift for p in patch.polygons), patch.color)
        for patch in patches
        if patch.solid
    ]
    paint_silhouette(mask, moved)
    for rows, columns, alpha, _ in warped:
        target = mask[
            rows.start - low[1] : rows.stop - low[1], columns.start - low[0] : columns.stop - low[0]
        ]
        np.maximum(target, (alpha > 127).astype(np.uint8), out=target)
    contours, _ = cv2.findContours(
        mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(int(low[0]), int(low[1]))
    )
    polygons = [
        cv2.approxPolyDP(contour, OUTLINE_TOLERANCE_PIXELS, True).reshape(-1, 2)
        for contour in contours
    ]
    polygons = [_at_least_three(polygon) for polygon in polygons]
    if item.label.removesuffix("group") in THING_LABELS and len(polygons) > 1:
        return [max(polygons, key=lambda p: (cv2.contourArea(p), len(p)))]
    if item.label == "vegetation":
        smallest = 1e-5 * size[0] * size[1]
        polygons = [p for p in polygons if cv2.contourArea(p) >= smallest]
    return polygons


def _at_least_three(polygon: NDArray[np.int32]) -> NDArray[np.int32]:
    """A point or line as a degenerate triangle: readers of polygons expect three corners."""
    while len(polygon) < 3:
        polygon = np.concatenate([polygon, polygon[-1:]])
    return polygon


def _fill(target: NDArray[np.generic], polygon: NDArray[np.int32], value: int) -> None:
    cv2.fillPoly(target, [polygon], value)


def _visible_items(
    items: Sequence[Item], outlines: Sequence[list[NDArray[np.int32]]], size: tuple[int, int]
) -> tuple[set[int], NDArray[np.int16]]:
    """Which items to draw, and the map [H, W] of the item in front, as an index."""
    min_pixels = max(4, round(MIN_VISIBLE_FRACTION * size[0] * size[1]))
    kept = {i for i in range(len(items)) if outlines[i]}
    things = [i for i in kept if items[i].label in THING_LABELS]
    for _ in range(3):
        index_map = np.zeros(size, np.int16)
        for i in sorted(kept):
            for polygon in outlines[i]:
                _fill(index_map, polygon, i)
        counts = np.bincount(index_map.ravel(), minlength=len(items))
        present = [i for i in things if i in kept]
        dropped = {i for i in present if counts[i] < min_pixels}
        rest = sorted((i for i in present if i not in dropped), key=lambda i: -counts[i])
        dropped |= set(rest[MAX_INSTANCES:])
        if not dropped:
            break
        kept -= dropped
    return kept, index_map


def _id_maps(
    objects: Sequence[PolygonObject], size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """labelIds and instanceIds by painting the outlines in order, as the official tool does."""
    instance_ids = np.zeros(size, np.uint16)
    counters: dict[str, int] = {}
    for item in objects:
        value = item.label_id
        if item.label in THING_LABELS:
            number = counters.get(item.label, 0)
            counters[item.label] = number + 1
            value = value * 1000 + number
        _fill(instance_ids, item.polygon, value)
    label_ids = np.where(instance_ids >= 1000, instance_ids // 1000, instance_ids)
    return label_ids.astype(np.uint8), instance_ids


def _frame_items(scene: Scene, rng: np.random.Generator) -> list[Item]:
    """The viewer's own bonnet and the border that rectification leaves: void."""
    height, width = scene.camera.size
    items = []
    if scene.ego_height:
        share = np.linspace(0, 1, 25)
        rise = scene.ego_height * height * (1 - 0.55 * (2 * share - 1) ** 4)
        top = np.stack([share * (width - 1), height - rise], 1)
        bottom = np.asarray([[width - 1, height + 4], [0, height + 4]])
        tone = float(rng.uniform(20, 60))
        patches = [Patch((to_fixed(np.concatenate([top, bottom])),), (tone, tone, tone + 6))]
        for low, gain in ((0.12, 1.3), (0.35, 1.15), (0.6, 0.85)):
            lower = top + [0, 1] * (low * rise)[:, None]
            band = to_fixed(np.concatenate([lower, bottom]))
            color = (tone * gain + 10, tone * gain + 10, tone * gain + 16)
            patches.append(Patch((band,), color, solid=False))
        items.append(Item("ego vehicle", patches))
    if rng.random() < 0.7:
        margin = float(rng.uniform(0.003, 0.008)) * width
        bow = margin * 0.8
        y = np.linspace(0, height - 1, 9)
        curve = margin - bow * np.sin(np.pi * y / (height - 1))
        for side in (0, 1):
            x = curve if side == 0 else width - 1 - curve
            edge = -4.0 if side == 0 else width + 4.0
            outer = np.asarray([[edge, height + 4.0], [edge, -4.0]])
            points = np.concatenate([np.stack([x, y], 1), outer])
            items.append(Item("rectification border", [Patch((to_fixed(points),), (2, 2, 3))]))
        floor = np.asarray(
            [
                [0, height - 1 - margin * 0.6],
                [width - 1, height - 1 - margin * 0.6],
                [width - 1, height + 4.0],
                [0, height + 4.0],
            ]
        )
        items.append(Item("rectification border", [Patch((to_fixed(floor),), (2, 2, 3))]))
    return items


def _paint_image(
    scene: Scene,
    standing: Sequence[Item],
    index_map: NDArray[np.int16],
    items: Sequence[Item],
    crowns: Crowns,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
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


def _paint_sky(scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    height, width = scene.camera.size
    share = np.clip(np.arange(height) / max(1.0, scene.camera.center[1]), 0, 1)[:, None]
    rows = np.asarray(scene.sky[0]) * (1 - share) + np.asarray(scene.sky[1]) * share
    image = np.repeat(rows[:, None].astype(np.float32), width, 1)
    if scene.cloudiness:
        limit = int(min(height, scene.camera.center[1] + 0.1 * height))
        cloud = load_textures().cloud
        x0, y0 = rng.integers(0, TILE, 2)
        x = (np.arange(width) * (700 / width) + x0).astype(np.int64) % TILE
        y = ((np.arange(limit) / height) ** 0.8 * 900 + y0).astype(np.int64) % TILE
        amount = np.clip((cloud[y][:, x] + 1.1 * scene.cloudiness - 0.55) * 1.5, 0, 1)[..., None]
        white = np.asarray([min(250.0, c + 34) for c in scene.sky[1]], np.float32)
        amount *= 0.375 if scene.cloudiness == 1.0 else 0.75
        image[:limit] += amount * (white - image[:limit])
    return cv2.convertScaleAbs(image)


def _shade_ground(
    scene: Scene,
    image: NDArray[np.uint8],
    kept: set[int],
    ground: tuple[NDArray[np.float32], NDArray[np.float32]],
    rng: np.random.Generator,
) -> None:
    """Roughness of the ground and the shadows that fall on it, in place."""
    camera, light = scene.camera, scene.light
    height, width = camera.size
    top = max(0, int(camera.center[1] - 0.06 * height))
    sun_shadow = np.zeros((height - top, width), np.uint8)
    contact = np.zeros_like(sun_shadow)
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


def _ground_noise(
    world_x: NDArray[np.float32], world_z: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
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
    image: NDArray[np.uint8],
    warped: tuple[slice, slice, np.ndarray, np.ndarray] | None,
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
    image: NDArray[np.uint8],
    index_map: NDArray[np.int16],
    items: Sequence[Item],
    world_z: NDArray[np.float32],
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
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
    result = cv2.multiply(image, cv2.merge([gain] * 3), dtype=cv2.CV_32F)
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
