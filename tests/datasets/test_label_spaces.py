"""Label spaces of the known datasets and of a JSON's own categories."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import pytest

from seamless_pr.datasets.label_spaces import (
    LABEL_SPACE_NAMES,
    label_space_from_categories,
    load_label_space,
    made_color,
)

OFFICIAL_ORDER = Path(__file__).parents[1] / "golden" / "label_maps" / "stuff_first_order.csv"
# Vistas tables name classes by their place in the config file there; here by the panoptic JSON.
OFFICIAL_NAME = {
    "cityscapes": "cityscapes",
    "vistas_v1_2": "vistas_v1.2_config",
    "vistas_v2_0": "vistas_v2.0_config",
    "idd": "idd_level3",
    "coco_panoptic": "coco_panoptic_2017",
    "ade20k": "ade20k_panoptic_150",
}
COUNTS = {
    "cityscapes": (11, 8),
    "vistas_v1_2": (28, 37),
    "vistas_v2_0": (46, 70),
    "idd": (17, 9),
    "coco_panoptic": (53, 80),
    "ade20k": (50, 100),
    "future3d": (0, 34),
}


def official_order() -> dict[str, list[tuple[int, str, bool]]]:
    order = defaultdict(list)
    with OFFICIAL_ORDER.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            entry = (int(row["id"]), row["name"], row["isthing"] == "1")
            order[row["label_space"]].append(entry)
    return order


@pytest.mark.parametrize("name", LABEL_SPACE_NAMES)
def test_numbers_of_stuff_and_thing_classes_are_the_published_ones(name: str) -> None:
    label_space = load_label_space(name)
    assert (label_space.num_stuff, label_space.num_things) == COUNTS[name]


@pytest.mark.parametrize("name", ["cityscapes", "idd", "coco_panoptic", "ade20k"])
def test_classes_stand_in_the_official_order(name: str) -> None:
    found = [
        (category.category_id, category.name, category.is_thing)
        for category in load_label_space(name).categories
    ]
    assert found == official_order()[OFFICIAL_NAME[name]]


@pytest.mark.parametrize("name", ["vistas_v1_2", "vistas_v2_0"])
def test_vistas_classes_stand_in_the_order_of_the_config_file(name: str) -> None:
    found = [
        (category.supercategory, category.is_thing)
        for category in load_label_space(name).categories
    ]
    expected = [(raw_name, thing) for _, raw_name, thing in official_order()[OFFICIAL_NAME[name]]]
    assert found == expected


def test_cityscapes_ids_and_colors_are_those_of_the_official_scripts() -> None:
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    official = {label.id: label for label in labels if not label.ignoreInEval}
    label_space = load_label_space("cityscapes")
    assert {category.category_id for category in label_space.categories} == set(official)
    for category in label_space.categories:
        label = official[category.category_id]
        assert (category.name, category.color) == (label.name, tuple(label.color))
        assert category.supercategory == label.category
        assert label_space.train_id_of[category.category_id] == label.trainId


def test_dataset_without_colors_gets_a_different_one_for_each_class() -> None:
    colors = [category.color for category in load_label_space("future3d").categories]
    assert len(set(colors)) == len(colors)
    assert all(0 <= channel <= 255 for color in colors for channel in color)


def test_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no label space 'kitti'.*cityscapes.*future3d"):
        load_label_space("kitti")


def test_categories_of_a_json_are_ordered_stuff_first_and_keep_their_ids() -> None:
    label_space = label_space_from_categories(
        [
            {"id": 5, "name": "car", "isthing": 1, "color": [1, 2, 3]},
            {"id": 0, "name": "road", "isthing": 0, "supercategory": "flat"},
            {"id": 9, "name": "person", "isthing": 1},
            {"id": 2, "name": "sky", "isthing": 0},
        ],
        "mine",
    )
    assert [category.name for category in label_space.categories] == [
        "road",
        "sky",
        "car",
        "person",
    ]
    assert label_space.train_id_of == {0: 0, 2: 1, 5: 2, 9: 3}
    assert label_space.categories[0].supercategory == "flat"
    assert label_space.categories[2].color == (1, 2, 3)
    assert label_space.categories[3].color == made_color(2)


def test_every_fault_of_the_categories_is_listed() -> None:
    with pytest.raises(ValueError, match="categories of 'mine'") as error:
        label_space_from_categories(
            [
                {"id": "7", "name": "road", "isthing": 0},
                {"id": 8, "isthing": 2},
                {"id": 9, "name": "sky", "isthing": 0, "color": [300, 0, 0]},
                {"id": 1, "name": "car", "isthing": 1},
                {"id": 1, "name": "bus", "isthing": 1},
                "pole",  # type: ignore[list-item]
            ],
            "mine",
        )
    message = str(error.value)
    for expected in (
        "categories[0]: 'id' must be an integer; got '7'",
        "categories[1]: 'name' must be a text; got None",
        "categories[1]: 'isthing' must be 0 or 1; got 2",
        "categories[2]: 'color' must be [r, g, b] in 0..255",
        "categories[4]: id 1 occurs more than once",
        "categories[5] must be an object",
    ):
        assert expected in message


def test_whole_floats_are_ids_of_categories() -> None:
    categories = [{"id": 7.0, "name": "road", "isthing": False}]
    (category,) = label_space_from_categories(categories, "x").categories
    assert (category.category_id, type(category.category_id)) == (7, int)
    with pytest.raises(ValueError, match=r"'id' must be an integer; got 7\.5"):
        label_space_from_categories([{**categories[0], "id": 7.5}], "x")
