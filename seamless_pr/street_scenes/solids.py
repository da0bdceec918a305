"""Solids of flat faces and capsules, and how light and camera turn them into patches of colour.

Model frame: (forward, right, up), metres. Colours are RGB, 0..255. Image and labels are painted
from the same fixed-point outlines, the image with and the labels without anti-aliasing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from seamless_pr.street_scenes.camera import NEAR_PLANE_METRES, Array, Camera

Color = tuple[float, float, float]


SUBPIXEL_BITS = 4
# OpenCV's fixed-point rasteriser overflows beyond about 2^15 pixels.
MAX_ABS_FIXED = 12000 << SUBPIXEL_BITS
CAPSULE_CORNERS = 5
MIN_ROUNDED_PIXELS = 1.2
UNDERLAY_METRES = 1000.0


@dataclass(frozen=True)
class Light:
    """Sun and sky.

    Attributes:
        sun: [3], unit vector towards the sun.
        ambient: share of light that reaches every surface.
        diffuse: share that falls along the sun's direction; 0 under clouds.
        tint: per-channel factor.
    """

    sun: Array
    ambient: float
    diffuse: float
    tint: Color

    def shade(self, normals: Array) -> Array:
        """Brightness factor [..., 3] for unit normals [..., 3]."""
        upward = 0.5 + 0.5 * normals[..., 1:2]
        lit = np.maximum(normals @ self.sun, 0.0)[..., None]
        return (self.ambient * (0.8 + 0.2 * upward) + self.diffuse * lit) * np.asarray(self.tint)


@dataclass(frozen=True)
class Patch:
    """Outlines of one colour, painted in one stroke.

    Attributes:
        polygons: each [M, 2] int32, fixed-point pixels.
        color: RGB.
        thickness: line width in pixels for an open ring; 0 = filled.
        solid: belongs to the silhouette that is labelled (a window on a wall need not).
    """

    polygons: tuple[Array, ...]
    color: Color
    thickness: int = 0
    solid: bool = True


def to_fixed(points: Array) -> Array:
    """Pixels to the rasteriser's fixed-point numbers."""
    fixed = np.rint(points * (1 << SUBPIXEL_BITS))
    return np.clip(fixed, -MAX_ABS_FIXED, MAX_ABS_FIXED).astype(np.int32)


def paint_patches(canvas: Array, patches: Sequence[Patch]) -> None:
    """Paints patches in order, anti-aliased, in place on [H, W, 3]."""
    for patch in patches:
        if patch.thickness:
            cv2.polylines(
                canvas,
                patch.polygons,
                True,
                patch.color,
                patch.thickness,
                cv2.LINE_AA,
                SUBPIXEL_BITS,
            )
        else:
            cv2.fillPoly(canvas, patch.polygons, patch.color, cv2.LINE_AA, SUBPIXEL_BITS)


def paint_silhouette(mask: Array, polygons: Sequence[Array], origin: Array) -> None:
    """Sets the pixels of all polygons to 1, not anti-aliased, in place on [H, W].

    Args:
        mask: a part of the image.
        polygons: each [M, 2] int32, fixed-point pixels of the image.
        origin: (x, y) of the mask's first pixel in the image.
    """
    shift = (origin << SUBPIXEL_BITS).astype(np.int32)
    for polygon in polygons:
        cv2.fillPoly(mask, [polygon - shift], 1, cv2.LINE_8, SUBPIXEL_BITS)


@dataclass
class _Face:
    points: Array
    color: Color
    parent: int
    center: Array
    two_sided: bool
    glow: bool
    ring_metres: float
    solid: bool
    underlay: bool


