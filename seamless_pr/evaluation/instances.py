"""AP of predicted instances (COCO results JSON) against the objects of panoptic ground truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seamless_pr.datasets.instance_results import InstanceResult, read_instance_results
from seamless_pr.datasets.panoptic_records import ImageId
from seamless_pr.evaluation.map_files import LoadedMap, Source
from seamless_pr.metrics.ap_rules import COCO_RULES, MORE_AP_RULES, ApRules
from seamless_pr.metrics.instance_ap import (
    InstanceMasks,
    InstanceOverlaps,
    compute_cityscapes_ap,
    count_instances,
)
from seamless_pr.metrics.segment_table import SegmentTable
from seamless_pr.structures.faults import Fault, FaultyDataError
from seamless_pr.structures.label_space import LabelSpace


@dataclass(frozen=True)
class ImageInstances:
    """What AP needs of one image.

    Attributes:
        truths: the thing segments as COCO annotations, without image.
        results: the instances as COCO results, without image.
        overlaps: for the rules of Cityscapes.
        image_size: (height, width).
    """

    truths: tuple[dict[str, Any], ...]
    results: tuple[dict[str, Any], ...]
    overlaps: InstanceOverlaps
    image_size: tuple[int, int]


@dataclass(frozen=True)
class RuleScores:
    """AP of the thing classes by one evaluation's rules, in [0, 1]; None without ground truth.

    Attributes:
        means: "ap", "ap50", and what else these rules have.
        per_thing: (AP, AP50) in the order of the things.
    """

    means: dict[str, float | None]
    per_thing: tuple[tuple[float | None, float | None], ...]


# Name of the rules -> what they find.
InstanceScores = dict[str, RuleScores]


def instances_by_image(
    path: Path, gt: Source, label_space: LabelSpace, *, is_lenient: bool
) -> tuple[dict[ImageId, list[InstanceResult]], list[str]]:
    """Reads COCO results and finds the true image of each; stuff is left out.

    Args:
        path: list of COCO results with image_id, category_id, score, segmentation.
        gt: ground truth; an id that matches none is tried once more as text.
        label_space: its classes.
        is_lenient: instances of other images are left out and noted; False: they are faults, as for
            the official evaluator.

    Returns:
        image id of the ground truth -> its instances; notes.

    Raises:
        FileNotFoundError: no such file.
        FaultyDataError: lists every fault.
    """
    of_text: dict[str, ImageId] = {str(file.image_id): file.image_id for file in gt.maps}
    known = set(of_text.values())
    by_image: dict[ImageId, list[InstanceResult]] = {}
    faults: list[Fault] = []
    unknown: Counter[ImageId] = Counter()
    for index, result in enumerate(read_instance_results(path)):
        train_id = label_space.train_id_of.get(result.category_id)
        image_id = result.image_id
        if image_id not in known:
            image_id = of_text.get(str(image_id), image_id)
        if train_id is None:
            message = f"category {result.category_id} is not among those of the ground truth"
            faults.append(Fault(str(path), f"entry {index}: {message}"))
        elif image_id not in known:
            unknown[image_id] += 1
        elif label_space.is_thing(train_id):
            by_image.setdefault(image_id, []).append(result)
    notes = []
    if is_lenient and unknown:
        notes.append(f"{unknown.total()} instances are of no image of the ground truth")
    elif unknown:
        faults += [
            Fault(
                str(path),
                f"image {image_id!r} of {number} instances is none of {gt.name} "
                "(--lenient leaves them out)",
            )
            for image_id, number in unknown.items()
        ]
    if faults:
        raise FaultyDataError(f"{path} does not fit {gt.name}", faults)
    return by_image, notes


def count_image_instances(
    instances: Sequence[InstanceResult],
    loaded: LoadedMap,
    gt: SegmentTable,
    label_space: LabelSpace,
) -> ImageInstances:
    """Counts how the instances of one image fit its objects.

    Raises:
        ValueError: masks of another size than the ground truth.
    """
    height, width = loaded.runs.image_size
    for instance in instances:
        if instance.segmentation["size"] != [height, width]:
            raise ValueError(
                f"masks are {instance.segmentation['size']} pixels (height, width), the ground "
                f"truth {[height, width]}"
            )
    masks = _decode(instances, label_space)
    return ImageInstances(
        truths=tuple(_coco_truths(loaded, gt, label_space)),
        results=tuple(
            {
                "category_id": instance.category_id,
                "score": instance.score,
                "segmentation": instance.segmentation,
            }
            for instance in instances
        ),
        overlaps=count_instances(
            loaded.id_map, gt, masks, label_space.num_stuff, loaded.ignored_objects
        ),
        image_size=(height, width),
    )


def score_instances(
    images: Sequence[ImageInstances], label_space: LabelSpace, more_rules: Sequence[str] = ()
) -> InstanceScores:
    """AP over all images by the rules of COCO, of Cityscapes, and of `MORE_AP_RULES`.

    Args:
        images: what `count_image_instances` found.
        label_space: the classes.
        more_rules: names in `MORE_AP_RULES`.
    """
    # Brings a plotting library, which an evaluation without masks does without.
    from seamless_pr.metrics.coco_ap import compute_coco_ap

    things = label_space.thing_categories
    numbered = list(enumerate(images, start=1))
    truths = [dict(truth, image_id=number) for number, image in numbered for truth in image.truths]
    results = [
        dict(result, image_id=number) for number, image in numbered for result in image.results
    ]

    def scored(rules: ApRules) -> RuleScores:
        found = compute_coco_ap(
            [image.image_size for image in images],
            [category.category_id for category in things],
            truths,
            results,
            rules,
        )
        per_thing = tuple(found.per_category[category.category_id] for category in things)
        return RuleScores(found.means, per_thing)

    cityscapes = compute_cityscapes_ap(
        [image.overlaps for image in images], label_space.num_stuff, label_space.num_classes
    )
    return {
        "coco": scored(COCO_RULES),
        "cityscapes": RuleScores(
            {"ap": cityscapes.ap, "ap50": cityscapes.ap50},
            tuple(scores or (None, None) for scores in cityscapes.per_class),
        ),
        **{name: scored(MORE_AP_RULES[name]) for name in more_rules},
    }


def _decode(instances: Sequence[InstanceResult], label_space: LabelSpace) -> InstanceMasks:
    from pycocotools import mask as coco_mask

    masks = []
    for instance in instances:
        run_lengths = instance.segmentation
        left, top, width, height = (int(value) for value in coco_mask.toBbox(run_lengths))
        mask = coco_mask.decode(run_lengths)[top : top + height, left : left + width]
        masks.append(((top, left), mask.astype(bool)))
    return InstanceMasks(
        np.array([label_space.train_id_of[i.category_id] for i in instances], dtype=np.int64),
        np.array([instance.score for instance in instances], dtype=np.float64),
        masks,
    )


def _coco_truths(
    loaded: LoadedMap, gt: SegmentTable, label_space: LabelSpace
) -> list[dict[str, Any]]:
    """The thing segments of one image as COCO annotations."""
    from pycocotools import mask as coco_mask

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
                "category_id": label_space.categories[train_id].category_id,
                "segmentation": run_lengths,
                "area": int(coco_mask.area(run_lengths)),
                "bbox": coco_mask.toBbox(run_lengths).tolist(),
                "iscrowd": int(is_crowd),
            }
        )
    return truths
