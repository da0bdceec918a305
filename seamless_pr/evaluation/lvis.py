"""AP of predicted instances against the annotations of LVIS: PointRend's AP*.

Kirillov et al. 2020, "PointRend: Image segmentation as rendering", section 4.1: predictions of
COCO's categories, scored on LVIS's finer outlines of the same images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seamless_pr.datasets.instance_results import InstanceResult
from seamless_pr.datasets.panoptic_records import ImageId
from seamless_pr.evaluation.instances import RuleScores
from seamless_pr.evaluation.map_files import Source
from seamless_pr.structures.faults import Fault, FaultyDataError
from seamless_pr.structures.label_space import LabelSpace

if TYPE_CHECKING:
    from seamless_pr.datasets.lvis import LvisFile, LvisImage


def score_lvis(
    path: Path,
    gt: Source,
    instances: Mapping[ImageId, Sequence[InstanceResult]],
    label_space: LabelSpace,
) -> tuple[RuleScores, list[str]]:
    """AP by the rules of LVIS, over the images that both files have.

    Args:
        path: LVIS JSON.
        gt: its images are scored; an id that matches none is tried once more as text.
        instances: image id of the ground truth -> its instances.
        label_space: its things are joined with the categories of LVIS, see `LvisFile.partners`.

    Returns:
        scores, None for things that LVIS has no category or no object of; notes.

    Raises:
        FileNotFoundError: no such file.
        FaultyDataError: lists every fault.
    """
    # Brings what paints polygons, which an evaluation without masks does without.
    from seamless_pr.datasets.lvis import read_lvis
    from seamless_pr.metrics.lvis_ap import FederatedImage, compute_lvis_ap

    file = read_lvis(path)
    things = label_space.thing_categories
    partners = file.partners(category.name for category in things)
    our_id = {
        partners[category.name]: category.category_id
        for category in things
        if category.name in partners
    }
    images, notes = _common_images(file, gt)
    if not our_id or not images:
        what = "images" if our_id else "categories"
        fault = Fault(str(path), f"none of its {what} is one of {gt.name}")
        raise FaultyDataError("AP cannot be scored on LVIS", [fault])
    missing = [category.name for category in things if category.name not in partners]
    if missing:
        notes.append(f"{len(missing)} things have no category of LVIS: {', '.join(missing[:10])}")
    faults: list[Fault] = []
    truths: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number, (image, image_id) in enumerate(images, start=1):
        found, wrong = _truths(image, our_id, str(path))
        truths += [dict(truth, image_id=number) for truth in found]
        faults += wrong
        for instance in instances.get(image_id, ()):
            if tuple(instance.segmentation["size"]) != image.size:
                faults.append(_other_size(path, image, instance))
                break
            results.append(
                {
                    "image_id": number,
                    "category_id": instance.category_id,
                    "score": instance.score,
                    "segmentation": instance.segmentation,
                }
            )
    if faults:
        raise FaultyDataError("AP cannot be scored on LVIS", faults)
    federated = [
        FederatedImage(
            image.size,
            {our_id[key] for key in image.negative if key in our_id},
            {our_id[key] for key in image.not_exhaustive if key in our_id},
        )
        for image, _ in images
    ]
    scores = compute_lvis_ap(federated, list(our_id.values()), truths, results)
    per_thing = tuple(
        scores.per_category.get(category.category_id, (None, None)) for category in things
    )
    return RuleScores(scores.means, per_thing), notes


def _common_images(file: LvisFile, gt: Source) -> tuple[list[tuple[LvisImage, ImageId]], list[str]]:
    """The images of LVIS with their id in the ground truth; notes on what is left out."""
    of_text = {str(image.image_id): image.image_id for image in gt.maps}
    images = [
        (image, of_text[str(image.image_id)])
        for image in file.images
        if str(image.image_id) in of_text
    ]
    notes = []
    if len(images) < len(file.images):
        notes.append(
            f"{len(file.images) - len(images)} of {len(file.images)} images of LVIS are not in "
            "the ground truth and are left out of AP*"
        )
    if len(images) < len(of_text):
        notes.append(
            f"{len(of_text) - len(images)} images are not annotated in LVIS; AP* is of the others"
        )
    return images, notes


def _truths(
    image: LvisImage, our_id: Mapping[int, int], file: str
) -> tuple[list[dict[str, Any]], list[Fault]]:
    """The objects of joined categories as COCO annotations, without image."""
    from pycocotools import mask as coco_mask

    from seamless_pr.datasets.coco_instances import encode_segmentation

    truths, faults = [], []
    for index, annotated in enumerate(image.objects):
        if annotated.category_id not in our_id:
            continue
        runs = encode_segmentation(annotated.segmentation, image.size)
        if isinstance(runs, str):
            faults.append(Fault(file, f"image {image.image_id!r}: object {index}: {runs}"))
            continue
        area = coco_mask.area(runs) if annotated.area is None else annotated.area
        truths.append(
            {
                "category_id": our_id[annotated.category_id],
                "segmentation": runs,
                "area": float(area),
                "bbox": coco_mask.toBbox(runs).tolist(),
            }
        )
    return truths, faults


def _other_size(path: Path, image: LvisImage, instance: InstanceResult) -> Fault:
    return Fault(
        str(path),
        f"image {image.image_id!r} is {[*image.size]} pixels (height, width), the masks of the "
        f"instances {instance.segmentation['size']}",
    )
