"""Solid models of cars, trucks, buses, trams, caravans: metres, frame (forward, right, up)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from seamless_pr.street_scenes.camera import Array
from seamless_pr.street_scenes.people import TYRE, pick
from seamless_pr.street_scenes.solids import Color, Model

CAR_COLORS: tuple[Color, ...] = (
    (24, 25, 28),
    (60, 63, 68),
    (122, 126, 130),
    (176, 179, 182),
    (226, 227, 226),
    (226, 227, 226),
    (34, 52, 98),
    (70, 104, 150),
    (146, 24, 28),
    (30, 70, 54),
    (196, 168, 60),
    (120, 84, 60),
    (186, 92, 36),
)
BUS_COLORS: tuple[Color, ...] = (
    (196, 44, 40),
    (222, 186, 60),
    (52, 96, 158),
    (224, 224, 220),
    (64, 134, 88),
)
GLASS: Color = (44, 54, 64)


HEADLIGHT: Color = (236, 238, 230)


TAIL_LIGHT: Color = (178, 22, 22)


PLASTIC: Color = (34, 34, 37)


PLATE: Color = (222, 222, 214)


WHEEL_CORNERS = 16


@dataclass(frozen=True)
class CarShape:
    """Half a car's outline.

    Attributes:
        profile: from rear bumper over the roof to front bumper: (forward as share of the length,
            up in metres, half width as share of the half width).
        materials: one per stretch of the profile: p(aint), g(lass), d(ark), t(ail), n(ose).
        cabin: indices of the four profile points that frame the side windows.
        length, width: metres.
    """

    profile: tuple[tuple[float, float, float], ...]
    materials: str
    cabin: tuple[int, int, int, int]
    length: tuple[float, float]
    width: tuple[float, float]


def _car_shape(
    rear: tuple[float, float],
    roof: tuple[float, float, float],
    screen: float,
    hood: float,
    length: tuple[float, float],
    width: tuple[float, float],
    belt: float = 0.95,
) -> CarShape:
    """rear: boot end and its front edge; roof: rear edge, front edge, height; screen: its foot."""
    profile = (
        (-0.5, 0.26, 0.96),
        (-0.5, 0.56, 0.99),
        (rear[0], belt - 0.02, 0.95),
        (rear[1], belt + 0.02, 0.94),
        (roof[0], roof[2] - 0.02, 0.74),
        (roof[1], roof[2], 0.74),
        (screen, belt + 0.02, 0.92),
        (0.46, hood, 0.9),
        (0.5, 0.58, 0.96),
        (0.5, 0.24, 0.96),
    )
    return CarShape(profile, "dtpgpgpnd", (3, 4, 5, 6), length, width)


CAR_SHAPES: tuple[CarShape, ...] = (
    _car_shape((-0.485, -0.31), (-0.17, 0.07, 1.44), 0.22, 0.78, (4.4, 4.9), (1.76, 1.88)),
    _car_shape((-0.49, -0.47), (-0.38, 0.06, 1.48), 0.23, 0.78, (3.7, 4.3), (1.68, 1.8)),
    _car_shape((-0.49, -0.475), (-0.4, 0.06, 1.5), 0.22, 0.78, (4.5, 4.9), (1.78, 1.88)),
    _car_shape(
        (-0.495, -0.48), (-0.42, 0.07, 1.72), 0.2, 0.98, (4.3, 4.8), (1.82, 1.95), belt=1.08
    ),
    _car_shape((-0.498, -0.49), (-0.46, 0.16, 1.92), 0.34, 1.06, (4.4, 5.2), (1.85, 2.0), belt=1.1),
)


def car(rng: np.random.Generator) -> tuple[Model, float, float]:
    """A saloon, hatchback, estate, off-roader or van; returns model, length, width."""
    shape = CAR_SHAPES[rng.choice(5, p=[0.26, 0.27, 0.2, 0.16, 0.11])]
    length, width = float(rng.uniform(*shape.length)), float(rng.uniform(*shape.width))
    paint = pick(rng, CAR_COLORS, 8)
    model = Model(center=(0.0, 0.0, 0.7))
    _underbody(model, length, width, 0.32 if shape.profile[5][1] < 1.6 else 0.36, 0.3)
    outline = np.asarray(
        [(forward * length, half * width / 2, up) for forward, up, half in shape.profile]
    )
    mirror = np.asarray([1, -1, 1])
    glass = _scaled(GLASS, float(rng.uniform(0.8, 1.5)))
    colors = {"p": paint, "g": glass, "d": PLASTIC, "t": paint, "n": paint}
    if rng.random() < 0.5:
        colors["d"] = _scaled(paint, 0.8)
    for index, material in enumerate(shape.materials):
        low, high = outline[index], outline[index + 1]
        quad = np.stack([low, high, high * mirror, low * mirror])
        face = model.face(quad, colors[material])
        if material == "t":
            _lights(model, face, quad, TAIL_LIGHT, 0.22)
            _quad_panel(model, face, quad, (0.38, 0.62), (0.25, 0.55), PLATE)
        elif material == "n":
            _lights(model, face, quad[[1, 0, 3, 2]], HEADLIGHT, 0.24)
            _quad_panel(model, face, quad[[1, 0, 3, 2]], (0.3, 0.7), (0.1, 0.75), PLASTIC)
        elif material == "d" and index > 1:
            _quad_panel(model, face, quad[[1, 0, 3, 2]], (0.39, 0.61), (0.3, 0.65), PLATE)
    for side in (1, -1):
        _car_side(model, outline * [1, side, 1], shape, paint, glass, (length, width, side))
    return model, length, width


def _car_side(
    model: Model,
    outline: Array,
    shape: CarShape,
    paint: Color,
    glass: Color,
    pose: tuple[float, float, int],
) -> None:
    length, width, side = pose
    rear_belt, roof_rear, roof_front, front_belt = (outline[i] for i in shape.cabin)
    body = np.concatenate([outline[:4], outline[6:]])
    body_face = model.face(body, paint)
    cabin = model.face([rear_belt, roof_rear, roof_front, front_belt], paint)
    middle = np.asarray([rear_belt, roof_rear, roof_front, front_belt]).mean(0)
    inset = [p + 0.13 * (middle - p) for p in (rear_belt, roof_rear, roof_front, front_belt)]
    pillar = 0.48
    upper, lower = _between(inset[1], inset[2], pillar), _between(inset[0], inset[3], pillar)
    gap = 0.03 * (inset[3] - inset[0])
    model.face([inset[0], inset[1], upper - gap, lower - gap], glass, parent=cabin)
    model.face([lower + gap, upper + gap, inset[2], inset[3]], glass, parent=cabin)
    dark = _scaled(paint, 0.55)
    across = side * width / 2 * 0.97
    door = [(-0.06 * length, across, 0.3), (-0.055 * length, across, 0.9)]
    seam = 0.012 * length
    model.face(
        [*door, (door[1][0] + seam, across, 0.9), (door[0][0] + seam, across, 0.3)],
        dark,
        parent=body_face,
    )
    sill = [
        (-0.46 * length, across, 0.24),
        (0.46 * length, across, 0.24),
        (0.46 * length, across, 0.34),
        (-0.46 * length, across, 0.34),
    ]
    model.face(sill, PLASTIC, parent=body_face)
    radius = 0.32 if shape.profile[5][1] < 1.6 else 0.36
    for forward in (-0.3 * length, 0.31 * length):
        _wheel(model, forward, across, radius, body_face)
    mirror_at = (front_belt[0] - 0.25, side * (width / 2 + 0.06), front_belt[2] + 0.05)
    model.capsule(
        mirror_at, (mirror_at[0], mirror_at[1] + side * 0.1, mirror_at[2]), 0.07, 0.06, dark
    )


def _wheel(model: Model, forward: float, across: float, radius: float, parent: int) -> None:
    angle = np.linspace(0, 2 * np.pi, WHEEL_CORNERS, endpoint=False)
    for scale, color in (
        (1.18, (20, 20, 22)),
        (1.0, TYRE),
        (0.62, (150, 152, 156)),
        (0.25, (70, 70, 74)),
    ):
        circle = np.stack(
            [
                forward + scale * radius * np.cos(angle),
                np.full_like(angle, across),
                radius + scale * radius * np.sin(angle),
            ],
            -1,
        )
        circle[:, 2] = np.maximum(circle[:, 2], 0.0)
        model.face(circle, color, parent=parent, solid=color is TYRE)


def _underbody(model: Model, length: float, width: float, radius: float, height: float) -> None:
    """Tyres as seen from front and rear, and the dark space between them."""
    kept, model.underlay = model.center, True
    for forward in (-0.3 * length, 0.31 * length):
        for side in (-1, 1):
            outer, inner = side * width / 2 * 0.96, side * (width / 2 * 0.96 - 0.2)
            low, high = min(outer, inner), max(outer, inner)
            model.box(
                (forward - radius * 0.8, low, 0.0),
                (forward + radius * 0.8, high, radius * 1.4),
                TYRE,
            )
    model.center = (0.0, 0.0, height)
    model.box(
        (-0.45 * length, -0.42 * width, 0.16), (0.45 * length, 0.42 * width, height), (16, 16, 18)
    )
    model.center, model.underlay = kept, False


def _scaled(color: Color, factor: float) -> Color:
    return color[0] * factor, color[1] * factor, color[2] * factor


def _between(start: Array, end: Array, share: float) -> Array:
    return start + share * (end - start)


def _quad_panel(
    model: Model,
    parent: int,
    quad: Array,
    across: tuple[float, float],
    along: tuple[float, float],
    color: Color,
    glow: bool = False,
) -> int:
    """A smaller panel on a four-cornered face; corners run up one side and down the other."""

    def at(u: float, v: float) -> Array:
        return _between(_between(quad[0], quad[1], v), _between(quad[3], quad[2], v), u)

    (u0, u1), (v0, v1) = across, along
    corners = np.stack([at(u0, v0), at(u0, v1), at(u1, v1), at(u1, v0)])
    return model.face(corners, color, parent=parent, glow=glow)


def _lights(model: Model, parent: int, quad: Array, color: Color, reach: float) -> None:
    for across in ((0.02, reach), (1 - reach, 0.98)):
        _quad_panel(model, parent, quad, across, (0.45, 0.92), color, glow=True)


def _face_quad(model: Model, index: int) -> Array:
    """Corners of a box's vertical face as (low, high, high, low)."""
    points = model.faces[index].points
    return points[[0, 3, 2, 1]]


