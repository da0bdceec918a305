"""The first pass of a network, before anybody waits for it."""

from __future__ import annotations

import torch

from seamless_pr.inference.predictor import Predictor
from seamless_pr.inference.tiled_predictor import TiledPredictor

_GREY = 127
_SIZE = (16, 32)


def warm_up(predictor: Predictor) -> None:
    """Labels a grey image: what is loaded, compiled or chosen on first use is so now.

    Raises:
        ValueError: the network has no panoptic maps, or images would grow beyond the limit for it.
    """
    # Tiles are as large as they are; other images become as large as the network wants them.
    size = _SIZE
    if isinstance(predictor, TiledPredictor):
        size = (predictor.tiling.size, predictor.tiling.size)
    predictor(_image(size))


def check_size(predictor: Predictor) -> None:
    """Whether the sides that a config asks for leave images of usual shapes within the limit.

    Raises:
        ValueError: they do not.
    """
    predictor.resize(_image(_SIZE))


def _image(size: tuple[int, int]) -> torch.Tensor:
    return torch.full((3, *size), _GREY, dtype=torch.uint8)
