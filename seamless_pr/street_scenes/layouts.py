"""Drawn streets in the folders of other datasets: IDD, Vistas, ADE20K, COCO panoptic, 3D-FUTURE.

Each writer makes the files of one image and returns what the split's JSON says of it, if it has
one; the JSON is written when all images are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pycocotools import mask as coco_mask

from seamless_pr.datasets.label_spaces import load_label_space, load_labels
from seamless_pr.files import write_json, write_picture, write_whole
from seamless_pr.street_scenes.camera import Array
from seamless_pr.street_scenes.ground_truth import (
    panoptic_entry,
    read_labels,
    segment_map,
    segments_info,
    write_panoptic,
)
from seamless_pr.street_scenes.labelled import (
    LabelledScene,
    Vocabulary,
    encode_png,
)
from seamless_pr.street_scenes.vistas_layout import VistasLayout

# Deleted objects that annotators leave in the files, one for so many.
DELETED_EVERY = 8


class Layout(Protocol):
    """How a dataset lies on disk."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes."""

    def write_image(self, root: Path, split: str, index: int, scene: LabelledScene) -> Any:
        """Writes one image with its ground truth; returns its part of the JSON, or None."""

    def write_split(self, root: Path, split: str, entries: Sequence[Any]) -> None:
        """Writes what the split has besides the images; called once."""


@dataclass(frozen=True)
class IddLayout:
    """Part I (PNG images, numbered frames) or II (JPG images, `frame0014`) of IDD."""

    part: int = 1

    @property
    def vocabulary(self) -> Vocabulary:
        rows = read_labels("idd_raw.csv")
        return Vocabulary("idd", frozenset(r["name"] for r in rows if r["has_instances"] == "1"))

    def write_image(self, root: Path, split: str, index: int, scene: LabelledScene) -> None:
        drive = str(index % 3 + (201 if self.part == 2 else 0))
        frame = f"frame{index:04d}" if self.part == 2 else f"{index:06d}"
        suffix = "jpg" if self.part == 2 else "png"
        picture = root / "leftImg8bit" / split / drive / f"{frame}_leftImg8bit.{suffix}"
        write_picture(picture, scene.image)
        if split == "test":
            return
        objects: list[dict[str, Any]] = []
        for number, drawn in enumerate(scene.objects):
            label = drawn.label or "unlabeled"
            label += "group" if drawn.is_group else ""
            objects.append(_idd_object(len(objects), label, drawn.polygon, deleted=False))
            if number % DELETED_EVERY == DELETED_EVERY - 1:
                moved = drawn.polygon // 2
                objects.append(_idd_object(len(objects), label, moved, deleted=True))
        height, width = scene.object_map.shape
        content = {"imgHeight": height, "imgWidth": width, "objects": objects}
        truth = root / "gtFine" / split / drive / f"{frame}_gtFine_polygons.json"
        write_json(truth, content)

    def write_split(self, root: Path, split: str, entries: Sequence[Any]) -> None:
        """IDD ships nothing besides the images and polygons."""


def _idd_object(number: int, label: str, polygon: Array, *, deleted: bool) -> dict[str, Any]:
    return {
        "date": "14-Jun-2019 17:26:53",
        "deleted": int(deleted),
        "draw": not deleted,
        "id": number,
        "label": label,
        "polygon": polygon.astype(float).tolist(),
        "user": "drawer",
        "verified": 0,
    }