def _window_row(
    model: Model,
    face: int,
    count: int,
    along: tuple[float, float],
    color: Color,
    span: tuple[float, float] = (0.03, 0.97),
    gap: float = 0.12,
) -> None:
    quad = _face_quad(model, face)
    edges = np.linspace(*span, count + 1)
    margin = gap * (edges[1] - edges[0]) / 2
    for left, right in pairwise(edges):
        _quad_panel(model, face, quad, (left + margin, right - margin), along, color)


def bus(rng: np.random.Generator) -> tuple[Model, float, float]:
    """A city bus; returns model, length, width."""
    length, width, height = float(rng.uniform(10, 13)), 2.55, float(rng.uniform(2.9, 3.2))
    paint = pick(rng, BUS_COLORS)
    model = Model(center=(0.0, 0.0, 1.5))
    _underbody(model, length, width, 0.48, 0.4)
    roof = pick(rng, ((200, 200, 198), (150, 152, 154)))
    faces = model.box((-length / 2, -width / 2, 0.32), (length / 2, width / 2, height), paint, roof)
    stripe = pick(rng, (*BUS_COLORS, (240, 240, 236)))
    glass = _scaled(GLASS, float(rng.uniform(0.8, 1.5)))
    for side in ("left", "right"):
        quad = _face_quad(model, faces[side])
        _quad_panel(model, faces[side], quad, (0.0, 1.0), (0.12, 0.22), stripe)
        _quad_panel(model, faces[side], quad, (0.02, 0.98), (0.38, 0.8), PLASTIC)
        _window_row(model, faces[side], int(length / 1.6), (0.4, 0.78), glass)
        across = width / 2 * (-1 if side == "left" else 1)
        for forward in (-0.3 * length, 0.31 * length):
            _wheel(model, forward, across, 0.48, faces[side])
        if side == "right":
            for door in ((0.42, 0.5), (0.88, 0.95)):
                _quad_panel(model, faces[side], quad, door, (0.03, 0.8), glass)
    front, rear = _face_quad(model, faces["front"]), _face_quad(model, faces["rear"])
    _quad_panel(model, faces["front"], front, (0.05, 0.95), (0.3, 0.8), glass)
    _quad_panel(model, faces["front"], front, (0.2, 0.8), (0.84, 0.95), PLASTIC)
    _quad_panel(model, faces["front"], front, (0.3, 0.7), (0.865, 0.925), (250, 170, 40), True)
    _quad_panel(model, faces["rear"], rear, (0.1, 0.9), (0.5, 0.8), glass)
    _quad_panel(model, faces["rear"], rear, (0.3, 0.7), (0.1, 0.35), PLASTIC)
    for across_range in ((0.04, 0.2), (0.8, 0.96)):
        _quad_panel(model, faces["front"], front, across_range, (0.08, 0.18), HEADLIGHT, True)
        _quad_panel(model, faces["rear"], rear, across_range, (0.12, 0.28), TAIL_LIGHT, True)
    return model, length, width


