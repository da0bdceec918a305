"""The first pass of a network, before anybody waits for it."""

from __future__ import annotations

import torch

from seamless_pr.inference.predictor import Predictor

_GREY = 127


def warm_up(predictor: Predictor) -> None:
    """Labels a grey image: what is loaded, compiled or chosen on first use is so now.

    Raises:
        ValueError: the network has no panoptic maps.
    """
    side = predictor.shortest_side_pixels
    predictor(torch.full((3, side, 2 * side), _GREY, dtype=torch.uint8))
