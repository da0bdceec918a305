"""Solid models of people and two-wheelers: metres, frame (forward, right, up)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seamless_pr.street_scenes.camera import Array
from seamless_pr.street_scenes.solids import Color, Model

SKIN_TONES: tuple[Color, ...] = (
    (236, 196, 168),
    (222, 176, 142),
    (190, 138, 104),
    (142, 96, 68),
    (96, 64, 46),
)
HAIR_COLORS: tuple[Color, ...] = ((35, 28, 24), (84, 58, 36), (150, 112, 62), (120, 120, 118))


CLOTH_COLORS: tuple[Color, ...] = (
    (30, 32, 38),
    (48, 52, 70),
    (34, 48, 92),
    (150, 36, 40),
    (196, 192, 184),
    (110, 112, 110),
    (70, 84, 56),
    (172, 140, 96),
    (196, 84, 40),
    (56, 120, 140),
    (206, 176, 58),
    (142, 74, 118),
    (230, 228, 224),
)
TROUSER_COLORS: tuple[Color, ...] = (
    (32, 34, 42),
    (44, 56, 86),
    (70, 84, 116),
    (60, 56, 52),
    (134, 120, 98),
    (92, 92, 94),
)
TYRE: Color = (28, 28, 30)


METAL: Color = (140, 142, 146)


WHEEL_CORNERS = 18


def pick(rng: np.random.Generator, colors: Sequence[Color], spread: float = 10.0) -> Color:
    """One of the colours, a little changed."""
    red, green, blue = colors[int(rng.integers(len(colors)))]
    # Mostly brightness: independent noise on the channels would turn grey houses purple.
    brightness, warmth, tint = rng.normal(0, spread), *rng.normal(0, 0.3 * spread, 2)
    return (
        min(248.0, max(8.0, red + brightness + warmth)),
        min(248.0, max(8.0, green + brightness + tint)),
        min(248.0, max(8.0, blue + brightness - warmth)),
    )


def walking_person(rng: np.random.Generator, height: float) -> Model:
    """A person who walks or stands, facing forward; `height` in metres."""
    model = Model(center=(0.0, 0.0, height / 2))
    top, trousers = pick(rng, CLOTH_COLORS), pick(rng, TROUSER_COLORS)
    skin, hair = pick(rng, SKIN_TONES, 6), pick(rng, HAIR_COLORS, 6)
    shoes = pick(rng, ((30, 28, 26), (200, 200, 200), (90, 60, 40)))
    stride = 0.0 if rng.random() < 0.3 else float(rng.uniform(0.15, 0.5))
    girth = float(rng.uniform(0.85, 1.2))
    unit = height / 1.75
    hip, shoulder = 0.92 * unit, 1.42 * unit
    for side in (-1, 1):
        swing = side * stride * unit
        knee = (0.55 * swing, side * 0.1 * unit, 0.5 * unit)
        foot = (swing - 0.05 * abs(swing), side * 0.1 * unit, 0.07 * unit)
        width = 0.085 * unit * girth
        model.capsule((0, side * 0.09 * unit, hip), knee, width * 1.15, width * 0.85, trousers)
        model.capsule(knee, foot, width * 0.85, width * 0.6, trousers)
        toe = (foot[0] + 0.14 * unit, foot[1], 0.05 * unit)
        model.capsule(foot, toe, 0.055 * unit, 0.045 * unit, shoes)
        _arm(model, side, -swing * 0.7, shoulder, unit, top, skin)
    _torso(model, (0.0, hip), (0.0, shoulder), unit * girth, top)
    if rng.random() < 0.22:
        _skirt(model, hip, unit * girth, pick(rng, CLOTH_COLORS))
    elif rng.random() < 0.3:
        coat_end = hip - float(rng.uniform(0.1, 0.4)) * unit
        model.capsule((0, 0, hip), (0, 0, coat_end), 0.17 * unit * girth, 0.2 * unit * girth, top)
    if rng.random() < 0.25:
        bag = pick(rng, CLOTH_COLORS)
        model.capsule((-0.2 * unit, 0, 1.35 * unit), (-0.2 * unit, 0, 1.08 * unit), 0.13, 0.14, bag)
    elif rng.random() < 0.25:
        side = 1 if rng.random() < 0.5 else -1
        bag = pick(rng, CLOTH_COLORS)
        hand = (0.0, side * 0.27 * unit)
        model.capsule((*hand, 0.72 * unit), (*hand, 0.5 * unit), 0.05, 0.13, bag)
    _head(model, (0.02, 0.0, 1.6 * unit), unit, skin, hair)
    return model


def _torso(
    model: Model,
    hip: tuple[float, float],
    shoulder: tuple[float, float],
    unit: float,
    color: Color,
) -> None:
    """Three capsules from hip to shoulder, each given as (forward, up)."""
    for side in (-1, 0, 1):
        lower = (hip[0], side * 0.07 * unit, hip[1] + 0.02)
        upper = (shoulder[0], side * 0.11 * unit, shoulder[1] - 0.02)
        model.capsule(lower, upper, 0.115 * unit, 0.105 * unit, color)


def _arm(
    model: Model, side: int, swing: float, shoulder: float, unit: float, sleeve: Color, skin: Color
) -> None:
    top = (0.0, side * 0.2 * unit, shoulder - 0.02)
    elbow = (0.4 * swing - 0.03, side * 0.27 * unit, shoulder - 0.3 * unit)
    hand = (swing, side * 0.25 * unit, shoulder - 0.54 * unit)
    model.capsule(top, elbow, 0.06 * unit, 0.05 * unit, sleeve)
    model.capsule(elbow, hand, 0.05 * unit, 0.04 * unit, sleeve)
    model.ball(hand, 0.048 * unit, skin)


def _skirt(model: Model, hip: float, unit: float, color: Color) -> None:
    model.capsule((0, 0, hip + 0.04), (0, 0, hip - 0.35 * unit), 0.14 * unit, 0.23 * unit, color)


def _head(
    model: Model, center: tuple[float, float, float], unit: float, skin: Color, hair: Color
) -> None:
    forward, right, up = center
    model.capsule((forward, right, up - 0.18 * unit), center, 0.055 * unit, 0.055 * unit, skin)
    model.ball((forward + 0.02, right, up), 0.1 * unit, skin)
    model.ball((forward - 0.035 * unit, right, up + 0.045 * unit), 0.105 * unit, hair)


def seated_rider(rng: np.random.Generator, motorcycle: bool) -> Model:
    """A person on a two-wheeler that stands at the same place and heading."""
    model = Model(center=(0.0, 0.0, 1.1))
    top, trousers = pick(rng, CLOTH_COLORS), pick(rng, TROUSER_COLORS)
    skin = pick(rng, SKIN_TONES, 6)
    helmet = motorcycle or rng.random() < 0.6
    hair = pick(rng, CLOTH_COLORS if helmet else HAIR_COLORS, 6)
    hip = (-0.22, 0.86) if motorcycle else (-0.25, 1.0)
    lean = float(rng.uniform(0.15, 0.3)) if motorcycle else float(rng.uniform(0.2, 0.42))
    shoulder = (hip[0] + lean, hip[1] + 0.5)
    grip_up, grip_forward = (1.02, 0.38) if motorcycle else (1.03, 0.42)
    pedal_phase = float(rng.uniform(0, 2 * np.pi))
    for side in (-1, 1):
        if motorcycle:
            knee, foot = (0.16, side * 0.24, 0.76), (-0.02, side * 0.24, 0.32)
        else:
            phase = pedal_phase + (0 if side > 0 else np.pi)
            foot = (0.05 + 0.16 * np.cos(phase), side * 0.13, 0.34 + 0.16 * np.sin(phase))
            knee = (0.22 + 0.05 * np.cos(phase), side * 0.13, 0.74 + 0.09 * np.sin(phase))
        model.capsule((hip[0], side * 0.1, hip[1]), knee, 0.095, 0.075, trousers)
        model.capsule(knee, foot, 0.075, 0.05, trousers)
        model.capsule(foot, (foot[0] + 0.13, foot[1], foot[2] - 0.02), 0.05, 0.04, (35, 32, 30))
        elbow = ((shoulder[0] + grip_forward) / 2, side * 0.29, shoulder[1] - 0.28)
        grip = (grip_forward, side * 0.27, grip_up)
        model.capsule((shoulder[0], side * 0.19, shoulder[1] - 0.03), elbow, 0.065, 0.05, top)
        model.capsule(elbow, grip, 0.05, 0.04, top)
        model.ball(grip, 0.045, skin)
    _torso(model, hip, shoulder, 1.0, top)
    if rng.random() < 0.25:
        back = (hip[0] + 0.3 * lean - 0.16, 0.0)
        model.capsule((*back, hip[1] + 0.45), (*back, hip[1] + 0.2), 0.13, 0.14, hair)
    _head(model, (shoulder[0] + 0.07, 0.0, shoulder[1] + 0.2), 1.08 if helmet else 1.0, skin, hair)
    return model


def _wheel_circle(forward: float, right: float, radius: float, lift: float = 0.0) -> Array:
    angle = np.linspace(0, 2 * np.pi, WHEEL_CORNERS, endpoint=False)
    return np.stack(
        [
            forward + radius * np.cos(angle),
            np.full_like(angle, right),
            radius + radius * np.sin(angle) + lift,
        ],
        -1,
    )


def bicycle(rng: np.random.Generator) -> Model:
    """A bicycle: rings for wheels, a diamond frame of bars, saddle and handlebars."""
    model = Model(center=(0.0, 0.0, 0.5))
    frame = pick(
        rng,
        (
            (30, 30, 32),
            (160, 30, 34),
            (36, 66, 140),
            (190, 190, 186),
            (40, 110, 70),
            (210, 150, 40),
        ),
    )
    radius = float(rng.uniform(0.31, 0.36))
    for forward in (-0.52, 0.52):
        model.face(
            _wheel_circle(forward, 0.0, radius, lift=0.01),
            TYRE,
            two_sided=True,
            ring_metres=0.055,
        )
        # A bar inside the ring keeps the wheel wide enough when it is seen from the front.
        model.capsule((forward, 0, 0.04), (forward, 0, 2 * radius - 0.04), 0.022, 0.022, TYRE)
        model.capsule(
            (forward - radius + 0.04, 0, radius),
            (forward + radius - 0.04, 0, radius),
            0.006,
            0.006,
            METAL,
        )
    crank, seat, head = (-0.06, 0.0, 0.3), (-0.2, 0.0, 0.82), (0.38, 0.0, 0.84)
    rear, front = (-0.52, 0.0, radius), (0.52, 0.0, radius)
    step_through = rng.random() < 0.4
    low_seat = (-0.13, 0.0, 0.5) if step_through else seat
    for start, end in (
        (rear, crank),
        (rear, seat),
        (crank, seat),
        (crank, head),
        (low_seat, head),
        (front, (0.36, 0.0, 0.98)),
    ):
        model.capsule(start, end, 0.024, 0.024, frame)
    model.capsule(seat, (-0.22, 0, 0.95), 0.018, 0.018, METAL)
    model.capsule((-0.34, 0, 0.97), (-0.1, 0, 0.97), 0.06, 0.035, (25, 24, 24))
    model.capsule((0.37, -0.28, 1.02), (0.37, 0.28, 1.02), 0.02, 0.02, (40, 40, 42))
    model.capsule((-0.06, -0.13, 0.2), (-0.06, 0.13, 0.4), 0.02, 0.02, (60, 60, 62))
    if rng.random() < 0.35:
        basket = pick(rng, ((120, 92, 60), (50, 50, 52)))
        model.box((0.42, -0.17, 0.78), (0.68, 0.17, 1.0), basket)
    if rng.random() < 0.4:
        model.capsule((-0.6, 0, 0.73), (-0.25, 0, 0.75), 0.035, 0.035, (50, 50, 52))
    return model


def motorcycle(rng: np.random.Generator) -> Model:
    """A motorcycle or scooter: fat wheels, tank, seat, engine, fork, lamp."""
    model = Model(center=(0.0, 0.0, 0.5))
    paint = pick(rng, ((24, 24, 28), (170, 28, 30), (36, 60, 130), (220, 220, 216), (200, 110, 30)))
    scooter = rng.random() < 0.4
    radius = 0.24 if scooter else 0.31
    base = 0.6 if scooter else 0.7
    for forward in (-base, base):
        wheel = _wheel_circle(forward, 0.0, radius)
        model.face(wheel, TYRE, two_sided=True, ring_metres=0.06)
        model.face(wheel, TYRE, two_sided=True)
        model.face(
            _wheel_circle(forward, 0.0, radius * 0.5, lift=radius * 0.5),
            (120, 120, 124),
            two_sided=True,
        )
        model.capsule((forward, 0, 0.06), (forward, 0, 2 * radius - 0.06), 0.07, 0.07, TYRE)
    dark: Color = (44, 44, 48)
    if scooter:
        model.capsule((-0.62, 0, 0.56), (-0.12, 0, 0.52), 0.2, 0.16, paint)
        model.capsule((-0.1, 0, 0.24), (0.36, 0, 0.24), 0.1, 0.1, paint)
        model.capsule((0.42, 0, 0.3), (0.34, 0, 0.88), 0.19, 0.15, paint)
        model.capsule((-0.6, 0, 0.76), (-0.1, 0, 0.76), 0.1, 0.1, (30, 28, 28))
    else:
        model.capsule((-0.18, 0, 0.42), (0.22, 0, 0.44), 0.19, 0.19, dark)
        model.capsule((-0.05, 0, 0.78), (0.3, 0, 0.8), 0.13, 0.15, paint)
        model.capsule((-0.78, 0, 0.84), (-0.1, 0, 0.78), 0.09, 0.12, (30, 28, 28))
        model.capsule((-0.85, 0, 0.78), (-0.4, 0, 0.66), 0.07, 0.11, paint)
        model.capsule((-0.2, 0.16, 0.3), (-0.85, 0.18, 0.42), 0.05, 0.06, (160, 160, 164))
    model.capsule((base, -0.07, radius), (0.4, -0.07, 0.95), 0.035, 0.035, METAL)
    model.capsule((base, 0.07, radius), (0.4, 0.07, 0.95), 0.035, 0.035, METAL)
    model.capsule((0.36, -0.36, 1.03), (0.36, 0.36, 1.03), 0.025, 0.025, dark)
    model.capsule((0.4, -0.34, 1.04), (0.38, -0.36, 1.2), 0.012, 0.045, dark)
    model.capsule((0.4, 0.34, 1.04), (0.38, 0.36, 1.2), 0.012, 0.045, dark)
    model.ball((0.52, 0, 0.88), 0.1, (240, 236, 214))
    model.ball((-0.86, 0, 0.72), 0.06, (196, 30, 28))
    return model


def stroller(rng: np.random.Generator) -> Model:
    """A pushchair; unlabelled `dynamic` in Cityscapes."""
    model = Model(center=(0.0, 0.0, 0.5))
    cloth = pick(rng, CLOTH_COLORS)
    model.capsule((-0.1, 0, 0.55), (0.25, 0, 0.5), 0.22, 0.2, cloth)
    model.capsule((-0.15, 0, 0.6), (-0.1, 0, 0.9), 0.2, 0.16, cloth)
    for side in (-0.22, 0.22):
        model.capsule((-0.3, side, 0.12), (0.3, side, 0.12), 0.11, 0.09, TYRE)
        model.capsule((0.3, side, 0.15), (-0.55, side, 1.05), 0.018, 0.018, METAL)
    return model
