"""The HTML report of an evaluation: one folder that shows where a model fails, offline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamless_pr.datasets.image_files import find_image_files
from seamless_pr.datasets.panoptic_records import ImageRecord
from seamless_pr.drawing.pages import read_asset, render_page, script_data
from seamless_pr.evaluation.map_files import Source
from seamless_pr.evaluation.pairing import ImagePair, pair_images, require_label_space
from seamless_pr.evaluation.pictures import (
    ERROR_COLORS,
    ERROR_NAMES,
    PictureWork,
    draw_pictures,
)
from seamless_pr.evaluation.stored_results import count_cube
from seamless_pr.evaluation.tables import other_lines, percent
from seamless_pr.files import write_whole
from seamless_pr.metrics.panoptic_quality import mean_over, score_classes
from seamless_pr.metrics.segment_matching import rules_named
from seamless_pr.parallel import ItemMap, map_in_processes

IMAGES_PER_GALLERY = 6


@dataclass(frozen=True)
class Galleries:
    """Which images are shown.

    Attributes:
        worst, best: train id as text ("all" for the image as a whole) -> numbers of images, most
            telling first.
        numbers: all of them, ascending.
    """

    worst: dict[str, list[int]]
    best: dict[str, list[int]]
    numbers: list[int]


def write_report(
    values: dict[str, Any],
    gt: Source,
    pred: Source,
    folder: Path,
    *,
    images: Path | None = None,
    title: str = "",
    num_workers: int | None = 1,
    show_progress: bool = False,
    map_items: ItemMap = map_in_processes,
    images_per_gallery: int = IMAGES_PER_GALLERY,
    on_note: Callable[[str], None] | None = None,
) -> Path:
    """Writes index.html and the pictures of the worst and best images of each class.

    Args:
        values: content of evaluation.json of these two sources.
        gt, pred: the sources.
        folder: of the report; made if absent.
        images: folder with the photographs, searched with its sub-folders; None: maps only.
        title: heading of the page; empty: the name of the predictions and of their folder.
        num_workers: processes that draw; None: one per core.
        show_progress: draw a bar with the time left.
        map_items: what spreads the pictures; by default over processes of this machine.
        images_per_gallery: worst and best images per class.
        on_note: called with what is missing: photographs of images that are shown.

    Returns:
        index.html.
    """
    label_space = require_label_space(gt)
    galleries = choose_galleries(values, images_per_gallery)
    pairs, _ = pair_images(gt, pred)
    photographs = find_photographs(gt, images, [pairs[number] for number in galleries.numbers])
    work = [
        PictureWork(number, pairs[number], photograph)
        for number, photograph in zip(galleries.numbers, photographs)
    ]
    results = map_items(
        partial(
            draw_pictures,
            folder=folder / "pictures",
            label_space=label_space,
            rules=rules_named(values["rules"]),
        ),
        work,
        num_workers=num_workers,
        title="report",
        show_progress=show_progress,
    )
    drawn = list(results)
    sizes = {item["number"]: [item["width"], item["height"]] for item in drawn}
    missing = [item for item in drawn if item["no_photograph"]]
    if images is not None and missing and on_note is not None:
        image_id = pairs[missing[0]["number"]].gt.image_id
        on_note(
            f"{len(missing)} of {len(drawn)} images in the report have no photograph in {images}; "
            f"first: image {image_id!r} ({missing[0]['no_photograph']})"
        )
    data = _page_data(values, galleries, sizes, any(photographs))
    page = render_page(
        "report.html.j2",
        title=title or "/".join(Path(pred.name).parts[-2:]),
        values=values,
        percent=percent,
        lines=other_lines(values),
        data=script_data(data),
        style=read_asset("report.css"),
        script=read_asset("viewer.js", "report.js"),
    )
    write_whole(folder / "index.html", page.encode(errors="backslashreplace"))
    return folder / "index.html"


@dataclass(frozen=True)
class ImageScores:
    """Scores of each image for itself.

    Attributes:
        counts: [N, K, 6] as `count_cube`.
        pq: [N, K]; NaN where a class does not occur.
        whole: [N] mean over the classes that the image has, whatever absent ones count in a set;
            NaN where there is none.
        weights: [N, K] TP + FP / 2 + FN / 2, how much an image says about a class.
    """

    counts: NDArray[np.float64]
    pq: NDArray[np.float64]
    whole: NDArray[np.float64]
    weights: NDArray[np.float64]


def image_scores(values: dict[str, Any]) -> ImageScores:
    """Scores of each image, by the rules of the evaluation."""
    is_thing = np.array([row["is_thing"] for row in values["per_category"]])
    counts = count_cube(values)
    pq = score_classes(counts, is_thing, rules_named(values["rules"])).pq
    weights = counts[..., :3] @ np.array([1, 0.5, 0.5])
    occurs = weights > 0
    return ImageScores(counts, np.where(occurs, pq, np.nan), mean_over(pq, occurs), weights)


def choose_galleries(values: dict[str, Any], images_per_gallery: int) -> Galleries:
    """Picks the images with the lowest and the highest PQ, as a whole and per class.

    Of images with the same PQ the one with more segments comes first: it says more.
    """
    scores = image_scores(values)
    scored: dict[str, list[tuple[float, float, int]]] = {"all": []}
    for number, train_id in np.argwhere(scores.weights > 0).tolist():
        entry = (scores.pq[number, train_id], -scores.weights[number, train_id], number)
        scored.setdefault(str(train_id), []).append(entry)
    for number in np.flatnonzero(~np.isnan(scores.whole)).tolist():
        scored["all"].append((scores.whole[number], -scores.weights[number].sum(), number))
    worst = {name: _numbers(sorted(items), images_per_gallery) for name, items in scored.items()}
    best = {
        name: _numbers(sorted(items, key=lambda item: (-item[0], *item[1:])), images_per_gallery)
        for name, items in scored.items()
    }
    shown = {n for gallery in (worst, best) for chosen in gallery.values() for n in chosen}
    return Galleries(worst, best, sorted(shown))


def find_photographs(
    gt: Source, folder: Path | None, pairs: Sequence[ImagePair]
) -> list[Path | None]:
    """The photograph of each image, None where it has none; see `find_image_files`."""
    if folder is None:
        return [None] * len(pairs)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; give the folder of the photographs")
    records = [
        ImageRecord(file.image_id, gt.image_files.get(file.image_id, file.path.name), 0, 0)
        for file in gt.maps
    ]
    files, _ = find_image_files(records, folder)
    return [files.get(pair.gt.image_id) for pair in pairs]


def _numbers(items: Sequence[tuple[float, float, int]], count: int) -> list[int]:
    return [number for _, _, number in items[:count]]


def _rounded(score: float) -> float | None:
    return None if np.isnan(score) else round(score, 4)


def _page_data(
    values: dict[str, Any],
    galleries: Galleries,
    sizes: dict[int, list[int]],
    has_photographs: bool,
) -> dict[str, Any]:
    """What the script needs; images that are not shown are left out."""
    scores = image_scores(values)
    images = {}
    for number in galleries.numbers:
        of_image = {
            train_id: [*map(int, scores.counts[number, train_id, :3]), _rounded(pq)]
            for train_id, pq in enumerate(scores.pq[number].tolist())
            if scores.counts[number, train_id].any()
        }
        images[number] = {
            "id": values["per_image"][number]["image_id"],
            "size": sizes[number],
            "pq": _rounded(scores.whole[number]),
            "classes": of_image,  # TP, FP, FN, PQ
        }
    return {
        "classes": [
            {
                "name": row["name"],
                "color": row["color"],
                "isThing": row["is_thing"],
                "isCounted": row["is_counted"],
                **{
                    key: row[key]
                    for key in ("pq", "sq", "rq", "pq_dagger", "iou", "tp", "fp", "fn")
                },
            }
            for row in values["per_category"]
        ],
        "confusion": values["segment_confusion"],
        "images": images,
        "worst": galleries.worst,
        "best": galleries.best,
        "hasPhotographs": has_photographs,
        "errors": [
            {"name": ERROR_NAMES[kind], "color": ERROR_COLORS[kind]} for kind in sorted(ERROR_NAMES)
        ],
    }
