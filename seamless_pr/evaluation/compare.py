"""Two evaluations of the same images side by side, with intervals from a paired bootstrap.

N images, K classes, B draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamless_pr.datasets.class_readings import contradictions, described
from seamless_pr.evaluation.class_names import GROUPS, unique_names
from seamless_pr.evaluation.stored_results import count_cube
from seamless_pr.evaluation.tables import DASH, TextTable, percent
from seamless_pr.metrics.panoptic_quality import class_groups, known, mean_over, score_classes
from seamless_pr.metrics.segment_matching import PQRules, rules_named
from seamless_pr.parallel import ItemMap, map_in_processes
from seamless_pr.structures.label_space import Category, LabelSpace

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
        pq: name -> difference of PQ, the means first ("all", "things", "stuff"), then the classes
            (see `unique_names`).
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
    rules = _require_comparable(a, b)
    counts_a, counts_b = count_cube(a, a), count_cube(b, a)
    is_thing = np.array([row["is_thing"] for row in a["per_category"]])
    score = partial(_pq_and_dagger, is_thing=is_thing, rules=rules)
    starts = range(0, num_draws, DRAWS_PER_BLOCK)
    drawn = list(
        map_items(
            partial(_draw_block, counts_a=counts_a, counts_b=counts_b, score=score),
            [_Block(seed, start, min(DRAWS_PER_BLOCK, num_draws - start)) for start in starts],
            num_workers=num_workers,
            title="bootstrap",
            show_progress=False,
        )
    )
    whole = score(np.stack([counts_a.sum(0), counts_b.sum(0)]))
    deltas = np.concatenate(drawn)
    names = unique_names((row["category_id"], row["name"]) for row in a["per_category"])
    tables = [
        {
            name: _difference(whole[:, place, index], deltas[:, place, index], confidence)
            for place, name in enumerate([*GROUPS, *names])
        }
        for index in range(2)
    ]
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
    score: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """[B, 3 + K, 2] differences of PQ and of PQ† on drawn images."""
    num_images = len(counts_a)
    rng = np.random.default_rng((block.seed, block.start))
    weights = rng.multinomial(num_images, np.full(num_images, 1 / num_images), size=block.size)
    a, b = (score(np.einsum("bn,nkc->bkc", weights, side)) for side in (counts_a, counts_b))
    return b - a


def _pq_and_dagger(
    counts: NDArray[np.float64], is_thing: NDArray[np.bool_], rules: PQRules
) -> NDArray[np.float64]:
    """[B, 3 + K, 2] PQ and PQ† of summed counts [B, K, 6], means first; NaN: nothing counts."""
    scores = score_classes(counts, is_thing, rules)
    columns = []
    for values, is_counted in (
        (scores.pq, scores.is_counted),
        (scores.pq_dagger, ~np.isnan(scores.pq_dagger)),
    ):
        means = [mean_over(values, is_counted & group) for group in class_groups(is_thing).values()]
        of_classes = np.where(is_counted, values, np.nan)
        columns.append(np.concatenate([np.stack(means, axis=1), of_classes], axis=1))
    return np.stack(columns, axis=-1)


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
    return {
        "num_images": comparison.num_images,
        **{
            key: {name: _difference_json(of_name) for name, of_name in differences.items()}
            for key, differences in (("pq", comparison.pq), ("pq_dagger", comparison.pq_dagger))
        },
    }


def _difference_json(difference: Difference) -> dict[str, Any]:
    return {
        "a": difference.a,
        "b": difference.b,
        "difference": difference.delta,
        "interval": [difference.low, difference.high],
        "confidence": difference.confidence,
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


def require_fitting_baseline(baseline: dict[str, Any], label_space: LabelSpace, rules: str) -> None:
    """Means over other classes, or by other rules, are no baseline; other images may be one.

    Raises:
        ValueError: shows what differs.
    """
    now = {"per_category": [vars(category) for category in label_space.categories]}
    if different := class_differences(baseline, now, "the ground truth"):
        raise ValueError(
            f"the baseline has other classes: in it {'; '.join(different[:3])} ({len(different)} "
            "differ); give the evaluation.json of an evaluation on these classes"
        )
    if baseline["rules"] != rules:
        raise ValueError(
            f"the baseline was scored by the rules '{baseline['rules']}', this evaluation by "
            f"'{rules}'; give --rules {baseline['rules']}, or another baseline"
        )


def class_differences(values: dict[str, Any], others: dict[str, Any], source: str) -> list[str]:
    """A sentence for each class that one of two evaluations lacks or reads otherwise.

    Args:
        values, others: contents of two evaluation.json.
        source: what the others are, for the sentences.
    """
    own, known = (
        [
            Category(row["category_id"], row["name"], bool(row["is_thing"]), (0, 0, 0))
            for row in side["per_category"]
        ]
        for side in (values, others)
    )
    own_ids, known_ids = ({c.category_id for c in side} for side in (own, known))
    missing = [(c, "here and nothing in") for c in own if c.category_id not in known_ids]
    missing += [(c, "only in") for c in known if c.category_id not in own_ids]
    return [
        *contradictions(own, known, source),
        *(f"category {c.category_id} is {described(c)} {where} {source}" for c, where in missing),
    ]


def _require_comparable(a: dict[str, Any], b: dict[str, Any]) -> PQRules:
    """The rules of both; an error if the two cannot be compared."""
    if different := class_differences(b, a, "A"):
        raise ValueError(
            f"A and B have other categories: in B {'; '.join(different[:3])} ({len(different)} "
            "differ); evaluate both on one ground truth"
        )
    if a["rules"] != b["rules"]:
        raise ValueError(
            f"A was scored by the rules '{a['rules']}', B by '{b['rules']}'; use the same for both"
        )
    ids = [{image["image_id"] for image in side["per_image"]} for side in (a, b)]
    if ids[0] != ids[1] or not ids[0]:
        raise ValueError(
            "A and B must have the same images, at least one; "
            f"{len(ids[0] - ids[1])} are in A only, {len(ids[1] - ids[0])} in B only"
        )
    return rules_named(a["rules"])


def _difference(
    sides: NDArray[np.float64], deltas: NDArray[np.float64], confidence: float
) -> Difference:
    drawn = deltas[~np.isnan(deltas)]
    low = high = None
    if len(drawn):
        outside = (1 - confidence) / 2
        low, high = (float(value) for value in np.quantile(drawn, [outside, 1 - outside]))
    return Difference(known(sides[0]), known(sides[1]), low, high, confidence)


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