@dataclass
class Model:
    """A solid made of flat faces and capsules (limbs, bars), in its own frame (forward, right, up).

    Faces are seen from outside only: outside is the side away from `center`. A face with a `parent`
    (a window on a door) is painted right after it and shares its visibility. Faces that are added
    while `underlay` is set are always covered by the rest of the solid: sorting a long body by its
    middle would show its far wheels through the near side.
    """

    center: tuple[float, float, float] = (0.0, 0.0, 0.8)
    underlay: bool = False
    faces: list[_Face] = field(default_factory=list)
    capsules: list[tuple[Sequence[float], Sequence[float], float, float, Color]] = field(
        default_factory=list
    )

    def face(
        self,
        points: Sequence[Sequence[float]] | Array,
        color: Color,
        *,
        parent: int = -1,
        two_sided: bool = False,
        glow: bool = False,
        ring_metres: float = 0.0,
        solid: bool = False,
    ) -> int:
        """Adds a flat polygon [M, 3] and returns its index.

        `ring_metres` draws a ring of that width, not a disc; `solid` lets a face that has a parent
        reach beyond it (a tyre below the car's body); `glow` keeps its colour in the shade.
        """
        array = np.asarray(points, dtype=np.float64)
        center = np.asarray(self.center)
        solid = solid or parent < 0
        self.faces.append(
            _Face(array, color, parent, center, two_sided, glow, ring_metres, solid, self.underlay)
        )
        return len(self.faces) - 1

    def capsule(
        self,
        start: Sequence[float],
        end: Sequence[float],
        radius: float,
        end_radius: float,
        color: Color,
    ) -> None:
        """Adds a round bar that tapers from `radius` to `end_radius` (metres)."""
        self.capsules.append((start, end, radius, end_radius, color))

    def ball(self, center: Sequence[float], radius: float, color: Color) -> None:
        self.capsules.append((center, center, radius, radius, color))

    def box(
        self,
        lower: Sequence[float],
        upper: Sequence[float],
        color: Color,
        top_color: Color | None = None,
    ) -> dict[str, int]:
        """Adds a box between two corners; returns its faces: front, rear, left, right, top."""
        (l0, w0, h0), (l1, w1, h1) = lower, upper
        kept = self.center
        self.center = ((l0 + l1) / 2, (w0 + w1) / 2, (h0 + h1) / 2)
        faces = {
            "top": self.face(
                [(l0, w0, h1), (l1, w0, h1), (l1, w1, h1), (l0, w1, h1)], top_color or color
            ),
            "rear": self.face([(l0, w0, h0), (l0, w1, h0), (l0, w1, h1), (l0, w0, h1)], color),
            "front": self.face([(l1, w0, h0), (l1, w1, h0), (l1, w1, h1), (l1, w0, h1)], color),
            "left": self.face([(l0, w0, h0), (l1, w0, h0), (l1, w0, h1), (l0, w0, h1)], color),
            "right": self.face([(l0, w1, h0), (l1, w1, h0), (l1, w1, h1), (l0, w1, h1)], color),
        }
        self.center = kept
        return faces

    def vertices(self) -> Array:
        """All corners [V, 3], model frame; capsules give their end points."""
        parts = [face.points for face in self.faces]
        parts += [np.asarray([bar[0], bar[1]], dtype=np.float64) for bar in self.capsules]
        return np.concatenate(parts)


def model_to_world(points: Array, x: float, z: float, heading: float) -> Array:
    """Model points [..., 3] to the world; heading 0 looks along +z (away), pi at the viewer."""
    sine, cosine = np.sin(heading), np.cos(heading)
    forward, right = points[..., 0], points[..., 1]
    world = np.empty(points.shape)
    world[..., 0] = x + forward * sine + right * cosine
    world[..., 1] = points[..., 2]
    world[..., 2] = z + forward * cosine - right * sine
    return world


def place_model(
    model: Model, camera: Camera, light: Light, x: float, z: float, heading: float
) -> list[Patch]:
    """Projects a model standing at (x, z) into patches, far parts first."""
    keyed: list[tuple[float, int, Patch]] = []
    _place_faces(model, camera, light, (x, z, heading), keyed)
    if model.capsules:
        _place_capsules(model, camera, light, (x, z, heading), keyed)
    keyed.sort(key=lambda entry: (-entry[0], entry[1]))
    return [patch for _, _, patch in keyed]


def _place_faces(
    model: Model,
    camera: Camera,
    light: Light,
    pose: tuple[float, float, float],
    keyed: list[tuple[float, int, Patch]],
) -> None:
    faces = model.faces
    if not faces:
        return
    world = model_to_world(np.concatenate([face.points for face in faces]), *pose)
    in_camera = camera.to_camera(world)
    pixels = to_fixed(camera.to_image(in_camera))
    starts = np.cumsum([0] + [len(face.points) for face in faces])
    middles = np.add.reduceat(world, starts[:-1]) / np.diff(starts)[:, None]
    # Newell's normal: a car's side is not quite flat, so three of its corners would mislead.
    spokes = world - np.repeat(middles, np.diff(starts), 0)
    following = np.arange(1, len(world) + 1)
    following[starts[1:] - 1] = starts[:-1]
    normals = np.add.reduceat(np.cross(spokes, spokes[following]), starts[:-1])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    centers = model_to_world(np.stack([face.center for face in faces]), *pose)
    outward = np.where(((middles - centers) * normals).sum(1) < 0, -1.0, 1.0)[:, None]
    normals *= outward
    towards_viewer = ((camera.position - middles) * normals).sum(1) > 0
    shades = light.shade(np.where(towards_viewer[:, None], normals, -normals))
    depths = np.add.reduceat(in_camera[:, 2], starts[:-1]) / np.diff(starts)
    nearest = np.minimum.reduceat(in_camera[:, 2], starts[:-1])
    visible = [False] * len(faces)
    for index, face in enumerate(faces):
        parent = face.parent
        visible[index] = bool(face.two_sided or towards_viewer[index])
        if parent >= 0:
            visible[index] = visible[parent]
            depths[index] = depths[parent]
        if not visible[index]:
            continue
        polygon = pixels[starts[index] : starts[index + 1]]
        if nearest[index] < 2 * NEAR_PLANE_METRES:
            clipped = camera.project_polygon(world[starts[index] : starts[index + 1]])
            if clipped is None:
                continue
            polygon = to_fixed(clipped)
        color = face.color if face.glow else shaded(face.color, shades[index])
        thickness = 0
        if face.ring_metres:
            thickness = max(1, round(face.ring_metres * camera.focal / depths[index]))
        patch = Patch((polygon,), color, thickness, face.solid)
        key = float(depths[index]) + (UNDERLAY_METRES if face.underlay else 0.0)
        keyed.append((key, index, patch))


