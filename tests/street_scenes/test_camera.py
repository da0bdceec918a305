"""Projection of the world, and cutting of what lies behind or far outside of the view."""

from __future__ import annotations

import numpy as np
import pytest

from seamless_pr.street_scenes.camera import Camera, make_camera


@pytest.fixture
def level_camera() -> Camera:
    """Looks along z from 2 m above the ground; a metre at 100 m is a pixel."""
    field_of_view = 2 * np.arctan(1.0)
    return make_camera((100, 200), field_of_view, (0, 2, 0), 0.0, 0.0, 0.0, 0.5)


def project(camera: Camera, point: tuple[float, float, float]) -> list[float]:
    return camera.to_image(camera.to_camera(np.asarray([point], dtype=float)))[0].tolist()


def test_points_project_by_similar_triangles(level_camera: Camera):
    assert project(level_camera, (0, 2, 10)) == pytest.approx([100, 50])
    assert project(level_camera, (1, 2, 10)) == pytest.approx([110, 50])
    assert project(level_camera, (0, 0, 20)) == pytest.approx([100, 60])


def test_a_camera_that_turns_right_sees_things_move_left():
    turned = make_camera((100, 200), 1.5, (0, 2, 0), 0.1, 0.0, 0.0, 0.5)
    assert project(turned, (0, 2, 10))[0] < 100


def test_ground_coordinates_undo_the_projection():
    camera = make_camera((120, 200), 1.0, (1.5, 1.4, 0), 0.08, -0.02, 0.01, 0.45)
    world_x, world_z = camera.ground_coordinates()
    for row, column in ((118, 3), (90, 100), (100, 180)):
        point = (float(world_x[row, column]), 0.0, float(world_z[row, column]))
        assert project(camera, point) == pytest.approx([column, row], abs=0.01)
    assert np.isinf(world_z[:40]).all()


def test_a_polygon_behind_the_viewer_is_dropped(level_camera: Camera):
    behind = np.asarray([(0, 0, -5), (1, 0, -5), (1, 1, -3)], dtype=float)
    assert level_camera.project_polygon(behind) is None


def test_a_road_that_begins_behind_the_viewer_stays_within_reach_of_the_rasteriser(
    level_camera: Camera,
):
    road = np.asarray([(-250, 0, -5), (250, 0, -5), (250, 0, 100), (-250, 0, 100)], dtype=float)
    pixels = level_camera.project_polygon(road)
    assert pixels is not None
    assert pixels.min() >= -200
    assert pixels.max() <= 400
    assert pixels[:, 1].min() == pytest.approx(52), "its far end is 2 m below the eye at 100 m"
