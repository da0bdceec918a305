from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from seamless_pr.datasets.images import read_image
from seamless_pr.evaluation.evaluate import evaluate
from seamless_pr.evaluation.pairing import ImagePair, pair_images, require_label_space
from seamless_pr.evaluation.pictures import (
    BORDER,
    INVENTED,
    MISSED,
    NO_ERROR,
    WRONG_CLASS,
    PictureWork,
    draw_pictures,
    error_map,
)
from seamless_pr.evaluation.report import choose_galleries, find_photographs, write_report
from seamless_pr.evaluation.results import evaluation_json
from seamless_pr.evaluation.sources import open_ground_truth, open_predictions
from seamless_pr.id_maps.overlap import count_overlap
from seamless_pr.metrics.segment_matching import PQ_RULES, match_segments
from tests.evaluation.files import PanopticFiles
from tests.metrics.maps import STUFF_AND_THINGS, FuzzedImage, draw, fuzz_image, measured, table
from tests.support.browser import (
    faults,
    headless_chromium,
    mean_luminance,
    show_as,
    wait_for,
)
from tests.support.panoptic_files import write_panoptic_dataset

ROAD, SKY, SIDEWALK, PERSON, CAR, BICYCLE = range(6)
MAX_FIRST_PAGE_BYTES = 2_000_000


