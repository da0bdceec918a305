"""Drawn streets in the folders of Mapillary Vistas: the older archive, or the newer one."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seamless_pr.datasets.label_spaces import load_label_space, load_labels
from seamless_pr.files import write_json, write_picture, write_whole
from seamless_pr.street_scenes.camera import Array
from seamless_pr.street_scenes.ground_truth import (
    panoptic_entry,
    read_labels,
    segment_map,
    write_panoptic,
)
from seamless_pr.street_scenes.labelled import (
    NAME_OF_VISTAS,
    LabelledScene,
    Vocabulary,
    encode_png,
)


@dataclass(frozen=True)
class VistasLayout:
    """The older archive of Vistas v1.2 (nested False), or the newer one with both releases."""

    nested: bool = False

    @property
    def vocabulary(self) -> Vocabulary:
        rows = read_labels("vistas_v2_0_config.csv")
        things = {row["name"] for row in rows if row["has_instances"] == "1"}
        return Vocabulary(NAME_OF_VISTAS, frozenset(things))

    def write_image(self, root: Path, split: str, index: int, scene: LabelledScene) -> Any:
        folder = root / {"train": "training", "val": "validation", "test": "testing"}[split]
        key = f"{split}{index:04d}".ljust(22, "A")
        write_picture(folder / "images" / f"{key}.jpg", scene.image)
        if split == "test":
            return None
        entries = {}
        for version in ("v1.2", "v2.0") if self.nested else ("v1.2",):
            inner = folder / version if self.nested else folder
            named = scene if version == "v2.0" else in_v1_2(scene)
            _write_vistas_maps(inner, key, named, version)
            id_map, found = segment_map(named, load_label_space(_table(version)))
            entries[version] = panoptic_entry(inner / "panoptic", key, key, id_map, found)
        return entries

    def write_split(self, root: Path, split: str, entries: Sequence[Any]) -> None:
        for version in ("v1.2", "v2.0") if self.nested else ("v1.2",):
            config = f"config_{version}.json" if self.nested else "config.json"
            write_json(root / config, vistas_config(version))
        if split == "test":
            return
        folder = root / {"train": "training", "val": "validation"}[split]
        for version, name in (("v1.2", "panoptic_2018.json"), ("v2.0", "panoptic_2020.json")):
            if version == "v2.0" and not self.nested:
                continue
            inner = folder / version if self.nested else folder
            categories = [
                {"id": label.label_id, "name": label.name, "supercategory": label.supercategory,
                 "isthing": int(label.is_thing), "color": list(label.color or (0, 0, 0))}
                for label in load_labels(_table(version))
                if not label.is_ignored
            ]  # fmt: skip
            path = inner / "panoptic" / name
            write_panoptic(path, [entry[version] for entry in entries], categories)


def _table(version: str) -> str:
    return f"vistas_{version.replace('.', '_')}"


def _write_vistas_maps(folder: Path, key: str, scene: LabelledScene, version: str) -> None:
    """`labels` (palette) and `instances` (16 bit: label * 256 + number)."""
    rows = read_labels(f"{_table(version)}_config.csv")
    index_of = {row["name"]: int(row["index"]) for row in rows}
    with_numbers = {row["name"] for row in rows if row["has_instances"] == "1"}
    unlabeled = index_of["void--unlabeled"]
    labels = np.full(len(scene.objects) + 1, unlabeled, np.uint16)
    numbers = np.zeros(len(scene.objects) + 1, np.uint16)
    counts: Counter[str] = Counter()
    for place, drawn in enumerate(scene.objects, start=1):
        if drawn.label is None:
            continue
        labels[place] = index_of[drawn.label]
        if drawn.label in with_numbers:
            numbers[place] = counts[drawn.label]
            counts[drawn.label] += 1
    instances = (labels * 256 + numbers)[scene.object_map]
    write_whole(folder / "instances" / f"{key}.png", encode_png(instances))
    write_whole(
        folder / "labels" / f"{key}.png",
        _palette_png(labels.astype(np.uint8)[scene.object_map]),
    )
    if version == "v2.0":
        height, width = scene.object_map.shape
        objects = [
            {"label": drawn.label or "void--unlabeled", "polygon": drawn.polygon.tolist()}
            for drawn in scene.objects
        ]
        content = {"width": width, "height": height, "objects": objects}
        write_whole(folder / "polygons" / f"{key}.json", json.dumps(content).encode())


def _palette_png(labels: Array) -> bytes:
    picture = Image.fromarray(labels).convert("P")
    picture.putdata(labels.ravel().tolist())
    hues = np.arange(256, dtype=np.uint8)[:, None] * np.array([[1, 7, 13]], np.uint8)
    picture.putpalette(hues.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def vistas_config(version: str) -> dict[str, Any]:
    """The release's config file."""
    readable = {label.supercategory: label.name for label in load_labels(_table(version))}
    colors = {label.supercategory: label.color for label in load_labels(_table(version))}
    labels = [
        {
            "name": row["name"],
            "readable": readable.get(row["name"], row["name"]),
            "instances": row["has_instances"] == "1",
            "evaluate": row["evaluated"] == "1",
            "color": list(colors.get(row["name"]) or (0, 0, 0)),
        }
        for row in read_labels(f"{_table(version)}_config.csv")
    ]
    is_old = version == "v1.2"
    return {
        "labels": labels,
        "version": 1.1 if is_old else "2.0",
        "mapping": "public" if is_old else "mvd20",
        "folder_structure": "{split}/{content}/{key:.{22}}.{ext}",
    }


