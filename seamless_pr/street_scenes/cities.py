"""The cities of a drawn dataset: which split they belong to, and what their streets look like."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np

from seamless_pr.street_scenes.people import pick
from seamless_pr.street_scenes.plan import CityStyle

# With these, half of the objects in images of 512x1024 measure more than about 240 pixels.
_NEAR_ZOOM = 4.0
_NEAR_METRES = 20.0

CITIES: dict[str, tuple[str, ...]] = {
    "train": ("altenried", "birkenau", "cornwaldt", "dornfurt", "eschhaven", "falkenrode"),
    "val": ("grauwiesen", "hohenlinde", "immerstein"),
    "test": ("jadebruck", "kieferau"),
}
FACADE_PALETTES = (
    ((196, 176, 146), (214, 200, 176), (176, 150, 120), (206, 184, 130)),
    ((150, 86, 66), (166, 104, 82), (132, 84, 72), (186, 160, 140)),
    ((178, 180, 182), (206, 208, 208), (140, 146, 152), (120, 122, 126)),
    ((216, 196, 120), (208, 150, 120), (176, 196, 176), (160, 180, 204)),
    ((226, 222, 212), (208, 196, 188), (190, 132, 108), (168, 160, 150)),
)


def scene_city(split: str, index: int) -> str:
    """The city that image `index` of a split was taken in."""
    if split not in CITIES:
        raise ValueError(f"split must be one of {', '.join(CITIES)}; got '{split}'")
    cities = CITIES[split]
    return cities[index % len(cities)]


def city_style(name: str) -> CityStyle:
    """The look of a city, a function of its name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    palette = FACADE_PALETTES[rng.integers(len(FACADE_PALETTES))]
    facades = tuple(pick(rng, palette, 14) for _ in range(6))
    tone = float(rng.uniform(84, 120))
    paving = pick(rng, ((168, 162, 156), (150, 148, 146), (172, 150, 136), (142, 134, 130)), 6)
    return CityStyle(
        name=name,
        facades=facades,
        asphalt=(tone, tone, tone + float(rng.uniform(0, 6))),
        paving=paving,
        green=pick(rng, ((84, 112, 52), (72, 100, 58), (104, 120, 52), (62, 96, 44)), 6),
        tram_colors=tuple(
            pick(rng, ((196, 40, 40), (228, 200, 80), (230, 228, 220), (40, 90, 150)), 10)
            for _ in range(2)
        ),
        openness=float(rng.uniform(0.25, 0.6)),
        tree_chance=float(rng.uniform(0.3, 0.75)),
        ego_height=float(rng.uniform(0.05, 0.1)),
        field_of_view=float(rng.uniform(0.85, 1.05)),
    )


def near_style(style: CityStyle) -> CityStyle:
    """The same city through a longer lens, without the small things of the distance."""
    half_width = np.tan(style.field_of_view / 2) / _NEAR_ZOOM
    return replace(
        style,
        field_of_view=2 * float(np.arctan(half_width)),
        stands_within_metres=_NEAR_METRES,
    )
