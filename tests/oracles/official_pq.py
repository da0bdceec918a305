"""The official panoptic evaluators on maps in memory, by way of files."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cityscapesscripts.evaluation import evalPanopticSemanticLabeling

from seamless_pr.structures.label_space import LabelSpace
from tests.metrics.maps import FuzzedImage, categories_json, write_id_png


def official_scores(
    images: Sequence[FuzzedImage],
    label_space: LabelSpace,
    folder: Path,
    evaluator: Any = evalPanopticSemanticLabeling,
) -> tuple[dict[str, Any], dict[int, Any]]:
    """Runs the evaluator's own counting and averaging in this process.

    Args:
        images, label_space: the data.
        folder: for its files.
        evaluator: module with panopticapi's functions.

    Returns:
        means under "All", "Things" and "Stuff", and the counts by category id.
    """
    annotations = []
    for index, image in enumerate(images):
        file_name = f"{index}.png"
        write_id_png(image.gt_map, folder / "gt" / file_name)
        write_id_png(image.pred_map, folder / "pred" / file_name)
        annotations.append(
            tuple(
                {
                    "image_id": index,
                    "file_name": file_name,
                    "segments_info": [dict(segment) for segment in segments],
                }
                for segments in (image.gt_segments, image.pred_segments)
            )
        )
    categories = {category["id"]: category for category in categories_json(label_space)}
    with contextlib.redirect_stdout(io.StringIO()):
        counts = evaluator.pq_compute_single_core(
            0, annotations, str(folder / "gt"), str(folder / "pred"), categories
        )
        means = {
            name: counts.pq_average(categories, isthing=is_thing)[0]
            for name, is_thing in (("All", None), ("Things", True), ("Stuff", False))
        }
        return means, counts.pq_per_cat
