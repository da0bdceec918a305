"""The page on which anyone tries a network, in a real browser."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from seamless_pr.id_maps.id_png import decode_id_png
from seamless_pr.serving.app import make_app
from seamless_pr.serving.page import try_page
from seamless_pr.serving.service import PanopticService
from tests.support.browser import (
    faults,
    headless_chromium,
    mean_luminance,
    show_as,
    wait_for,
)
from tests.support.color_server import Server, as_file, color_predictor, flag
from tests.support.http_server import ask, http_server

DROP = """
const [files, target] = arguments;
const transfer = new DataTransfer();
for (const [name, data] of files) {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  transfer.items.add(new File([bytes], name));
}
const options = { bubbles: true, cancelable: true, dataTransfer: transfer };
target.dispatchEvent(new DragEvent("drop", options));
"""
# Files that the page hands to the user, as data URLs by name.
CATCH = """
window.saved = {};
const blobs = new Map();
const make = URL.createObjectURL;
URL.createObjectURL = (blob) => {
  const url = make(blob);
  blobs.set(url, blob);
  return url;
};
HTMLAnchorElement.prototype.click = function () {
  const reader = new FileReader();
  reader.onload = () => (window.saved[this.download] = reader.result);
  reader.readAsDataURL(blobs.get(this.href));
};
"""
SETTLED = """
const isOver = (photo) => ["done", "fault"].includes(photo.state);
const { photos, shown } = trial;
return photos.length && photos.every(isOver) && shown && shown.photo === photos.at(-COUNT)
  && (shown.map || shown.photo.state === "fault");
"""
LEGEND = """
return [...document.querySelectorAll("#legend button")].map((row) =>
  [".label", ".count", ".share"].map((part) => row.querySelector(part).textContent));
