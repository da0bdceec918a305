"""Solids: which faces are seen, how light falls on them, how outlines become masks."""

from __future__ import annotations

import numpy as np
import pytest

from seamless_pr.street_scenes.camera import Camera, make_camera
from seamless_pr.street_scenes.solids import (
    Light,
    Model,
    model_to_world,
    paint_patches,
    paint_silhouette,
    place_model,
    shadow_hull,
    to_fixed,
)

AWAY, TOWARDS = 0.0, np.pi
FRONT, REAR = (200.0, 0.0, 0.0), (0.0, 0.0, 200.0)


@pytest.fixture
def camera() -> Camera:
    return make_camera((100, 200), 2 * np.arctan(1.0), (0, 1, 0), 0.0, 0.0, 0.0, 0.5)


@pytest.fixture
def flat_light() -> Light:
    """The same from everywhere, but for the 20 % that come from above."""
    return Light(np.asarray([0.0, 1.0, 0.0]), 1.0, 0.0, (1.0, 1.0, 1.0))


def two_coloured_box() -> Model:
    model = Model(center=(0, 0, 1))
    faces = model.box((-1, -1, 0), (1, 1, 2), (90, 90, 90))
    model.faces[faces["front"]].color = FRONT
    model.faces[faces["rear"]].color = REAR
    return model


@pytest.mark.parametrize(("heading", "channel"), [(AWAY, 2), (TOWARDS, 0)])
def test_only_the_side_that_faces_the_viewer_is_painted(
    camera: Camera, flat_light: Light, heading: float, channel: int
):
    patches = place_model(two_coloured_box(), camera, flat_light, 0.0, 8.0, heading)
    canvas = np.zeros((100, 200, 3), np.uint8)
    paint_patches(canvas, patches)
    assert canvas[50, 100].argmax() == channel
    assert len(patches) == 1, "top and sides of a box at eye height straight ahead are hidden"


def test_a_window_is_hidden_with_its_wall(camera: Camera, flat_light: Light):
    model = two_coloured_box()
    rear = next(i for i, face in enumerate(model.faces) if face.color == REAR)
    model.face(model.faces[rear].points * [1, 0.5, 0.5], (9, 9, 9), parent=rear)
    seen = place_model(model, camera, flat_light, 0.0, 8.0, AWAY)
    hidden = place_model(model, camera, flat_light, 0.0, 8.0, TOWARDS)
    assert [patch.solid for patch in seen] == [True, False]
    assert len(hidden) == 1


def test_a_face_towards_the_sun_is_brighter():
    light = Light(np.asarray([1.0, 0.0, 0.0]), 0.5, 0.5, (1.0, 1.0, 1.0))
    lit, averted = light.shade(np.asarray([[1.0, 0, 0], [-1.0, 0, 0]]))
    assert lit[0] == pytest.approx(averted[0] + 0.5)


def test_headings_turn_forward_from_far_to_right_to_near():
    nose = np.asarray([2.0, 0.0, 0.5])
    assert model_to_world(nose, 1, 10, 0.0) == pytest.approx([1, 0.5, 12])
    assert model_to_world(nose, 1, 10, np.pi / 2) == pytest.approx([3, 0.5, 10])
    assert model_to_world(nose, 1, 10, np.pi) == pytest.approx([1, 0.5, 8])


def test_silhouettes_have_two_values_and_cover_thin_bars(camera: Camera, flat_light: Light):
    model = Model()
    model.capsule((0, 0, 0), (0, 0, 2), 0.01, 0.01, (50, 50, 50))
    mask = np.zeros((100, 200), np.uint8)
    patches = place_model(model, camera, flat_light, 0.0, 20.0, AWAY)
    outlines = [polygon for patch in patches if patch.solid for polygon in patch.polygons]
    paint_silhouette(mask, outlines, np.asarray([0, 0]))
    assert set(np.unique(mask)) == {0, 1}
    assert (mask[46:54].sum(1) >= 1).all(), "a far pole keeps a pixel in every row"


def test_a_silhouette_lies_where_its_part_of_the_image_begins():
    square = to_fixed(np.asarray([(12.0, 22.0), (16.0, 22.0), (16.0, 26.0), (12.0, 26.0)]))
    mask = np.zeros((10, 10), np.uint8)
    paint_silhouette(mask, [square], np.asarray([10, 20]))
    assert mask.sum() == 25
    assert mask[2:7, 2:7].all()


def test_a_shadow_falls_away_from_the_sun(camera: Camera):
    corners = np.asarray([(x, y, z) for x in (-1, 1) for y in (0, 2) for z in (9, 11)], float)
    sun = np.asarray([-0.7, 0.7, 0.0])
    hull = shadow_hull(corners, camera, sun, 1.0)
    own = shadow_hull(corners, camera, sun, 0.0)
    assert hull is not None
    assert own is not None
    assert hull[:, 0].max() > own[:, 0].max()
    assert hull[:, 0].min() == own[:, 0].min()


def test_a_solid_behind_the_viewer_is_not_painted(camera: Camera, flat_light: Light):
    assert place_model(two_coloured_box(), camera, flat_light, 0.0, -8.0, AWAY) == []