@dataclass(frozen=True)
class Ade20kLayout:
    """The two archives of the scene parsing challenge, unpacked side by side."""

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary("ade20k", _thing_names("ade20k"))

    def write_image(self, root: Path, split: str, index: int, scene: LabelledScene) -> None:
        folder = {"train": "training", "val": "validation"}[split]
        name = f"ADE_{split}_{index + 1:08d}"
        inner = root / "ADEChallengeData2016"
        write_picture(inner / "images" / folder / f"{name}.jpg", scene.image)
        ids = {label.name: label.label_id for label in load_labels("ade20k")}
        things = self.vocabulary.things
        instance_class = {
            int(row["id"]): int(row["instance_class"])
            for row in read_labels("ade20k_instances.csv")
        }
        num_objects = len(scene.objects) + 1
        classes, red, green = (np.zeros(num_objects, np.uint8) for _ in range(3))
        number = 0
        for place, drawn in enumerate(scene.objects, start=1):
            if drawn.label is None:
                continue
            classes[place] = ids[drawn.label] + 1
            if drawn.label in things and not drawn.is_group:
                number += 1
                red[place], green[place] = instance_class[ids[drawn.label]], number
        truth = inner / "annotations" / folder / f"{name}.png"
        write_whole(truth, encode_png(classes[scene.object_map]))
        table = np.stack([red, green, np.arange(num_objects, dtype=np.uint8)], -1)
        objects = root / "annotations_instance" / folder / f"{name}.png"
        write_whole(objects, encode_png(table[scene.object_map]))

    def write_split(self, root: Path, split: str, entries: Sequence[Any]) -> None:
        lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName"]
        lines += [
            f"{label.label_id + 1}\t0\t0\t0\t{int(not label.is_thing)}\t{label.name}"
            for label in load_labels("ade20k")
        ]
        path = root / "ADEChallengeData2016" / "objectInfo150.txt"
        write_whole(path, "\n".join(lines).encode())


@dataclass(frozen=True)
class CocoLayout:
    """COCO panoptic 2017, both zips unpacked."""

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary("coco_panoptic", _thing_names("coco_panoptic"))

    def write_image(self, root: Path, split: str, index: int, scene: LabelledScene) -> Any:
        image_id = 139 + 146 * index
        write_picture(root / f"{split}2017" / f"{image_id:012d}.jpg", scene.image)
        id_map, found = segment_map(scene, load_label_space("coco_panoptic"))
        folder = root / "annotations" / f"panoptic_{split}2017"
        return panoptic_entry(folder, image_id, f"{image_id:012d}", id_map, found)

    def write_split(self, root: Path, split: str, entries: Sequence[Any]) -> None:
        # As downloaded: without colours.
        categories = [
            {"supercategory": "", "isthing": int(label.is_thing), "id": label.label_id,
             "name": label.name}
            for label in load_labels("coco_panoptic")
        ]  # fmt: skip
        path = root / "annotations" / f"panoptic_{split}2017.json"
        write_panoptic(path, entries, categories)


@dataclass(frozen=True)
class Future3dLayout:
    """The 2020 challenge of 3D-FUTURE; of the street only the furniture is annotated."""

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary("future3d", _thing_names("future3d"))

    def write_image(self, root: Path, split: str, index: int, scene: LabelledScene) -> Any:
        image_id = index + 1
        stem = f"{image_id:07d}"
        write_picture(root / "images" / split / f"{stem}.jpg", scene.image)
        id_map, found = segment_map(scene, load_label_space("future3d"))
        height, width = id_map.shape
        annotations = []
        for entry in segments_info(id_map, found):
            mask = np.asfortranarray((id_map == entry["id"]).astype(np.uint8))
            runs = coco_mask.encode(mask)
            annotations.append(
                {
                    "image_id": image_id,
                    "category_id": entry["category_id"],
                    "area": entry["area"],
                    "bbox": entry["bbox"],
                    "segmentation": {"size": [height, width], "counts": runs["counts"].decode()},
                    "model_id": f"{entry['id']:08x}",
                    "style": None,
                }
            )
        # Names have no extension in this dataset.
        image = {"id": image_id, "width": width, "height": height, "file_name": stem}
        return image, annotations

    def write_split(self, root: Path, split: str, entries: Sequence[Any]) -> None:
        annotations = [entry for _, image_entries in entries for entry in image_entries]
        content = {
            "images": [image for image, _ in entries],
            "annotations": [{"id": n + 1, **entry} for n, entry in enumerate(annotations)],
            "categories": [
                {"id": label.label_id, "category_name": label.name}
                for label in load_labels("future3d")
            ],
        }
        write_json(root / "annotations" / f"{split}_set.json", content)


def _thing_names(dataset: str) -> frozenset[str]:
    return frozenset(label.name for label in load_labels(dataset) if label.is_thing)


LAYOUTS: dict[str, Layout] = {
    "idd": IddLayout(),
    "idd_part_2": IddLayout(part=2),
    "vistas": VistasLayout(),
    "vistas_v2_0": VistasLayout(nested=True),
    "ade20k": Ade20kLayout(),
    "coco": CocoLayout(),
    "future3d": Future3dLayout(),
}