"""
POINT = """
const box = document.getElementById("pane").getBoundingClientRect();
const [x, y] = [box.left + arguments[0] * box.width, box.top + arguments[1] * box.height];
const event = new PointerEvent("pointermove", { clientX: x, clientY: y });
document.getElementById("stage").dispatchEvent(event);
return document.getElementById("details").textContent;
"""
# Of a layer at a point of the picture: RGBA.
PIXEL = """
const canvas = document.querySelector(`#pane canvas[data-name=${arguments[0]}]`);
const [x, y] = [Math.floor(arguments[1] * canvas.width), Math.floor(arguments[2] * canvas.height)];
return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data];
"""


@dataclass
class Page:
    browser: Any
    address: str

    def open(self, *, width: int = 1280, dark: bool = False) -> None:
        show_as(self.browser, width, dark=dark)
        self.browser.get(self.address)
        wait_for(self.browser, "return typeof trial !== 'undefined'")

    def drop(self, **files: bytes) -> None:
        """Drops files, and waits until the first of them is on the stage and none is at work."""
        content = [(name, base64.b64encode(data).decode()) for name, data in files.items()]
        target = self.script("return document.getElementById('drop')")
        self.script(DROP, content, target)
        wait_for(self.browser, SETTLED.replace("COUNT", str(len(files))))

    def script(self, code: str, *arguments: Any) -> Any:
        return self.browser.execute_script(code, *arguments)

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def text(self, name: str) -> str:
        return self.script("return document.getElementById(arguments[0]).textContent", name)

    def saved(self, name: str) -> bytes:
        wait_for(self.browser, f"return window.saved[{name!r}]")
        url = self.script("return window.saved[arguments[0]]", name)
        return base64.b64decode(url.partition(",")[2])


def share(area: int) -> str:
    """Of the pixels of the flag, halves rounded up."""
    return f"{math.floor(1000 * area / (48 * 80) + 0.5) / 10} %"


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[Page]:
    with headless_chromium() as browser:
        yield Page(browser, server.address)


@pytest.mark.browser
def test_a_photo_is_dropped_and_the_legend_counts_what_the_json_says(
    page: Page, server: Server
) -> None:
    page.open()
    page.drop(**{"flag.png": as_file(flag())})
    reply = ask(f"{server.address}v1/panoptic", as_file(flag())).json()
    segments = reply["annotations"][0]["segments_info"]
    names = {category["id"]: category["name"] for category in reply["categories"]}
    area = {names[segment["category_id"]]: segment["area"] for segment in segments}
    expected = [
        [name, "1" if name == "car" else "", share(area[name])]
        for name in sorted(area, key=lambda name: -area[name])
    ]
    void = 48 * 80 - sum(area.values())
    expected.append(["void", "", share(void)])
    assert page.script(LEGEND) == expected
    assert page.text("summary") == "80 × 48 pixels, 1 object, 3 classes"
    assert page.script(PIXEL, "segments", 0.5, 0.1)[:3] == [70, 130, 180]
    assert page.script(PIXEL, "segments", 0.3, 0.6)[:3] == [0, 0, 142]


@pytest.mark.browser
def test_the_segment_under_the_pointer_is_named_with_score_and_area(page: Page) -> None:
    page.open()
    page.drop(**{"flag.png": as_file(flag())})
    car = page.script(POINT, 0.3, 0.6)
    assert car == "carscore 100.0 %240 pixels (6.3 %)segment 3"
    assert page.script(PIXEL, "under", 0.5, 0.5)[3] > 0
    assert page.script(POINT, 0.1, 0.1).startswith("sky")
    assert page.script(POINT, 0.99, 0.1).startswith("void")


@pytest.mark.browser
def test_layers_classes_and_zoom_follow_the_keyboard(page: Page) -> None:
    page.open()
    page.drop(**{"flag.png": as_file(flag())})
    shown = (
        "return [...document.querySelectorAll('#pane > :not([hidden])')].map((e) => e.dataset.name)"
    )
    assert page.script(shown) == ["image", "segments", "contours"]
    page.press("1", "2", "4")
    assert page.script(shown) == ["segments", "classes"]
    page.press("2")
    assert page.script(POINT, 0.3, 0.6).startswith("car")
    page.press("h")
    assert page.script(PIXEL, "segments", 0.3, 0.6)[3] == 0
    pressed = "return [...document.querySelectorAll('#legend [aria-pressed=true]')].length"
    assert page.script(pressed) == 1
    page.press("a")
    assert page.script(pressed) == 0
    assert page.script(PIXEL, "segments", 0.3, 0.6)[3] == 255
    scale = "return new DOMMatrix(document.getElementById('pane').style.transform).a"
    before = page.script(scale)
    page.press("+", "+")
    assert page.script(scale) == pytest.approx(2.25 * before, rel=1e-4)
    page.press("0")
    assert page.script(scale) == pytest.approx(before, rel=1e-4)
    page.script(
        "const slider = document.getElementById('opacity'); slider.value = 30;"
        "slider.dispatchEvent(new Event('input'))"
    )
    opacity = "return document.querySelector('#pane [data-name=segments]').style.opacity"
    assert page.script(opacity) == "0.3"


@pytest.mark.browser
def test_the_wheel_zooms_and_dragging_moves_the_picture(page: Page) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    page.open()
    page.drop(**{"flag.png": as_file(flag())})
    place = (
        "const m = new DOMMatrix(document.getElementById('pane').style.transform);"
        "return [m.a, m.e, m.f]"
    )
    stage = page.script("return document.getElementById('stage')")
    before = page.script(place)
    origin = ScrollOrigin.from_element(stage)
    ActionChains(page.browser).scroll_from_origin(origin, 0, -400).perform()
    scale, left, top = page.script(place)
    assert scale > before[0]
    ActionChains(page.browser).drag_and_drop_by_offset(stage, 12, 8).perform()
    assert page.script(place) == pytest.approx([scale, left + 12, top + 8], abs=1)


@pytest.mark.browser
def test_downloads_are_the_servers_map_its_json_and_the_picture(page: Page) -> None:
    page.open()
    page.script(CATCH)
    page.drop(**{"my flag.png": as_file(flag())})
    for button in ("save-png", "save-json", "save-overlay"):
        page.script("document.getElementById(arguments[0]).click()", button)
    ids = decode_id_png(page.saved("my flag_panoptic.png"))
    assert np.array_equal(ids, _expected_ids())
    document = json.loads(page.saved("my flag_panoptic.json"))
    assert document["annotations"][0]["file_name"] == "my flag_panoptic.png"
    assert page.saved("my flag_overlay.png").startswith(b"\x89PNG")


def _expected_ids() -> Any:
    return color_predictor()(flag()).id_map.numpy()


@pytest.mark.browser
def test_of_several_photos_a_bad_one_says_why_and_the_others_are_labelled(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open()
    page.drop(**{"a.png": as_file(flag()), "b.png": b"no picture", "c.png": as_file(flag(60, 60))})
    assert page.script("return trial.photos.map((photo) => photo.state)") == [
        "done",
        "fault",
        "done",
    ]
    assert page.text("name") == "a.png"
    page.press(Keys.ARROW_RIGHT)
    wait_for(page.browser, "return document.getElementById('name').textContent === 'b.png'")
    assert "unknown format" in page.text("state")
    page.press(Keys.ARROW_RIGHT)
    wait_for(page.browser, "return document.getElementById('summary').textContent.startsWith('60')")
    assert page.text("state") == ""
    faults(page.browser)  # The browser reports the answer 422.


@pytest.mark.browser
def test_a_drawn_street_is_one_click_away(page: Page) -> None:
    page.open()
    page.script("document.querySelector('[data-example]').click()")
    wait_for(page.browser, "return trial.shown && trial.shown.map")
    assert page.text("name") == "street_1.jpg"
    # Larger than what the little server of these tests takes would be refused in words.
    assert page.text("summary").startswith("1024 × 512")


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_a_phone_and_follows_the_colour_scheme(page: Page, dark: bool) -> None:
    page.open(width=390, dark=dark)
    page.drop(**{"flag.png": as_file(flag())})
    assert page.script("return document.documentElement.scrollWidth") <= 390
    luminance = mean_luminance(page.browser)
    assert (luminance < 60) if dark else (luminance > 200)


@pytest.mark.browser
def test_nothing_is_loaded_from_elsewhere_and_the_console_stays_empty(
    page: Page, server: Server
) -> None:
    page.open()
    page.drop(**{"flag.png": as_file(flag())})
    loaded = page.script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    own = (server.address, "blob:", "data:")
    assert len(loaded) > 3
    assert [name for name in loaded if not name.startswith(own)] == []
    assert faults(page.browser) == []


@pytest.mark.browser
def test_with_a_token_the_page_asks_for_it(page: Page) -> None:
    service = PanopticService(color_predictor())
    with http_server(make_app(service, token="sesame")) as address:
        locked = Page(page.browser, address)
        locked.open()
        locked.drop(**{"flag.png": as_file(flag())})
        assert "asks for a token" in locked.text("state")
        locked.script(
            "const input = document.getElementById('token'); input.value = 'sesame';"
            "input.dispatchEvent(new Event('change'))"
        )
        wait_for(page.browser, "return trial.shown && trial.shown.map")
        assert locked.script(LEGEND)[0][0] == "sky"
        page.browser.get("about:blank")
    service.close()


def test_names_of_classes_cannot_break_out_of_the_page() -> None:
    service = PanopticService(color_predictor())
    description = service.describe()
    service.close()
    description["categories"][0]["name"] = "road</script><b>"
    description["network"]["label_space"] = "<i>toy"
    text = try_page(description, needs_token=False)
    assert "road</script>" not in text
    assert "<i>toy" not in text
    assert "http" not in text
