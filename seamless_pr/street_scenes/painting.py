"""From a laid-out street to an image, label maps and outlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from seamless_pr.datasets.label_spaces import load_labels
from seamless_pr.street_scenes.camera import Array
from seamless_pr.street_scenes.finishing import Crowns, paint_image
from seamless_pr.street_scenes.items import Item
from seamless_pr.street_scenes.layout import Scene
from seamless_pr.street_scenes.plants import warp_sprite
from seamless_pr.street_scenes.solids import (
    SUBPIXEL_BITS,
    Patch,
    paint_patches,
    paint_silhouette,
    to_fixed,
)

LABELS = {label.name: label for label in load_labels("cityscapes")}
THING_LABELS = frozenset(name for name, label in LABELS.items() if label.is_thing)
MAX_INSTANCES = 60
# A thing is left out where fewer pixels than this share of the image show it: 12 of 256x512.
MIN_VISIBLE_FRACTION = 12 / (256 * 512)
OUTLINE_TOLERANCE_PIXELS = 0.6


@dataclass(frozen=True)
class PolygonObject:
    """One entry of a Cityscapes polygons file: label and [M, 2] integer corners (x, y)."""

    label: str
    polygon: Array

    @property
    def is_group(self) -> bool:
        return self.label.endswith("group")

    @property
    def label_id(self) -> int:
        return LABELS[self.label.removesuffix("group")].label_id


@dataclass(frozen=True)
class PaintedScene:
    """A scene as Cityscapes stores it.

    Attributes:
        image: [H, W, 3] uint8, RGB.
        label_ids: [H, W] uint8.
        instance_ids: [H, W] uint16; things label id * 1000 + k, everything else the label id.
        objects: outlines in painting order.
    """

    image: Array
    label_ids: Array
    instance_ids: Array
    objects: tuple[PolygonObject, ...]

    @property
    def num_instances(self) -> int:
        return sum(item.label in THING_LABELS for item in self.objects)


def paint_scene(scene: Scene, rng: np.random.Generator) -> PaintedScene:
    """Paints image and ground truth; things that would show as a crumb are left out of both."""
    image, objects = paint_objects(scene, rng, THING_LABELS)
    label_ids, instance_ids = _id_maps(objects, scene.camera.size)
    return PaintedScene(image, label_ids, instance_ids, tuple(objects))


@dataclass(frozen=True)
class Outlined:
    """A scene of which it is known what shows.

    Attributes:
        items: in painting order.
        standing, frame: those on the ground, and those of the viewer's car.
        crowns: leafy sprites as they are pasted.
        outlines: of each item.
        kept: indices of items to draw.
        index_map: [H, W] index of the item in front.
    """

    items: list[Item]
    standing: list[Item]
    frame: list[Item]
    crowns: Crowns
    outlines: list[list[Array]]
    kept: set[int]
    index_map: Array

    def visible_labels(self) -> set[str]:
        """Labels of what shows and is drawn."""
        return {self.items[i].label for i in np.unique(self.index_map).tolist() if i in self.kept}


def outline_scene(
    scene: Scene,
    rng: np.random.Generator,
    things: frozenset[str],
    max_instances: int = MAX_INSTANCES,
) -> Outlined:
    """Finds out what shows of a scene.

    Args:
        scene, rng, things: as for `paint_objects`.
        max_instances: of more things the smallest are left out.
    """
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
    outlines = [_outline(item, (height, width), crowns, things) for item in items]
    kept, index_map = _visible_items(items, outlines, (height, width), things, max_instances)
    return Outlined(items, standing, frame, crowns, outlines, kept, index_map)


def paint_objects(
    scene: Scene,
    rng: np.random.Generator,
    things: frozenset[str],
    outlined: Outlined | None = None,
) -> tuple[Array, list[PolygonObject]]:
    """The image [H, W, 3], and the outlines of everything that shows, in painting order.

    Args:
        scene: what to paint.
        rng: of textures, lens and sensor.
        things: labels whose items are one object each; the outline of others may be several.
        outlined: from `outline_scene`; None: is found out.
    """
    if outlined is None:
        outlined = outline_scene(scene, rng, things)
    items, outlines = outlined.items, outlined.outlines
    hidden = {id(items[i]) for i in range(len(items)) if i not in outlined.kept}
    shown = [item for item in outlined.standing if id(item) not in hidden]
    image = paint_image(scene, shown, outlined.index_map, items, outlined.crowns, rng)
    paint_patches(image, [patch for item in outlined.frame for patch in item.patches])
    objects = [
        PolygonObject(items[i].label, polygon)
        for i in sorted(outlined.kept)
        for polygon in outlines[i]
    ]
    return image, objects


def _outline(
    item: Item, size: tuple[int, int], crowns: Crowns, things: frozenset[str]
) -> list[Array]:
    """The outer outlines of an item; a thing has one, its largest, or none if it is out of view."""
    patches = item.patches if item.outline is None else item.outline
    solid = [p for patch in patches if patch.solid for p in patch.polygons]
    warped = [w for w in (crowns[id(sprite)] for sprite in item.sprites) if w is not None]
    corners = list(solid)
    for rows, columns, _, _ in warped:
        ends = [(columns.start, rows.start), (columns.stop - 1, rows.stop - 1)]
        corners.append(np.asarray(ends, np.int32) << SUBPIXEL_BITS)
    if not corners:
        return []
    reach = np.concatenate(corners)
    low = np.maximum((reach.min(0) >> SUBPIXEL_BITS) - 1, 0)
    high = np.minimum((reach.max(0) >> SUBPIXEL_BITS) + 3, [size[1], size[0]])
    if (high <= low).any():
        return []
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    paint_silhouette(mask, solid, low)
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
    if item.label.removesuffix("group") in things and len(polygons) > 1:
        return [max(polygons, key=lambda p: (cv2.contourArea(p), len(p)))]
    if item.label == "vegetation":
        smallest = 1e-5 * size[0] * size[1]
        polygons = [p for p in polygons if cv2.contourArea(p) >= smallest]
    return polygons


def _at_least_three(polygon: Array) -> Array:
    """A point or line as a degenerate triangle: readers of polygons expect three corners."""
    while len(polygon) < 3:
        polygon = np.concatenate([polygon, polygon[-1:]])
    return polygon


def fill_polygon(target: Array, polygon: Array, value: int) -> None:
    cv2.fillPoly(target, [polygon], value)


def _visible_items(
    items: Sequence[Item],
    outlines: Sequence[list[Array]],
    size: tuple[int, int],
    thing_labels: frozenset[str],
    max_instances: int,
) -> tuple[set[int], Array]:
    """Which items to draw, and the map [H, W] of the item in front, as an index."""
    min_pixels = max(4, round(MIN_VISIBLE_FRACTION * size[0] * size[1]))
    kept = {i for i in range(len(items)) if outlines[i]}
    things = [i for i in kept if items[i].label in thing_labels]
    for _ in range(3):
        index_map = np.zeros(size, np.int16)
        for i in sorted(kept):
            for polygon in outlines[i]:
                fill_polygon(index_map, polygon, i)
        counts = np.bincount(index_map.ravel(), minlength=len(items))
        present = [i for i in things if i in kept]
        dropped = {i for i in present if counts[i] < min_pixels}
        rest = sorted((i for i in present if i not in dropped), key=lambda i: -counts[i])
        dropped |= set(rest[max_instances:])
        if not dropped:
            break
        kept -= dropped
    return kept, index_map


def _id_maps(objects: Sequence[PolygonObject], size: tuple[int, int]) -> tuple[Array, Array]:
    """labelIds and instanceIds by painting the outlines in order, as the official tool does."""
    instance_ids = np.zeros(size, np.uint16)
    counters: dict[str, int] = {}
    for item in objects:
        value = item.label_id
        if item.label in THING_LABELS:
            number = counters.get(item.label, 0)
            counters[item.label] = number + 1
            value = value * 1000 + number
        fill_polygon(instance_ids, item.polygon, value)
    label_ids = np.where(instance_ids >= 1000, instance_ids // 1000, instance_ids)
    return label_ids.astype(np.uint8), instance_ids


def _frame_items(scene: Scene, rng: np.random.Generator) -> list[Item]:
    """The viewer's own bonnet and the border that rectification leaves: void."""
    height, width = scene.camera.size
    items = list(scene.frame)
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
