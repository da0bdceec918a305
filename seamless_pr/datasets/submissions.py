"""Predictions in the forms that the datasets' own evaluators and test servers take.

Everything is made of a COCO panoptic JSON with its PNGs, and of COCO instance results where scores
of overlapping objects are wanted. What a form cannot hold is an error, listed for all images.
"""

from __future__ import annotations

import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seamless_pr.datasets.class_readings import contradictions, described
from seamless_pr.datasets.coco_panoptic import (
    find_png_folder,
    find_pngs,
    read_panoptic_json,
    segment_json,
)
from seamless_pr.datasets.idd import OFFICIAL_SIZE, PANOPTIC_SUFFIX
from seamless_pr.datasets.instance_results import InstanceResult, read_instance_results
from seamless_pr.datasets.label_spaces import load_label_space, load_labels
from seamless_pr.datasets.panoptic_reader import StatedCategory, parse_panoptic_json
from seamless_pr.datasets.panoptic_records import (
    AnnotationRecord,
    ImageId,
    PanopticDataset,
    SegmentRecord,
)
from seamless_pr.datasets.raw_splits import measured_segments
from seamless_pr.files import safe_join, write_json, write_whole, writing
from seamless_pr.id_maps.id_png_files import read_id_png, write_id_png
from seamless_pr.parallel import ItemMap, map_in_processes
from seamless_pr.structures.faults import Fault, FaultyDataError
from seamless_pr.structures.label_space import LabelSpace

KINDS = {
    "cityscapes": ("panoptic", "semantic", "instance"),
    "idd": ("panoptic",),
    "coco": ("panoptic",),
    "vistas": ("panoptic",),
}
TABLES = {"cityscapes": "cityscapes", "idd": "idd", "coco": "coco_panoptic"}
IMAGE_ENDING = "_leftImg8bit"
_INSTANCES = "instances.json"
# Of an id that names a file; results have longer endings.
MAX_ID_BYTES = 200


@dataclass(frozen=True)
class Predictions:
    """Predictions of one split.

    Attributes:
        path: of the JSON.
        records: the JSON.
        png_dir: folder of its PNGs.
        instances: image id -> instance results of the image; None if there are none.
        stated_categories: the classes as the JSON names them; empty where it does not.
    """

    path: Path
    records: PanopticDataset
    png_dir: Path
    instances: Mapping[ImageId, list[InstanceResult]] | None = None
    stated_categories: tuple[StatedCategory, ...] = ()


def read_predictions(path: Path) -> Predictions:
    """Reads a folder that pipelines/predict.py wrote, or any COCO panoptic JSON.

    Raises:
        FileNotFoundError: nothing there.
        FaultyDataError: a JSON is not valid, or names PNGs that are not below their folder.
    """
    json_path = path / "panoptic.json" if path.is_dir() else path
    records = read_panoptic_json(json_path, is_prediction=True)
    png_dir = find_png_folder(json_path, (a.file_name for a in records.annotations))
    _, faults = find_pngs(records.annotations, png_dir, json_path)
    instances_path = json_path.with_name(_INSTANCES)
    instances: dict[ImageId, list[InstanceResult]] | None = None
    if path.is_dir() and instances_path.is_file():
        instances = defaultdict(list)
        for result in read_instance_results(instances_path):
            instances[result.image_id].append(result)
        unknown = instances.keys() - {annotation.image_id for annotation in records.annotations}
        faults += [
            Fault(str(instances_path), f"image {image_id!r} is not in {json_path.name}")
            for image_id in sorted(unknown, key=str)
        ]
    if faults:
        raise FaultyDataError(f"the predictions of {path} cannot be used", faults)
    stated = parse_panoptic_json(json_path, is_prediction=True).stated_categories
    return Predictions(json_path, records, png_dir, instances, stated)


