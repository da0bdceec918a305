"""Which prediction belongs to which true image, and whether both sides mean the same classes."""

from __future__ import annotations

from dataclasses import dataclass

from seamless_pr.datasets.class_readings import contradictions
from seamless_pr.evaluation.map_files import MapFile, Source
from seamless_pr.structures.faults import Fault, FaultyDataError
from seamless_pr.structures.label_space import LabelSpace


@dataclass(frozen=True)
class ImagePair:
    """One image of the ground truth and its prediction; None where there is none."""

    gt: MapFile
    pred: MapFile | None


def pair_images(gt: Source, pred: Source) -> tuple[list[ImagePair], list[str]]:
    """Finds the prediction of each true image.

    Ids match by equality, as in the official evaluators. An id that matches none is tried once more
    as text, since JSON writers turn 42 into "42".

    Returns:
        one pair per true image; notes on what was unusual.
    """
    by_id = {file.image_id: file for file in pred.maps}
    exact = {file.image_id for file in gt.maps if file.image_id in by_id}
    # One prediction serves one image.
    by_text = {str(file.image_id): file for file in pred.maps if file.image_id not in exact}
    pairs, num_by_text, used = [], 0, set(exact)
    for file in gt.maps:
        match = by_id.get(file.image_id)
        if match is None and (match := by_text.pop(str(file.image_id), None)) is not None:
            num_by_text += 1
            used.add(match.image_id)
        pairs.append(ImagePair(file, match))
    notes = []
    if num_by_text:
        notes.append(
            f"{num_by_text} image ids are a number on one side and a text on the other; they were "
            "matched as texts, which the official evaluators do not"
        )
    if len(by_id) > len(used):
        notes.append(f"{len(by_id) - len(used)} predictions are of no image of the ground truth")
    return pairs, notes


def require_label_space(gt: Source) -> LabelSpace:
    """The classes of the ground truth; an error if it names none."""
    if gt.label_space is None:
        raise ValueError(f"{gt.name} does not name its classes; give it 'categories'")
    return gt.label_space


def require_same_classes(gt: Source, pred: Source) -> None:
    """Numbers alone do not make a class: what predictions say about one must not contradict.

    Predictions may name fewer classes, more, or none; see `contradictions`.

    Raises:
        FaultyDataError: lists each class of which both sides say different things.
    """
    categories = require_label_space(gt).categories
    found = contradictions(pred.stated_categories, categories, gt.name)
    faults = [Fault(pred.name, message) for message in found]
    if faults:
        raise FaultyDataError(
            "the predictions mean other classes by their numbers than the ground truth; bring them "
            "to its categories, or leave 'categories' out of them if only the names differ",
            faults,
        )
