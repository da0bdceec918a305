"""Predictions in the forms that the datasets' own evaluators and test servers take.

Everything is made of a COCO panoptic JSON with its PNGs, and of COCO instance results where scores
of overlapping objects are wanted. What a form cannot hold is an error, listed for all images.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seamless_pr.datasets.coco_panoptic import find_png_folder, read_panoptic_json, segment_json
from seamless_pr.datasets.idd import OFFICIAL_SIZE, PANOPTIC_SUFFIX
from seamless_pr.datasets.label_spaces import load_label_space, load_labels
from seamless_pr.datasets.panoptic_reader import StatedCategory, parse_panoptic_json
from seamless_pr.datasets.panoptic_records import AnnotationRecord, ImageId, PanopticDataset
from seamless_pr.datasets.raw_splits import measured_segments
from seamless_pr.datasets.run_lengths import read_run_lengths
from seamless_pr.files import write_json, write_whole
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


@dataclass(frozen=True)
class Predictions:
    """Predictions of one split.

    Attributes:
        records: the JSON.
        png_dir: folder of its PNGs.
        instances: image id -> COCO instance results of the image; None if there are none.
        stated_categories: the classes as the JSON names them; empty where it does not.
    """

    records: PanopticDataset
    png_dir: Path
    instances: Mapping[ImageId, list[dict[str, Any]]] | None = None
    stated_categories: tuple[StatedCategory, ...] = ()


def read_predictions(path: Path) -> Predictions:
    """Reads a folder that pipelines/predict.py wrote, or any COCO panoptic JSON.

    Raises:
        FileNotFoundError: nothing there.
        FaultyDataError: the JSON is not valid.
    """
    json_path = path / "panoptic.json" if path.is_dir() else path
    records = read_panoptic_json(json_path, is_prediction=True)
    png_dir = find_png_folder(json_path, (a.file_name for a in records.annotations))
    instances_path = json_path.with_name("instances.json")
    instances: dict[ImageId, list[dict[str, Any]]] | None = None
    if path.is_dir() and instances_path.is_file():
        instances = {annotation.image_id: [] for annotation in records.annotations}
        for entry in json.loads(instances_path.read_bytes()):
            instances.setdefault(entry["image_id"], []).append(entry)
    stated = parse_panoptic_json(json_path, is_prediction=True).stated_categories
    return Predictions(records, png_dir, instances, stated)


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
    """Writes `<output>/<kind>/...` and a zip of each kind.

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
    """
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
        raise FaultyDataError(f"these predictions are not for {dataset}", faults)
    zips = []
    for kind in kinds:
        folder = output / kind
        task = partial(_WRITERS[kind], predictions=_alone(predictions), folder=folder,
                       dataset=dataset, name=name)  # fmt: skip
        items = [
            (annotation, names[annotation.image_id], _instances_of(predictions, annotation))
            for annotation in predictions.records.annotations
        ]
        results = list(
            map_items(task, items, num_workers=num_workers, title=kind, show_progress=show_progress)
        )
        faults = [fault for result in results for fault in result[1]]
        if faults:
            raise FaultyDataError(f"the {kind} submission cannot be written", faults)
        if kind == "panoptic":
            entries = [result[0] for result in results]
            write_json(folder / f"{name}.json", _panoptic_json(space, entries))
        zips.append(_zip_folder(folder, output / f"{_zip_name(dataset, kind, name)}.zip"))
    return zips


def submitted_id(dataset: str, image_id: ImageId) -> ImageId:
    """The id under which a dataset's evaluator knows an image.

    Raises:
        ValueError: the id is none of the dataset's.
    """
    text = str(image_id).removesuffix(IMAGE_ENDING)
    if dataset == "coco":
        if not text.isdigit():
            raise ValueError("COCO's image ids are numbers")
        return int(text)
    if dataset == "idd":
        text = text.partition("_gtFine_")[0].replace("/", "_")
        if "_" not in text:
            raise ValueError(
                "IDD's ids are <drive>_<frame>, since frames repeat; predict with --image-ids path "
                "on leftImg8bit/<split>"
            )
        return f"{text}{PANOPTIC_SUFFIX}"
    text = text.rpartition("/")[2]
    if dataset == "cityscapes" and len(text.split("_")) != 3:
        raise ValueError("Cityscapes' ids are <city>_<sequence>_<frame>")
    return text


_Item = tuple[AnnotationRecord, ImageId, list[dict[str, Any]] | None]
_Result = tuple[dict[str, Any], list[Fault]]


def _alone(predictions: Predictions) -> Predictions:
    """What one image's work needs; everything else would travel with it to each process."""
    return replace(predictions, records=PanopticDataset((), (), ()), instances=None)


def _instances_of(
    predictions: Predictions, annotation: AnnotationRecord
) -> list[dict[str, Any]] | None:
    if predictions.instances is None:
        return None
    return predictions.instances.get(annotation.image_id, [])


