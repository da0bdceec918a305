"""What a network says about one tile, in the form in which tiles are joined.

Letters: S stuff classes, H, W the tile, T things.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seamless_pr.inference.predictor import Predictor
from seamless_pr.structures.prediction import Prediction


@dataclass(frozen=True)
class TileLabels:
    """One tile, before it is joined with its neighbours.

    Attributes:
        things: [H, W] int32, 0: no thing; else 1 + the index of one.
        train_ids: [T] of the things.
        scores: [T] of the things, in [0, 1].
        stuff_scores: [S + 1, H, W] float16: of each stuff class, then of everything else. What
            neighbours say is added; the largest sum wins.
    """

    things: NDArray[np.int32]
    train_ids: tuple[int, ...]
    scores: tuple[float, ...]
    stuff_scores: NDArray[np.float16]


def label_tile(predictor: Predictor, pixels: Tensor) -> TileLabels:
    """Labels one tile at its own size.

    Args:
        predictor: with any network that makes panoptic or semantic maps.
        pixels: [3, H, W] uint8.
    """
    size = (pixels.shape[-2], pixels.shape[-1])
    prediction, scores = predictor.predict_tile(pixels)
    num_stuff = predictor.label_space.num_stuff
    things, train_ids, thing_scores = _things(prediction)
    if scores is None:
        stuff_scores = _votes(prediction, num_stuff)
    else:
        others = scores[num_stuff:].amax(0, keepdim=True) if len(scores) > num_stuff else None
        if others is None:
            others = scores.new_full((1, *size), torch.finfo(torch.float16).min)
        stuff_scores = torch.cat([scores[:num_stuff], others])
    # Half the bytes between workers, and the same numbers without them.
    limit = torch.finfo(torch.float16).max
    stuff_scores = stuff_scores.clamp(-limit, limit).half().cpu()
    return TileLabels(things, train_ids, thing_scores, stuff_scores.numpy())


def _things(
    prediction: Prediction,
) -> tuple[NDArray[np.int32], tuple[int, ...], tuple[float, ...]]:
    segmentation = prediction.require_panoptic()
    space = segmentation.label_space
    found = [
        segment
        for segment in segmentation.segments
        if space.is_thing(segment.train_id) and not segment.is_crowd and segment.area
    ]
    largest = max((segment.segment_id for segment in segmentation.segments), default=0)
    table = torch.zeros(largest + 1, dtype=torch.int32)
    for index, segment in enumerate(found):
        table[segment.segment_id] = index + 1
    things = table[segmentation.id_map.long()].numpy()
    scores = tuple(1.0 if segment.score is None else segment.score for segment in found)
    return things, tuple(segment.train_id for segment in found), scores


def _votes(prediction: Prediction, num_stuff: int) -> Tensor:
    """One vote a pixel, of networks whose maps come without scores of classes."""
    classes = prediction.require_panoptic().semantic_map()
    classes = torch.where(classes < num_stuff, classes, num_stuff)
    votes = torch.zeros(num_stuff + 1, *classes.shape)
    return votes.scatter_(0, classes[None], 1.0)


def min_stuff_area(network: Any, image_size: tuple[int, int]) -> float:
    """Pixels below which a stuff class of the whole image becomes void."""
    settings = getattr(getattr(network, "fusion", None), "settings", None)
    pixels = getattr(settings, "stuff_area_pixels", 0)
    fraction = getattr(settings, "stuff_area_fraction", 0.0)
    return pixels or fraction * image_size[0] * image_size[1]
