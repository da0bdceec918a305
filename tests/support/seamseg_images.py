"""Images of the golden cases: made again from a seed with numpy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FIRST_SEED = 10007
NUM_WAVES, NUM_SHAPES = 6, 24


def drawn_image(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """[H, W, 3] RGB: smooth waves, on them textured rectangles and ellipses, then noise."""
    random = np.random.RandomState(FIRST_SEED + seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    image = np.zeros((height, width, 3))
    for _ in range(NUM_WAVES):
        waves_y, waves_x = random.uniform(0.5, 6.0, 2)
        phase = random.uniform(0, 2 * np.pi, 3)
        amplitude = random.uniform(0.05, 0.15)
        turns = (waves_y * y / height + waves_x * x / width)[..., None]
        image += amplitude * np.sin(2 * np.pi * turns + phase)
    image += 0.45
    for index in range(NUM_SHAPES):
        center_y, center_x = random.uniform(0, height), random.uniform(0, width)
        side = np.exp(random.uniform(np.log(12.0), np.log(0.3 * max(height, width))))
        stretch = np.exp(random.uniform(-0.8, 0.8))
        half_y, half_x = side * np.sqrt(stretch) / 2, side / np.sqrt(stretch) / 2
        color = random.uniform(0, 1, 3)
        contrast, period = random.uniform(0, 0.2), random.uniform(4, 24)
        if index % 2:
            inside = ((y - center_y) / half_y) ** 2 + ((x - center_x) / half_x) ** 2 <= 1
        else:
            inside = (np.abs(y - center_y) <= half_y) & (np.abs(x - center_x) <= half_x)
        texture = color + contrast * np.sin(2 * np.pi * (x + y)[..., None] / period)
        image = np.where(inside[..., None], texture, image)
    image += random.normal(0, 0.02, image.shape)
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
