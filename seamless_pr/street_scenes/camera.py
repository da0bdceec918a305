"""The camera of a drawn street scene.

World frame: x right, y up, z along the street, metres; the ground is y = 0. Image frame: x right,
y down, pixels, integers at pixel centres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Float32 and float64 mix freely here; the shapes matter and are in the docstrings.
Array = NDArray[Any]


NEAR_PLANE_METRES = 0.4


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
        size: (height, width) of the image.
        focal: focal length in pixels.
        center: principal point (x, y) in pixels.
        position: [3], metres, world frame.
        rotation: [3, 3], world to camera (x right, y up, z forward).
    """

    size: tuple[int, int]
    focal: float
    center: tuple[float, float]
    position: Array
    rotation: Array

    def to_camera(self, points: Array) -> Array:
        """World points [..., 3] to the camera frame."""
        return (points - self.position) @ self.rotation.T

    def to_image(self, points: Array) -> Array:
        """Camera-frame points [..., 3] in front of the near plane to pixels [..., 2]."""
        scale = self.focal / np.maximum(points[..., 2], NEAR_PLANE_METRES)
        pixels = np.empty((*points.shape[:-1], 2))
        pixels[..., 0] = self.center[0] + points[..., 0] * scale
        pixels[..., 1] = self.center[1] - points[..., 1] * scale
        return pixels

    def project_polygon(self, points: Array) -> Array | None:
        """World polygon [M, 3] to pixels [M', 2], cut at the near plane; None if behind it."""
        clipped = _clip_below(self.to_camera(points), 2, NEAR_PLANE_METRES)
        return None if clipped is None else _clip_to_view(self.to_image(clipped), self.size)

    def ground_coordinates(self) -> tuple[Array, Array]:
        """World x and z [H, W] where a pixel's ray meets the ground; z is inf above the horizon."""
        height, width = self.size
        x = np.arange(width, dtype=np.float32)[None]
        y = np.arange(height, dtype=np.float32)[:, None]
        rotation = self.rotation.astype(np.float32)
        ray_x = (x - np.float32(self.center[0])) / np.float32(self.focal)
        ray_y = (np.float32(self.center[1]) - y) / np.float32(self.focal)
        down = -(rotation[0, 1] * ray_x + rotation[1, 1] * ray_y + rotation[2, 1])
        above = down <= 1e-4
        distance = np.float32(self.position[1]) / np.where(above, np.float32(1), down)
        world_x = np.float32(self.position[0]) + distance * (
            rotation[0, 0] * ray_x + rotation[1, 0] * ray_y + rotation[2, 0]
        )
        world_z = distance * (rotation[0, 2] * ray_x + rotation[1, 2] * ray_y + rotation[2, 2])
        return world_x, np.where(above, np.float32(np.inf), world_z)


def make_camera(
    size: tuple[int, int],
    field_of_view: float,
    position: Sequence[float],
    yaw: float,
    pitch: float,
    roll: float,
    horizon_fraction: float,
) -> Camera:
    """A camera from angles in radians; `horizon_fraction` places the principal point."""
    height, width = size
    rotate_yaw = _rotation(yaw, 2, 0)
    rotate_pitch = _rotation(pitch, 1, 2)
    rotate_roll = _rotation(roll, 0, 1)
    return Camera(
        size=size,
        focal=width / 2 / float(np.tan(field_of_view / 2)),
        center=(width / 2, height * horizon_fraction),
        position=np.asarray(position, dtype=np.float64),
        rotation=rotate_roll @ rotate_pitch @ rotate_yaw,
    )


def _rotation(angle: float, first: int, second: int) -> Array:
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second] = np.sin(angle)
    matrix[second, first] = -np.sin(angle)
    return matrix


def _clip_below(points: Array, axis: int, limit: float, sign: float = 1.0) -> Array | None:
    """Cuts off the part of a polygon [M, D] where sign * coordinate < sign * limit.

    One step of Sutherland-Hodgman; None if nothing is left.
    """
    distance = sign * (points[:, axis] - limit)
    inside = distance >= 0
    if inside.all():
        return points
    if not inside.any():
        return None
    kept = []
    for index in range(len(points)):
        after = (index + 1) % len(points)
        if inside[index]:
            kept.append(points[index])
        if inside[index] != inside[after]:
            t = distance[index] / (distance[index] - distance[after])
            kept.append(points[index] + t * (points[after] - points[index]))
    return np.asarray(kept)


def _clip_to_view(pixels: Array, size: tuple[int, int]) -> Array | None:
    """Cuts a polygon [M, 2] to the image and a margin of its size around it.

    The rasteriser's fixed-point numbers overflow far outside of the image.
    """
    polygon: Array | None = pixels
    for axis, extent in ((0, size[1]), (1, size[0])):
        for limit, sign in ((-float(extent), 1.0), (2.0 * extent, -1.0)):
            if polygon is not None:
                polygon = _clip_below(polygon, axis, limit, sign)
    return polygon
