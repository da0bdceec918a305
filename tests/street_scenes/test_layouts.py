"""Drawn streets in the folders of other datasets: readable by their readers, every class occurs."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from seamless_pr.datasets.ade20k import open_ade20k
from seamless_pr.datasets.catalog import OpenedSplit
from seamless_pr.datasets.coco import open_coco
from seamless_pr.datasets.coco_panoptic import read_panoptic_json
from seamless_pr.datasets.conversion import convert_split
from seamless_pr.datasets.future3d import open_future3d
from seamless_pr.datasets.idd import open_idd
from seamless_pr.datasets.images import read_label_image
from seamless_pr.datasets.label_pngs import png_bits, read_palette_indices
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.datasets.panoptic_files import PanopticFiles
from seamless_pr.datasets.panoptic_records import PanopticDataset
from seamless_pr.datasets.verification import verify_dataset
from seamless_pr.datasets.vistas import open_vistas
from seamless_pr.street_scenes.dataset import main, write_layout
from seamless_pr.street_scenes.extras import load_base_labels, load_extras
from seamless_pr.street_scenes.ground_truth import read_labels, segment_map
from seamless_pr.street_scenes.labelled import (
    LabelledObject,
    LabelledScene,
    draw_labelled_scene,
    extras_of,
)
from seamless_pr.street_scenes.layouts import LAYOUTS
from seamless_pr.street_scenes.shapes import load_marks, load_solids, read_table
from seamless_pr.street_scenes.vistas_layout import V1_2_NAMES, in_v1_2

SIZE = (256, 512)
MODELS_OF_THEIR_OWN = {
    "car", "van", "truck", "bus", "tram", "caravan", "trailer", "bicycle", "motorcycle", "person",
    "horse rider", "hill", "mount", "tree",
}  # fmt: skip


def test_every_thing_of_the_tables_has_a_shape_and_every_class_a_thing() -> None:
    known = {*load_solids(), *load_marks(), *MODELS_OF_THEIR_OWN}
    items = {row["item"]: row["shape"] for row in read_table("items.csv")}
    assert set(items.values()) <= known
    assert {row["item"] for row in read_table("classes.csv")} <= set(items)


def names_of(dataset: str) -> set[str]:
    table = {"idd": "idd_raw.csv", "vistas_v2_0": "vistas_v2_0_config.csv"}
    return {row["name"] for row in read_labels(table.get(dataset, f"{dataset}.csv"))}


@pytest.mark.parametrize("dataset", ["idd", "vistas_v2_0", "coco_panoptic", "ade20k", "future3d"])
def test_the_tables_name_classes_that_exist_and_miss_none_that_is_evaluated(dataset: str) -> None:
    drawn = set(load_base_labels(dataset).values())
    extras = {extra.label for extra in load_extras(dataset)}
    assert extras <= names_of(dataset)
    if dataset != "future3d":
        assert drawn <= names_of(dataset)
    missing = names_of(dataset) - drawn - extras
    # Void: what lies outside of the picture, and plates that nobody could read.
    assert missing <= {"out of roi", "license plate", "void--unlabeled"}


def test_all_extras_take_turns() -> None:
    for dataset in ("vistas_v2_0", "ade20k"):
        labels = [extra.label for index in range(11) for extra in extras_of(dataset, index)]
        assert set(labels) == {extra.label for extra in load_extras(dataset)}


def test_the_same_arguments_give_the_same_scene() -> None:
    vocabulary = LAYOUTS["idd"].vocabulary
    first, second = (draw_labelled_scene(vocabulary, 1, "val", 2, (96, 192)) for _ in range(2))
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.object_map, second.object_map)
    other = draw_labelled_scene(vocabulary, 1, "val", 3, (96, 192))
    assert not np.array_equal(first.image, other.image)


def test_every_name_of_v2_0_has_one_in_v1_2_or_is_void_there() -> None:
    old, new = names_of_config("v1_2"), names_of_config("v2_0")
    assert set(V1_2_NAMES) <= new - old
    assert {name for name in V1_2_NAMES.values() if name} <= old
    scene = draw_labelled_scene(LAYOUTS["vistas_v2_0"].vocabulary, 0, "train", 0, (96, 192))
    assert {drawn.label for drawn in in_v1_2(scene).objects} <= {*old, None}


def names_of_config(version: str) -> set[str]:
    table = resources.files("seamless_pr").joinpath(
        "datasets", "labels", f"vistas_{version}_config.csv"
    )
    with table.open(encoding="utf-8") as file:
        return {row["name"] for row in csv.DictReader(file)}


def opened_vistas(version: str) -> Callable[[Path, str], OpenedSplit]:
    return lambda root, split: open_vistas(root, split, version)


CASES = {
    "idd": ("idd", 4, open_idd),
    "idd_part_2": ("idd_part_2", 4, open_idd),
    "vistas": ("vistas", 12, opened_vistas("1.2")),
    "vistas_v2_0": ("vistas_v2_0", 16, opened_vistas("2.0")),
    "ade20k": ("ade20k", 20, open_ade20k),
    "coco": ("coco", 18, open_coco),
    "future3d": ("future3d", 6, open_future3d),
}


def histogram(dataset: PanopticDataset) -> Counter[str]:
    names = {category.category_id: category.name for category in dataset.categories}
    counts: Counter[str] = Counter()
    for annotation in dataset.annotations:
        for segment in annotation.segments:
            counts[names[segment.category_id]] += segment.area or 0
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_readers_find_nothing_wrong_and_every_class_occurs_at_a_plausible_size(
    tmp_path: Path, case: str
) -> None:
    layout, num_images, open_split = CASES[case]
    write_layout(
        LAYOUTS[layout], tmp_path, num_images={"train": num_images}, size=SIZE, seed=0,
        workers=2, show_progress=False,
    )  # fmt: skip
    split = open_split(tmp_path, "train")
    if isinstance(split, PanopticFiles):
        assert split.check(num_workers=0, show_progress=False) == []
        dataset = split.records
    else:
        prepared = convert_split(split, tmp_path / "out", num_workers=2, show_progress=False)
        faults = verify_dataset(prepared.json_path, images_dir=prepared.images_dir)
        assert faults == []
        dataset = read_panoptic_json(prepared.json_path)
    assert len(dataset.annotations) == num_images
    counts = histogram(dataset)
    names = {category.name for category in dataset.categories}
    rare = {"vehicle fallback"} if case == "idd_part_2" else set()
    assert names - set(counts) - rare == set()
    pixels = num_images * SIZE[0] * SIZE[1]
    things = {category.name for category in dataset.categories if category.is_thing}
    if case != "future3d":
        road, building = (
            sum(count for name, count in counts.items() if word in name.lower())
            for word in ("road", "building")
        )
        assert min(road, building) > 0.08 * pixels
    # Nothing fills the pictures but the street itself; IDD merges five labels into one class.
    assert max(counts[name] for name in things) < 0.15 * pixels
    assert all(count >= 6 for count in counts.values())


def test_groups_are_one_crowd_and_stuff_is_one_segment() -> None:
    labels = [("road", False), ("car", False), ("car", True), ("car", True), ("road", False)]
    corner = np.zeros((1, 2), np.int32)
    objects = tuple(LabelledObject(label, is_group, corner) for label, is_group in labels)
    object_map = np.array([[1, 2, 3], [4, 5, 0]], np.int32)
    scene = LabelledScene(np.zeros((2, 3, 3), np.uint8), objects, object_map)
    id_map, found = segment_map(scene, load_label_space("coco_panoptic"))
    (road, car, crowd), (same_crowd, same_road, void) = id_map.tolist()
    assert (road, crowd, void) == (same_road, same_crowd, 0)
    assert len({road, car, crowd}) == 3
    assert (found[car], found[crowd], found[road]) == ((3, False), (3, True), (149, False))


def test_vistas_pictures_have_the_encodings_of_the_archive(tmp_path: Path) -> None:
    main(["--layout", "vistas_v2_0", "--root", str(tmp_path), "--val", "1", "--size", "96x192",
          "--workers", "1"])  # fmt: skip
    for version, count in (("v1.2", 66), ("v2.0", 124)):
        folder = tmp_path / "validation" / version
        (labels,) = (folder / "labels").glob("*.png")
        (instances,) = (folder / "instances").glob("*.png")
        label_map = read_palette_indices(labels)
        assert png_bits(instances) == 16
        assert np.array_equal(read_label_image(instances) // 256, label_map)
        assert label_map.max() < count
    assert (tmp_path / "validation" / "v2.0" / "polygons").is_dir()
