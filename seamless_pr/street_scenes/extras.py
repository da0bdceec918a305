"""Things of other label spaces in a drawn street: animals, signs, road marks, furniture for sale.

`tables/items.csv` lists every thing with its shape, its usual place and its size in metres;
`tables/classes.csv` says which of them shows a class of a dataset, and `tables/base.csv` what the
street itself is called there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from seamless_pr.street_scenes.camera import Array
from seamless_pr.street_scenes.items import Item, Placement, polygon_patch
from seamless_pr.street_scenes.people import bicycle, motorcycle, pick, walking_person
from seamless_pr.street_scenes.plan import AWAY, FAR_END_METRES, TOWARDS, StreetPlan
from seamless_pr.street_scenes.shapes import SQUARE, build_solid, load_marks, read_table
from seamless_pr.street_scenes.solids import (
    Color,
    Model,
    Patch,
    model_to_world,
    place_model,
    shaded,
    to_fixed,
)
from seamless_pr.street_scenes.vehicles import bus, car, trailer, tram, truck

MARKET_TABLE = "market table"
TABLE_SIZE = (1.0, 1.8, 0.78)
TABLE_COLUMNS, TABLE_ROWS = 4, 2
PLACING_TRIES = 60


@dataclass(frozen=True)
class Thing:
    """One row of `tables/items.csv`.

    Attributes:
        name: what it is.
        shape: of `tables/solids.csv` or `tables/marks.csv`, or a name that `_model` knows.
        place: where it stands, see `place_extras`.
        size: length (forward), width (right), height (up) in metres.
        up: metres from the ground to its foot.
        color: RGB.
    """

    name: str
    shape: str
    place: str
    size: tuple[float, float, float]
    up: float
    color: Color


@dataclass(frozen=True)
class Extra:
    """A class of a dataset, and the thing that shows it."""

    label: str
    thing: Thing


def load_extras(dataset: str) -> tuple[Extra, ...]:
    """The classes of a dataset that the street itself lacks, with their things."""
    things = _things()
    return tuple(
        Extra(row["class"], things[row["item"]])
        for row in read_table("classes.csv")
        if row["dataset"] == dataset
    )


def load_base_labels(dataset: str) -> dict[str, str]:
    """Label of the drawn street -> class of a dataset; what it does not name is left out."""
    return {row["label"]: row[dataset] for row in read_table("base.csv") if row.get(dataset)}


@cache
def _things() -> dict[str, Thing]:
    return {
        row["item"]: Thing(
            row["item"],
            row["shape"],
            row["place"],
            (float(row["length"]), float(row["width"]), float(row["height"])),
            float(row["up"]),
            (float(row["red"]), float(row["green"]), float(row["blue"])),
        )
        for row in read_table("items.csv")
    }


@dataclass
class PlacedExtras:
    """What does not stand on the ground like everything else.

    Attributes:
        ground: flat things, painted over the road.
        frame: things fixed to the viewer's car.
    """

    ground: list[Item]
    frame: list[Item]


def place_extras(
    plan: StreetPlan, extras: Sequence[Extra], rng: np.random.Generator
) -> PlacedExtras:
    """Gives every extra a place that suits it; the street is filled around them afterwards.

    Small things lie on a market table at the side of the road; flat ones on road, sidewalk or
    terrain; others stand at the curb, on the road, at facades, over the road, far away or fly.
    """
    placed = PlacedExtras([], [])
    sights: list[Sight] = []
    on_table = [extra for extra in extras if extra.thing.place == "table"]
    capacity = TABLE_COLUMNS * TABLE_ROWS
    for start in range(0, len(on_table), capacity):
        at_table = on_table[start : start + capacity]
        sights.append(_market_table(plan, at_table, rng, first=start == 0))
    for extra in extras:
        place = extra.thing.place
        if place == "table":
            continue
        if place == "ego":
            placed.frame.append(_mount(plan, extra))
        elif extra.thing.shape == "hill":
            plan.placements.append(_hill(plan, extra, rng))
        elif extra.thing.shape in load_marks() and place in _FLAT_PLACES:
            placed.ground.append(_flat(plan, extra, rng))
        else:
            _stand(plan, extra, rng, sights)
    return placed


Sight = tuple[float, float, float]
"""Left and right end of a thing as tangents, and its distance."""


_FLAT_PLACES = {"lane", "lane edge", "sidewalk", "wide", "across", "horizon", "crossing"}


def _model(thing: Thing, rng: np.random.Generator) -> Model:
    """The thing as a solid, a little larger or smaller and of another tone each time."""
    makers = {"car": car, "van": car, "truck": truck, "bus": bus, "caravan": trailer,
              "trailer": trailer}  # fmt: skip
    if thing.shape in makers:
        return makers[thing.shape](rng)[0]
    if thing.shape == "tram":
        return tram(rng, ((196, 40, 40), (228, 200, 80), (40, 90, 150)))[0]
    if thing.shape in ("bicycle", "motorcycle"):
        return bicycle(rng) if thing.shape == "bicycle" else motorcycle(rng)
    if thing.shape == "person":
        return walking_person(rng, float(rng.uniform(1.55, 1.9)))
    scale = float(rng.uniform(0.9, 1.12))
    length, width, height = (scale * side for side in thing.size)
    color = pick(rng, (thing.color,), 12)
    return build_solid(thing.shape, (length, width, height), color, up=thing.up)


def _stand(plan: StreetPlan, extra: Extra, rng: np.random.Generator, sights: list[Sight]) -> None:
    """Stands an extra where there is room and where it is seen best of some tries."""
    thing = extra.thing
    needs_room = thing.place in _CROWDED_PLACES
    best: tuple[float, tuple[float, float, float], Sight] | None = None
    for _ in range(PLACING_TRIES):
        pose = _pose(plan, thing, rng)
        box = _footprint(thing, pose)
        if needs_room and not plan.is_free(box, 0.1):
            continue
        sight = _sight(plan, box)
        hidden = max((_conflict(sight, other) for other in sights), default=0.0)
        if best is None or hidden < best[0]:
            best = (hidden, pose, sight)
        if hidden == 0:
            break
    if best is None:
        pose = _pose(plan, thing, rng)
        best = (1.0, pose, _sight(plan, _footprint(thing, pose)))
    _, (x, z, heading), sight = best
    if thing.shape == "horse rider":
        parts = _horse_and_rider(extra, rng)
    else:
        parts = [(extra.label, _model(thing, rng))]
    items, vertices = [], []
    for label, model in parts:
        patches = place_model(model, plan.camera, plan.light, x, z, heading)
        if patches:
            items.append(Item(label, patches, depth=z))
            vertices.append(model_to_world(model.vertices(), x, z, heading))
    if not items:
        return
    box = _footprint(thing, (x, z, heading))
    placement = Placement(items, box, np.concatenate(vertices) if needs_room else None)
    if needs_room:
        plan.add(placement)
        sights.append(sight)
    else:
        plan.placements.append(placement)


_CROWDED_PLACES = {"curb", "curb wide", "road", "roadside", "centre"}


def _footprint(thing: Thing, pose: tuple[float, float, float]) -> tuple[float, float, float, float]:
    x, z, heading = pose
    sine, cosine = abs(np.sin(heading)), abs(np.cos(heading))
    length, width = thing.size[0], thing.size[1]
    reach_x = float(length * sine + width * cosine) / 2
    reach_z = float(length * cosine + width * sine) / 2
    return x - reach_x, x + reach_x, z - reach_z, z + reach_z


def _sight(plan: StreetPlan, box: tuple[float, float, float, float]) -> Sight:
    x0, x1, z0, z1 = box
    middle = max((z0 + z1) / 2, 1.0)
    camera_x = float(plan.camera.position[0])
    return (x0 - camera_x) / middle, (x1 - camera_x) / middle, middle


def _conflict(own: Sight, other: Sight) -> float:
    """Which share of the farther of both the nearer one hides; what covers another counts half."""
    shared = max(0.0, min(own[1], other[1]) - max(own[0], other[0]))
    farther = own if other[2] < own[2] else other
    hidden = shared / max(1e-6, farther[1] - farther[0])
    return hidden if farther is own else hidden / 2


def _horse_and_rider(extra: Extra, rng: np.random.Generator) -> list[tuple[str, Model]]:
    horse = _things()["horse"]
    rider = build_solid("figure", (0.5, 0.5, 1.05), pick(rng, ((60, 70, 110),)), up=1.15)
    return [(f"horse of {extra.label}", _model(horse, rng)), (extra.label, rider)]


def _pose(plan: StreetPlan, thing: Thing, rng: np.random.Generator) -> tuple[float, float, float]:
    """x, z, heading for a try."""
    # The viewer drives on the right: what stands there is nearer.
    side = 1 if rng.random() < 0.6 else -1
    facing_street = float(-side * np.pi / 2)
    length, width, height = thing.size
    place = thing.place
    if place in ("curb", "curb wide"):
        x = side * (plan.road_half + float(rng.uniform(0.3, 1.8)))
        near = max(3.6, 1.2 * height, 1.6 * max(length, width), _first_seen(plan, x, width))
        heading = facing_street + float(rng.normal(0, 0.3))
        if place == "curb" and rng.random() < 0.7:
            heading = TOWARDS + float(rng.normal(0, 0.35))
        return x, float(rng.uniform(near, near + 5 + 3 * max(length, width))), heading
    if place == "road":
        lane = int(rng.choice([lane for lane in range(-plan.lanes, plan.lanes + 1) if lane]))
        heading = AWAY if lane > 0 else TOWARDS
        x = plan.lane_x(lane) + float(rng.normal(0, 0.3))
        near = max(7.5, 1.5 * height) + length / 2
        return x, float(rng.uniform(near, near + 16)), heading + float(rng.normal(0, 0.1))
    if place == "roadside":
        x = side * (plan.road_half + 0.35)
        return x, _first_seen(plan, x, 0) + float(rng.uniform(1, 8)), AWAY
    if place == "centre":
        return 0.0, float(rng.uniform(10, 20)), AWAY
    if place == "kerb":
        return side * (plan.road_half + 0.12), 2.0 + length / 2, AWAY
    if place == "plot":
        return plan.front(side) + side * (width / 2 - 1.2), float(rng.uniform(14, 34)), AWAY
    if place == "facade":
        x = plan.front(side) - side * (0.12 + length / 2)
        return x, _first_seen(plan, x, width) + float(rng.uniform(0, 6)), facing_street
    if place == "sky":
        return _flight(plan, thing, rng)
    if place == "over":
        return float(rng.normal(0, 0.5)), float(rng.uniform(14, 30)), TOWARDS
    if place == "over far":
        return 0.0, float(rng.uniform(48, 90)), TOWARDS
    z = FAR_END_METRES + float(rng.uniform(20, 60))
    return side * float(rng.uniform(2, 0.25 * z)), z, TOWARDS


def _flight(plan: StreetPlan, thing: Thing, rng: np.random.Generator) -> tuple[float, float, float]:
    """Where something flies: so far that it is seen whole, above the roofs."""
    z = thing.up / float(rng.uniform(0.15, 0.2))
    x = plan.camera.position[0] + z * float(rng.uniform(-0.1, 0.1))
    return float(x), z, float(rng.uniform(0, 2 * np.pi))


def _flat(plan: StreetPlan, extra: Extra, rng: np.random.Generator) -> Item:
    """Something flat; a mark of several strokes is labelled as the rectangle around it."""
    thing = extra.thing
    length, width = thing.size[0], thing.size[1]
    side = 1 if rng.random() < 0.5 else -1
    index = (side + 1) // 2
    inner, walk = plan.road_half + plan.strip[index], plan.sidewalk[index]
    near = float(rng.uniform(4.5, 9))
    if thing.place == "lane":
        lanes = [lane for lane in range(-plan.lanes, plan.lanes + 1) if lane]
        x = plan.lane_x(int(rng.choice(lanes))) + float(rng.normal(0, 0.15))
        near = float(rng.uniform(6, 14))
    elif thing.place == "lane edge":
        x = side * (plan.road_half - width / 2)
    elif thing.place == "sidewalk":
        width = min(width, walk - 0.1)
        x = side * (inner + walk / 2)
        near = _first_seen(plan, x, 0) + float(rng.uniform(0, 3))
    elif thing.place == "wide":
        x = side * (plan.road_half + width / 2 - 1.0)
        near = _first_seen(plan, x - side * width / 2, 0) + float(rng.uniform(0, 3))
    elif thing.place == "crossing":
        x, width, near = 0.0, 2 * plan.road_half, float(rng.uniform(8, 14))
    else:
        x, near = 0.0, float(rng.uniform(24, 36)) if thing.place == "across" else 70.0
    tint = np.asarray(plan.light.tint) * (plan.light.ambient + 0.75 * plan.light.diffuse)
    color = shaded(pick(rng, (thing.color,), 8), tint)
    mirror = -1 if side < 0 and thing.shape in ("flat", "disc", "chevron", "stripes") else 1

    def outline(corners: Sequence[tuple[float, float]]) -> Array:
        return np.asarray([(x + mirror * a * width, 0.0, near + b * length) for a, b in corners])

    patches = [
        patch for corners in load_marks()[thing.shape]
        for patch in polygon_patch(plan.camera, outline(corners), color)
    ]  # fmt: skip
    whole = polygon_patch(plan.camera, outline(SQUARE), color)
    single = thing.shape in ("flat", "disc", "triangle")
    return Item(extra.label, patches, outline=patches if single else whole, depth=near)


def _hill(plan: StreetPlan, extra: Extra, rng: np.random.Generator) -> Placement:
    """A ridge behind the last houses."""
    depth, width, height = extra.thing.size
    z = FAR_END_METRES + 60.0
    middle = float(plan.camera.position[0] + rng.normal(0, 14))
    shares = np.linspace(0, 1, 13)
    ridge = np.sin(np.pi * shares) ** 0.8 * (0.8 + 0.2 * np.sin(9 * shares + rng.uniform(0, 6)))
    top = np.stack([middle + (shares - 0.5) * width, height * ridge, np.full(13, z)], -1)
    foot = np.asarray([(middle + width / 2, 0, z), (middle - width / 2, 0, z)])
    tint = np.asarray(plan.light.tint) * (plan.light.ambient + 0.4 * plan.light.diffuse)
    color = shaded(pick(rng, (extra.thing.color,), 8), tint)
    patches = polygon_patch(plan.camera, np.concatenate([top, foot]), color)
    box = (middle - width / 2, middle + width / 2, z, z + depth)
    return Placement([Item(extra.label, patches, depth=z)], box)


def _mount(plan: StreetPlan, extra: Extra) -> Item:
    """A holder at the lower edge of the picture."""
    height, width = plan.camera.size
    shape = ((0.46, 1.01), (0.47, 0.93), (0.45, 0.9), (0.46, 0.86), (0.53, 0.86), (0.54, 0.9),
             (0.52, 0.93), (0.53, 1.01))  # fmt: skip
    outline = to_fixed(np.asarray(shape) * [width, height])
    return Item(extra.label, [Patch((outline,), extra.thing.color)])


def _market_table(
    plan: StreetPlan, extras: Sequence[Extra], rng: np.random.Generator, *, first: bool
) -> Sight:
    """A table at the side of the road with small things side by side, the nearer row last."""
    depth, width, height = TABLE_SIZE
    x = float(plan.camera.position[0]) + (1.9 if first else -2.3)
    z = max(3.4, _first_seen(plan, x, width))
    table = build_solid("table", TABLE_SIZE, (164, 130, 92))
    items = [
        Item(MARKET_TABLE, place_model(table, plan.camera, plan.light, x, z, TOWARDS), depth=z)
    ]
    # Tall things stand in the row behind.
    for slot, extra in enumerate(sorted(extras, key=lambda extra: -extra.thing.size[2])):
        row, column = divmod(slot, TABLE_COLUMNS)
        at_x = x + width * ((column + 0.5) / TABLE_COLUMNS - 0.5)
        at_z = z + depth * (0.22 - 0.46 * row)
        thing = extra.thing
        scale = (
            min(1.0, 0.9 * width / TABLE_COLUMNS / max(thing.size[:2])) if _is_wide(thing) else 1
        )
        length, breadth, tall = (scale * side_metres for side_metres in thing.size)
        model = build_solid(thing.shape, (length, breadth, tall), thing.color, up=height)
        turn = TOWARDS + float(rng.normal(0, 0.25))
        patches = place_model(model, plan.camera, plan.light, at_x, at_z, turn)
        if patches:
            items.append(Item(extra.label, patches, depth=at_z))
    box = (x - width / 2, x + width / 2, z - depth / 2, z + depth / 2)
    plan.add(Placement(items, box, model_to_world(table.vertices(), x, z, TOWARDS)))
    return _sight(plan, box)


def _is_wide(thing: Thing) -> bool:
    return max(thing.size[:2]) > 0.9 * TABLE_SIZE[1] / TABLE_COLUMNS


def _first_seen(plan: StreetPlan, x: float, width: float) -> float:
    """From which distance something at x is in view with its whole width."""
    half_view = 0.9 * plan.camera.size[1] / 2 / plan.camera.focal
    return float(abs(x - plan.camera.position[0]) + width / 2) / half_view
