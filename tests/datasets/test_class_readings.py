"""Numbers alone do not make a class."""

from __future__ import annotations

import pytest

from seamless_pr.datasets.class_readings import contradictions
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.structures.label_space import Category

ROAD = Category(7, "road", False, (0, 0, 0), "flat")
OTHERS = {
    "another name": Category(7, "car", False, (0, 0, 0)),
    "another kind": Category(7, "road", True, (0, 0, 0)),
    "the name of its group": Category(7, "flat", False, (0, 0, 0)),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_both_readings_of_a_contradiction_are_shown(other: Category) -> None:
    (message,) = contradictions([other], [ROAD], "there")
    kind = "a thing" if other.is_thing else "stuff"
    assert message == f"category 7 is '{other.name}' ({kind}) here and 'road' (stuff) in there"


@pytest.mark.parametrize("name", ["Road", "road, street", "RO_AD"])
def test_spellings_and_synonyms_are_one_name(name: str) -> None:
    assert contradictions([Category(7, name, False, (0, 0, 0))], [ROAD], "there") == []


def test_names_of_vistas_configs_are_those_of_its_classes() -> None:
    categories = load_label_space("vistas_v1_2").categories
    stated = [Category(c.category_id, c.supercategory, c.is_thing, c.color) for c in categories]
    assert contradictions(stated, categories, "there") == []
    assert contradictions(categories, load_label_space("cityscapes").categories, "there")
