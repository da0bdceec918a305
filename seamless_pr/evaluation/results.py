"""evaluation.json: everything an evaluation found, as plain containers with values in [0, 1]."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seamless_pr.evaluation.class_names import GROUPS, unique_names
from seamless_pr.evaluation.evaluate import Evaluation, ImageCounts
from seamless_pr.files import write_whole
from seamless_pr.metrics.panoptic_quality import COUNT_NAMES, MeanScores, PanopticScores, PQCounts
from seamless_pr.metrics.semantic_iou import SemanticScores
from seamless_pr.structures.label_space import Category, LabelSpace

if TYPE_CHECKING:  # of instances, which most evaluations do without
    from seamless_pr.evaluation.instances import InstanceScores, RuleScores

RESULT_FILE = "evaluation.json"
FORMAT_VERSION = 1


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation as plain containers; `docs/evaluation.md` describes every key."""
    label_space, panoptic = evaluation.label_space, evaluation.panoptic
    values: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "rules": evaluation.settings.rules,
        "num_images": len(evaluation.images),
        **_panoptic_means(panoptic),
        "per_category": _per_category(evaluation, panoptic),
        "semantic": semantic_json(evaluation.semantic, label_space),
        "notes": list(evaluation.notes),
    }
    boundary = evaluation.boundary
    if boundary is not None:
        values["boundary"] = {
            "dilation_ratio": evaluation.settings.boundary_ratio,
            **_panoptic_means(boundary),
            "mean_iou": _mean(evaluation.boundary_iou or ()),
        }
    if evaluation.settings.trimap_widths:
        values["trimap"] = [
            {"width_pixels": width, **semantic_json(scores, label_space)}
            for width, scores in evaluation.trimaps.items()
        ]
    if evaluation.instances is not None:
        values["instances"] = _instances_json(evaluation.instances, evaluation.lvis, label_space)
    if evaluation.semantic_pngs is not None:
        values["semantic_pngs"] = {
            **semantic_json(evaluation.semantic_pngs, label_space),
            "as_stuff": _as_stuff_json(evaluation),
        }
    values["confusion"] = {
        "category_ids": [category.category_id for category in label_space.categories],
        "pixels": evaluation.counts.confusion.pixels.tolist(),
    }
    values["segment_confusion"] = evaluation.counts.segments.tolist()
    values["per_image"] = [_image_json(image, label_space) for image in evaluation.images]
    return values


def write_evaluation_json(values: dict[str, Any], folder: Path) -> Path:
    """Writes evaluation.json, whole or not at all."""
    path = folder / RESULT_FILE
    write_whole(path, json.dumps(values, ensure_ascii=False, allow_nan=False).encode())
    return path


def _panoptic_means(scores: PanopticScores) -> dict[str, Any]:
    groups: dict[str, MeanScores] = {name: getattr(scores, name) for name in GROUPS}
    return {
        **{name: _means_json(means) for name, means in groups.items()},
        "pq_dagger": {
            **{name: means.pq_dagger for name, means in groups.items()},
            "num_categories": {name: means.num_dagger_categories for name, means in groups.items()},
        },
    }


def _means_json(means: MeanScores) -> dict[str, Any]:
    return {
        "pq": means.pq,
        "sq": means.sq,
        "rq": means.rq,
        "num_categories": means.num_categories,
    }


def _per_category(evaluation: Evaluation, scores: PanopticScores) -> list[dict[str, Any]]:
    boundary, boundary_iou = evaluation.boundary, evaluation.boundary_iou
    semantic, rows = evaluation.semantic, []
    for train_id, category in enumerate(evaluation.label_space.categories):
        of_class = scores.per_class[train_id]
        row: dict[str, Any] = {
            "category_id": category.category_id,
            "name": category.name,
            "is_thing": category.is_thing,
            "color": list(category.color),
            "pq": of_class.pq,
            "sq": of_class.sq,
            "rq": of_class.rq,
            "pq_dagger": of_class.pq_dagger,
            "is_counted": of_class.is_counted,
            **_counts_json(evaluation.counts.pq, train_id),
            "iou": semantic.per_class[train_id],
        }
        if boundary is not None and boundary_iou is not None:
            row["boundary_pq"] = boundary.per_class[train_id].pq
            row["boundary_iou"] = boundary_iou[train_id]
        rows.append(row)
    return rows


def _counts_json(counts: PQCounts, train_id: int) -> dict[str, Any]:
    return {
        "tp": int(counts.tp[train_id]),
        "fp": int(counts.fp[train_id]),
        "fn": int(counts.fn[train_id]),
        "num_gt": int(counts.num_gt[train_id]),
        "iou_sum": float(counts.iou_sum[train_id]),
        "all_iou_sum": float(counts.all_iou_sum[train_id]),
    }


def semantic_json(scores: SemanticScores, label_space: LabelSpace) -> dict[str, Any]:
    """Mean IoU and the IoU of each class, as plain containers."""
    return {
        "mean_iou": scores.mean_iou,
        "pixel_accuracy": scores.pixel_accuracy,
        "scene_parsing": scores.scene_parsing,
        "num_categories": sum(iou is not None for iou in scores.per_class),
        "iou": dict(zip(class_keys(label_space.categories), scores.per_class, strict=True)),
    }


def _instances_json(
    scores: InstanceScores, lvis: RuleScores | None, label_space: LabelSpace
) -> dict[str, Any]:
    keys = class_keys(label_space.thing_categories)
    found_by = scores if lvis is None else {**scores, "lvis": lvis}
    return {
        rules: {
            **found.means,
            "per_category": {
                key: {"ap": ap, "ap50": ap50}
                for key, (ap, ap50) in zip(keys, found.per_thing, strict=True)
            },
        }
        for rules, found in found_by.items()
    }


def _as_stuff_json(evaluation: Evaluation) -> dict[str, Any]:
    """PQ of the label PNGs with every class as stuff."""
    scores = evaluation.semantic_pngs_as_stuff
    assert scores is not None
    keys = class_keys(evaluation.label_space.categories)
    return {
        **_means_json(scores.all),
        "per_category": {
            key: of_class.pq if of_class.is_counted else None
            for key, of_class in zip(keys, scores.per_class)
        },
    }


def class_keys(categories: Iterable[Category]) -> list[str]:
    """See `unique_names`."""
    return unique_names((category.category_id, category.name) for category in categories)


def _image_json(image: ImageCounts, label_space: LabelSpace) -> dict[str, Any]:
    return {
        "image_id": image.image_id,
        "categories": [
            {
                "category_id": label_space.categories[counts.train_id].category_id,
                **{key: getattr(counts, key) for key in COUNT_NAMES},
            }
            for counts in image.classes
        ],
    }


def _mean(values: Sequence[float | None]) -> float | None:
    kept = [value for value in values if value is not None]
    return sum(kept) / len(kept) if kept else None
