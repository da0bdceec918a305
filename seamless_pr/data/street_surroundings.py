"""What lines a street: buildings, walls, fences, trees, poles, lights, signs, street furniture."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from seamless_pr.data.street_objects import pick
from seamless_pr.data.street_render import (
    NEAR_PLANE_METRES,
    SUBPIXEL_BITS,
    Array,
    Camera,
    Color,
    Light,
    Model,
    Patch,
    place_model,
    shaded,
    to_fixed,
)
from seamless_pr.data.street_textures import NUM_LEAF_SPRITES, SPRITE, load_textures

POLE_COLORS: tuple[Color, ...] = ((96, 100, 102), (62, 66, 68), (140, 142, 140), (50, 70, 58))
# Facades begin here: nearer ones are outside every view, and nothing then needs cutting at the lens.
NEAREST_FACADE_METRES = 3.5
MIN_DETAILED_PIXELS = 3.0
FAR_FACADE_METRES = 75.0
SIGN_BLUE: Color = (28, 82, 168)
SIGN_RED: Color = (190, 28, 34)
SIGN_WHITE: Color = (236, 236, 230)
SIGN_YELLOW: Color = (232, 190, 40)


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
    """Many separate world quads [Q, 4, 3] of one colour; those too small or too near are left out."""
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

    def rectangles(along: Array, up: Array, color: Color, solid: bool = False) -> list[Patch]:
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


def warp_sprite(
    sprite: Sprite, size: tuple[int, int]
) -> tuple[slice, slice, np.ndarray, np.ndarray] | None:
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


def pole_model(rng: np.random.Generator, height: float, arm: float, color: Color) -> Model:
    """A lamp post or mast; `arm` metres reach to the right, 0 for none."""
    model = Model()
    radius = float(rng.uniform(0.05, 0.09))
    model.capsule((0, 0, 0), (0, 0, height), radius, radius * 0.7, color)
    model.capsule((0, 0, 0), (0, 0, 0.9), radius * 1.6, radius * 1.5, color)
    if arm:
        model.capsule((0, 0, height), (0, arm, height + 0.3), radius * 0.7, radius * 0.5, color)
        end = (0, arm + np.sign(arm) * 0.5, height + 0.32)
        model.capsule((0, arm, height + 0.28), end, 0.11, 0.09, shaded(color, np.full(3, 0.8)))
    return model


def traffic_light_model(
    rng: np.random.Generator, right: float, up: float, faces_viewer: bool
) -> Model:
    """A signal head of three lamps; model forward is the direction that it shows to."""
    model = Model(center=(0.0, right, up))
    faces = model.box((-0.14, right - 0.17, up - 0.5), (0.14, right + 0.17, up + 0.5), (26, 28, 28))
    if faces_viewer:
        lit = int(rng.integers(3))
        colors = ((230, 40, 36), (250, 180, 40), (50, 220, 110))
        for lamp in range(3):
            angle = np.linspace(0, 2 * np.pi, 10, endpoint=False)
            circle = np.stack(
                [
                    np.full(10, 0.15),
                    right + 0.12 * np.cos(angle),
                    up + 0.31 - 0.31 * lamp + 0.12 * np.sin(angle),
                ],
                -1,
            )
            color = colors[lamp] if lamp == lit else shaded(colors[lamp], np.full(3, 0.26))
            model.face(circle, color, parent=faces["front"], glow=True)
    return model


def sign_model(rng: np.random.Generator, up: float) -> Model:
    """A road sign: disc, triangle, diamond, octagon or board; forward is its front."""
    model = Model(center=(-0.5, 0.0, up))
    kind = int(rng.integers(6))
    radius = float(rng.uniform(0.3, 0.42))

    def shape(corners: int, turn: float, size: float, color: Color, parent: int = -1) -> int:
        angle = np.linspace(0, 2 * np.pi, corners, endpoint=False) + turn
        points = np.stack(
            [np.full(corners, 0.05), size * np.cos(angle), up + size * np.sin(angle)], -1
        )
        return model.face(points, color, parent=parent, two_sided=parent < 0)

    if kind == 0:
        face = shape(16, 0, radius, SIGN_RED)
        shape(16, 0, radius * 0.74, SIGN_WHITE, face)
        shape(4, 0.785, radius * 0.4, (30, 30, 34), face)
    elif kind == 1:
        face = shape(3, np.pi / 2, radius * 1.25, SIGN_RED)
        shape(3, np.pi / 2, radius * 0.8, SIGN_WHITE, face)
    elif kind == 2:
        face = shape(4, 0, radius * 1.15, SIGN_WHITE)
        shape(4, 0, radius * 0.9, SIGN_YELLOW, face)
    elif kind == 3:
        face = shape(8, np.pi / 8, radius, SIGN_RED)
        shape(4, 0.785, radius * 0.45, SIGN_WHITE, face)
    elif kind == 4:
        face = shape(16, 0, radius, SIGN_BLUE)
        shape(3, 0.5, radius * 0.55, SIGN_WHITE, face)
    else:
        half, board = float(rng.uniform(0.3, 0.9)), pick(rng, (SIGN_BLUE, SIGN_WHITE, SIGN_YELLOW))
        corners = [
            (0.05, -half, up - 0.32),
            (0.05, half, up - 0.32),
            (0.05, half, up + 0.32),
            (0.05, -half, up + 0.32),
        ]
        face = model.face(corners, board, two_sided=True)
        ink = (30, 32, 36) if sum(board) > 400 else SIGN_WHITE
        for low in (-0.15, 0.08):
            line = [
                (0.05, -0.75 * half, up + low),
                (0.05, 0.6 * half, up + low),
                (0.05, 0.6 * half, up + low + 0.09),
                (0.05, -0.75 * half, up + low + 0.09),
            ]
            model.face(line, ink, parent=face)
    return model


def furniture_model(rng: np.random.Generator) -> Model:
    """Street furniture that Cityscapes leaves unlabelled (`static`): bin, cabinet, bench, box."""
    model = Model(center=(0.0, 0.0, 0.5))
    kind = int(rng.integers(4))
    if kind == 0:
        color = pick(rng, ((60, 62, 64), (40, 84, 52), (190, 110, 30)))
        model.capsule((0, 0, 0.2), (0, 0, 0.85), 0.24, 0.27, color)
        model.capsule((0, 0, 0.9), (0, 0, 0.95), 0.25, 0.2, shaded(color, np.full(3, 0.6)))
    elif kind == 1:
        faces = model.box((-0.25, -0.5, 0.0), (0.25, 0.5, 1.25), pick(rng, ((150, 154, 148),)))
        quad = model.faces[faces["left"]].points
        model.face(quad * [0.8, 1.0, 0.8], (126, 130, 124), parent=faces["left"])
    elif kind == 2:
        wood: Color = (120, 84, 54)
        for up, back in ((0.45, 0.0), (0.7, -0.22), (0.85, -0.25)):
            model.box((back - 0.2, -0.8, up - 0.05), (back + 0.05, 0.8, up), wood)
        for side in (-0.65, 0.65):
            model.capsule((-0.1, side, 0), (-0.1, side, 0.45), 0.04, 0.04, (50, 50, 52))
    else:
        color = pick(rng, ((70, 74, 60), (60, 64, 70), (44, 90, 130)))
        model.box((-0.45, -0.4, 0.08), (0.45, 0.4, 1.1), color, shaded(color, np.full(3, 1.2)))
        model.box((-0.45, -0.42, 1.05), (0.5, 0.42, 1.18), shaded(color, np.full(3, 0.75)))
    return model
