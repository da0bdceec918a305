"""Two evaluations of the same images side by side, with intervals from a paired bootstrap.

N images, K classes, B draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamless_pr.evaluation.results import COUNT_KEYS, GROUPS
from seamless_pr.evaluation.tables import DASH, TextTable, percent
from seamless_pr.parallel import ItemMap, map_in_processes

TP, FP, FN, NUM_GT, IOU_SUM, ALL_IOU_SUM = range(len(COUNT_KEYS))
# Draws that are weighed at once; keeps the memory of thousands of images small.
DRAWS_PER_BLOCK = 100


@dataclass(frozen=True)
class Difference:
    """Score of B minus score of A.

    Attributes:
        a, b: the two scores in [0, 1]; None where the class or group does not count.
        low, high: bounds of the interval of b - a; None where it cannot be drawn.
        confidence: share of draws inside the bounds.
    """

    a: float | None
    b: float | None
    low: float | None
    high: float | None
    confidence: float

    @property
    def delta(self) -> float | None:
        """b - a."""
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Comparison:
    """B against A on the images that both have.

    Attributes:
        num_images: images compared.
        pq: name -> difference of PQ, groups first ("all", "things", "stuff"), then classes.
        pq_dagger: the same of PQ†.
    """

    num_images: int
    pq: dict[str, Difference]
    pq_dagger: dict[str, Difference]


def compare_evaluations(
    a: dict[str, Any],
    b: dict[str, Any],
    *,
    num_draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    num_workers: int | None = 1,
    map_items: ItemMap = map_in_processes,
) -> Comparison:
    """Compares two evaluations of the same ground truth.

    Images are drawn with replacement, the same ones for both sides, and the scores are computed
    anew from the counts of the drawn images; the bounds are quantiles of the differences. So an
    image that is hard for both sides widens nothing.

    Args:
        a, b: contents of two evaluation.json.
        num_draws: B.
        confidence: share of the draws inside the bounds.
        seed: of the draws.
        num_workers: processes; None: one per core. The result does not depend on it.
        map_items: what spreads the draws; by default over processes of this machine.

    Raises:
        ValueError: other classes, other rules, or other images.
    """
    _require_comparable(a, b)
    counts_a, counts_b = _count_cube(a, a), _count_cube(b, a)
    is_thing = np.array([row["is_thing"] for row in a["per_category"]])
    names = [row["name"] for row in a["per_category"]]
    starts = range(0, num_draws, DRAWS_PER_BLOCK)
    drawn = list(
        map_items(
            partial(_draw_block, counts_a=counts_a, counts_b=counts_b, is_thing=is_thing),
            [_Block(seed, start, min(DRAWS_PER_BLOCK, num_draws - start)) for start in starts],
            num_workers=num_workers,
            title="bootstrap",
            show_progress=False,
        )
    )
    whole_a, whole_b = (_scores(c.sum(0)[None], is_thing) for c in (counts_a, counts_b))
    labels = [*GROUPS, *names]
    tables = []
    for index in range(2):
        deltas = np.concatenate([block[index] for block in drawn])
        tables.append(
            {
                label: _difference(
                    whole_a[index][0, place], whole_b[index][0, place], deltas[:, place], confidence
                )
                for place, label in enumerate(labels)
            }
        )
    return Comparison(len(counts_a), tables[0], tables[1])


@dataclass(frozen=True)
class _Block:
    """Draws `start` to `start + size`; the same ones wherever the block is computed."""

    seed: int
    start: int
    size: int


def _draw_block(
    block: _Block,
    counts_a: NDArray[np.float64],
    counts_b: NDArray[np.float64],
    is_thing: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Differences of PQ and of PQ† [B, 3 + K] on drawn images."""
    num_images = len(counts_a)
    rng = np.random.default_rng((block.seed, block.start))
    weights = rng.multinomial(num_images, np.full(num_images, 1 / num_images), size=block.size)
    sums = [np.einsum("bn,nkc->bkc", weights, counts) for counts in (counts_a, counts_b)]
    first, second = (_scores(part, is_thing) for part in sums)
    return second[0] - first[0], second[1] - first[1]


