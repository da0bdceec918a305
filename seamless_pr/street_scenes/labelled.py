"""A drawn street with the labels of any known dataset; every class of it comes up in turn."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from seamless_pr.street_scenes.camera import Array
from seamless_pr.street_scenes.cities import city_style, scene_city
from seamless_pr.street_scenes.extras import Extra, load_base_labels, load_extras
from seamless_pr.street_scenes.layout import Scene, lay_out_scene
from seamless_pr.street_scenes.painting import (
    Outlined,
    fill_polygon,
    outline_scene,
    paint_objects,
)

EXTRAS_PER_IMAGE = 14
# A street that hides some of them is laid out anew.
LAYOUT_TRIES = 4
# ADE20K numbers its objects with 8 bits.
MAX_THINGS = 200
GROUP_ENDING = "group"
NAME_OF_VISTAS = "vistas_v2_0"


@dataclass(frozen=True)
class LabelledObject:
    """One outline.

    Attributes:
        label: class of the dataset; None: it has no name there.
        is_group: several objects that are not told apart.
        polygon: [M, 2] int32 corners (x, y).
    """

    label: str | None
    is_group: bool
    polygon: Array


@dataclass(frozen=True)
class LabelledScene:
    """A street with the labels of a dataset.

    Attributes:
        image: [H, W, 3] uint8, RGB.
        objects: in painting order.
        object_map: [H, W] int32; 1 + index of the object in front, 0 where there is none.
    """

    image: Array
    objects: tuple[LabelledObject, ...]
    object_map: Array


@dataclass(frozen=True)
class Vocabulary:
    """How the things of a drawn street are called.

    Attributes:
        dataset: column of `tables/base.csv`, and rows of `tables/classes.csv`.
        things: classes whose objects are told apart.
        names: what a name of the tables is called, where it differs; None: it has no name.
    """

    dataset: str
    things: frozenset[str]
    names: Mapping[str, str | None] | None = None

    def label(self, drawn: str) -> str | None:
        """The class of something drawn, group or not."""
        own = _extra_labels(self.dataset)
        name = drawn if drawn in own else _base_labels(self.dataset).get(drawn)
        if name is None or self.names is None:
            return name
        return self.names.get(name, name)


@cache
def _base_labels(dataset: str) -> dict[str, str]:
    labels = load_base_labels(dataset)
    horse = {"idd": "animal", NAME_OF_VISTAS: "animal--ground-animal"}.get(dataset)
    riders = [extra.label for extra in load_extras(dataset) if extra.thing.shape == "horse rider"]
    if horse is not None:
        labels |= {f"horse of {label}": horse for label in riders}
    return labels


@cache
def _extra_labels(dataset: str) -> frozenset[str]:
    return frozenset(extra.label for extra in load_extras(dataset))


def draw_labelled_scene(
    vocabulary: Vocabulary, seed: int, split: str, index: int, size: tuple[int, int]
) -> LabelledScene:
    """Draws one image.

    The classes that a street does not have by itself take turns: some in each image, all of them
    within `len(load_extras(dataset)) / EXTRAS_PER_IMAGE` images.

    Args:
        vocabulary: names the classes.
        seed: of the dataset.
        split: train, val or test; each has its own cities.
        index: number of the image, from 0.
        size: (height, width) in pixels.
    """
    style = city_style(scene_city(split, index))
    names = (split, vocabulary.dataset)
    entropy = [seed, *(zlib.crc32(name.encode()) for name in names), index]
    sequence = np.random.SeedSequence(entropy)
    extras = extras_of(vocabulary.dataset, index)
    wanted = {extra.label for extra in extras}
    drawn = {*_base_labels(vocabulary.dataset), *_extra_labels(vocabulary.dataset)}
    things = frozenset(name for name in drawn if vocabulary.label(name) in vocabulary.things)
    best: tuple[int, Scene, Outlined] | None = None
    for _ in range(LAYOUT_TRIES):
        layout_rng, extras_rng, frame_rng = map(np.random.default_rng, sequence.spawn(3))
        scene = lay_out_scene(layout_rng, style, size, extras, extras_rng)
        _name_riders(scene)
        outlined = outline_scene(scene, frame_rng, things, MAX_THINGS)
        hidden = wanted - outlined.visible_labels()
        if best is None or len(hidden) < best[0]:
            best = (len(hidden), scene, outlined)
        if not hidden:
            break
        # What was hidden chooses its place first.
        extras = tuple(sorted(extras, key=lambda extra: extra.label not in hidden))
    assert best is not None
    _, scene, outlined = best
    paint_rng = np.random.default_rng(sequence.spawn(1)[0])
    image, outlines = paint_objects(scene, paint_rng, things, outlined)
    objects = []
    object_map = np.zeros(size, np.int32)
    for outline in outlines:
        name = vocabulary.label(outline.label)
        is_group = name is not None and outline.label.endswith(GROUP_ENDING)
        is_group = is_group and outline.label not in _extra_labels(vocabulary.dataset)
        objects.append(LabelledObject(name, is_group, outline.polygon))
        fill_polygon(object_map, outline.polygon, len(objects))
    return LabelledScene(image, tuple(objects), object_map)


def extras_of(dataset: str, index: int) -> tuple[Extra, ...]:
    """The extra classes whose turn it is in an image, large things before small ones."""
    extras = load_extras(dataset)
    order = np.random.default_rng(zlib.crc32(dataset.encode())).permutation(len(extras))
    count = min(EXTRAS_PER_IMAGE, len(extras))
    chosen = [extras[order[(index * count + k) % len(extras)]] for k in range(count)]
    return tuple(sorted(chosen, key=lambda extra: -max(extra.thing.size)))


def _name_riders(scene: Scene) -> None:
    """Who sits on what: datasets name them apart."""
    for placement in scene.placements:
        labels = {item.label for item in placement.items}
        for item in placement.items:
            if item.label == "rider":
                item.label = "motorcycle rider" if "motorcycle" in labels else "bicycle rider"


def encode_png(pixels: Array) -> bytes:
    """[H, W] or [H, W, 3] RGB as PNG, quickly."""
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 2])
    if not done:
        raise OSError(f"cannot encode {pixels.dtype} of shape {pixels.shape} as PNG")
    return data.tobytes()
