"""Several trained networks as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from seamless_pr.build.predictor import load_predictor
from seamless_pr.inference.predictor import Predictor
from seamless_pr.models.networks.ensemble import EnsembleNet, Member
from seamless_pr.ops.score_weights import interpolated_weights
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.views import View


def load_ensemble(
    paths: Sequence[str | Path],
    device: torch.device | str | None = None,
    *,
    validation_scores: Sequence[float] = (),
    label_space: LabelSpace | None = None,
    overrides: Sequence[str] = (),
    batch_size: int = 1,
    amp: str = "none",
    views: Sequence[View] = (),
) -> Predictor:
    """Networks whose findings are pooled, ready to label images.

    Images are resized for the network that wants them largest, and from there once more for those
    that want them smaller.

    Args:
        paths: of each network, see `load_predictor`.
        validation_scores: of each network, larger is better (its AP); its objects' scores are
            multiplied by a number from 0.6, for the worst, to 1, for the best. None: all by 1.
        device, label_space, batch_size, amp: see `load_predictor`.
        overrides: changes of every stored config.
        views: of every network.

    Raises:
        FileNotFoundError: no weights there.
        ValueError: as `load_predictor`; or another number of scores, or networks for other classes
            than the first one's, which the message names.
    """
    if validation_scores and len(validation_scores) != len(paths):
        raise ValueError(
            f"an ensemble needs one validation score for each of its {len(paths)} networks; got "
            f"{len(validation_scores)}"
        )
    predictors: list[Predictor] = []
    for path in paths:
        wanted = predictors[0].label_space if predictors else label_space
        more: dict[str, Any] = {"label_space": wanted, "overrides": overrides, "views": views}
        predictors.append(load_predictor(path, device, **more))
    weights = [1.0] * len(paths)
    if validation_scores:
        weights = interpolated_weights(validation_scores)
    largest = max(predictors, key=lambda predictor: predictor.shortest_side_pixels)
    members = [
        Member(predictor.network, weight, _view(predictor, largest))
        for predictor, weight in zip(predictors, weights, strict=True)
    ]
    return Predictor(
        EnsembleNet(members),
        shortest_side_pixels=largest.shortest_side_pixels,
        longest_side_pixels=largest.longest_side_pixels,
        rounded_sides=largest.rounded_sides,
        device=largest.device,
        batch_size=batch_size,
        amp=amp,
        settings={
            "ensemble": [predictor.describe() for predictor in predictors],
            "ensemble_weights": weights,
        },
    )


def _view(predictor: Predictor, largest: Predictor) -> View:
    sides = predictor.sides
    if sides == largest.sides:
        return View()
    return View(1.0, False, sides.shortest, sides.longest, sides.rounded)
