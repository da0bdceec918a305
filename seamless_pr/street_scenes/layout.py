"""Where things stand in a drawn street.

The street runs along z; traffic keeps to the right. Everything is decided from one random
generator, so a scene is a function of its seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seamless_pr.street_scenes.camera import Array, Camera, make_camera
from seamless_pr.street_scenes.extras import Extra, place_extras
from seamless_pr.street_scenes.ground import lay_ground
from seamless_pr.street_scenes.items import Item, Placement
from seamless_pr.street_scenes.people import pick
from seamless_pr.street_scenes.plan import LANE_METRES, PARKING_METRES, CityStyle, StreetPlan
from seamless_pr.street_scenes.roadside import close_vista, line_with_plots, plant_and_furnish
from seamless_pr.street_scenes.solids import Color, Light, Patch
from seamless_pr.street_scenes.traffic import drive, park, populate

# People stand against walls: boxes may overlap by this much and still be beside each other.
OVERLAP_METRES = 0.5
NEAREST_METRES = 1.0
# Traffic keeps off so much of a road that shows extra things.
FREE_METRES = 11.0


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
        frame: things fixed to the ego vehicle.
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
    frame: list[Item]


def lay_out_scene(
    rng: np.random.Generator,
    style: CityStyle,
    size: tuple[int, int],
    extras: Sequence[Extra] = (),
    extras_rng: np.random.Generator | None = None,
) -> Scene:
    """Decides on view, weather, street and everything in it.

    Args:
        rng: the only source of randomness of the street.
        style: the city.
        size: (height, width) of the image.
        extras: things of other label spaces that must be in it.
        extras_rng: where they stand; needed if there are any.

    Returns:
        The scene with its placements sorted far to near.
    """
    light, sky, haze_metres, cloudiness = _weather(rng)
    lanes = int(rng.choice([1, 2], p=[0.72, 0.28]))
    parking = (bool(rng.random() < 0.6), bool(rng.random() < 0.6))
    if extras:
        # A narrow street without parked cars: its sidewalks are in view, and so is what they show.
        lanes, parking = 1, (False, False)
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
    plan = StreetPlan(
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
    ground, marks = lay_ground(plan)
    # The ego vehicle's own lane stays free in front of the bumper.
    plan.taken.append((camera_x - 1.2, camera_x + 1.2, -5.0, 7.0))
    line_with_plots(plan)
    close_vista(plan)
    frame: list[Item] = []
    if extras:
        assert extras_rng is not None
        placed = place_extras(plan, extras, extras_rng)
        ground += placed.ground
        frame = placed.frame
        plan.taken.append((-road_half, road_half, 0.0, FREE_METRES))
    drive(plan)
    park(plan)
    plant_and_furnish(plan)
    populate(plan)
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
        frame,
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


def _may_cover(low: Array, high: Array, near: Array, far: Array) -> Array:
    """[P, P]: whether two boxes share a direction as seen by the viewer (boxes stand upright)."""
    ahead = np.maximum(near, NEAREST_METRES)
    left_edge = np.minimum(low / ahead, low / np.maximum(far, NEAREST_METRES))
    right_edge = np.maximum(high / ahead, high / np.maximum(far, NEAREST_METRES))
    return (left_edge[:, None] <= right_edge[None, :]) & (left_edge[None, :] <= right_edge[:, None])


def sort_far_to_near(placements: list[Placement], camera: Camera) -> list[Placement]:
    """Painting order of boxes on the ground.

    Of two boxes whose spans along the street do not overlap, the farther is painted first; of
    others on the same side of the viewer, the one that stands farther to the side. Sorting by one
    distance fails for a long tram beside a short car. Only boxes that share a direction are
    compared: relations between the two sides of a street would close circles.
    """
    if not placements:
        return []
    boxes = np.asarray([placement.footprint for placement in placements])
    low, high = boxes[:, 0] - camera.position[0], boxes[:, 1] - camera.position[0]
    near, far = boxes[:, 2], boxes[:, 3]
    beyond = near[:, None] >= far[None, :]
    overlapping = ~beyond & ~beyond.T
    right = (low[:, None] + OVERLAP_METRES >= high[None, :]) & (high[None, :] > 0)
    left = (high[:, None] - OVERLAP_METRES <= low[None, :]) & (low[None, :] < 0)
    aside = right | left
    aside &= ~aside.T
    middle = (near + far) / 2
    undecided = overlapping & ~aside & ~aside.T
    first = beyond | (overlapping & aside) | (undecided & (middle[:, None] > middle[None, :]))
    first &= _may_cover(low, high, near, far)
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
