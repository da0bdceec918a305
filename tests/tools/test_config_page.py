"""docs/config.md is what tools/config_page.py writes."""

from __future__ import annotations

from tools import config_page


def test_the_page_of_keys_is_current() -> None:
    written = config_page.PAGE.read_text(encoding="utf-8")
    assert written == config_page.page(), "run: python tools/config_page.py"
