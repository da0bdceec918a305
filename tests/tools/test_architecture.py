"""The picture of rooms and the tables about them are those of today's source."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.import_rules import LIBRARY, ROWS
from tools import architecture

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/architecture.md"
RUN = "run: python tools/architecture.py"
ENTRY = rf"`([A-Z]\w+)` in `(?:{LIBRARY}/)?(\w[\w/]*\.py)`"
ROOMS = {room for row in ROWS for room in row}
STEPS = [step for steps in architecture.WAYS.values() for step in steps if step.place]


def defined_names(path: Path) -> set[str]:
    """Names at the top of a file, and `Class.method` of its classes."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = [inner for inner in node.body if isinstance(inner, ast.FunctionDef)]
            names |= {f"{node.name}.{method.name}" for method in methods}
    return names


def named_places(text: str) -> list[str]:
    """Files and folders of the library that a text names in backticks, by room."""
    places = re.findall(rf"`(?:{LIBRARY}/)?(\w+(?:/\w+)*(?:/|\.py))`", text)
    outside = ("tools", "configs", "docs", "tests")
    return [place for place in places if place.partition("/")[0] not in outside]


def test_the_picture_is_current():
    drawn = architecture.draw_rooms(architecture.imported_rooms())
    assert architecture.PICTURE.read_text(encoding="utf-8") == drawn, RUN


def test_the_table_of_contributing_is_current():
    page = architecture.TABLE_PAGE.read_text(encoding="utf-8")
    assert architecture.page_with_table(page) == page, RUN


def test_a_page_without_a_place_for_the_table_is_refused():
    with pytest.raises(ValueError, match="must hold <!-- rooms -->"):
        architecture.page_with_table("<!-- /rooms --> before <!-- rooms -->")


def test_each_room_has_a_sentence_and_a_subject():
    assert set(architecture.HOLDS) == ROOMS
    rooms = [room for rooms in architecture.SUBJECTS.values() for room in rooms[1]]
    assert sorted(rooms) == sorted(ROOMS)


def test_the_picture_names_each_room_and_what_it_imports(tmp_path: Path):
    room = tmp_path / LIBRARY / "metrics"
    room.mkdir(parents=True)
    (room / "quality.py").write_text("from seamless_pr.id_maps import overlap\nimport json\n")
    imports = architecture.imported_rooms(tmp_path)
    assert imports["metrics"] == {"id_maps"}
    assert imports["ops"] == set()
    texts = [element.text for element in ElementTree.fromstring(architecture.draw_rooms(imports))]
    assert texts.count("imports id_maps") == 1
    assert set(texts) >= ROOMS


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_each_station_of_the_ways_is_where_the_picture_says(step: architecture.Step):
    assert step.name in defined_names(ROOT / LIBRARY / step.place)


def test_the_places_of_the_page_exist():
    text = PAGE.read_text(encoding="utf-8")
    places = named_places(text)
    assert len(places) > 30
    assert [place for place in places if not (ROOT / LIBRARY / place).exists()] == []


def test_the_entries_of_the_page_are_in_their_files():
    pairs = re.findall(ENTRY, PAGE.read_text(encoding="utf-8"))
    assert len(pairs) >= 6
    assert [pair for pair in pairs if pair[0] not in defined_names(ROOT / LIBRARY / pair[1])] == []