def write_submission(
    predictions: Predictions,
    dataset: str,
    output: Path,
    *,
    kinds: Sequence[str],
    name: str,
    vistas_version: str = "1.2",
    num_workers: int | None = None,
    show_progress: bool = True,
    map_items: ItemMap = map_in_processes,
) -> list[Path]:
    """Writes `<output>/<kind>/...` and a zip of each kind, which holds what was written now.

    Args:
        predictions: what was predicted.
        dataset: one of `KINDS`.
        output: folder of the results.
        kinds: of `KINDS[dataset]`.
        name: of JSON, PNG folder and zip.
        vistas_version: whose classes; of Vistas only.
        num_workers, show_progress, map_items: see `convert_split`.

    Returns:
        The zips.

    Raises:
        FaultyDataError: predictions that the form cannot hold; nothing is zipped then.
        ValueError: the results would lie among the predictions.
    """
    for kind in kinds:
        if (output / kind).resolve() == predictions.png_dir.resolve():
            raise ValueError(f"{output / kind} holds the predictions; give another --output")
    space = load_label_space(TABLES.get(dataset, f"vistas_v{vistas_version.replace('.', '_')}"))
    faults = _category_faults(predictions, dataset, space)
    names: dict[ImageId, ImageId] = {}
    for annotation in predictions.records.annotations:
        try:
            names[annotation.image_id] = submitted_id(dataset, annotation.image_id)
        except ValueError as error:
            faults.append(Fault(str(annotation.image_id), str(error)))
    if len(set(names.values())) < len(names):
        faults.append(Fault(str(predictions.png_dir), "two images have the same id when submitted"))
    if faults:
        raise FaultyDataError(
            f"the predictions of {predictions.path} are not for {dataset}", faults
        )
    zips = []
    for kind in kinds:
        folder = output / kind
        task = partial(_write_kind, kind=kind, png_dir=predictions.png_dir, folder=folder,
                       dataset=dataset, name=name)  # fmt: skip
        items = [
            _Item(annotation, names[annotation.image_id], _instances_of(predictions, annotation))
            for annotation in predictions.records.annotations
        ]
        results = list(
            map_items(task, items, num_workers=num_workers, title=kind, show_progress=show_progress)
        )
        faults = [fault for result in results for fault in result.faults]
        if faults:
            raise FaultyDataError(
                f"the {kind} submission of {predictions.path} cannot be written", faults
            )
        files = [file for result in results for file in result.files]
        if kind == "panoptic":
            entries = [result.entry for result in results]
            write_json(folder / f"{name}.json", _panoptic_json(space, entries))
            files.append(f"{name}.json")
        zips.append(_zip_files(folder, files, output / f"{_zip_name(dataset, kind, name)}.zip"))
    return zips


def is_file_name(text: str) -> bool:
    """Whether a file without folders may have the name, and an ending after it."""
    return bool(text) and not text.startswith(".") and len(text.encode()) <= MAX_ID_BYTES


def submitted_id(dataset: str, image_id: ImageId) -> ImageId:
    """The id under which a dataset's evaluator knows an image; it can be the name of a file.

    Raises:
        ValueError: the id is none of the dataset's.
    """
    text = str(image_id).removesuffix(IMAGE_ENDING)
    if dataset == "coco":
        if not (text.isascii() and text.isdecimal()):
            raise ValueError("COCO's image ids are numbers")
        return int(text)
    last = text.rpartition("/")[2]
    if not is_file_name(last) or len(text.encode()) > MAX_ID_BYTES:
        raise ValueError(f"an id that can be the name of a file is needed; got {text[:80]!r}")
    if dataset == "idd":
        text = text.partition("_gtFine_")[0].replace("/", "_")
        if "_" not in text:
            raise ValueError(
                "IDD's ids are <drive>_<frame>, since frames repeat; predict with --image-ids path "
                "on leftImg8bit/<split>"
            )
        return f"{text}{PANOPTIC_SUFFIX}"
    if dataset == "cityscapes" and len(last.split("_")) != 3:
        raise ValueError("Cityscapes' ids are <city>_<sequence>_<frame>")
    return last


