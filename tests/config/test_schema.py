from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

import seamless_pr
from seamless_pr.config.schema import Config, MaskHeadConfig, ModelConfig, loss_names

LIBRARY = Path(seamless_pr.__file__).parent


def leaves(node: Any, prefix: str = "") -> Iterator[str]:
    """Dotted keys of all values of the schema."""
    hints = get_type_hints(node)
    for field in fields(node):
        choices = (hints[field.name], *get_args(hints[field.name]))
        group = next((choice for choice in choices if is_dataclass(choice)), None)
        if group is None:
            yield f"{prefix}{field.name}"
        else:
            yield from leaves(group, f"{prefix}{field.name}.")


def test_every_value_of_a_config_is_read_outside_the_config() -> None:
    readers = [
        path
        for path in [*LIBRARY.rglob("*.py"), *(LIBRARY.parent / "pipelines").glob("*.py")]
        if path.parent.name != "config" and not path.name.endswith("settings.py")
    ]
    source = "\n".join(path.read_text(encoding="utf-8") for path in readers)
    attributes = set(re.findall(r"\.([a-z0-9_]+)\b(?!\()", source))
    keys = list(leaves(Config))
    assert len(keys) > 100
    assert [key for key in keys if key.rpartition(".")[2] not in attributes] == []


def test_every_group_and_value_says_what_it_is() -> None:
    def undocumented(node: Any) -> Iterator[str]:
        hints = get_type_hints(node)
        text = node.__doc__ or ""
        for field in fields(node):
            is_group = is_dataclass(hints[field.name])
            if not is_group and "Attributes:" in text and not re.search(rf"\b{field.name}\b", text):
                yield f"{node.__name__}.{field.name}"
            if is_group:
                yield from undocumented(hints[field.name])

    assert list(undocumented(Config)) == []


@pytest.mark.parametrize(
    "kind, names", [("conv", {"mask"}), ("point_rend", {"mask_coarse", "mask_point"})]
)
def test_the_names_of_the_losses_follow_from_the_heads(kind: str, names: set[str]) -> None:
    found = loss_names(ModelConfig(mask_head=MaskHeadConfig(kind=kind)))
    assert {name for name in found if name.startswith("mask")} == names
    assert len(found) == len(set(found))
