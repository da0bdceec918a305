"""Upright flat things along a street: houses, walls, fences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seamless_pr.street_scenes.camera import Array, Camera
from seamless_pr.street_scenes.furniture import SIGN_BLUE, SIGN_RED, SIGN_YELLOW
from seamless_pr.street_scenes.items import Item, Placement, polygon_patch, quads_patch
from seamless_pr.street_scenes.people import pick
from seamless_pr.street_scenes.solids import SUBPIXEL_BITS, Color, Light, Patch, shaded

# Facades begin here: nearer ones are outside every view, and nothing needs cutting at the lens.
NEAREST_FACADE_METRES = 3.5
MIN_DETAILED_PIXELS = 3.0
FAR_FACADE_METRES = 75.0


@dataclass(frozen=True)
class Facade:
    """A vertical wall from `start` to `end` (x, z), `height` metres high."""

    start: tuple[float, float]
    end: tuple[float, float]
    height: float

    @property
    def length(self) -> float:
        return float(np.hypot(self.end[0] - self.start[0], self.end[1] - self.start[1]))

    def points(self, along: Array, up: Array) -> Array:
        """World points for distances along the wall and heights, both metres."""
        share = np.asarray(along) / max(self.length, 1e-6)
        points = np.empty((*share.shape, 3))
        points[..., 0] = self.start[0] + share * (self.end[0] - self.start[0])
        points[..., 1] = up
        points[..., 2] = self.start[1] + share * (self.end[1] - self.start[1])
        return points

    def rectangles(self, along: Array, up: Array) -> Array:
        """[Q, 4, 3] from spans [Q, 2] along and up."""
        corners_along = along[:, [0, 1, 1, 0]]
        corners_up = up[:, [0, 0, 1, 1]]
        return self.points(corners_along, corners_up)

    def normal(self, towards: Array) -> Array:
        """Unit normal that points to the side of the world point `towards`."""
        direction = np.asarray(self.end) - np.asarray(self.start)
        normal = np.asarray([direction[1], 0.0, -direction[0]]) / (np.hypot(*direction) + 1e-9)
        to_viewer = np.asarray([towards[0] - self.start[0], 0, towards[2] - self.start[1]])
        return normal if normal @ to_viewer >= 0 else -normal


@dataclass(frozen=True)
class FacadeStyle:
    """How a city builds: colours and measures of one house."""

    wall: Color
    trim: Color
    glass: Color
    roof: Color
    floor_height: float
    window_pitch: float
    window_share: tuple[float, float]
    has_shops: bool
    is_bricked: bool


def random_facade_style(rng: np.random.Generator, palette: tuple[Color, ...]) -> FacadeStyle:
    bright = float(rng.uniform(0.7, 1.6))
    return FacadeStyle(
        wall=pick(rng, palette, 12),
        trim=pick(rng, ((214, 208, 196), (120, 112, 104), (236, 234, 228))),
        glass=shaded(pick(rng, ((58, 70, 84), (84, 98, 112)), 6), np.full(3, bright)),
        roof=pick(rng, ((124, 62, 48), (74, 74, 80), (96, 84, 76))),
        floor_height=float(rng.uniform(2.9, 3.7)),
        window_pitch=float(rng.uniform(1.9, 3.6)),
        window_share=(float(rng.uniform(0.38, 0.62)), float(rng.uniform(0.42, 0.66))),
        has_shops=bool(rng.random() < 0.45),
        is_bricked=bool(rng.random() < 0.3),
    )


def facade_patches(
    rng: np.random.Generator,
    facade: Facade,
    style: FacadeStyle,
    camera: Camera,
    light: Light,
    *,
    windows: bool = True,
) -> list[Patch]:
    """A house front: wall, floors, windows with frames and sills, shops or a door, cornice."""
    factor = light.shade(facade.normal(camera.position))
    length, height = facade.length, facade.height

    def band(low: float, high: float, color: Color, solid: bool = False) -> list[Patch]:
        quad = facade.rectangles(np.asarray([[0.0, length]]), np.asarray([[low, high]]))[0]
        return polygon_patch(camera, quad, shaded(color, factor), solid=solid)

    patches = band(0.0, height, style.wall, True)
    if not patches or not windows or not _shows_detail(patches[0], camera.size):
        return patches
    darker = shaded(style.wall, np.full(3, 0.86))

    def bands(lows: Array, thickness: float, color: Color, min_pixels: float) -> list[Patch]:
        ups = np.stack([lows, lows + thickness], 1)
        quads = facade.rectangles(np.tile([[0.0, length]], (len(lows), 1)), ups)
        return quads_patch(camera, quads, shaded(color, factor), min_pixels)

    is_far = min(facade.start[1], facade.end[1]) > FAR_FACADE_METRES
    if style.is_bricked and not is_far:
        courses = np.arange(0.4, height - 0.4, 0.8)
        patches += bands(courses, 0.3, shaded(style.wall, np.full(3, 0.93)), 1.0)
    patches += band(0.0, 0.5, shaded(style.wall, np.full(3, 0.7)))
    num_floors = max(1, int((height - 0.8) / style.floor_height))
    num_columns = max(1, int(length / style.window_pitch))
    pitch = length / num_columns
    window_width, window_height = (
        pitch * style.window_share[0],
        (style.floor_height * style.window_share[1]),
    )
    first_floor = 1 if style.has_shops else 0
    columns = (np.arange(num_columns) + 0.5) * pitch
    floors = np.arange(first_floor, num_floors) * style.floor_height + style.floor_height * 0.32
    along = np.repeat(columns, len(floors))
    up = np.tile(floors, len(columns))
    patches += bands(np.arange(1, num_floors) * style.floor_height - 0.08, 0.16, darker, 0.5)

    def grid(grow: float, low: float, high: float, keep: Array | None = None) -> Array:
        half = window_width / 2 + grow
        spans = np.stack([along - half, along + half], 1)
        rows = np.stack([up + low, up + high], 1)
        quads = facade.rectangles(spans, rows)
        return quads if keep is None else quads[keep]

    trim, glass = shaded(style.trim, factor), style.glass
    if is_far:
        return patches + quads_patch(camera, grid(0.0, 0.0, window_height), glass, 0.7)
    if len(along):
        patches += quads_patch(camera, grid(0.09, -0.12, window_height + 0.1), trim, 1.5)
        patches += quads_patch(camera, grid(0.0, 0.0, window_height), glass, 0.7)
        reflecting = rng.random(len(along)) < 0.3
        sky = shaded(glass, np.full(3, 1.7))
        patches += quads_patch(
            camera, grid(0.0, window_height * 0.45, window_height, reflecting), sky, 1.0
        )
        curtains = rng.random(len(along)) < 0.2
        patches += quads_patch(
            camera, grid(-0.05, 0.1, window_height * 0.9, curtains), (186, 180, 166), 1.5
        )
        patches += quads_patch(
            camera, grid(-window_width / 2 + 0.03, 0.0, window_height), trim, 0.8
        )
    if style.has_shops:
        patches += _shop_patches(rng, facade, style, camera, factor)
    else:
        door = float(rng.uniform(0.3, max(0.4, length - 1.6)))
        quad = facade.rectangles(np.asarray([[door, door + 1.2]]), np.asarray([[0.0, 2.3]]))
        patches += quads_patch(camera, quad, shaded((84, 60, 44), factor), 1.0)
    patches += band(height - 0.35, height, shaded(style.trim, np.full(3, 0.9)))
    return patches


def _shows_detail(patch: Patch, size: tuple[int, int]) -> bool:
    """Whether a wall is in view and wide enough for its windows to be seen."""
    points = patch.polygons[0] / (1 << SUBPIXEL_BITS)
    low, high = np.maximum(points.min(0), 0), np.minimum(points.max(0), [size[1], size[0]])
    return bool((high - low).min() > MIN_DETAILED_PIXELS)


def _shop_patches(
    rng: np.random.Generator, facade: Facade, style: FacadeStyle, camera: Camera, factor: Array
) -> list[Patch]:
    patches: list[Patch] = []
    position, length = 0.4, facade.length
    while position < length - 1.5:
        width = min(float(rng.uniform(2.5, 6.0)), length - position - 0.3)
        spans = np.asarray([[position, position + width]])
        sign = pick(rng, (SIGN_RED, SIGN_BLUE, SIGN_YELLOW, (40, 44, 48), (60, 120, 70)), 20)
        glass = shaded(style.glass, np.full(3, rng.uniform(0.6, 1.4)))
        window = facade.rectangles(spans, np.asarray([[0.45, 2.6]]))
        panel = facade.rectangles(spans, np.asarray([[2.65, 3.15]]))
        patches += quads_patch(camera, window, glass, 1.0)
        patches += quads_patch(camera, panel, shaded(sign, factor), 0.7)
        door = facade.rectangles(spans[:, :1] + [0.2, 1.2], np.asarray([[0.05, 2.4]]))
        patches += quads_patch(camera, door, (42, 40, 40), 1.0)
        position += width + float(rng.uniform(0.3, 1.2))
    return patches


def building(
    rng: np.random.Generator,
    span_x: tuple[float, float],
    span_z: tuple[float, float],
    height: float,
    style: FacadeStyle,
    camera: Camera,
    light: Light,
) -> Placement:
    """A house on x span (street side first) and z span, with the walls that the viewer can see."""
    inner, outer = span_x
    near, far = max(span_z[0], NEAREST_FACADE_METRES), span_z[1]
    patches: list[Patch] = []
    pitched = rng.random() < 0.45
    rise = float(rng.uniform(1.8, 3.5)) if pitched else 0.0
    middle = (inner + outer) / 2
    roof_color = shaded(style.roof, light.shade(np.asarray([np.sign(-inner) * 0.6, 0.8, 0.0])))
    if pitched:
        eave = inner - np.sign(inner) * 0.3
        roof = [
            (eave, height - 0.1, near),
            (eave, height - 0.1, far),
            (middle, height + rise, far),
            (middle, height + rise, near),
        ]
        patches += polygon_patch(camera, np.asarray(roof), roof_color)
    if near > NEAREST_FACADE_METRES:
        front = Facade((inner, near), (outer, near), height)
        if pitched:
            gable = [(inner, height, near), (outer, height, near), (middle, height + rise, near)]
            factor = light.shade(np.asarray([0.0, 0.0, -1.0]))
            patches += polygon_patch(camera, np.asarray(gable), shaded(style.wall, factor))
        patches += facade_patches(rng, front, style, camera, light, windows=rng.random() < 0.7)
    side = Facade((inner, near), (inner, far), height)
    patches += facade_patches(rng, side, style, camera, light)
    footprint = (min(inner, outer), max(inner, outer), near, far)
    depth = max(1.0, (max(near, 0.0) + far) / 2)
    base = np.asarray(
        [(x, y, z) for x in span_x for z in (max(near, 1.0), far) for y in (0.0, height)]
    )
    return Placement([Item("building", patches, depth=depth)], footprint, base)


def wall(rng: np.random.Generator, facade: Facade, camera: Camera, light: Light) -> Placement:
    """A free-standing wall of concrete, plaster, brick or stone with a coping."""
    base = pick(rng, ((150, 146, 138), (176, 168, 150), (138, 84, 66), (120, 116, 112)), 8)
    factor = light.shade(facade.normal(camera.position))
    length, height = facade.length, facade.height

    def rectangles(
        along: Sequence[float], up: Sequence[float], color: Color, solid: bool = False
    ) -> list[Patch]:
        quad = facade.rectangles(np.asarray([along]), np.asarray([up]))[0]
        return polygon_patch(camera, quad, shaded(color, factor), solid=solid)

    patches = rectangles([0, length], [0, height], base, True)
    joint = shaded(base, np.full(3, 0.8))
    if rng.random() < 0.55:
        for low in np.arange(0.35, height - 0.1, 0.35):
            patches += rectangles([0, length], [low, low + 0.04], joint)
    step = float(rng.uniform(1.5, 3.0))
    seams = np.arange(step, length, step)
    if len(seams):
        spans = np.stack([seams, seams + 0.06], 1)
        quads = facade.rectangles(spans, np.tile([[0.0, height]], (len(seams), 1)))
        patches += quads_patch(camera, quads, shaded(joint, factor), 0.3)
    if rng.random() < 0.35:
        spot = float(rng.uniform(0.1, 0.7)) * length
        tag = pick(rng, ((60, 90, 160), (170, 60, 80), (60, 130, 90), (210, 180, 60)), 20)
        quads = np.asarray([[spot + 0.5 * i, spot + 0.5 * i + 0.35] for i in range(6)])
        ups = np.sort(rng.uniform(0.3, max(0.5, 0.75 * height), (6, 2)), 1)
        patches += quads_patch(camera, facade.rectangles(quads, ups), tag, 1.0)
    patches += rectangles(
        [0, length], [height - 0.12, height + 0.03], shaded(base, np.full(3, 1.15)), True
    )
    return _facade_placement("wall", patches, facade)


def fence(rng: np.random.Generator, facade: Facade, camera: Camera, light: Light) -> Placement:
    """A see-through fence: posts with rails, pickets or mesh; its whole front is labelled."""
    color = pick(rng, ((52, 56, 58), (150, 152, 150), (60, 84, 62), (122, 90, 60), (214, 212, 204)))
    factor = light.shade(facade.normal(camera.position))
    painted = shaded(color, factor)
    length, height = facade.length, facade.height
    outline = polygon_patch(
        camera, facade.rectangles(np.asarray([[0, length]]), np.asarray([[0, height]]))[0], painted
    )
    patches: list[Patch] = []

    def bars(along: Array, low: float, high: float, width: float, min_pixels: float) -> None:
        spans = np.stack([along, along + width], 1)
        ups = np.tile([[low, high]], (len(along), 1))
        nonlocal patches
        patches += quads_patch(camera, facade.rectangles(spans, ups), painted, min_pixels)

    kind = rng.random()
    rails = [0.12, height - 0.1] if kind < 0.6 else list(np.arange(0.2, height, 0.28))
    for low in rails:
        quad = facade.rectangles(np.asarray([[0, length]]), np.asarray([[low, low + 0.07]]))[0]
        patches += polygon_patch(camera, quad, painted)
    bars(np.arange(0, length, 2.2), 0.0, height + 0.05, 0.09, 0.0)
    if kind < 0.6:
        pitch, width = (0.16, 0.035) if kind < 0.35 else (0.2, 0.12)
        bars(np.arange(0, length, pitch), 0.1, height, width, 0.5)
    placement = _facade_placement("fence", patches, facade)
    placement.items[0].outline = outline
    return placement


def _facade_placement(label: str, patches: list[Patch], facade: Facade) -> Placement:
    xs, zs = sorted((facade.start[0], facade.end[0])), sorted((facade.start[1], facade.end[1]))
    footprint = (xs[0] - 0.1, xs[1] + 0.1, zs[0], zs[1])
    corners = facade.points(
        np.asarray([0.0, facade.length] * 2), np.asarray([0.0, 0.0, facade.height, facade.height])
    )
    depth = max(1.0, (max(zs[0], 0) + zs[1]) / 2)
    return Placement([Item(label, patches, depth=depth)], footprint, corners)