def truck(rng: np.random.Generator) -> tuple[Model, float, float]:
    """A lorry: cab in front, box, tarpaulin or open bed behind; returns model, length, width."""
    length, width = float(rng.uniform(6, 10)), float(rng.uniform(2.2, 2.5))
    height, cab = float(rng.uniform(2.7, 3.7)), float(rng.uniform(1.7, 2.1))
    paint = pick(rng, CAR_COLORS)
    box_paint = pick(
        rng,
        (
            (228, 228, 224),
            (204, 206, 208),
            (60, 90, 150),
            (170, 60, 46),
            (84, 120, 84),
            (196, 170, 90),
        ),
    )
    model = Model(center=(0.0, 0.0, 1.3))
    _underbody(model, length, width, 0.48, 0.55)
    half, bed_end = width / 2, length / 2 - cab - 0.25
    cab_height = min(height, float(rng.uniform(2.3, 2.8)))
    open_bed = rng.random() < 0.25
    body_height = 1.7 if open_bed else height
    body = model.box((-length / 2, -half, 0.75), (bed_end, half, body_height), box_paint)
    model.underlay = True
    model.box((-length / 2, -half * 0.8, 0.5), (length / 2 - 0.3, half * 0.8, 0.8), (30, 30, 32))
    model.underlay = False
    rear = _face_quad(model, body["rear"])
    dark_box = _scaled(box_paint, 0.7)
    _quad_panel(model, body["rear"], rear, (0.49, 0.51), (0.0, 1.0), dark_box)
    for across in ((0.02, 0.14), (0.86, 0.98)):
        _quad_panel(model, body["rear"], rear, across, (0.0, 0.08), TAIL_LIGHT, True)
    logo = pick(rng, BUS_COLORS)
    for side in ("left", "right"):
        quad = _face_quad(model, body[side])
        for share in np.linspace(0, 1, 7):
            span = (max(0.0, share - 0.006), min(1.0, share + 0.006))
            _quad_panel(model, body[side], quad, span, (0.0, 1.0), dark_box)
        if rng.random() < 0.6:
            _quad_panel(model, body[side], quad, (0.2, 0.75), (0.4, 0.7), logo)
        across_metres = half * (-1 if side == "left" else 1)
        for forward in (-0.3 * length, 0.31 * length):
            _wheel(model, forward, across_metres, 0.48, body[side])
    front = model.box((length / 2 - cab, -half, 0.45), (length / 2, half, cab_height), paint)
    nose = _face_quad(model, front["front"])
    _quad_panel(model, front["front"], nose, (0.06, 0.94), (0.5, 0.88), GLASS)
    _quad_panel(model, front["front"], nose, (0.2, 0.8), (0.16, 0.42), PLASTIC)
    for across in ((0.03, 0.2), (0.8, 0.97)):
        _quad_panel(model, front["front"], nose, across, (0.08, 0.2), HEADLIGHT, True)
    for side in ("left", "right"):
        quad = _face_quad(model, front[side])
        _quad_panel(model, front[side], quad, (0.3, 0.85), (0.52, 0.86), GLASS)
        across_metres = half * (-1 if side == "left" else 1)
        _wheel(model, length / 2 - 0.9, across_metres, 0.48, front[side])
    return model, length, width