def _larger(image: FuzzedImage) -> FuzzedImage:
    maps = [np.kron(m, np.ones((9, 9), np.int32)) for m in (image.gt_map, image.pred_map)]
    return FuzzedImage(
        maps[0],
        maps[1],
        measured(maps[0], image.gt_segments),
        measured(maps[1], image.pred_segments),
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(2)
    files = PanopticFiles(folder, [_larger(fuzz_image(rng)) for _ in range(12)])
    photographs = folder / "photographs" / "city"
    photographs.mkdir(parents=True)
    for index in range(11):
        cv2.imwrite(str(photographs / f"{index}.jpg"), np.full((20, 30, 3), 200, np.uint8))
    gt, pred = open_ground_truth(files.gt_json), open_predictions(files.pred_json)
    values = evaluation_json(evaluate(gt, pred))
    values["per_category"][3]["name"] = "person </script><b>"
    values["per_category"][4]["name"] = "<!--<script>"
    page = write_report(values, gt, pred, folder / "out", images=folder / "photographs")
    return page, values


def test_the_page_stands_alone(report: tuple[Path, dict[str, Any]]) -> None:
    page, _ = report
    text = page.read_text()
    assert len(text.encode()) < MAX_FIRST_PAGE_BYTES
    assert not re.findall(r"(?:src|href)=[\"'](?!#)", text), "everything is inside the page"
    assert "http" not in text
    assert str(page.parent.parent) not in text


def test_every_shown_image_has_all_its_files(report: tuple[Path, dict[str, Any]]) -> None:
    page, values = report
    numbers = choose_galleries(values, 6).numbers
    assert len(numbers) == 12
    for number in numbers:
        for ending in (".jpg", "_gt.png", "_pred.png", "_error.png", "_thumb.jpg", ".js"):
            assert (page.parent / "pictures" / f"{number}{ending}").stat().st_size > 50


def test_names_cannot_break_out_of_the_data(report: tuple[Path, dict[str, Any]]) -> None:
    text = report[0].read_text()
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert json.loads(data)["classes"][3]["name"] == "person </script><b>"
    assert json.loads(data)["classes"][4]["name"] == "<!--<script>"
    assert "<" not in data


def test_galleries_order_images_by_quality_and_then_by_weight() -> None:
    def image(tp: int, fn: int, iou_sum: float) -> dict[str, Any]:
        counts = {"tp": tp, "fp": 0, "fn": fn, "num_gt": 1}
        row = {"category_id": 7, **counts, "iou_sum": iou_sum, "all_iou_sum": iou_sum}
        return {"categories": [row]}

    values: dict[str, Any] = {
        "rules": "official",
        "per_category": [{"category_id": 7, "name": "road", "is_thing": False}],
        "per_image": [
            image(1, 0, 0.9),
            image(0, 1, 0.0),
            image(0, 5, 0.0),
            image(0, 0, 0.0),
            image(2, 0, 1.2),
        ],
    }
    for number, of_image in enumerate(values["per_image"]):
        of_image["image_id"] = number
    galleries = choose_galleries(values, 2)
    assert galleries.worst == {"all": [2, 1], "0": [2, 1]}
    assert galleries.best == {"all": [0, 4], "0": [0, 4]}
    assert galleries.numbers == [0, 1, 2, 4]


def test_photographs_are_found_by_file_name_or_image_id(tmp_path: Path) -> None:
    files = PanopticFiles(tmp_path, [fuzz_image(np.random.default_rng(0)) for _ in range(3)])
    files.gt["images"] = [{"id": "image_0", "file_name": "city/street.jpg"}]
    files.write()
    gt = open_ground_truth(files.gt_json)
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("street.png", "image_1_leftImg8bit.JPG", "other.jpg", "2.txt"):
        (folder / name).write_bytes(b"")
    pairs = [ImagePair(file, None) for file in gt.maps]
    found = find_photographs(gt, folder, pairs)
    assert [path.name if path else None for path in found] == [
        "street.png",
        "image_1_leftImg8bit.JPG",
        None,
    ]
    assert find_photographs(gt, None, pairs) == [None] * 3
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        find_photographs(gt, tmp_path / "nowhere", pairs)


def test_a_high_and_narrow_image_has_pictures_that_pages_can_show(tmp_path: Path) -> None:
    tall = write_panoptic_dataset(tmp_path, {"a": np.full((70_000, 2), 1, np.int32)}, {1: 7})
    (pair,), _ = pair_images(open_ground_truth(tall), open_predictions(tall))
    drawn = draw_pictures(
        PictureWork(0, pair, tmp_path / "images" / "a.png"),
        tmp_path / "pictures",
        require_label_space(open_ground_truth(tall)),
        PQ_RULES["official"],
    )
    assert (drawn["width"], drawn["height"], drawn["no_photograph"]) == (1, 4096, "")
    for name, height in (("0.jpg", 4096), ("0_thumb.jpg", 1280), ("0_pred.png", 4096)):
        assert read_image(tmp_path / "pictures" / name).shape[1] == height


def test_each_kind_of_error_has_its_pixels() -> None:
    gt_map = draw("aaaaaaaa\nccccppvv\n.bbbbbbb")
    pred_map = draw("aaaaa.kk\ntttt..vv\nkbbbbbbb")
    gt = table({"a": ROAD, "c": CAR, "p": PERSON, "v": CAR, "b": SKY})
    pred = table({"a": ROAD, "t": BICYCLE, "k": PERSON, "v": CAR, "b": SKY})
    overlap = count_overlap(gt_map, pred_map)
    matches = match_segments(overlap, gt, pred, STUFF_AND_THINGS.num_classes)
    places = [
        segments.find(id_map.ravel().astype(np.int64)).reshape(id_map.shape)
        for segments, id_map in ((gt, gt_map), (pred, pred_map))
    ]
    errors = error_map(places[0], places[1], gt_map == 0, (gt, pred), matches)
    letters = {NO_ERROR: ".", MISSED: "M", INVENTED: "I", WRONG_CLASS: "W", BORDER: "B"}
    drawn = ["".join(letters[int(kind)] for kind in row) for row in errors]
    assert drawn == [".....BII", "WWWWMM..", "........"]


class Page:
    """The report in a browser."""

    def __init__(self, browser: Any, page: Path) -> None:
        self.browser = browser
        self.address = page.as_uri()

    def open(self, fragment: str = "", *, width: int = 1280, dark: bool = False) -> None:
        show_as(self.browser, width, dark=dark)
        self.browser.get("about:blank")
        self.browser.get(self.address + fragment)
        self.wait("return document.querySelectorAll('.tile').length > 0")

    def script(self, code: str, *arguments: Any) -> Any:
        return self.browser.execute_script(code, *arguments)

    def wait(self, code: str) -> None:
        wait_for(self.browser, code)

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def texts(self, selector: str) -> list[str]:
        return self.script(
            "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)",
            selector,
        )

    @property
    def fragment(self) -> str:
        return self.script("return location.hash")


@pytest.fixture(scope="module")
def page(report: tuple[Path, dict[str, Any]]) -> Iterator[Page]:
    with headless_chromium() as browser:
        yield Page(browser, report[0])


@pytest.mark.browser
def test_headings_sort_the_classes_and_the_address_remembers_it(page: Page) -> None:
    page.open()
    before = page.texts("#classes tbody tr td:first-child")
    page.script("document.querySelectorAll('#classes thead button')[1].click()")
    pq = [float(text) for text in page.texts("#classes tbody tr td:nth-child(2)") if text != "–"]
    assert pq == sorted(pq, reverse=True)
    assert page.fragment == "#sort=pq&down=1"
    after = page.texts("#classes tbody tr td:first-child")
    assert sorted(after) == sorted(before)
    page.open(page.fragment)
    assert page.texts("#classes tbody tr td:first-child") == after


@pytest.mark.browser
def test_a_class_shows_its_images_best_and_worst(page: Page) -> None:
    page.open("#class=0")
    worst = page.texts(".tile .caption")
    assert "PQ" in worst[0]
    page.script("document.querySelector('[data-order=best]').click()")
    assert page.fragment == "#class=0&order=best"
    assert page.texts(".tile .caption") != worst
    assert page.script("return document.querySelector('.tile img').loading") == "lazy"


@pytest.mark.browser
def test_the_viewer_works_by_keyboard_alone(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open()
    page.script("document.querySelector('.tile').focus()")
    page.press(Keys.ENTER)
    page.wait("return document.getElementById('viewer').open")
    first = page.texts("#viewer-name")
    page.press("2", "3")
    assert "layers=image%2Cgt%2Cpred%2Cerror" in page.fragment
    page.wait(
        "const all = [...document.querySelectorAll('#pane img')];"
        "return all.length === 4 && all.every((image) => image.complete && image.naturalWidth)"
    )
    page.press("+", "+")
    assert "zoom=2.25" in page.fragment
    page.press(Keys.ARROW_RIGHT)
    assert page.texts("#viewer-name") != first
    assert "zoom" not in page.fragment
    page.press(Keys.ESCAPE)
    assert not page.script("return document.getElementById('viewer').open")
    assert page.script("return document.activeElement.className") == "tile"


def test_photographs_that_are_missing_or_damaged_stay_grey_and_are_told(tmp_path: Path) -> None:
    files = PanopticFiles(tmp_path, [_larger(fuzz_image(np.random.default_rng(2)))] * 3)
    folder = tmp_path / "photographs"
    folder.mkdir()
    cv2.imwrite(str(folder / "0.jpg"), np.full((20, 30, 3), 200, np.uint8))
    (folder / "1.jpg").write_bytes(b"no picture")
    gt, pred = open_ground_truth(files.gt_json), open_predictions(files.pred_json)
    values, notes = evaluation_json(evaluate(gt, pred)), list[str]()
    page = write_report(values, gt, pred, tmp_path / "out", images=folder, on_note=notes.append)
    (note,) = notes
    assert note.startswith(f"2 of 3 images in the report have no photograph in {folder}; first: ")
    assert "1.jpg cannot be read as an image" in note
    colors = [cv2.imread(str(page.parent / "pictures" / f"{n}.jpg"))[0, 0, 0] for n in range(3)]
    assert colors == [200, 96, 96]


@pytest.mark.browser
def test_a_link_opens_the_same_view(page: Page) -> None:
    page.open()
    number = page.script("return document.querySelector('.tile').dataset.image")
    page.open(f"#image={number}&layers=gt&zoom=4.00&x=0.3000&y=0.7000")
    page.wait("return document.getElementById('viewer').open")
    assert page.script("return document.querySelectorAll('#pane img').length") == 1
    scale = page.script("return new DOMMatrix(document.getElementById('pane').style.transform).a")
    page.script("document.getElementById('zoom-fit').click()")
    fitted = page.script("return new DOMMatrix(document.getElementById('pane').style.transform).a")
    assert scale == pytest.approx(4 * fitted, rel=1e-3)


@pytest.mark.browser
def test_segments_under_the_pointer_are_described(page: Page) -> None:
    page.open()
    number = page.script("return document.querySelector('.tile').dataset.image")
    page.open(f"#image={number}&layers=gt")
    page.wait(
        "const pane = document.getElementById('pane').getBoundingClientRect();"
        "const [x, y] = [pane.left + pane.width / 2, pane.top + pane.height / 2];"
        "const point = { clientX: x, clientY: y };"
        "document.getElementById('stage').dispatchEvent(new PointerEvent('pointermove', point));"
        "return document.getElementById('details').textContent.includes('Prediction:')"
    )
    (text,) = page.texts("#details")
    assert text.startswith("Truth: ")


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_a_phone_and_follows_the_colour_scheme(page: Page, dark: bool) -> None:
    page.open(width=390, dark=dark)
    assert page.script("return document.documentElement.scrollWidth") <= 390
    luminance = mean_luminance(page.browser)
    assert (luminance < 60) if dark else (luminance > 200)


@pytest.mark.browser
def test_the_console_stays_empty_and_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    page.open()
    page.press("1")
    loaded = page.script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert all(name.startswith("file:") for name in loaded)
    assert faults(page.browser) == []
