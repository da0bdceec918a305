"""What lines a drawn street: plots with houses, walls and fences; trees, poles, signs, lights."""

from __future__ import annotations

import numpy as np

from seamless_pr.street_scenes.facades import (
    Facade,
    building,
    fence,
    random_facade_style,
    wall,
)
from seamless_pr.street_scenes.furniture import (
    POLE_COLORS,
    furniture_model,
    pole_model,
    sign_model,
    traffic_light_model,
)
from seamless_pr.street_scenes.people import pick
from seamless_pr.street_scenes.plan import AWAY, FAR_END_METRES, TOWARDS, StreetPlan, stand
from seamless_pr.street_scenes.plants import hedge, tree
from seamless_pr.street_scenes.solids import Model


def line_with_plots(plan: StreetPlan) -> None:
    """Houses, or open plots with walls, fences, hedges and trees, along both sides."""
    rng = plan.rng
    for side in (-1, 1):
        front = plan.front(side)
        z = -3.0
        open_side = rng.random() < plan.style.openness
        skyline = float(rng.uniform(7, 18))
        while z < FAR_END_METRES:
            if plan.in_crossing(z, 2.0):
                assert plan.crossing is not None
                z = plan.crossing[1] + 2.5
            length = float(rng.uniform(9, 24))
            if plan.crossing and z < plan.crossing[0] - 2 < z + length:
                length = plan.crossing[0] - 2.2 - z
            if length > 2.5:
                end = z + length
                if rng.random() < (0.8 if open_side else 0.13):
                    _open_plot(plan, side, front, (z, end), skyline)
                else:
                    _house(plan, side, front, (z, end), skyline)
            z += length + (float(rng.uniform(0.5, 4)) if rng.random() < 0.25 else 0.02)


def _house(
    plan: StreetPlan, side: int, front: float, span: tuple[float, float], skyline: float
) -> None:
    rng = plan.rng
    style = random_facade_style(rng, plan.style.facades)
    height = max(4.0, skyline + float(rng.normal(0, 2.2)))
    depth = float(rng.uniform(9, 14))
    plan.add(
        building(rng, (front, front + side * depth), span, height, style, plan.camera, plan.light)
    )


def _open_plot(
    plan: StreetPlan, side: int, front: float, span: tuple[float, float], skyline: float
) -> None:
    """A plot whose house, if any, stands back behind a wall, a fence or a hedge."""
    rng, camera, light = plan.rng, plan.camera, plan.light
    if rng.random() < 0.6:
        back = front + side * float(rng.uniform(7, 14))
        _house(plan, side, back, (span[0] + 1.5, span[1] - 0.5), 0.7 * skyline)
    border, facade_x = rng.random(), front + side * 0.15
    start, end = max(span[0], 0.6), span[1]
    if border < 0.36:
        facade = Facade((facade_x, start), (facade_x, end), float(rng.uniform(1.1, 2.8)))
        plan.add(wall(rng, facade, camera, light))
    elif border < 0.78:
        facade = Facade((facade_x, start), (facade_x, end), float(rng.uniform(0.9, 2.0)))
        plan.add(fence(rng, facade, camera, light))
    elif border < 0.92:
        plan.add(
            hedge(
                rng,
                front + side * 0.7,
                (max(2.0, start), end),
                float(rng.uniform(0.9, 1.8)),
                plan.style.green,
                camera,
                light,
            )
        )
    for _ in range(rng.poisson(0.16 * (span[1] - span[0]))):
        x = front + side * float(rng.uniform(1.6, 6.5))
        z = float(rng.uniform(max(5, span[0]), max(6, span[1])))
        plan.add(tree(rng, x, z, plan.style.green, camera, light))


def close_vista(plan: StreetPlan) -> None:
    """Houses and trees at the far end and at the ends of the cross street."""
    rng, camera, light = plan.rng, plan.camera, plan.light
    x = -110.0
    while x < 110.0:
        width = float(rng.uniform(12, 26))
        if rng.random() < 0.7:
            style = random_facade_style(rng, plan.style.facades)
            height = float(rng.uniform(7, 22))
            plan.placements.append(
                building(
                    rng,
                    (x, x + width),
                    (FAR_END_METRES, FAR_END_METRES + 8),
                    height,
                    style,
                    camera,
                    light,
                )
            )
        else:
            for at in np.arange(x, x + width, 6.0):
                plan.placements.append(
                    tree(rng, float(at), FAR_END_METRES + 2, plan.style.green, camera, light)
                )
        x += width
    if plan.crossing:
        z = (plan.crossing[0] + plan.crossing[1]) / 2
        for side in (-1, 1):
            at = side * float(rng.uniform(38, 70))
            style = random_facade_style(rng, plan.style.facades)
            span = (z - 14.0, z + 14.0)
            plan.placements.append(
                building(
                    rng, (at, at + side * 10), span, float(rng.uniform(7, 16)), style, camera, light
                )
            )