def tram(rng: np.random.Generator, colors: Sequence[Color]) -> tuple[Model, float, float]:
    """A tram of two or three cars (class `train`); returns model, length, width."""
    sections, width, height = int(rng.integers(2, 4)), 2.4, float(rng.uniform(3.2, 3.5))
    section = float(rng.uniform(7.5, 9.5))
    length = sections * section
    paint, lower = pick(rng, colors), pick(rng, colors)
    model = Model(center=(0.0, 0.0, 1.6))
    glass = _scaled(GLASS, float(rng.uniform(0.8, 1.6)))
    for index in range(sections):
        start = -length / 2 + index * section
        first, last = index == 0, index == sections - 1
        low = (start + (0.0 if first else 0.25), -width / 2, 0.25)
        high = (start + section - (0.0 if last else 0.25), width / 2, height)
        model.box(
            (low[0] + 0.3, -width / 2.2, 0.05), (high[0] - 0.3, width / 2.2, 0.3), (24, 24, 26)
        )
        faces = model.box(low, high, paint, (170, 172, 174))
        for side in ("left", "right"):
            quad = _face_quad(model, faces[side])
            _quad_panel(model, faces[side], quad, (0.0, 1.0), (0.0, 0.3), lower)
            _quad_panel(model, faces[side], quad, (0.0, 1.0), (0.36, 0.8), PLASTIC)
            _window_row(model, faces[side], 5, (0.39, 0.77), glass)
            _quad_panel(model, faces[side], quad, (0.4, 0.58), (0.02, 0.79), lower)
            _quad_panel(model, faces[side], quad, (0.42, 0.56), (0.2, 0.75), glass)
        for end, present in (("rear", first), ("front", last)):
            if present:
                _tram_end(model, faces[end], lower, glass, end == "front")
        if not last:
            model.box(
                (high[0], -width / 2.3, 0.3),
                (high[0] + 0.5, width / 2.3, height - 0.2),
                (40, 40, 42),
            )
        if index == sections // 2:
            peak = (start + section / 2, 0.0, height + 1.1)
            model.capsule((start + section / 3, 0, height), peak, 0.04, 0.04, (70, 70, 72))
            model.capsule(
                (peak[0], -0.7, peak[2]), (peak[0], 0.7, peak[2]), 0.04, 0.04, (70, 70, 72)
            )
    return model, length, width


