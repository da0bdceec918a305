"""Painting order, and what a street must have."""

from __future__ import annotations

import numpy as np
import pytest

from seamless_pr.street_scenes.camera import Camera, make_camera
from seamless_pr.street_scenes.dataset import city_style
from seamless_pr.street_scenes.items import Item, Placement
from seamless_pr.street_scenes.layout import lay_out_scene, sort_far_to_near


@pytest.fixture
def camera() -> Camera:
    return make_camera((100, 200), 1.0, (0, 1.4, 0), 0.0, 0.0, 0.0, 0.5)


def placed(label: str, footprint: tuple[float, float, float, float]) -> Placement:
    return Placement([Item(label)], footprint)


def painting_order(placements: list[Placement], camera: Camera) -> list[str]:
    return [placement.items[0].label for placement in sort_far_to_near(placements, camera)]


def test_far_things_are_painted_first(camera: Camera):
    boxes = [placed(f"car {z}", (-1, 1, z, z + 4)) for z in (12, 40, 6, 25)]
    assert painting_order(boxes, camera) == ["car 40", "car 25", "car 12", "car 6"]


@pytest.mark.parametrize("side", [-1, 1])
def test_a_long_tram_is_painted_between_the_cars_on_its_two_sides(camera: Camera, side: int):
    def beside(label: str, near: float, span: tuple[float, float]) -> Placement:
        x0, x1 = sorted((side * near, side * (near + 2)))
        return placed(label, (x0, x1, *span))

    boxes = [
        beside("car this side", 0.5, (13, 17)),
        beside("tram", 3.5, (10, 40)),
        beside("car beyond", 7.0, (14, 18)),
    ]
    assert painting_order(boxes, camera) == ["car beyond", "tram", "car this side"]
    assert painting_order(boxes[::-1], camera) == ["car beyond", "tram", "car this side"]


def test_a_person_at_a_wall_is_painted_after_it_whatever_stands_behind_the_wall(camera: Camera):
    boxes = [
        placed("person", (7.5, 8.3, 12, 12.8)),
        placed("tree behind the wall", (10.6, 11.2, 10.4, 11.0)),
        placed("wall", (8.1, 8.3, 1, 19)),
        placed("pole on the other side", (-5, -4.8, 11, 11.2)),
    ]
    order = painting_order(boxes, camera)
    assert order.index("tree behind the wall") < order.index("wall") < order.index("person")


def test_nothing_to_sort_is_fine(camera: Camera):
    assert sort_far_to_near([], camera) == []


def test_nothing_stands_in_the_viewers_own_lane_right_ahead():
    for seed in range(4):
        scene = lay_out_scene(np.random.default_rng(seed), city_style("altenried"), (64, 128))
        x = scene.camera.position[0]
        for placement in scene.placements:
            x0, x1, z0, z1 = placement.footprint
            if placement.items[0].label in ("car", "truck", "bus", "train"):
                assert not (x0 < x < x1 and z0 < 7 and z1 > 0), placement.items[0].label


def test_a_rider_is_painted_over_the_machine_at_the_same_place():
    pairs = []
    for seed in range(6):
        scene = lay_out_scene(np.random.default_rng(seed), city_style("altenried"), (64, 128))
        labels = [[item.label for item in placement.items] for placement in scene.placements]
        pairs += [found for found in labels if "rider" in found]
    assert pairs
    assert all(found in (["bicycle", "rider"], ["motorcycle", "rider"]) for found in pairs)
