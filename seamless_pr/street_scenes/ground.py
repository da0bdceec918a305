"""The ground of a drawn street: road, sidewalks, terrain, parking bays, paint on the road."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from seamless_pr.street_scenes.camera import Array
from seamless_pr.street_scenes.items import Item, polygon_patch
from seamless_pr.street_scenes.people import pick
from seamless_pr.street_scenes.plan import (
    FAR_END_METRES,
    LANE_METRES,
    PARKING_METRES,
    StreetPlan,
)
from seamless_pr.street_scenes.solids import Color, Patch, shaded


def flat_rectangle(x0: float, x1: float, z0: float, z1: float) -> Array:
    """A rectangle [4, 3] on the ground."""
    return np.asarray([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)], dtype=np.float64)


def _ordered(first: float, second: float) -> tuple[float, float]:
    return min(first, second), max(first, second)


def lay_ground(plan: StreetPlan) -> tuple[list[Item], list[Patch]]:
    """Items of road, sidewalks and terrain (far to near does not matter), and the road marks."""
    rng, style, camera = plan.rng, plan.style, plan.camera
    tint = np.asarray(plan.light.tint) * (plan.light.ambient + 0.75 * plan.light.diffuse)

    def lit(color: Color) -> Color:
        red, green, blue = (float(min(250.0, c * t)) for c, t in zip(color, tint, strict=True))
        return red, green, blue

    grass = pick(rng, ((104, 128, 62), (124, 130, 76), (86, 116, 54), (136, 118, 84)))
    far = FAR_END_METRES + 40
    items = [
        Item("terrain", polygon_patch(camera, flat_rectangle(-250, 250, 0.0, far), lit(grass)))
    ]
    paving, asphalt = pick(rng, (style.paving,)), pick(rng, (style.asphalt,))
    road = plan.road_half
    for side in (-1, 1):
        strip = plan.strip[(side + 1) // 2]
        inner = side * (road + strip)
        span = _ordered(inner, plan.front(side))
        patches = polygon_patch(camera, flat_rectangle(span[0], span[1], -2, far), lit(paving))
        if strip and rng.random() < 0.3:
            patches += polygon_patch(
                camera, flat_rectangle(*_ordered(side * road, inner), -2, far), lit(paving)
            )
        items.append(Item("sidewalk", patches))
    road_patches = []
    if plan.crossing:
        start, end = plan.crossing
        for side in (-1, 1):
            corner = flat_rectangle(
                *_ordered(side * (road - 0.2), side * 200.0), start - 2.5, end + 2.5
            )
            items.append(Item("sidewalk", polygon_patch(camera, corner, lit(paving))))
        road_patches += polygon_patch(camera, flat_rectangle(-250, 250, start, end), lit(asphalt))
    road_patches += polygon_patch(camera, flat_rectangle(-road, road, -2, far), lit(asphalt))
    items.append(Item("road", road_patches))
    if rng.random() < 0.3 and any(plan.parking):
        side = 1 if plan.parking[1] else -1
        span = _ordered(side * (road - PARKING_METRES), side * road)
        end = plan.crossing[0] - 3 if plan.crossing else 45.0
        bay = flat_rectangle(span[0], span[1], -2, end)
        bay_color = pick(rng, ((122, 110, 104), (132, 130, 128)))
        items.append(Item("parking", polygon_patch(camera, bay, lit(bay_color))))
    red, green, blue = (min(250.0, 1.12 * c) for c in lit(paving))
    curb = (red, green, blue)
    return items, _road_marks(plan, lit, curb)


def _road_marks(plan: StreetPlan, lit: Callable[[Color], Color], curb: Color) -> list[Patch]:
    """Curbs, lane lines, zebra crossings, stop lines, rails, patches and manholes."""
    rng, camera, road = plan.rng, plan.camera, plan.road_half
    wear = float(rng.uniform(0.75, 1.0))
    white = lit((226 * wear, 226 * wear, 220 * wear))
    marks: list[Patch] = []

    def flat(x0: float, x1: float, z0: float, z1: float, color: Color) -> None:
        if not (plan.in_crossing(z0) and plan.in_crossing(z1)):
            marks.extend(polygon_patch(camera, flat_rectangle(x0, x1, z0, z1), color, solid=False))

    for _ in range(rng.integers(1, 6)):
        x, z = float(rng.uniform(-road, road - 1)), float(rng.uniform(4, 40))
        shade = float(rng.uniform(0.78, 1.12))
        asphalt = shaded(lit(plan.style.asphalt), np.full(3, shade))
        flat(x, x + float(rng.uniform(0.5, 2)), z, z + float(rng.uniform(1, 9)), asphalt)
    for _ in range(rng.integers(0, 3)):
        x, z = float(rng.uniform(-road, road)), float(rng.uniform(5, 22))
        angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
        circle = np.stack([x + 0.35 * np.cos(angle), 0 * angle, z + 0.35 * np.sin(angle)], -1)
        marks.extend(polygon_patch(camera, circle, lit((58, 58, 60)), solid=False))
    if plan.tram_x is not None:
        for offset in (-0.75, 0.75):
            x = plan.tram_x + offset
            marks.extend(
                polygon_patch(camera, flat_rectangle(x - 0.13, x + 0.13, 1, 140), lit((84, 82, 80)))
            )
            marks.extend(
                polygon_patch(
                    camera, flat_rectangle(x - 0.035, x + 0.035, 1, 140), lit((168, 166, 164))
                )
            )
    stretches = [(1.0, 120.0)]
    if plan.crossing:
        stretches = [(1.0, plan.crossing[0] - 3.5), (plan.crossing[1] + 3.5, 120.0)]
    for start, end in stretches:
        for side in (-1, 1):
            flat(*_ordered(side * road, side * (road + 0.18)), start, end, curb)
        if plan.style.field_of_view and rng.random() < 0.75:
            dash, period = float(rng.uniform(2, 4)), float(rng.uniform(6, 9))
            for lane in range(-plan.lanes + 1, plan.lanes):
                x = lane * LANE_METRES
                if lane == 0 and rng.random() < 0.4:
                    flat(x - 0.07, x + 0.07, start, end, white)
                    continue
                for z in np.arange(start + rng.uniform(0, 4), end, period):
                    flat(x - 0.07, x + 0.07, float(z), min(float(z) + dash, end), white)
        for side, parked in ((-1, plan.parking[0]), (1, plan.parking[1])):
            if parked and rng.random() < 0.5:
                x = side * (road - PARKING_METRES)
                flat(x - 0.05, x + 0.05, start, end, white)
    if plan.crossing:
        near = plan.crossing[0]
        if rng.random() < 0.7:
            for x in np.arange(-road + 0.3, road - 0.5, 1.0):
                flat(float(x), float(x) + 0.5, near - 3.2, near - 0.4, white)
        flat(0.2, road - 0.2, near - 4.4, near - 4.0, white)
    return marks
