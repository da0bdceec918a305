"""Noise tiles and leaf sprites that every drawn street scene shares."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from seamless_pr.street_scenes.camera import Array

TILE = 512
SPRITE = 256
NUM_LEAF_SPRITES = 12
# The tiles are part of the style: one fixed seed, so that scenes depend on their own seed only.
TEXTURE_SEED = 20190619


@dataclass(frozen=True)
class Textures:
    """Shared noise.

    Attributes:
        cloud: [TILE, TILE] float32 in [-1, 1], coarse, tileable.
        grain: [TILE, TILE] float32 in about [-1, 1], all scales, tileable.
        sensor: [2 * TILE, 2 * TILE, 3] float32, standard normal, slightly correlated.
        leaf_alpha: mip levels of [SPRITES, s, s] uint8 opacity of tree crowns.
        leaf_shade: mip levels of [SPRITES, s, s] uint8 brightness of their leaves.
    """

    cloud: Array
    grain: Array
    sensor: Array
    leaf_alpha: tuple[Array, ...]
    leaf_shade: tuple[Array, ...]


@lru_cache(maxsize=1)
def load_textures() -> Textures:
    """Makes the tiles once per process."""
    rng = np.random.default_rng(TEXTURE_SEED)
    cloud = _octaves(rng, TILE, [4, 8, 16, 32, 64], 0.55)
    grain = _octaves(rng, TILE, [8, 32, 128, 256, 512], 0.95)
    sensor = rng.standard_normal((2 * TILE, 2 * TILE, 3)).astype(np.float32)
    sensor = 0.75 * sensor + 0.6 * cv2.GaussianBlur(sensor, (3, 3), 0.8)
    alphas, shades = zip(
        *(_leaf_sprite(rng, index) for index in range(NUM_LEAF_SPRITES)), strict=True
    )
    return Textures(cloud, grain, sensor, _mip_levels(alphas), _mip_levels(shades))


def _octaves(rng: np.random.Generator, size: int, cells: list[int], persistence: float) -> Array:
    total = np.zeros((size, size), np.float32)
    weight = 1.0
    for count in cells:
        coarse = rng.uniform(-1, 1, (count, count)).astype(np.float32)
        wrapped = np.pad(coarse, 2, mode="wrap")
        scale = size // count
        fine = cv2.resize(wrapped, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        total += weight * fine[2 * scale : 2 * scale + size, 2 * scale : 2 * scale + size]
        weight *= persistence
    return (total / (2.2 * total.std())).clip(-1, 1)


def _leaf_sprite(rng: np.random.Generator, index: int) -> tuple[Array, Array]:
    """One crown: lobes of leaf clumps, lighter at the top and on one side of each clump."""
    supersample = 2 * SPRITE
    alpha = np.zeros((supersample, supersample), np.uint8)
    shade = np.full((supersample, supersample), 90, np.uint8)
    num_lobes = 5 + index % 5
    angles = rng.uniform(0, 2 * np.pi, num_lobes)
    reach = rng.uniform(0.3, 0.62, num_lobes)
    lobes = np.stack([np.cos(angles), np.sin(angles)], 1) * reach[:, None] * 0.62
    lobes = np.concatenate([lobes, [[0.0, 0.0], [0.0, 0.2]]])
    radii = rng.uniform(0.24, 0.42, len(lobes))
    clumps = []
    for lobe, radius in zip(lobes, radii, strict=True):
        count = int(260 * radius)
        offsets = rng.normal(0, 0.52, (count, 2)).clip(-1, 1) * radius
        for offset in offsets:
            brightness = 118 - 70 * offset[1] / radius - 28 * lobe[1] + rng.normal(0, 26)
            clumps.append((lobe + offset, rng.uniform(0.022, 0.06), brightness))
    order = np.argsort([clump[2] + rng.normal(0, 20) for clump in clumps])
    half = supersample / 2
    for position in order:
        center, radius, brightness = clumps[position]
        pixel = (int(half + center[0] * half), int(half + center[1] * half))
        axes = (max(2, int(radius * half)), max(2, int(radius * half * rng.uniform(0.5, 0.9))))
        angle = rng.uniform(0, 180)
        cv2.ellipse(alpha, pixel, axes, angle, 0, 360, 255, -1, cv2.LINE_AA)
        value = int(np.clip(brightness, 25, 235))
        cv2.ellipse(shade, pixel, axes, angle, 0, 360, value, -1, cv2.LINE_AA)
    size = (SPRITE, SPRITE)
    return (
        cv2.resize(alpha, size, interpolation=cv2.INTER_AREA),
        cv2.resize(shade, size, interpolation=cv2.INTER_AREA),
    )


def _mip_levels(images: tuple[Array, ...]) -> tuple[Array, ...]:
    levels = [np.stack(images)]
    while levels[-1].shape[1] > 8:
        side = levels[-1].shape[1] // 2
        halves = [cv2.resize(i, (side, side), interpolation=cv2.INTER_AREA) for i in levels[-1]]
        levels.append(np.stack(halves))
    return tuple(levels)