@dataclass(frozen=True)
class _Item:
    """One image to write: its annotation, the id that it gets, its instances where there are."""

    annotation: AnnotationRecord
    image_id: ImageId
    instances: list[InstanceResult] | None


@dataclass(frozen=True)
class _Written:
    """Files below the folder of the kind, the entry of a panoptic JSON, and what is wrong."""

    files: tuple[str, ...] = ()
    entry: dict[str, Any] | None = None
    faults: tuple[Fault, ...] = ()


def _instances_of(
    predictions: Predictions, annotation: AnnotationRecord
) -> list[InstanceResult] | None:
    if predictions.instances is None:
        return None
    return predictions.instances.get(annotation.image_id, [])


def _read_map(
    annotation: AnnotationRecord, png_dir: Path
) -> tuple[NDArray[np.int32], tuple[SegmentRecord, ...]]:
    """Id map and segments that say the same; a segment of the id 0 gets another one.

    Raises:
        FileNotFoundError, ValueError: no id PNG, or not the one of these segments.
    """
    path = png_dir / annotation.file_name
    id_map = read_id_png(path)
    listed = {segment.segment_id for segment in annotation.segments}
    found = set(np.unique(id_map).tolist())
    unlisted = sorted(found - listed - {LabelSpace.VOID_SEGMENT_ID})
    if unlisted or listed - found:
        raise ValueError(
            f"{path} and its JSON differ: segments {unlisted[:10]} are in the PNG alone, "
            f"{sorted(listed - found)[:10]} in the JSON alone; predict again"
        )
    if LabelSpace.VOID_SEGMENT_ID not in listed:
        return id_map, annotation.segments
    free = next(number for number in range(1, len(listed) + 2) if number not in listed)
    segments = tuple(
        replace(segment, segment_id=segment.segment_id or free) for segment in annotation.segments
    )
    return np.where(id_map == LabelSpace.VOID_SEGMENT_ID, free, id_map).astype(np.int32), segments


def _write_panoptic(
    item: _Item, *, png_dir: Path, folder: Path, dataset: str, name: str
) -> _Written:
    """The id PNG, for IDD at the official size; returns the annotation."""
    id_map, segments = _read_map(item.annotation, png_dir)
    image_id = item.image_id
    png_name = f"{image_id}.png"
    if dataset == "idd":
        png_name = str(image_id)
        height, width = OFFICIAL_SIZE
        id_map = np.asarray(
            Image.fromarray(id_map).resize((width, height), Image.Resampling.NEAREST)
        )
        category_of = {segment.segment_id: segment.category_id for segment in segments}
        segments = measured_segments(id_map, category_of)
    elif dataset == "coco":
        png_name = f"{image_id:012d}.png"
    elif dataset == "cityscapes":
        png_name = f"{image_id}_gtFine_panoptic.png"
    write_id_png(_place(folder, f"{name}/{png_name}"), id_map)
    infos = [segment_json(segment) for segment in segments]
    entry = {"image_id": image_id, "file_name": png_name, "segments_info": infos}
    return _Written((f"{name}/{png_name}",), entry)


def _panoptic_json(space: LabelSpace, entries: list[dict[str, Any] | None]) -> dict[str, Any]:
    categories = [
        {"id": c.category_id, "name": c.name, "supercategory": c.supercategory,
         "isthing": int(c.is_thing), "color": list(c.color)}
        for c in space.categories
    ]  # fmt: skip
    return {"annotations": entries, "categories": categories}


def _write_semantic(
    item: _Item, *, png_dir: Path, folder: Path, dataset: str, name: str
) -> _Written:
    """One label id a pixel, 8 bit; void is "unlabeled"."""
    id_map, segments = _read_map(item.annotation, png_dir)
    segment_ids = np.array([0, *(s.segment_id for s in segments)])
    label_ids = np.array([0, *(s.category_id for s in segments)], np.uint8)
    order = np.argsort(segment_ids)
    places = np.searchsorted(segment_ids[order], id_map)
    file = f"{item.image_id}_pred_labelIds.png"
    _write_grey(_place(folder, file), label_ids[order][places])
    return _Written((file,))


