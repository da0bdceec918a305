"""The pages of a server: the one to try it on, and the list of its addresses."""

from __future__ import annotations

from typing import Any

from seamless_pr.drawing.pages import read_asset, render_page, script_data

NUM_EXAMPLES = 6


def try_page(description: dict[str, Any], needs_token: bool) -> str:
    """The page on which anyone drops a photo.

    Args:
        description: of `PanopticService.describe`.
        needs_token: ask for the token.
    """
    categories, network = description["categories"], description["network"]
    data = {
        "categories": categories,
        "maxBytes": description["limits"]["max_bytes"],
        "needsToken": needs_token,
        "numExamples": NUM_EXAMPLES,
    }
    return render_page(
        "try.html.j2",
        label_space=network["label_space"],
        num_classes=len(categories),
        num_things=sum(category["isthing"] for category in categories),
        examples=range(NUM_EXAMPLES),
        needs_token=needs_token,
        data=script_data(data),
        style=read_asset("report.css", "try.css"),
        script=read_asset("viewer.js", "segments.js", "try.js"),
    )


def api_page(schema: dict[str, Any]) -> str:
    """The addresses of a server, out of its OpenAPI schema; needs nothing from elsewhere."""
    operations = [
        {"path": path, "method": method.upper(), **operation}
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]
    return render_page(
        "api.html.j2",
        info=schema["info"],
        operations=operations,
        style=read_asset("report.css", "try.css"),
    )
