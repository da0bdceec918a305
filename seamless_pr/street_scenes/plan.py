"""The cross-section of a drawn street and what is taken of it so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from seamless_pr.street_scenes.camera import Camera
from seamless_pr.street_scenes.items import Item, Placement
from seamless_pr.street_scenes.solids import Color, Light, Model, model_to_world, place_model

LANE_METRES = 3.3
PARKING_METRES = 2.2
FAR_END_METRES = 150.0
AWAY = 0.0
TOWARDS = float(np.pi)


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
        stands_within_metres: vehicles, people, poles and signs stand no farther away than this.
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
    stands_within_metres: float = math.inf


@dataclass
class StreetPlan:
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


def stand(
    plan: StreetPlan,
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
        Whether there was room, not too far away.
    """
    x, z, heading = pose
    sine, cosine = abs(np.sin(heading)), abs(np.cos(heading))
    reach_x = half_extent[0] * sine + half_extent[1] * cosine
    reach_z = half_extent[0] * cosine + half_extent[1] * sine
    box = (x - reach_x, x + reach_x, z - reach_z, z + reach_z)
    if z - reach_z < 1.2 or z > plan.style.stands_within_metres:
        return False
    if not (force or plan.is_free(box, margin)):
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
