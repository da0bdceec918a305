"""A real headless Chromium for tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def headless_chromium() -> Iterator[Any]:
    """The browser as Selenium drives it, or a skip that says what is missing."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is in the test extra")
    names = ("chromium", "chromium-browser", "google-chrome")
    binary = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with chromedriver (Debian: chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    browser = webdriver.Chrome(options=options, service=service)
    try:
        yield browser
    finally:
        browser.quit()


def show_as(browser: Any, width: int, height: int = 860, *, dark: bool = False) -> None:
    """Size of the window in pixels, a phone's below 600, and the colour scheme."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def wait_for(browser: Any, code: str, seconds: float = 20) -> None:
    """Waits until a script returns something true."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, seconds, 0.05).until(lambda own: own.execute_script(code))


def faults(browser: Any) -> list[Any]:
    """What the console of the browser says of errors."""
    return [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def mean_luminance(browser: Any) -> float:
    """Of the background of the page, 0 to 255."""
    return float(
        browser.execute_script(
            "const color = getComputedStyle(document.body).backgroundColor;"
            "const [red, green, blue] = color.match(/\\d+/g).map(Number);"
            "return (red + green + blue) / 3"
        )
    )