def _write_instance(
    item: _Item, *, png_dir: Path, folder: Path, dataset: str, name: str
) -> _Written:
    """A text file with a mask, label and score of each object."""
    from pycocotools import mask as coco_mask

    things = {label.label_id for label in load_labels("cityscapes") if label.is_thing}
    id_map, segments = _read_map(item.annotation, png_dir)
    found: list[tuple[int, float, NDArray[np.bool_]]] = []
    if item.instances is not None:
        for result in item.instances:
            mask = coco_mask.decode(result.segmentation).astype(bool)
            if result.category_id not in things or mask.shape != id_map.shape:
                raise ValueError(
                    f"{_INSTANCES} has an instance of class {result.category_id} and size "
                    f"{mask.shape} (height, width); expected a thing of {dataset} and "
                    f"{id_map.shape}, as its PNG has"
                )
            found.append((result.category_id, result.score, mask))
    else:
        for segment in segments:
            if segment.category_id not in things:
                continue
            if segment.score is None:
                message = "a thing without score; predict with --instances"
                fault = Fault(item.annotation.file_name, message, segment.segment_id)
                return _Written(faults=(fault,))
            found.append((segment.category_id, segment.score, id_map == segment.segment_id))
    lines, files = [], []
    for number, (label_id, score, mask) in enumerate(found):
        if not mask.any():
            continue
        file_name = f"masks/{item.image_id}_{number:03d}.png"
        _write_grey(_place(folder, file_name), mask.astype(np.uint8) * 255)
        lines.append(f"{file_name} {label_id} {score:.6f}")
        files.append(file_name)
    # Written last: it names the masks.
    text_name = f"{item.image_id}_pred.txt"
    write_whole(_place(folder, text_name), ("\n".join(lines) + "\n").encode())
    return _Written((*files, text_name))


_WRITERS: dict[str, Callable[..., _Written]] = {
    "panoptic": _write_panoptic,
    "semantic": _write_semantic,
    "instance": _write_instance,
}


def _write_kind(item: _Item, *, kind: str, png_dir: Path, folder: Path, **names: str) -> _Written:
    try:
        return _WRITERS[kind](item, png_dir=png_dir, folder=folder, **names)
    except (FileNotFoundError, ValueError) as error:
        return _Written(faults=(Fault(f"image {item.annotation.image_id!r}", str(error)),))


def _place(folder: Path, name: str) -> Path:
    """Where a result goes: never out of the output, whatever links lie there."""
    return safe_join(folder, name, "an image id")


def _write_grey(path: Path, pixels: NDArray[np.uint8]) -> None:
    import cv2

    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise ValueError(f"cannot encode {path}")
    write_whole(path, data.tobytes())


def _category_faults(predictions: Predictions, dataset: str, space: LabelSpace) -> list[Fault]:
    """Classes of another dataset; ids alone could be taken for those of other classes."""
    known = {category.category_id for category in space.categories}
    segments = (s for a in predictions.records.annotations for s in a.segments)
    used = {segment.category_id for segment in segments}
    messages = [f"category {number} is none of {dataset}'s" for number in sorted(used - known)]
    messages += [
        f"category {stated.category_id} is {described(stated)} here and no class of {dataset}"
        for stated in predictions.stated_categories
        if stated.category_id not in known
    ]
    messages += contradictions(predictions.stated_categories, space.categories, dataset)
    return [
        Fault("panoptic.json", f"{message}; the network was trained on another dataset")
        for message in messages
    ]


def _zip_name(dataset: str, kind: str, name: str) -> str:
    # COCO: [type]_[testset]_[algorithm]_results.
    return f"{kind}_{name}_results" if dataset == "coco" else f"{dataset}_{kind}_{name}"


def _zip_files(folder: Path, names: Sequence[str], path: Path) -> Path:
    """Zips files of a folder, whole or not at all; what lies there besides them is not sent."""
    with writing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(names):
            archive.write(folder / name, name)
    return path
