"""The official Cityscapes evaluators for instances and for labels, on maps in memory."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as instance_level
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as pixel_level
from cityscapesscripts.evaluation.instances2dict import instances2dict
from cityscapesscripts.helpers.labels import name2label
from numpy.typing import NDArray
from PIL import Image


@contextlib.contextmanager
def _old_numpy() -> Iterator[None]:
    """The evaluators use a function that NumPy 2.4 removed."""
    missing = not hasattr(np, "in1d")
    if missing:
        np.in1d = np.isin  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if missing:
            del np.in1d  # type: ignore[attr-defined]


def official_instance_ap(
    images: Sequence[tuple[NDArray[np.uint16], Sequence[tuple[NDArray[np.bool_], int, float]]]],
    folder: Path,
) -> dict[str, Any]:
    """AP of (instance id picture, instances as (mask, label id, score)) pairs.

    Returns:
        "allAp", "allAp50%", and "classes" by name.
    """
    args = instance_level.args
    instance_level.setInstanceLabels(args)
    args.quiet = True
    matches = {}
    with _old_numpy():
        for index, (values, instances) in enumerate(images):
            gt_path = folder / f"{index}_instanceIds.png"
            Image.fromarray(values).save(gt_path)
            with contextlib.redirect_stdout(io.StringIO()):
                (truths,) = instances2dict([str(gt_path)]).values()
            truths = instance_level.filterGtInstances(truths, args)
            pred_info = {}
            for number, (mask, label_id, score) in enumerate(instances):
                mask_path = folder / f"{index}_{number}.png"
                Image.fromarray(mask.astype(np.uint8) * 255).save(mask_path)
                pred_info[str(mask_path)] = {"labelID": label_id, "conf": score}
            gt, pred = instance_level.assignGt2Preds(truths, values, pred_info, args)
            matches[index] = {"groundTruth": gt, "prediction": pred}
        scores = instance_level.evaluateMatches(matches, args)
        return instance_level.computeAverages(scores, args)


def official_label_ious(confusion: NDArray[np.int64]) -> dict[str, float]:
    """IoU of each evaluated class from a confusion matrix over label ids (row = truth)."""
    args = pixel_level.args
    args.evalLabels = list(range(len(confusion)))
    return {
        name: pixel_level.getIouScoreForLabel(label.id, confusion, args)
        for name, label in name2label.items()
        if not label.ignoreInEval
    }
