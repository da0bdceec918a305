"""What the tests of a server send: pictures whose map is known, and a network that knows it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from seamless_pr.inference.predictor import Predictor
from seamless_pr.serving.limits import ServingLimits
from seamless_pr.serving.service import PanopticService
from tests.support.color_network import BLUE, GREEN, RED, ColorNetwork

LIMITS = ServingLimits(
    max_bytes=200_000, max_pixels=600_000, max_images=4, max_waiting=6, seconds=5
)


def flag(height: int = 48, width: int = 80) -> NDArray[np.uint8]:
    """Sky above a road with a car on it, and a strip of nothing on the right."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2] = GREEN
    image[height // 2 :] = RED
    image[height // 2 : height * 3 // 4, width // 4 : width // 2] = BLUE
    image[:, -width // 8 :] = 0
    return image


def as_file(image: NDArray[np.uint8], suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image[..., ::-1])[1].tobytes()


@dataclass(frozen=True)
class Server:
    address: str
    service: PanopticService
    network: ColorNetwork


def color_predictor(side: int = 48, batch_size: int = 4) -> Predictor:
    return Predictor(ColorNetwork(), shortest_side_pixels=side, batch_size=batch_size)
