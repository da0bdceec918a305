"""Who uses a drawn street: moving and parked vehicles, people, groups."""

from __future__ import annotations

import numpy as np

from seamless_pr.street_scenes.items import Item, Placement
from seamless_pr.street_scenes.people import (
    bicycle,
    motorcycle,
    seated_rider,
    stroller,
    walking_person,
)
from seamless_pr.street_scenes.plan import (
    AWAY,
    LANE_METRES,
    PARKING_METRES,
    TOWARDS,
    StreetPlan,
    stand,
)
from seamless_pr.street_scenes.solids import Patch, place_model
from seamless_pr.street_scenes.vehicles import bus, car, trailer, tram, truck


def _vehicle(
    plan: StreetPlan, kind: str, x: float, z: float, heading: float, *, near: bool = False
) -> bool:
    """Stands a vehicle; `near` gives z of its near end, not of its middle."""
    rng = plan.rng
    if kind in ("bicycle", "motorcycle"):
        machine = bicycle(rng) if kind == "bicycle" else motorcycle(rng)
        rider = seated_rider(rng, kind == "motorcycle")
        parts = [(kind, machine), ("rider", rider)]
        return stand(plan, parts, (x, z, heading + float(rng.normal(0, 0.12))), (0.95, 0.35))
    makers = {"car": car, "truck": truck, "bus": bus, "trailer": trailer}
    if kind == "train":
        model, length, width = tram(rng, plan.style.tram_colors)
    else:
        model, length, width = makers[kind](rng)
    if near:
        z += length / 2
    if kind not in ("train",):
        heading += float(rng.normal(0, 0.025))
    return stand(plan, [(kind, model)], (x, z, heading), (length / 2, width / 2))


def drive(plan: StreetPlan) -> None:
    """Moving traffic; rare vehicles come first, while there is room near the viewer."""
    rng = plan.rng
    lanes = [lane for lane in range(-plan.lanes, plan.lanes + 1) if lane]
    if plan.tram_x is not None and rng.random() < 0.85:
        heading = AWAY if plan.tram_x > 0 else TOWARDS
        _vehicle(plan, "train", plan.tram_x, float(rng.uniform(9, 38)), heading, near=True)
    for kind, chance in (("bus", 0.33), ("truck", 0.36), ("motorcycle", 0.3), ("bicycle", 0.55)):
        if rng.random() > chance:
            continue
        for _ in range(4):
            lane = int(rng.choice(lanes))
            x = plan.lane_x(lane) + float(rng.normal(0, 0.25))
            if kind == "bicycle":
                x = float(np.sign(lane)) * (plan.lanes * LANE_METRES - float(rng.uniform(0.4, 1.0)))
            reach = (5, 26) if kind in ("bicycle", "motorcycle") else (8, 34)
            heading = AWAY if lane > 0 else TOWARDS
            if _vehicle(plan, kind, x, float(rng.uniform(*reach)), heading, near=True):
                break
    if plan.crossing and rng.random() < 0.75:
        middle = (plan.crossing[0] + plan.crossing[1]) / 2
        for _ in range(rng.integers(1, 4)):
            kind = str(
                rng.choice(
                    ["car", "bus", "truck", "bicycle", "motorcycle"],
                    p=[0.55, 0.12, 0.13, 0.12, 0.08],
                )
            )
            eastward = rng.random() < 0.5
            z = middle + (-1.8 if eastward else 1.8)
            heading = np.pi / 2 if eastward else -np.pi / 2
            _vehicle(plan, kind, float(rng.uniform(-16, 16)), z, float(heading))
    for lane in lanes:
        z = float(rng.uniform(7, 30))
        while z < 110:
            kind = str(
                rng.choice(
                    ["car", "truck", "bus", "bicycle", "motorcycle"],
                    p=[0.84, 0.05, 0.03, 0.04, 0.04],
                )
            )
            x = plan.lane_x(lane) + float(rng.normal(0, 0.2))
            _vehicle(plan, kind, x, z, AWAY if lane > 0 else TOWARDS, near=True)
            z += float(rng.gamma(2.0, 9.0)) + 6


def park(plan: StreetPlan) -> None:
    """Parked cars, now and then a truck, trailer or motorcycle, in the parking lanes."""
    rng = plan.rng
    for side, parked in ((-1, plan.parking[0]), (1, plan.parking[1])):
        if not parked:
            continue
        x = side * (plan.road_half - PARKING_METRES / 2)
        z = float(rng.uniform(1.5, 10))
        density = float(rng.uniform(0.4, 0.95))
        group_from = float(rng.uniform(45, 70)) if rng.random() < 0.4 else 1e9
        while z < 85:
            if plan.in_crossing(z + 2, 6):
                z += 3
                continue
            if z > group_from:
                _parked_row(plan, x, z, side)
                break
            if rng.random() < density:
                kind = str(rng.choice(["car", "truck", "trailer"], p=[0.93, 0.045, 0.025]))
                heading = (AWAY if side > 0 else TOWARDS) + (np.pi if rng.random() < 0.1 else 0)
                _vehicle(plan, kind, x + float(rng.normal(0, 0.08)), z, heading, near=True)
            z += float(rng.uniform(5.4, 6.6))


