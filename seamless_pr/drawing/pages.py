"""HTML pages that stand alone: templates with styles, scripts and data inside them."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import jinja2

# Heights of a picture on a page, in its widest widths: JPEG ends at 65,500 pixels, browsers sooner.
TALLEST = 4


def render_page(template: str, **values: Any) -> str:
    """A page.

    Args:
        template: name of a file in `templates/`.
        values: what it shows; texts are escaped. A missing one is an error.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(read_asset(template)).render(**values)


def read_asset(*names: str) -> str:
    """Styles or scripts of `templates/`, one behind the other."""
    folder = resources.files("seamless_pr.drawing") / "templates"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def shown_size(size: tuple[int, int], width: int, *, enlarge: bool = False) -> tuple[int, int]:
    """(height, width) of a picture on a page, in proportion.

    Args:
        size: (height, width) of the picture.
        width: the widest; `TALLEST` times as much is the highest.
        enlarge: fill that, however small the picture is.
    """
    scale = min(width / size[1], TALLEST * width / size[0])
    if not enlarge:
        scale = min(1.0, scale)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def script_data(content: Any) -> str:
    """JSON for a script element, whatever its texts hold.

    `</script` would end the element, and `<!--` with `<script` makes it swallow its own end: no `<`
    is left at all.
    """
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c")