def plant_and_furnish(plan: StreetPlan) -> None:
    """Trees, lamp posts, signs, traffic lights, bollards and furniture along the curbs."""
    rng, camera, light = plan.rng, plan.camera, plan.light
    for side in (-1, 1):
        index = (side + 1) // 2
        curb = side * (plan.road_half + 0.55)
        if rng.random() < plan.style.tree_chance:
            x = side * (plan.road_half + (plan.strip[index] or 1.6) / 2 + 0.1)
            spacing = float(rng.uniform(7, 14))
            for z in np.arange(rng.uniform(6, 14), 100, spacing):
                if not plan.in_crossing(float(z), 3) and rng.random() < 0.85:
                    plan.add(tree(rng, x, float(z), plan.style.green, camera, light))
        height, arm = float(rng.uniform(5, 8)), -side * float(rng.uniform(0.8, 2.0))
        color = pick(rng, POLE_COLORS)
        for z in np.arange(rng.uniform(4, 18), 110, rng.uniform(16, 28)):
            if not plan.in_crossing(float(z), 1):
                model = pole_model(rng, height, arm, color)
                stand(plan, [("pole", model)], (curb, float(z), AWAY), (0.1, 0.1))
        for _ in range(rng.integers(1, 5)):
            _sign(plan, curb + side * float(rng.uniform(0, 0.6)), float(rng.uniform(5, 45)))
        if rng.random() < 0.25:
            for z in np.arange(rng.uniform(4, 12), rng.uniform(14, 40), 1.8):
                model = Model()
                model.capsule((0, 0, 0), (0, 0, 0.95), 0.06, 0.07, color)
                stand(plan, [("pole", model)], (curb, float(z), AWAY), (0.1, 0.1))
        for _ in range(rng.poisson(1.0)):
            x = plan.front(side) - side * float(rng.uniform(0.4, 1.0))
            heading = -side * np.pi / 2
            stand(
                plan,
                [("static", furniture_model(rng))],
                (x, float(rng.uniform(5, 35)), float(heading)),
                (0.4, 0.6),
            )
    _traffic_lights(plan)


def _sign(plan: StreetPlan, x: float, z: float) -> None:
    rng = plan.rng
    top = float(rng.uniform(2.2, 3.0))
    pole = Model()
    pole.capsule((0, 0, 0), (0, 0, top), 0.04, 0.04, (142, 144, 146))
    heading = TOWARDS + float(rng.normal(0, 0.15))
    if rng.random() < 0.15:
        heading += np.pi / 2
    stand(
        plan,
        [("pole", pole), ("traffic sign", sign_model(rng, top - 0.3))],
        (x, z, heading),
        (0.2, 0.3),
    )


def _traffic_lights(plan: StreetPlan) -> None:
    """Signals before the crossing, or a pedestrian signal somewhere along the street."""
    rng = plan.rng
    if plan.crossing and rng.random() < 0.85:
        spots = [
            (1, plan.crossing[0] - 1.5),
            (-1, plan.crossing[1] + 1.0),
            (1, plan.crossing[1] + 1.0),
            (-1, plan.crossing[0] - 1.5),
        ]
    elif rng.random() < 0.4:
        z = float(rng.uniform(9, 30))
        spots = [(1, z), (-1, z)]
    else:
        return
    color = pick(rng, POLE_COLORS)
    for side, z in spots:
        heading = TOWARDS if side > 0 or rng.random() < 0.3 else AWAY
        overhead = rng.random() < 0.4
        height = float(rng.uniform(5.0, 5.8)) if overhead else float(rng.uniform(2.9, 3.4))
        pole = Model()
        pole.capsule((0, 0, 0), (0, 0, height), 0.08, 0.07, color)
        parts = [("pole", pole)]
        facing = heading == TOWARDS
        # Model right is world left for something that looks at the viewer.
        inward = side if facing else -side
        if overhead:
            pole.capsule((0, 0, height), (0, inward * 3.2, height + 0.15), 0.07, 0.05, color)
            parts.append(
                (
                    "traffic light",
                    traffic_light_model(rng, inward * 3.0, height - 0.4, facing),
                )
            )
        parts.append(("traffic light", traffic_light_model(rng, 0.0, 2.6, facing)))
        x = side * (plan.road_half + 0.5)
        stand(plan, parts, (x, z, heading), (0.2, 0.2), force=True)