def _tram_end(model: Model, face: int, color: Color, glass: Color, is_front: bool) -> None:
    quad = _face_quad(model, face)
    _quad_panel(model, face, quad, (0.0, 1.0), (0.0, 0.3), color)
    _quad_panel(model, face, quad, (0.07, 0.93), (0.34, 0.8), glass)
    _quad_panel(model, face, quad, (0.3, 0.7), (0.85, 0.95), (250, 176, 50), True)
    lamp = HEADLIGHT if is_front else TAIL_LIGHT
    for across in ((0.08, 0.22), (0.78, 0.92)):
        _quad_panel(model, face, quad, across, (0.14, 0.22), lamp, True)


def trailer(rng: np.random.Generator) -> tuple[Model, float, float]:
    """A caravan or box trailer; void in Cityscapes; returns model, length, width."""
    length, width, height = float(rng.uniform(3.5, 5.5)), 2.1, float(rng.uniform(2.2, 2.6))
    model = Model(center=(0.0, 0.0, 1.2))
    faces = model.box(
        (-length / 2, -width / 2, 0.4),
        (length / 2, width / 2, height),
        pick(rng, ((232, 230, 222), (214, 212, 200))),
    )
    for side in ("left", "right"):
        _window_row(model, faces[side], 3, (0.5, 0.8), GLASS, gap=0.5)
        _wheel(model, 0.0, width / 2 * (-1 if side == "left" else 1), 0.33, faces[side])
    quad = _face_quad(model, faces["rear"])
    _quad_panel(model, faces["rear"], quad, (0.15, 0.85), (0.5, 0.82), GLASS)
    for across in ((0.03, 0.13), (0.87, 0.97)):
        _quad_panel(model, faces["rear"], quad, across, (0.06, 0.16), TAIL_LIGHT, True)
    return model, length, width
