"""AP of predicted instances (COCO results JSON) against the objects of panoptic ground truth."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from seamless_pr.datasets.panoptic_records import ImageId
from seamless_pr.evaluation.map_files import LoadedMap, MapFile, Source
from seamless_pr.evaluation.results import class_keys
from seamless_pr.id_maps.id_png import PngError
from seamless_pr.metrics.coco_ap import compute_coco_ap
from seamless_pr.metrics.instance_ap import (
    InstanceMasks,
    InstanceOverlaps,
    compute_cityscapes_ap,
    count_instances,
)
from seamless_pr.metrics.segment_table import SegmentTable
from seamless_pr.parallel import ItemMap, map_in_processes
from seamless_pr.structures.faults import Fault, FaultyDataError
from seamless_pr.structures.label_space import LabelSpace


@dataclass(frozen=True)
class _Work:
    """One image: the true map and the instances predicted in it."""

    index: int
    gt: MapFile
    instances: list[dict[str, Any]]


@dataclass(frozen=True)
class _Outcome:
    truths: list[dict[str, Any]]
    overlaps: InstanceOverlaps | None
    faults: list[Fault]
    size: tuple[int, int] = (0, 0)


def evaluate_instances(
    gt: Source,
    label_space: LabelSpace,
    instances_json: Path,
    *,
    num_workers: int | None = 1,
    show_progress: bool = False,
    map_items: ItemMap = map_in_processes,
) -> dict[str, Any]:
    """AP by the rules of COCO and of Cityscapes.

    Args:
        gt: ground truth; its thing segments are the objects, crowd segments the groups.
        label_space: its classes.
        instances_json: list of COCO results with image_id, category_id, score, segmentation.
        num_workers: processes; None: one per core.
        show_progress: draw a bar with the time left.
        map_items: what spreads the images; by default over processes of this machine.

    Returns:
        "coco" and "cityscapes", each with ap, ap50 and per_category.

    Raises:
        FaultyDataError: lists every fault of the file and of the maps.
    """
    by_image = read_instances(instances_json, gt, label_space)
    work = [
        _Work(index + 1, file, by_image.get(file.image_id, []))
        for index, file in enumerate(gt.maps)
    ]
    outcomes = list(
        map_items(
            partial(_count_image, label_space=label_space, file=str(instances_json)),
            work,
            num_workers=num_workers,
            title="instances",
            show_progress=show_progress,
        )
    )
    faults = [fault for outcome in outcomes for fault in outcome.faults]
    if faults:
        raise FaultyDataError("the instances cannot be scored", faults)
    things = label_space.thing_categories
    coco = compute_coco_ap(
        [outcome.size for outcome in outcomes],
        [category.category_id for category in things],
        [truth for outcome in outcomes for truth in outcome.truths],
        [dict(entry, image_id=item.index) for item in work for entry in item.instances],
    )
    cityscapes = compute_cityscapes_ap(
        [outcome.overlaps for outcome in outcomes if outcome.overlaps is not None],
        label_space.num_stuff,
        label_space.num_classes,
    )
    keys = class_keys(things)
    coco_scores = [coco.per_category[category.category_id] for category in things]
    cityscapes_scores = [scores or (None, None) for scores in cityscapes.per_class]
    return {
        "coco": {**coco.means, "per_category": _by_class(keys, coco_scores)},
        "cityscapes": {
            "ap": cityscapes.ap,
            "ap50": cityscapes.ap50,
            "per_category": _by_class(keys, cityscapes_scores),
        },
    }


def _by_class(
    keys: Sequence[str], scores: Sequence[tuple[float | None, float | None]]
) -> dict[str, dict[str, float | None]]:
    return {key: {"ap": ap, "ap50": ap50} for key, (ap, ap50) in zip(keys, scores, strict=True)}


def read_instances(
    path: Path, gt: Source, label_space: LabelSpace
) -> dict[ImageId, list[dict[str, Any]]]:
    """Reads and checks COCO results; only things of images of the ground truth are kept.

    Raises:
        FileNotFoundError: no such file.
        FaultyDataError: lists every fault.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; give COCO instance results (a JSON list)")
    try:
        entries = json.loads(path.read_bytes())
    except ValueError as error:
        raise FaultyDataError(f"{path} is not JSON", [Fault(str(path), str(error))]) from error
    if not isinstance(entries, list):
        message = f"expected a list of COCO results; got a {type(entries).__name__}"
        raise FaultyDataError(f"{path} cannot be used", [Fault(str(path), message)])
    text_ids = {str(file.image_id): file.image_id for file in gt.maps}
    known = set(text_ids.values())
    by_image: dict[ImageId, list[dict[str, Any]]] = defaultdict(list)
    faults: list[Fault] = []
    for index, entry in enumerate(entries):
        message = _entry_fault(entry, label_space)
        if message:
            faults.append(Fault(str(path), f"entry {index}: {message}"))
            continue
        image_id = entry["image_id"]
        if image_id not in known:
            image_id = text_ids.get(str(image_id))
        train_id = label_space.train_id_of[entry["category_id"]]
        if image_id is not None and label_space.is_thing(train_id):
            by_image[image_id].append(
                {
                    "category_id": entry["category_id"],
                    "score": float(entry["score"]),
                    "segmentation": _compressed(entry["segmentation"]),
                }
            )
    if faults:
        raise FaultyDataError(f"{path} is not a valid list of COCO results", faults)
    return by_image


