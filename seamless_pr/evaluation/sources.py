"""Where ground truth and predictions come from: COCO panoptic files, gtFine folders, our own
folders.

A source is a list of images with the place of each id map and its segments; maps are read one at a
time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seamless_pr.datasets.label_spaces import label_space_from_categories, load_label_space
from seamless_pr.evaluation.panoptic_json import (
    Annotation,
    ImageId,
    find_png_folder,
    read_panoptic_json,
)
from seamless_pr.id_maps.id_png import IdRuns, PngError, decode_id_runs
from seamless_pr.structures.faults import Fault, FaultyDataError
from seamless_pr.structures.label_space import LabelSpace

GT_FINE_SUFFIX = "_gtFine_instanceIds.png"
# Files by which a folder is recognised.
PREDICTION_JSON = "panoptic.json"


@dataclass(frozen=True)
class LoadedMap:
    """One id map in memory.

    Attributes:
        runs: the map.
        segments: [S, 4] int64 as in `Annotation`.
        ignored_objects: [H, W] bool, objects of classes that are not evaluated (Cityscapes' caravan
            and trailer): void for PQ, and yet no void for Cityscapes' AP; None if there are none.
    """

    runs: IdRuns
    segments: NDArray[np.int64]
    ignored_objects: NDArray[np.bool_] | None = None

    @cached_property
    def id_map(self) -> NDArray[np.uint32]:
        """[H, W] segment ids; written out only if somebody needs pixels."""
        return self.runs.to_map()


@dataclass(frozen=True)
class MapFile:
    """One image of a source.

    Attributes:
        image_id: int or text.
        path: file of the id map.
        segments: [S, 4] int64 as in `Annotation`; None: they are read off the map (gtFine).
    """

    image_id: ImageId
    path: Path
    segments: NDArray[np.int64] | None

    def load(self) -> LoadedMap:
        """Reads the map.

        Raises:
            FileNotFoundError: no such file.
            PngError: not a map of segment ids.
        """
        if self.segments is None:
            return _load_gt_fine(self.path)
        return LoadedMap(decode_id_runs(self.path.read_bytes()), self.segments)


@dataclass(frozen=True)
class Source:
    """All maps of one side of an evaluation.

    Attributes:
        name: what the user gave.
        maps: one per image.
        label_space: classes; None where the source does not name them.
        image_files: image id -> file name of the picture, where known.
    """

    name: str
    maps: tuple[MapFile, ...]
    label_space: LabelSpace | None
    image_files: dict[ImageId, str] = field(default_factory=dict)


def open_ground_truth(path: Path, png_dir: Path | None = None) -> Source:
    """Opens ground truth.

    Args:
        path: COCO panoptic JSON; or a folder of Cityscapes annotations (`gtFine/val`, or any folder
            with `*_gtFine_instanceIds.png` below it).
        png_dir: folder of the JSON's PNGs; None: the folder named like the JSON, or its own.

    Raises:
        FileNotFoundError: nothing there.
        FaultyDataError: lists everything that is wrong with the JSON.
    """
    if path.is_dir():
        return _open_gt_fine(path)
    source = _open_json(path, png_dir, is_ground_truth=True)
    if not source.maps:
        raise FaultyDataError(f"{path} cannot be used", [Fault(str(path), "it has no annotation")])
    return source


def open_predictions(path: Path, png_dir: Path | None = None) -> Source:
    """Opens predictions.

    Args:
        path: COCO panoptic JSON, or a folder that `pipelines/predict.py` wrote.
        png_dir: as for `open_ground_truth`.
    """
    if path.is_dir():
        if not (path / PREDICTION_JSON).is_file():
            raise FileNotFoundError(
                f"{path} has no {PREDICTION_JSON}; give a COCO panoptic JSON, or a finished folder "
                "of pipelines/predict.py"
            )
        path = path / PREDICTION_JSON
    return _open_json(path, png_dir, is_ground_truth=False)


def _open_json(path: Path, png_dir: Path | None, *, is_ground_truth: bool) -> Source:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; give a COCO panoptic JSON or a folder")
    if png_dir is not None and not png_dir.is_dir():
        raise FileNotFoundError(f"no folder {png_dir}; give the folder of the PNGs of {path.name}")
    faults: list[Fault] = []
    content = read_panoptic_json(path, is_ground_truth=is_ground_truth, faults=faults)
    label_space = None
    if content is not None and content.categories is not None and is_ground_truth:
        try:
            label_space = label_space_from_categories(content.categories, path.stem)
        except ValueError as error:
            faults.append(Fault(str(path), str(error)))
    if faults or content is None:
        raise FaultyDataError(f"{path} is not a valid COCO panoptic JSON", faults)
    if not content.annotations:
        return Source(str(path), (), label_space)
    folder = find_png_folder(path) if png_dir is None else png_dir
    return Source(
        str(path),
        tuple(_map_file(annotation, folder) for annotation in content.annotations),
        label_space,
        content.image_files,
    )


def _map_file(annotation: Annotation, folder: Path) -> MapFile:
    return MapFile(annotation.image_id, folder / annotation.file_name, annotation.segments)


def _open_gt_fine(folder: Path) -> Source:
    files = sorted(folder.rglob(f"*{GT_FINE_SUFFIX}"))
    if not files:
        raise FileNotFoundError(
            f"{folder} has no *{GT_FINE_SUFFIX}; give a COCO panoptic JSON, or a folder of "
            "Cityscapes annotations such as gtFine/val"
        )
    splits = sorted({file.parent.parent for file in files})
    if len(splits) > 1:
        names = ", ".join(str(split) for split in splits)
        raise ValueError(f"{folder} holds several splits; give one of {names}")
    return Source(
        str(folder),
        tuple(MapFile(file.name.removesuffix(GT_FINE_SUFFIX), file, None) for file in files),
        load_label_space("cityscapes"),
    )


def _load_gt_fine(path: Path) -> LoadedMap:
    # These bring PyTorch, which reading COCO files does without.
    from seamless_pr.datasets.cityscapes import FIRST_OBJECT_VALUE, panoptic_from_instance_ids
    from seamless_pr.datasets.images import read_label_image

    try:
        values = read_label_image(path)
        id_map, records, faults = panoptic_from_instance_ids(values, str(path))
    except ValueError as error:
        raise PngError(str(error).removeprefix(f"{path}").lstrip(": ")) from error
    if faults:
        raise PngError("; ".join(fault.message for fault in faults))
    rows = [
        (record.segment_id, record.category_id, record.area, int(record.is_crowd))
        for record in records
    ]
    return LoadedMap(
        IdRuns.from_map(id_map.view(np.uint32)),
        np.array(rows, dtype=np.int64).reshape(-1, 4),
        ignored_objects=(id_map == 0) & (values >= FIRST_OBJECT_VALUE),
    )


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
    by_text = {str(file.image_id): file for file in pred.maps}
    pairs, num_by_text, used = [], 0, set()
    for file in gt.maps:
        match = by_id.get(file.image_id)
        if match is None and (match := by_text.get(str(file.image_id))) is not None:
            num_by_text += 1
        if match is not None:
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
