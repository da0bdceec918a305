"""Prediction folders and evaluations in FiftyOne, to look at images by what went wrong in them.

Needs `pip install fiftyone`; nothing else here does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamless_pr.datasets.coco_panoptic import find_png_folder, find_pngs
from seamless_pr.datasets.panoptic_reader import parse_panoptic_json
from seamless_pr.evaluation.stored_results import count_cube, read_evaluation_json
from seamless_pr.id_maps.id_png_files import read_id_png
from seamless_pr.metrics.panoptic_quality import score_classes
from seamless_pr.structures.faults import FaultyDataError

SCORES = ("pq", "sq", "rq")


@dataclass(frozen=True)
class SegmentRegion:
    """One segment of an image, cut out of the map.

    Attributes:
        label: name of the class.
        box: (left, top, width, height) as parts of the image's width and height.
        mask: [h, w] bool inside the box.
        is_thing, is_crowd, segment_id, area: of the segment.
    """

    label: str
    box: tuple[float, float, float, float]
    mask: NDArray[np.bool_]
    is_thing: bool
    is_crowd: bool
    segment_id: int
    area: int


def panoptic_regions(
    json_path: str | os.PathLike[str], *, is_prediction: bool = True
) -> Iterator[tuple[Any, list[SegmentRegion]]]:
    """(image id, its segments) of a COCO panoptic JSON, image by image.

    Args:
        json_path: `panoptic.json` of a prediction folder, or ground truth.
        is_prediction: False: the stricter checks of ground truth.

    Raises:
        FileNotFoundError, ValueError: the JSON or a PNG is missing or faulty.
    """
    json_path = Path(json_path)
    parsed = parse_panoptic_json(json_path, is_prediction=is_prediction)
    if parsed.faults:
        raise FaultyDataError(f"{json_path} is not a valid COCO panoptic JSON", parsed.faults)
    named = parsed.stated_categories if is_prediction else parsed.categories
    categories = {category.category_id: category for category in named}
    annotations = parsed.dataset().annotations
    folder = find_png_folder(json_path, [a.file_name for a in annotations])
    paths, faults = find_pngs(annotations, folder, json_path)
    if faults:
        raise FaultyDataError(f"{json_path} names files that are not below {folder}", faults)
    for annotation in annotations:
        id_map = read_id_png(paths[annotation.image_id])
        regions = []
        for segment in annotation.segments:
            mask = id_map == segment.segment_id
            if not mask.any():
                continue
            category = categories.get(segment.category_id)
            top, bottom = _extent(mask.any(1))
            left, right = _extent(mask.any(0))
            height, width = id_map.shape
            regions.append(
                SegmentRegion(
                    (category and category.name) or str(segment.category_id),
                    (left / width, top / height, (right - left) / width, (bottom - top) / height),
                    mask[top:bottom, left:right],
                    bool(category and category.is_thing),
                    bool(segment.is_crowd),
                    segment.segment_id,
                    int(mask.sum()),
                )
            )
        yield annotation.image_id, regions


def _extent(present: NDArray[np.bool_]) -> tuple[int, int]:
    indices = np.flatnonzero(present)
    return int(indices[0]), int(indices[-1]) + 1


def to_fiftyone(
    images: Mapping[Any, str | os.PathLike[str]],
    predictions: str | os.PathLike[str] | None = None,
    ground_truth: str | os.PathLike[str] | None = None,
    evaluation: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
) -> Any:
    """A FiftyOne dataset of images with their segments, and with the scores of each image.

    Args:
        images, predictions, ground_truth, evaluation: see `fiftyone_samples`.
        name: of the dataset in FiftyOne; None: one that it makes up.

    Returns:
        A `fiftyone.Dataset`; `fiftyone.launch_app(dataset)` shows it. FiftyOne keeps datasets in a
        MongoDB, which it brings along or is told of (`FIFTYONE_DATABASE_URI`).

    Raises:
        ModuleNotFoundError, FileNotFoundError, ValueError: see `fiftyone_samples`.
    """
    fiftyone = _fiftyone()
    samples = fiftyone_samples(images, predictions, ground_truth, evaluation)
    dataset = fiftyone.Dataset(name)
    dataset.add_samples(samples)
    return dataset


def fiftyone_samples(
    images: Mapping[Any, str | os.PathLike[str]],
    predictions: str | os.PathLike[str] | None = None,
    ground_truth: str | os.PathLike[str] | None = None,
    evaluation: str | os.PathLike[str] | None = None,
) -> list[Any]:
    """Images with their segments and scores, in no dataset yet: needs no database.

    Args:
        images: image id -> file, for the ids of the JSONs; others of these are left out.
        predictions: `panoptic.json` of a prediction folder: the field `prediction`.
        ground_truth: COCO panoptic JSON: the field `ground_truth`.
        evaluation: evaluation.json, or the folder with it: the fields `pq`, `sq` and `rq`.

    Returns:
        A `fiftyone.Sample` for each image, in their order.

    Raises:
        ModuleNotFoundError: fiftyone is not installed.
        FileNotFoundError, ValueError: a file is missing or faulty, or of other images.
    """
    fiftyone = _fiftyone()
    samples = {
        image_id: fiftyone.Sample(filepath=os.path.abspath(path), image_id=str(image_id))
        for image_id, path in images.items()
    }
    for field, json_path in (("prediction", predictions), ("ground_truth", ground_truth)):
        if json_path is not None:
            is_prediction = field == "prediction"
            found = panoptic_regions(json_path, is_prediction=is_prediction)
            fields = (
                (image_id, {field: _detections(fiftyone, regions)}) for image_id, regions in found
            )
            _add_fields(samples, fields, json_path)
    if evaluation is not None:
        _add_fields(samples, image_scores(evaluation).items(), evaluation)
    return list(samples.values())


def _fiftyone() -> Any:
    try:
        import fiftyone
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "to_fiftyone needs fiftyone; install it: pip install fiftyone"
        ) from error
    return fiftyone


def _add_fields(
    samples: Mapping[Any, Any],
    fields_of_images: Iterable[tuple[Any, Mapping[str, Any]]],
    source: str | os.PathLike[str],
) -> None:
    """Adds fields to the samples of these image ids; none at all are those of other images."""
    others = []
    is_used = False
    for image_id, fields in fields_of_images:
        if image_id not in samples:
            others.append(image_id)
            continue
        is_used = True
        for key, value in fields.items():
            samples[image_id][key] = value
    if others and not is_used:
        raise ValueError(
            f"{source} is of other images: its image ids are {others[0]!r}, ..., those given are "
            f"{next(iter(samples), None)!r}, ...; give a file for each image id"
        )


def image_scores(evaluation: str | os.PathLike[str]) -> dict[Any, dict[str, float]]:
    """Image id -> means of its own PQ, SQ and RQ over the classes that it counts for.

    Args:
        evaluation: evaluation.json, or the folder with it.
    """
    values = read_evaluation_json(Path(evaluation))
    is_thing = np.array([bool(row["is_thing"]) for row in values["per_category"]])
    columns = score_classes(count_cube(values), is_thing)
    scores = {}
    for index, image in enumerate(values["per_image"]):
        counted = columns.is_counted[index]
        if counted.any():
            scores[image["image_id"]] = {
                key: float(getattr(columns, key)[index][counted].mean()) for key in SCORES
            }
    return scores


def _detections(fiftyone: Any, regions: Iterable[SegmentRegion]) -> Any:
    return fiftyone.Detections(detections=[_detection(fiftyone, region) for region in regions])


def _detection(fiftyone: Any, region: SegmentRegion) -> Any:
    return fiftyone.Detection(
        label=region.label,
        bounding_box=list(region.box),
        mask=region.mask,
        is_thing=region.is_thing,
        iscrowd=int(region.is_crowd),
        segment_id=region.segment_id,
        area=region.area,
    )