def comparison_table(comparison: Comparison, *, confidence: float = 0.95) -> TextTable:
    """Both sides in percent, with the interval of the difference; * marks clear ones."""
    interval = f"{100 * confidence:g} % interval"
    heading = ("", "PQ A", "PQ B", "B - A", interval, "PQ† A", "PQ† B", "B - A", interval)
    rows = []
    for name, of_pq in comparison.pq.items():
        rows.append((name, *_cells(of_pq), *_cells(comparison.pq_dagger[name])))
    return TextTable(heading, tuple(rows))


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Plain containers for a file."""

    def table(differences: dict[str, Difference]) -> dict[str, Any]:
        return {
            name: {
                "a": difference.a,
                "b": difference.b,
                "difference": difference.delta,
                "interval": [difference.low, difference.high],
                "confidence": difference.confidence,
            }
            for name, difference in differences.items()
        }

    return {
        "num_images": comparison.num_images,
        "pq": table(comparison.pq),
        "pq_dagger": table(comparison.pq_dagger),
    }


def baseline_table(evaluation: dict[str, Any], baseline: dict[str, Any]) -> TextTable:
    """Means now and before, in percent, whatever the images."""
    rows = []
    for label, group, key in (
        *((f"PQ {group}", group, "pq") for group in GROUPS),
        *((f"PQ† {group}", "pq_dagger", group) for group in GROUPS),
    ):
        now, before = evaluation[group][key], baseline[group][key]
        rows.append((label, percent(before), percent(now), _signed(now, before)))
    return TextTable(("", "baseline", "now", "change"), tuple(rows))


def _require_comparable(a: dict[str, Any], b: dict[str, Any]) -> None:
    classes = [[row["category_id"] for row in side["per_category"]] for side in (a, b)]
    if classes[0] != classes[1]:
        raise ValueError("A and B have other categories; evaluate both on one ground truth")
    if a.get("rules") != b.get("rules"):
        raise ValueError(
            f"A was scored by the rules '{a.get('rules')}', B by '{b.get('rules')}'; "
            "use the same for both"
        )
    ids = [{image["image_id"] for image in side["per_image"]} for side in (a, b)]
    if ids[0] != ids[1] or not ids[0]:
        raise ValueError(
            "A and B must have the same images, at least one; "
            f"{len(ids[0] - ids[1])} are in A only, {len(ids[1] - ids[0])} in B only"
        )


def _count_cube(evaluation: dict[str, Any], order: dict[str, Any]) -> NDArray[np.float64]:
    """[N, K, 6] counts, images in the order of another evaluation."""
    place = {row["category_id"]: index for index, row in enumerate(order["per_category"])}
    image_place = {image["image_id"]: index for index, image in enumerate(order["per_image"])}
    counts = np.zeros((len(image_place), len(place), len(COUNT_KEYS)))
    for image in evaluation["per_image"]:
        for row in image["categories"]:
            cell = image_place[image["image_id"]], place[row["category_id"]]
            counts[cell] = [row[key] for key in COUNT_KEYS]
    return counts


def _scores(
    counts: NDArray[np.float64], is_thing: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """PQ and PQ† [B, 3 + K] of summed counts [B, K, 6]; NaN where nothing counts."""
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = counts[..., TP] + 0.5 * counts[..., FP] + 0.5 * counts[..., FN]
        pq = counts[..., IOU_SUM] / weight
        stuff_dagger = counts[..., ALL_IOU_SUM] / counts[..., NUM_GT]
    has_gt = counts[..., NUM_GT] > 0
    dagger = np.where(is_thing, pq, stuff_dagger)
    dagger = np.where(has_gt, dagger, np.nan)
    return _with_means(pq, is_thing), _with_means(dagger, is_thing)


def _with_means(scores: NDArray[np.float64], is_thing: NDArray[np.bool_]) -> NDArray[np.float64]:
    groups = [np.ones_like(is_thing), is_thing, ~is_thing]
    means = []
    for group in groups:
        known = ~np.isnan(scores) & group
        number = known.sum(1)
        total = np.where(known, scores, 0.0).sum(1)
        means.append(np.where(number > 0, total / np.maximum(number, 1), np.nan))
    return np.concatenate([np.stack(means, axis=1), scores], axis=1)


def _difference(a: float, b: float, deltas: NDArray[np.float64], confidence: float) -> Difference:
    known = deltas[~np.isnan(deltas)]
    low = high = None
    if len(known):
        outside = (1 - confidence) / 2
        low, high = (float(value) for value in np.quantile(known, [outside, 1 - outside]))
    return Difference(_known(a), _known(b), low, high, confidence)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _cells(difference: Difference) -> Sequence[str]:
    interval = DASH
    if difference.low is not None and difference.high is not None and difference.delta is not None:
        mark = "*" if difference.is_clear else " "
        interval = f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]{mark}"
    return (
        percent(difference.a),
        percent(difference.b),
        _signed(difference.b, difference.a),
        interval,
    )


def _signed(now: float | None, before: float | None) -> str:
    return DASH if now is None or before is None else f"{100 * (now - before):+.1f}"