# Names of v2.0 that v1.2 does not have -> what they are there.
V1_2_NAMES = {
    "construction--barrier--ambiguous": None,
    "construction--barrier--concrete-block": "construction--barrier--other-barrier",
    "construction--barrier--road-median": "construction--barrier--other-barrier",
    "construction--barrier--road-side": "construction--barrier--other-barrier",
    "construction--barrier--separator": "construction--barrier--other-barrier",
    "construction--barrier--temporary": "construction--barrier--other-barrier",
    "construction--flat--driveway": "construction--flat--road",
    "construction--flat--parking-aisle": "construction--flat--parking",
    "construction--flat--road-shoulder": "construction--flat--road",
    "construction--flat--traffic-island": "construction--flat--sidewalk",
    "construction--structure--garage": "construction--structure--building",
    "human--person--individual": "human--person",
    "human--person--person-group": None,
    "marking--discrete--crosswalk-zebra": "marking--crosswalk-zebra",
    "object--parking-meter": "object--junction-box",
    "object--sign--advertisement": "object--billboard",
    "object--sign--ambiguous": "object--billboard",
    "object--sign--back": "object--traffic-sign--back",
    "object--sign--information": "object--billboard",
    "object--sign--other": "object--billboard",
    "object--sign--store": "object--billboard",
    "object--support--pole-group": None,
    "object--traffic-cone": None,
    "object--traffic-sign--ambiguous": None,
    "object--traffic-sign--direction-back": "object--traffic-sign--back",
    "object--traffic-sign--direction-front": "object--traffic-sign--front",
    "object--traffic-sign--information-parking": "object--traffic-sign--front",
    "object--traffic-sign--temporary-back": "object--traffic-sign--back",
    "object--traffic-sign--temporary-front": "object--traffic-sign--front",
    "object--vehicle--vehicle-group": None,
    "object--water-valve": None,
    "void--dynamic": None,
    "void--ground": None,
    "void--static": None,
}


def in_v1_2(scene: LabelledScene) -> LabelledScene:
    """A scene with the names of v2.0 in those of v1.2, which knows fewer."""
    known = {row["name"] for row in read_labels("vistas_v1_2_config.csv")}

    def name_of(label: str | None) -> str | None:
        if label is None or label in known:
            return label
        if label in V1_2_NAMES:
            return V1_2_NAMES[label]
        if label.startswith("object--traffic-light"):
            return "object--traffic-light"
        return "marking--general"

    objects = tuple(replace(drawn, label=name_of(drawn.label)) for drawn in scene.objects)
    return replace(scene, objects=objects)
