"""Weights of the models of an ensemble."""

from __future__ import annotations

from collections.abc import Sequence


def interpolated_weights(
    validation_scores: Sequence[float], lowest: float = 0.6, highest: float = 1.0
) -> list[float]:
    """Weights from `lowest` for the worst model to `highest` for the best, linear between them.

    "Linear-Interpolation" of the winner's report of the 3D-FUTURE challenge 2020.

    Args:
        validation_scores: of the models, larger is better (its AP).

    Returns:
        One weight per model; `highest` for all if they are equally good.

    Raises:
        ValueError: no score.
    """
    if not validation_scores:
        raise ValueError("an ensemble needs the validation score of each model; got none")
    worst, best = min(validation_scores), max(validation_scores)
    if worst == best:
        return [highest] * len(validation_scores)
    scale = (highest - lowest) / (best - worst)
    return [lowest + scale * (score - worst) for score in validation_scores]