def _compressed(run_lengths: dict[str, Any]) -> dict[str, Any]:
    """Run lengths as pycocotools wants them everywhere; JSON may hold them as a plain list."""
    if isinstance(run_lengths["counts"], list):
        return coco_mask.frPyObjects(run_lengths, *run_lengths["size"])
    return run_lengths


def _entry_fault(entry: Any, label_space: LabelSpace) -> str:
    if not isinstance(entry, dict):
        return f"expected an object; got {entry!r:.60}"
    if not isinstance(entry.get("image_id"), int | str):
        return f"'image_id' must be an integer or a text; got {entry.get('image_id')!r}"
    score, segmentation = entry.get("score"), entry.get("segmentation")
    if not isinstance(score, int | float) or isinstance(score, bool) or score != score:
        return f"'score' must be a number; got {score!r}"
    if entry.get("category_id") not in label_space.train_id_of:
        return f"category {entry.get('category_id')!r} is not among those of the ground truth"
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        return "'segmentation' must be run lengths: an object with 'size' and 'counts'"
    return ""


def _count_image(work: _Work, label_space: LabelSpace, file: str) -> _Outcome:
    try:
        loaded = work.gt.load()
    except (PngError, OSError) as error:
        return _Outcome([], None, [Fault(str(work.gt.path), str(error))])
    segment_ids, category_ids, _, is_crowd = loaded.segments.T
    train_ids = [label_space.train_id_of.get(value, -1) for value in category_ids.tolist()]
    if -1 in train_ids:
        message = f"image {work.gt.image_id!r}: a category is not among the categories of the file"
        return _Outcome([], None, [Fault(str(work.gt.path), message)])
    gt = SegmentTable(np.ascontiguousarray(segment_ids), np.array(train_ids), is_crowd == 1)
    height, width = loaded.id_map.shape
    wrong = [e for e in work.instances if list(e["segmentation"]["size"]) != [height, width]]
    if wrong:
        message = (
            f"image {work.gt.image_id!r}: masks are {wrong[0]['segmentation']['size']} pixels "
            f"(height, width), the ground truth {[height, width]}"
        )
        return _Outcome([], None, [Fault(file, message)])
    overlaps = count_instances(
        loaded.id_map,
        gt,
        _decode(work.instances, label_space),
        label_space.num_stuff,
        loaded.ignored_objects,
    )
    truths = _coco_truths(work.index, loaded, gt, label_space)
    return _Outcome(truths, overlaps, [], (height, width))


def _decode(instances: list[dict[str, Any]], label_space: LabelSpace) -> InstanceMasks:
    masks = []
    for entry in instances:
        run_lengths = entry["segmentation"]
        left, top, width, height = (int(value) for value in coco_mask.toBbox(run_lengths))
        mask = coco_mask.decode(run_lengths)[top : top + height, left : left + width]
        masks.append(((top, left), mask.astype(bool)))
    return InstanceMasks(
        np.array([label_space.train_id_of[e["category_id"]] for e in instances], dtype=np.int64),
        np.array([e["score"] for e in instances], dtype=np.float64),
        masks,
    )


def _coco_truths(
    image_id: int, loaded: LoadedMap, gt: SegmentTable, label_space: LabelSpace
) -> list[dict[str, Any]]:
    """The thing segments of one image as COCO annotations."""
    truths = []
    for segment_id, train_id, is_crowd in zip(
        gt.segment_ids.tolist(), gt.train_ids.tolist(), gt.is_crowd.tolist()
    ):
        mask = loaded.id_map == segment_id
        if train_id < label_space.num_stuff or not mask.any():
            continue
        run_lengths = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
        truths.append(
            {
                "image_id": image_id,
                "category_id": label_space.categories[train_id].category_id,
                "segmentation": run_lengths,
                "area": int(coco_mask.area(run_lengths)),
                "bbox": coco_mask.toBbox(run_lengths).tolist(),
                "iscrowd": int(is_crowd),
            }
        )
    return truths
