"""Solid models of poles, lights, signs, street furniture: metres, frame (forward, right, up)."""

from __future__ import annotations

import numpy as np

from seamless_pr.street_scenes.people import pick
from seamless_pr.street_scenes.solids import Color, Model, shaded

POLE_COLORS: tuple[Color, ...] = ((96, 100, 102), (62, 66, 68), (140, 142, 140), (50, 70, 58))


SIGN_BLUE: Color = (28, 82, 168)


SIGN_RED: Color = (190, 28, 34)


SIGN_WHITE: Color = (236, 236, 230)


SIGN_YELLOW: Color = (232, 190, 40)


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
