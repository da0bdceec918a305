"""Where things stand in a drawn street: the road, what lines it, who uses it.

The street runs along z; traffic keeps to the right. Everything is decided from one random generator, so
a scene is a function of its seed alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from seamless_pr.data import street_surroundings as surroundings
from seamless_pr.data.street_objects import (
    bicycle,
    motorcycle,
    pick,
    seated_rider,
    stroller,
    walking_person,
)
from seamless_pr.data.street_render import (
    Array,
    Camera,
    Color,
    Light,
    Model,
    Patch,
    make_camera,
    model_to_world,
    place_model,
)
from seamless_pr.data.street_surroundings import Facade, Item, Placement, polygon_patch
from seamless_pr.data.street_vehicles import bus, car, trailer, tram, truck

LANE_METRES = 3.3
PARKING_METRES = 2.2
FAR_END_METRES = 150.0
AWAY, TOWARDS = 0.0, float(np.pi)


@dataclass(frozen=True)
class CityStyle:
    """What the streets of one city have in common.

    Attributes:
        name: folder name.
        facades: wall colours.
        asphalt, paving: colours of road and sidewalk.
        green: leaves.
        tram_colors: livery.
        openness: chance of a plot without a house at the street.
        tree_chance: chance of a row of trees.
        ego_height: share of the image that the ego vehicle covers.
        field_of_view: radians.
    """

    name: str
    facades: tuple[Color, ...]
    asphalt: Color
    paving: Color
    green: Color
    tram_colors: tuple[Color, ...]
    openness: float
    tree_chance: float
    ego_height: float
    field_of_view: float


@dataclass
class Scene:
    """A street before it is painted.

    Attributes:
        camera, light: the view.
        ground: items of the ground, in painting order.
        marks: paint on the road, not labelled.
        placements: everything that stands on the ground, in painting order.
        sky: colours at the zenith and at the horizon.
        haze_metres: distance at which 63 % of the light is lost.
        cloudiness: 0 = clear, 1 = grey.
        ego_height: share of the image height that the ego vehicle covers.
    """

    camera: Camera
    light: Light
    ground: list[Item]
    marks: list[Patch]
    placements: list[Placement]
    sky: tuple[Color, Color]
    haze_metres: float
    cloudiness: float
    ego_height: float


@dataclass
class _Plan:
    """The cross-section of the street and what is taken so far."""

    rng: np.random.Generator
    style: CityStyle
    camera: Camera
    light: Light
    lanes: int
    road_half: float
    parking: tuple[bool, bool]
    strip: tuple[float, float]
    sidewalk: tuple[float, float]
    crossing: tuple[float, float] | None
    tram_x: float | None
    placements: list[Placement] = field(default_factory=list)
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def front(self, side: int) -> float:
        """x where the plots begin; side is -1 (left) or 1 (right)."""
        index = (side + 1) // 2
        return side * (self.road_half + self.strip[index] + self.sidewalk[index])

    def lane_x(self, lane: int) -> float:
        """Centre of the lane, counted from the middle; negative lanes come towards the viewer."""
        return float(np.sign(lane) * (abs(lane) - 0.5) * LANE_METRES)

    def is_free(self, box: tuple[float, float, float, float], margin: float = 0.25) -> bool:
        x0, x1, z0, z1 = box
        return not any(
            x0 - margin < b[1] and x1 + margin > b[0] and z0 - margin < b[3] and z1 + margin > b[2]
            for b in self.taken
        )

    def in_crossing(self, z: float, margin: float = 0.0) -> bool:
        return (
            self.crossing is not None and self.crossing[0] - margin < z < self.crossing[1] + margin
        )

    def add(self, placement: Placement) -> None:
        self.placements.append(placement)
        self.taken.append(placement.footprint)


def lay_out_scene(rng: np.random.Generator, style: CityStyle, size: tuple[int, int]) -> Scene:
    """Decides on view, weather, street and everything in it.

    Args:
        rng: the only source of randomness.
        style: the city.
        size: (height, width) of the image.

    Returns:
        The scene with its placements sorted far to near.
    """
    light, sky, haze_metres, cloudiness = _weather(rng)
    lanes = int(rng.choice([1, 2], p=[0.72, 0.28]))
    parking = (bool(rng.random() < 0.6), bool(rng.random() < 0.6))
    road_half = lanes * LANE_METRES + (PARKING_METRES if any(parking) else 0.4)
    camera_x = (lanes - 0.5) * LANE_METRES + float(rng.normal(0, 0.3))
    if rng.random() < 0.15:
        camera_x = 0.5 * LANE_METRES
    camera = make_camera(
        size,
        style.field_of_view * float(rng.uniform(0.92, 1.1)),
        (camera_x, float(rng.uniform(1.25, 1.9)), 0.0),
        yaw=float(rng.normal(0, 0.07)),
        pitch=float(rng.normal(0, 0.012)),
        roll=float(rng.normal(0, 0.008)),
        horizon_fraction=float(rng.uniform(0.4, 0.5)),
    )
    crossing = None
    if rng.random() < 0.5:
        start = float(rng.uniform(12, 50))
        crossing = (start, start + float(rng.uniform(7, 12)))
    strips = [float(rng.uniform(0.8, 2.2)) if rng.random() < 0.4 else 0.0 for _ in range(2)]
    sidewalks = [float(rng.uniform(1.8, 4.5)) for _ in range(2)]
    plan = _Plan(
        rng,
        style,
        camera,
        light,
        lanes,
        road_half,
        parking,
        (strips[0], strips[1]),
        (sidewalks[0], sidewalks[1]),
        crossing,
        tram_x=float(rng.choice([-0.5, 0.5]) * LANE_METRES) if rng.random() < 0.35 else None,
    )
    ground, marks = _ground(plan)
    # The ego vehicle's own lane stays free in front of the bumper.
    plan.taken.append((camera_x - 1.2, camera_x + 1.2, -5.0, 7.0))
    _line_with_plots(plan)
    _close_vista(plan)
    _drive(plan)
    _park(plan)
    _plant_and_furnish(plan)
    _populate(plan)
    return Scene(
        camera,
        light,
        ground,
        marks,
        sort_far_to_near(plan.placements, camera),
        sky,
        haze_metres,
        cloudiness,
        style.ego_height * float(rng.uniform(0.85, 1.15)) if rng.random() < 0.85 else 0.0,
    )


def _weather(rng: np.random.Generator) -> tuple[Light, tuple[Color, Color], float, float]:
    azimuth, elevation = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.45, 1.1))
    sun = np.asarray(
        [
            np.cos(azimuth) * np.cos(elevation),
            np.sin(elevation),
            np.sin(azimuth) * np.cos(elevation),
        ]
    )
    kind = rng.random()
    if kind < 0.5:  # sunny
        warm = float(rng.uniform(0, 0.08))
        light = Light(
            sun,
            float(rng.uniform(0.5, 0.66)),
            float(rng.uniform(0.4, 0.6)),
            (1 + warm, 1.0, 1 - warm),
        )
        zenith, horizon = pick(rng, ((70, 124, 200), (96, 150, 214))), (206, 222, 238)
        return light, (zenith, horizon), float(rng.uniform(160, 420)), float(rng.uniform(0, 0.7))
    if kind < 0.85:  # overcast
        light = Light(
            sun, float(rng.uniform(0.78, 0.95)), float(rng.uniform(0.02, 0.12)), (0.97, 1.0, 1.03)
        )
        grey = float(rng.uniform(170, 228))
        return (
            light,
            ((grey - 24, grey - 16, grey - 6), (grey + 6, grey + 9, grey + 12)),
            float(rng.uniform(90, 240)),
            1.0,
        )
    light = Light(
        sun,
        float(rng.uniform(0.42, 0.55)),
        float(rng.uniform(0.15, 0.3)),  # evening
        (1.1, 0.97, 0.88),
    )
    return (
        light,
        ((92, 112, 158), (236, 196, 158)),
        float(rng.uniform(120, 300)),
        float(rng.uniform(0.2, 0.9)),
    )


def _flat(x0: float, x1: float, z0: float, z1: float, up: float = 0.0) -> Array:
    return np.asarray([(x0, up, z0), (x1, up, z0), (x1, up, z1), (x0, up, z1)], dtype=np.float64)


def _ground(plan: _Plan) -> tuple[list[Item], list[Patch]]:
    """Items of road, sidewalks and terrain (far to near does not matter), and the road marks."""
    rng, style, camera = plan.rng, plan.style, plan.camera
    tint = np.asarray(plan.light.tint) * (plan.light.ambient + 0.75 * plan.light.diffuse)

    def lit(color: Color) -> Color:
        return tuple(float(min(250.0, c * t)) for c, t in zip(color, tint, strict=True))

    grass = pick(rng, ((104, 128, 62), (124, 130, 76), (86, 116, 54), (136, 118, 84)))
    far = FAR_END_METRES + 40
    items = [Item("terrain", polygon_patch(camera, _flat(-250, 250, 0.0, far), lit(grass)))]
    paving, asphalt = pick(rng, (style.paving,)), pick(rng, (style.asphalt,))
    road = plan.road_half
    for side in (-1, 1):
        strip = plan.strip[(side + 1) // 2]
        inner = side * (road + strip)
        span = sorted((inner, plan.front(side)))
        patches = polygon_patch(camera, _flat(span[0], span[1], -2, far), lit(paving))
        if strip and rng.random() < 0.3:
            patches += polygon_patch(
                camera, _flat(*sorted((side * road, inner)), -2, far), lit(paving)
            )
        items.append(Item("sidewalk", patches))
    road_patches = []
    if plan.crossing:
        start, end = plan.crossing
        for side in (-1, 1):
            corner = _flat(*sorted((side * (road - 0.2), side * 200)), start - 2.5, end + 2.5)
            items.append(Item("sidewalk", polygon_patch(camera, corner, lit(paving))))
        road_patches += polygon_patch(camera, _flat(-250, 250, start, end), lit(asphalt))
    road_patches += polygon_patch(camera, _flat(-road, road, -2, far), lit(asphalt))
    items.append(Item("road", road_patches))
    if rng.random() < 0.3 and any(plan.parking):
        side = 1 if plan.parking[1] else -1
        span = sorted((side * (road - PARKING_METRES), side * road))
        end = plan.crossing[0] - 3 if plan.crossing else 45.0
        bay = _flat(span[0], span[1], -2, end)
        bay_color = pick(rng, ((122, 110, 104), (132, 130, 128)))
        items.append(Item("parking", polygon_patch(camera, bay, lit(bay_color))))
    curb = tuple(min(250.0, 1.12 * c) for c in lit(paving))
    return items, _road_marks(plan, lit, curb)


def _road_marks(plan: _Plan, lit: Callable[[Color], Color], curb: Color) -> list[Patch]:
    """Curbs, lane lines, zebra crossings, stop lines, rails, patches and manholes."""
    rng, camera, road = plan.rng, plan.camera, plan.road_half
    wear = float(rng.uniform(0.75, 1.0))
    white = lit((226 * wear, 226 * wear, 220 * wear))
    marks: list[Patch] = []

    def flat(x0: float, x1: float, z0: float, z1: float, color: Color) -> None:
        if not (plan.in_crossing(z0) and plan.in_crossing(z1)):
            marks.extend(polygon_patch(camera, _flat(x0, x1, z0, z1), color, solid=False))

    for _ in range(rng.integers(1, 6)):
        x, z = float(rng.uniform(-road, road - 1)), float(rng.uniform(4, 40))
        shade = float(rng.uniform(0.78, 1.12))
        asphalt = tuple(shade * c for c in lit(plan.style.asphalt))
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
                polygon_patch(camera, _flat(x - 0.13, x + 0.13, 1, 140), lit((84, 82, 80)))
            )
            marks.extend(
                polygon_patch(camera, _flat(x - 0.035, x + 0.035, 1, 140), lit((168, 166, 164)))
            )
    stretches = [(1.0, 120.0)]
    if plan.crossing:
        stretches = [(1.0, plan.crossing[0] - 3.5), (plan.crossing[1] + 3.5, 120.0)]
    for start, end in stretches:
        for side in (-1, 1):
            flat(*sorted((side * road, side * (road + 0.18))), start, end, curb)
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


def _line_with_plots(plan: _Plan) -> None:
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


def _house(plan: _Plan, side: int, front: float, span: tuple[float, float], skyline: float) -> None:
    rng = plan.rng
    style = surroundings.random_facade_style(rng, plan.style.facades)
    height = max(4.0, skyline + float(rng.normal(0, 2.2)))
    depth = float(rng.uniform(9, 14))
    plan.add(
        surroundings.building(
            rng, (front, front + side * depth), span, height, style, plan.camera, plan.light
        )
    )


def _open_plot(
    plan: _Plan, side: int, front: float, span: tuple[float, float], skyline: float
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
        plan.add(surroundings.wall(rng, facade, camera, light))
    elif border < 0.78:
        facade = Facade((facade_x, start), (facade_x, end), float(rng.uniform(0.9, 2.0)))
        plan.add(surroundings.fence(rng, facade, camera, light))
    elif border < 0.92:
        plan.add(
            surroundings.hedge(
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
        plan.add(surroundings.tree(rng, x, z, plan.style.green, camera, light))


def _close_vista(plan: _Plan) -> None:
    """Houses and trees at the far end and at the ends of the cross street."""
    rng, camera, light = plan.rng, plan.camera, plan.light
    x = -110.0
    while x < 110.0:
        width = float(rng.uniform(12, 26))
        if rng.random() < 0.7:
            style = surroundings.random_facade_style(rng, plan.style.facades)
            height = float(rng.uniform(7, 22))
            plan.placements.append(
                surroundings.building(
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
                    surroundings.tree(
                        rng, float(at), FAR_END_METRES + 2, plan.style.green, camera, light
                    )
                )
        x += width
    if plan.crossing:
        z = (plan.crossing[0] + plan.crossing[1]) / 2
        for side in (-1, 1):
            at = side * float(rng.uniform(38, 70))
            style = surroundings.random_facade_style(rng, plan.style.facades)
            span = (z - 14.0, z + 14.0)
            plan.placements.append(
                surroundings.building(
                    rng, (at, at + side * 10), span, float(rng.uniform(7, 16)), style, camera, light
                )
            )


def _stand(
    plan: _Plan,
    parts: list[tuple[str, Model]],
    pose: tuple[float, float, float],
    half_extent: tuple[float, float],
    *,
    force: bool = False,
    margin: float = 0.25,
) -> bool:
    """Stands models (label, model) at pose (x, z, heading) if the ground is free.

    Args:
        plan: is extended.
        parts: far ones first.
        pose: x, z in metres, heading in radians.
        half_extent: half length and half width in metres.
        force: stand even where something else is.
        margin: free metres around.

    Returns:
        Whether there was room.
    """
    x, z, heading = pose
    sine, cosine = abs(np.sin(heading)), abs(np.cos(heading))
    reach_x = half_extent[0] * sine + half_extent[1] * cosine
    reach_z = half_extent[0] * cosine + half_extent[1] * sine
    box = (x - reach_x, x + reach_x, z - reach_z, z + reach_z)
    if z - reach_z < 1.2 or not (force or plan.is_free(box, margin)):
        return False
    items, vertices = [], []
    for label, model in parts:
        patches = place_model(model, plan.camera, plan.light, x, z, heading)
        if patches:
            items.append(Item(label, patches, depth=z))
        vertices.append(model_to_world(model.vertices(), x, z, heading))
    if not items:
        return False
    plan.add(Placement(items, box, np.concatenate(vertices)))
    return True


def _vehicle(
    plan: _Plan, kind: str, x: float, z: float, heading: float, *, near: bool = False
) -> bool:
    """Stands a vehicle; `near` gives z of its near end, not of its middle."""
    rng = plan.rng
    if kind in ("bicycle", "motorcycle"):
        machine = bicycle(rng) if kind == "bicycle" else motorcycle(rng)
        rider = seated_rider(rng, kind == "motorcycle")
        parts = [(kind, machine), ("rider", rider)]
        return _stand(plan, parts, (x, z, heading + float(rng.normal(0, 0.12))), (0.95, 0.35))
    makers = {"car": car, "truck": truck, "bus": bus, "trailer": trailer}
    if kind == "train":
        model, length, width = tram(rng, plan.style.tram_colors)
    else:
        model, length, width = makers[kind](rng)
    if near:
        z += length / 2
    if kind not in ("train",):
        heading += float(rng.normal(0, 0.025))
    return _stand(plan, [(kind, model)], (x, z, heading), (length / 2, width / 2))


def _drive(plan: _Plan) -> None:
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


def _park(plan: _Plan) -> None:
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


def _parked_row(plan: _Plan, x: float, start: float, side: int) -> None:
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


def _plant_and_furnish(plan: _Plan) -> None:
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
                    plan.add(surroundings.tree(rng, x, float(z), plan.style.green, camera, light))
        height, arm = float(rng.uniform(5, 8)), -side * float(rng.uniform(0.8, 2.0))
        color = pick(rng, surroundings.POLE_COLORS)
        for z in np.arange(rng.uniform(4, 18), 110, rng.uniform(16, 28)):
            if not plan.in_crossing(float(z), 1):
                model = surroundings.pole_model(rng, height, arm, color)
                _stand(plan, [("pole", model)], (curb, float(z), AWAY), (0.1, 0.1))
        for _ in range(rng.integers(1, 5)):
            _sign(plan, curb + side * float(rng.uniform(0, 0.6)), float(rng.uniform(5, 45)))
        if rng.random() < 0.25:
            for z in np.arange(rng.uniform(4, 12), rng.uniform(14, 40), 1.8):
                model = Model()
                model.capsule((0, 0, 0), (0, 0, 0.95), 0.06, 0.07, color)
                _stand(plan, [("pole", model)], (curb, float(z), AWAY), (0.1, 0.1))
        for _ in range(rng.poisson(1.0)):
            x = plan.front(side) - side * float(rng.uniform(0.4, 1.0))
            heading = -side * np.pi / 2
            _stand(
                plan,
                [("static", surroundings.furniture_model(rng))],
                (x, float(rng.uniform(5, 35)), float(heading)),
                (0.4, 0.6),
            )
    _traffic_lights(plan)


def _sign(plan: _Plan, x: float, z: float) -> None:
    rng = plan.rng
    top = float(rng.uniform(2.2, 3.0))
    pole = Model()
    pole.capsule((0, 0, 0), (0, 0, top), 0.04, 0.04, (142, 144, 146))
    heading = TOWARDS + float(rng.normal(0, 0.15))
    if rng.random() < 0.15:
        heading += np.pi / 2
    _stand(
        plan,
        [("pole", pole), ("traffic sign", surroundings.sign_model(rng, top - 0.3))],
        (x, z, heading),
        (0.2, 0.3),
    )


def _traffic_lights(plan: _Plan) -> None:
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
    color = pick(rng, surroundings.POLE_COLORS)
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
                    surroundings.traffic_light_model(rng, inward * 3.0, height - 0.4, facing),
                )
            )
        parts.append(("traffic light", surroundings.traffic_light_model(rng, 0.0, 2.6, facing)))
        x = side * (plan.road_half + 0.5)
        _stand(plan, parts, (x, z, heading), (0.2, 0.2), force=True)


def _populate(plan: _Plan) -> None:
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
            _stand(plan, [("person", walking_person(rng, height))], pose, (0.3, 0.3), margin=0.05)
        if rng.random() < 0.06:
            _stand(plan, [("dynamic", stroller(rng))], (x, z + 0.9, heading), (0.3, 0.3))
    if rng.random() < 0.4:
        z = plan.crossing[0] - 1.8 if plan.crossing else float(rng.uniform(8, 30))
        for _ in range(rng.integers(1, 5)):
            pose = (
                float(rng.uniform(-plan.road_half, plan.road_half)),
                z + float(rng.normal(0, 0.8)),
                float(rng.choice([-np.pi / 2, np.pi / 2])) + float(rng.normal(0, 0.3)),
            )
            height = float(rng.uniform(1.55, 1.9))
            _stand(plan, [("person", walking_person(rng, height))], pose, (0.3, 0.3))
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
                _stand(plan, [(kind, model)], pose, (0.9, 0.25), margin=0.0)
    _groups(plan)


def _groups(plan: _Plan) -> None:
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


def sort_far_to_near(placements: list[Placement], camera: Camera) -> list[Placement]:
    """Painting order of boxes on the ground.

    Of two boxes whose spans along the street do not overlap, the farther is painted first; of others on the
    same side of the viewer, the one that stands farther to the side. Sorting by one distance fails for
    a long tram beside a short car.
    """
    if not placements:
        return []
    boxes = np.asarray([placement.footprint for placement in placements])
    low, high = boxes[:, 0] - camera.position[0], boxes[:, 1] - camera.position[0]
    near, far = boxes[:, 2], boxes[:, 3]
    beyond = near[:, None] >= far[None, :]
    overlapping = ~beyond & ~beyond.T
    right = (low[:, None] >= high[None, :]) & (high[None, :] > 0)
    left = (high[:, None] <= low[None, :]) & (low[None, :] < 0)
    aside = right | left
    middle = (near + far) / 2
    undecided = overlapping & ~aside & ~aside.T
    first = beyond | (overlapping & aside) | (undecided & (middle[:, None] > middle[None, :]))
    np.fill_diagonal(first, False)
    num_before = first.sum(0).astype(np.int64)
    waiting = np.ones(len(placements), dtype=bool)
    order: list[Placement] = []
    for _ in range(len(placements)):
        # Cycles are rare; the farthest of those with the fewest predecessors breaks them.
        key = np.where(waiting, num_before * 1e4 - middle, np.inf)
        index = int(np.argmin(key))
        waiting[index] = False
        num_before -= first[index]
        order.append(placements[index])
    return order
