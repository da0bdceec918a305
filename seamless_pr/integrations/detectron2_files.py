"""Files that detectron2's evaluators of instances and of semantics read, made from id PNGs."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from seamless_pr.datasets.coco_panoptic import image_json, panoptic_json
from seamless_pr.datasets.panoptic_records import AnnotationRecord, PanopticDataset
from seamless_pr.files import json_bytes, remove_file, safe_join, write_json, write_whole
from seamless_pr.id_maps.id_png_files import read_id_png
from seamless_pr.input_files import read_json
from seamless_pr.integrations.detectron2_records import ContiguousIds
from seamless_pr.structures.label_space import LabelSpace

# What the files were made from.
SOURCE_NAME = "source.json"


def instances_file(folder: Path) -> Path:
    """The objects of a dataset in COCO's instance format."""
    return folder / "instances.json"


def semantic_folder(folder: Path) -> Path:
    """Grey PNGs of semantic ids."""
    return folder / "semantic"


def write_evaluator_files(
    dataset: PanopticDataset, png_dir: Path, ids: ContiguousIds, folder: Path
) -> None:
    """Writes semantic PNGs and, last, the instances; does nothing where those are finished.

    They are those of this ground truth, by what the JSON says and the size of each PNG, and of
    these class numbers; anything else is written anew.

    Void is the ignore id in a PNG; crowd keeps its class there, and is a crowd among the instances.

    Args:
        dataset: ground truth.
        png_dir: its id PNGs.
        ids: class numbers of the PNGs; the instances keep the dataset's category ids.
        folder: where to; see `instances_file` and `semantic_folder`.

    Raises:
        FileNotFoundError, ValueError: an id PNG is missing, damaged, or holds an unknown id.
    """
    source = _source(dataset, png_dir, ids)
    if instances_file(folder).is_file() and _read_source(folder) == source:
        return
    remove_file(instances_file(folder))
    instances: list[dict[str, Any]] = []
    for annotation in dataset.annotations:
        id_map = read_id_png(png_dir / annotation.file_name)
        path = safe_join(semantic_folder(folder), annotation.file_name, "the dataset")
        write_whole(path, _grey_png(semantic_ids(id_map, annotation, ids)))
        instances += instance_annotations(id_map, annotation, ids)
    for number, instance in enumerate(instances, start=1):
        instance["id"] = number
    write_json(folder / SOURCE_NAME, source)
    write_json(
        instances_file(folder),
        {
            "images": [image_json(image) for image in dataset.images],
            "categories": [
                {"id": category.category_id, "name": category.name}
                for category in ids.label_space.thing_categories
            ],
            "annotations": instances,
        },
    )


def _source(dataset: PanopticDataset, png_dir: Path, ids: ContiguousIds) -> dict[str, Any]:
    """What the files are made from."""
    paths = [png_dir / annotation.file_name for annotation in dataset.annotations]
    content = [
        panoptic_json(dataset),
        [path.stat().st_size if path.is_file() else None for path in paths],
        ids.metadata(),
    ]
    return {"sha256": hashlib.sha256(json_bytes(content)).hexdigest()}


def _read_source(folder: Path) -> Any:
    try:
        return read_json(folder / SOURCE_NAME)
    except (OSError, ValueError):
        return None


def semantic_ids(
    id_map: NDArray[np.int32], annotation: AnnotationRecord, ids: ContiguousIds
) -> NDArray[np.unsignedinteger]:
    """[H, W] segment ids -> [H, W] semantic ids of as many bits as `ids.ignore_label` needs.

    Raises:
        ValueError: a segment id that the annotation does not list.
    """
    values, positions = np.unique(id_map, return_inverse=True)
    semantic_of = {LabelSpace.VOID_SEGMENT_ID: ids.ignore_label} | {
        segment.segment_id: ids.semantic_id(ids.label_space.train_id_of[segment.category_id])
        for segment in annotation.segments
    }
    if unknown := sorted(set(values.tolist()) - semantic_of.keys()):
        raise ValueError(
            f"{annotation.file_name}: segment ids {unknown[:10]} are in the PNG but not in the JSON"
        )
    dtype = np.min_scalar_type(ids.ignore_label)
    lookup = np.array([semantic_of[value] for value in values.tolist()], dtype=dtype)
    return lookup[positions].reshape(id_map.shape)


def instance_annotations(
    id_map: NDArray[np.int32], annotation: AnnotationRecord, ids: ContiguousIds
) -> list[dict[str, Any]]:
    """The things of one image as COCO annotations with run lengths, without an id."""
    found = []
    for segment in annotation.segments:
        mask = id_map == segment.segment_id
        train_id = ids.label_space.train_id_of[segment.category_id]
        if not ids.label_space.is_thing(train_id) or not mask.any():
            continue
        run_lengths = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
        found.append(
            {
                "image_id": annotation.image_id,
                "category_id": segment.category_id,
                "segmentation": {
                    "size": list(id_map.shape),
                    "counts": run_lengths["counts"].decode("ascii"),
                },
                "area": int(coco_mask.area(run_lengths)),
                "bbox": coco_mask.toBbox(run_lengths).tolist(),
                "iscrowd": int(segment.is_crowd),
            }
        )
    return found


def _grey_png(picture: NDArray[np.unsignedinteger]) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "PNG")
    return encoded.getvalue()