def _parked_row(plan: StreetPlan, x: float, start: float, side: int) -> None:
    """Far parked cars that an annotator would not tell apart: one `cargroup`."""
    rng = plan.rng
    patches: list[Patch] = []
    end = start
    for offset in range(int(rng.integers(3, 7)), -1, -1):
        model, _, _ = car(rng)
        z = start + 3 + 5.4 * offset
        end = max(end, z + 3)
        patches += place_model(model, plan.camera, plan.light, x, z, AWAY if side > 0 else TOWARDS)
    box = (x - 1, x + 1, start, end)
    if patches and plan.is_free(box):
        plan.add(Placement([Item("cargroup", patches, depth=start)], box))


def populate(plan: StreetPlan) -> None:
    """People on the sidewalks and crossings, parked two-wheelers, groups."""
    rng = plan.rng
    for _ in range(rng.poisson(rng.choice([4.0, 12.0, 28.0, 70.0], p=[0.3, 0.4, 0.2, 0.1])) + 2):
        side = 1 if rng.random() < 0.5 else -1
        index = (side + 1) // 2
        inner = plan.road_half + plan.strip[index]
        x = side * (inner + float(rng.uniform(0.3, plan.sidewalk[index] - 0.2)))
        z = float(4.5 + rng.gamma(2.0, 9.0))
        heading = float(rng.choice([AWAY, TOWARDS, np.pi / 2, -np.pi / 2], p=[0.4, 0.4, 0.1, 0.1]))
        for companion in range(1 + int(rng.random() < 0.3)):
            height = (
                float(rng.uniform(1.58, 1.9))
                if rng.random() > 0.12
                else float(rng.uniform(1.0, 1.4))
            )
            pose = (
                x + 0.6 * companion,
                z + float(rng.normal(0, 0.2)),
                heading + float(rng.normal(0, 0.4)),
            )
            stand(plan, [("person", walking_person(rng, height))], pose, (0.3, 0.3), margin=0.05)
        if rng.random() < 0.06:
            stand(plan, [("dynamic", stroller(rng))], (x, z + 0.9, heading), (0.3, 0.3))
    if rng.random() < 0.4:
        z = plan.crossing[0] - 1.8 if plan.crossing else float(rng.uniform(8, 30))
        for _ in range(rng.integers(1, 5)):
            pose = (
                float(rng.uniform(-plan.road_half, plan.road_half)),
                z + float(rng.normal(0, 0.8)),
                float(rng.choice([-np.pi / 2, np.pi / 2])) + float(rng.normal(0, 0.3)),
            )
            height = float(rng.uniform(1.55, 1.9))
            stand(plan, [("person", walking_person(rng, height))], pose, (0.3, 0.3))
    for kind, chance in (("bicycle", 0.65), ("bicycle", 0.4), ("motorcycle", 0.36)):
        if rng.random() < chance:
            side = 1 if rng.random() < 0.5 else -1
            start = float(rng.uniform(4, 24))
            heading = float(rng.choice([AWAY, TOWARDS, np.pi / 2])) + float(rng.normal(0, 0.3))
            on_curb = rng.random() < 0.5
            x = (
                side * (plan.road_half + 0.5)
                if on_curb
                else (plan.front(side) - side * float(rng.uniform(0.4, 0.9)))
            )
            for offset in range(int(rng.integers(1, 5))):
                model = bicycle(rng) if kind == "bicycle" else motorcycle(rng)
                spread = 0.75 if abs(np.sin(heading)) > 0.7 else 1.9
                pose = (x, start + spread * offset, heading + float(rng.normal(0, 0.1)))
                stand(plan, [(kind, model)], pose, (0.9, 0.25), margin=0.0)
    _groups(plan)


def _groups(plan: StreetPlan) -> None:
    """A knot of people or a bicycle stand that is labelled as a whole."""
    rng = plan.rng
    for label, chance in (("persongroup", 0.4), ("bicyclegroup", 0.25)):
        if rng.random() > chance:
            continue
        side = 1 if rng.random() < 0.5 else -1
        x = plan.front(side) - side * 1.2
        z = float(rng.uniform(28, 55)) if label == "persongroup" else float(rng.uniform(12, 35))
        patches: list[Patch] = []
        for offset in range(int(rng.integers(5, 10)), 0, -1):
            if label == "persongroup":
                model = walking_person(rng, float(rng.uniform(1.5, 1.85)))
                at, heading = x + float(rng.normal(0, 0.8)), float(rng.uniform(0, 6.28))
                depth = z + 0.45 * offset
            else:
                model, at, heading = bicycle(rng), x, np.pi / 2 + float(rng.normal(0, 0.08))
                depth = z + 0.5 * offset
            patches += place_model(model, plan.camera, plan.light, at, depth, float(heading))
        box = (x - 1.2, x + 1.2, z, z + 4.5)
        if patches and plan.is_free(box):
            plan.add(Placement([Item(label, patches, depth=z)], box))