def _place_capsules(
    model: Model,
    camera: Camera,
    light: Light,
    pose: tuple[float, float, float],
    keyed: list[tuple[float, int, Patch]],
) -> None:
    bars = model.capsules
    ends = np.asarray([[bar[0], bar[1]] for bar in bars], dtype=np.float64)  # [B, 2, 3]
    in_camera = camera.to_camera(model_to_world(ends, *pose))
    pixels = camera.to_image(in_camera)
    depth = np.maximum(in_camera[..., 2], NEAR_PLANE_METRES)
    radii = np.asarray([[bar[2], bar[3]] for bar in bars]) * camera.focal / depth
    # Half a circle of A points around each end: [B, 2, A, 2].
    axis = pixels[:, 1] - pixels[:, 0]
    angle = np.arctan2(axis[:, 1], axis[:, 0])
    turn = np.linspace(-np.pi / 2, np.pi / 2, CAPSULE_CORNERS)
    arcs = np.stack([angle + np.pi, angle], 1)[..., None] + turn
    arms = np.stack([np.cos(arcs), np.sin(arcs)], -1)
    outer = to_fixed(pixels[:, :, None] + arms * radii[..., None, None])
    # A second, smaller outline shifted towards the sun makes the bar look round.
    sun = camera.rotation @ light.sun
    widest = radii.max(1)
    shift = np.asarray([np.sign(sun[0]) * 0.25, -0.2]) * widest[:, None]
    inner = to_fixed((pixels + shift[:, None])[:, :, None] + arms * (0.65 * radii)[..., None, None])
    outer, inner = (outline.reshape(len(bars), -1, 2) for outline in (outer, inner))
    base = (light.ambient + 0.35 * light.diffuse) * np.ones(3)
    dim, bright = 0.8 * base * np.asarray(light.tint), 1.12 * base * np.asarray(light.tint)
    nearest, keys = in_camera[..., 2].min(1), in_camera[..., 2].mean(1).tolist()
    for index, bar in enumerate(bars):
        if nearest[index] < NEAR_PLANE_METRES:
            continue
        key = keys[index]
        keyed.append((key, index, Patch((outer[index],), shaded(bar[4], dim))))
        if widest[index] > MIN_ROUNDED_PIXELS:
            lit = Patch((inner[index],), shaded(bar[4], bright), solid=False)
            keyed.append((key, index, lit))


def shaded(color: Color, factor: Array) -> Color:
    """A colour times a factor per channel, cut at 255."""
    return (
        min(255.0, color[0] * float(factor[0])),
        min(255.0, color[1] * float(factor[1])),
        min(255.0, color[2] * float(factor[2])),
    )


def shadow_hull(vertices: Array, camera: Camera, sun: Array, stretch: float) -> Array | None:
    """The outline [M, 2] (fixed-point) of a solid's shadow on the ground, or None if out of view.

    Args:
        vertices: [V, 3] corners of the solid, world frame.
        camera: projects the shadow.
        sun: [3], towards the sun.
        stretch: 1 for the sun's shadow, near 0 for the dark patch right under the solid.
    """
    slope = -sun[[0, 2]] / max(float(sun[1]), 0.2) * stretch
    ground = np.zeros_like(vertices)
    ground[:, [0, 2]] = vertices[:, [0, 2]] + vertices[:, 1:2] * slope
    in_camera = camera.to_camera(ground)
    in_camera = in_camera[in_camera[:, 2] > NEAR_PLANE_METRES]
    if len(in_camera) < 3:
        return None
    points = to_fixed(camera.to_image(in_camera))
    return cv2.convexHull(points.reshape(-1, 1, 2)).reshape(-1, 2)