def _write_panoptic(
    item: _Item, *, predictions: Predictions, folder: Path, dataset: str, name: str
) -> _Result:
    """The id PNG, for IDD at the official size; returns the annotation."""
    annotation, image_id, _ = item
    id_map = read_id_png(predictions.png_dir / annotation.file_name)
    segments = annotation.segments
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
    write_id_png(folder / name / png_name, id_map)
    infos = [segment_json(segment) for segment in segments]
    return {"image_id": image_id, "file_name": png_name, "segments_info": infos}, []


def _panoptic_json(space: LabelSpace, entries: list[dict[str, Any]]) -> dict[str, Any]:
    categories = [
        {"id": c.category_id, "name": c.name, "supercategory": c.supercategory,
         "isthing": int(c.is_thing), "color": list(c.color)}
        for c in space.categories
    ]  # fmt: skip
    return {"annotations": entries, "categories": categories}


def _write_semantic(
    item: _Item, *, predictions: Predictions, folder: Path, dataset: str, name: str
) -> _Result:
    """One label id a pixel, 8 bit; void is "unlabeled"."""
    annotation, image_id, _ = item
    id_map = read_id_png(predictions.png_dir / annotation.file_name)
    segment_ids = np.array([0, *(s.segment_id for s in annotation.segments)])
    label_ids = np.array([0, *(s.category_id for s in annotation.segments)], np.uint8)
    order = np.argsort(segment_ids)
    places = np.searchsorted(segment_ids[order], id_map)
    _write_grey(folder / f"{image_id}_pred_labelIds.png", label_ids[order][places])
    return {}, []


def _write_instance(
    item: _Item, *, predictions: Predictions, folder: Path, dataset: str, name: str
) -> _Result:
    """A text file with a mask, label and score of each object."""
    annotation, image_id, instances = item
    things = {label.label_id for label in load_labels("cityscapes") if label.is_thing}
    found: list[tuple[int, float, NDArray[np.bool_]]] = []
    if instances is not None:
        for entry in instances:
            try:
                mask = read_run_lengths(entry["segmentation"]).mask()
            except (KeyError, ValueError) as error:
                return {}, [Fault(f"instances of {image_id}", str(error))]
            found.append((entry["category_id"], float(entry["score"]), mask))
    else:
        id_map = read_id_png(predictions.png_dir / annotation.file_name)
        for segment in annotation.segments:
            if segment.category_id not in things:
                continue
            if segment.score is None:
                message = "a thing without score; predict with --instances"
                return {}, [Fault(annotation.file_name, message, segment.segment_id)]
            found.append((segment.category_id, segment.score, id_map == segment.segment_id))
    lines = []
    for number, (label_id, score, mask) in enumerate(found):
        if not mask.any():
            continue
        file_name = f"masks/{image_id}_{number:03d}.png"
        _write_grey(folder / file_name, mask.astype(np.uint8) * 255)
        lines.append(f"{file_name} {label_id} {score:.6f}")
    # Written last: it names the masks.
    write_whole(folder / f"{image_id}_pred.txt", ("\n".join(lines) + "\n").encode())
    return {}, []


_WRITERS: dict[str, Callable[..., _Result]] = {
    "panoptic": _write_panoptic,
    "semantic": _write_semantic,
    "instance": _write_instance,
}


def _write_grey(path: Path, pixels: NDArray[np.uint8]) -> None:
    import cv2

    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise ValueError(f"cannot encode {path}")
    write_whole(path, data.tobytes())


def _category_faults(predictions: Predictions, dataset: str, space: LabelSpace) -> list[Fault]:
    """Classes of another dataset; ids alone could be taken for those of other classes."""
    names = {category.category_id: category.name for category in space.categories}
    segments = (s for a in predictions.records.annotations for s in a.segments)
    unknown = {segment.category_id for segment in segments} - names.keys()
    faults = [
        Fault("panoptic.json", f"category {category_id} is none of {dataset}'s")
        for category_id in sorted(unknown)
    ]
    for category in predictions.stated_categories:
        right = names.get(category.category_id)
        if category.name is not None and category.name != right:
            expected = "no class" if right is None else f"'{right}'"
            faults.append(
                Fault(
                    "panoptic.json",
                    f"category {category.category_id} is '{category.name}', in {dataset} "
                    f"{expected}; the network was trained on another dataset",
                )
            )
    return faults


def _zip_name(dataset: str, kind: str, name: str) -> str:
    # COCO: [type]_[testset]_[algorithm]_results.
    return f"{kind}_{name}_results" if dataset == "coco" else f"{dataset}_{kind}_{name}"


def _zip_folder(folder: Path, path: Path) -> Path:
    """Zips the content of a folder, whole or not at all."""
    partial_path = path.with_name(f".{path.name}.partial")
    try:
        with zipfile.ZipFile(partial_path, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(folder.rglob("*")):
                if file.is_file() and not file.name.startswith("."):
                    archive.write(file, file.relative_to(folder).as_posix())
        partial_path.replace(path)
    finally:
        partial_path.unlink(missing_ok=True)
    return path
