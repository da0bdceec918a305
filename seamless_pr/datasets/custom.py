"""Data of one's own: pictures of labels, COCO instances or COCO panoptic files to id maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamless_pr.datasets import checked_values as checked
from seamless_pr.datasets.class_readings import contradictions
from seamless_pr.datasets.coco_instances import (
    InstanceImage,
    paint_instances,
    read_instance_json,
)
from seamless_pr.datasets.custom_description import CustomDataset
from seamless_pr.datasets.folders import image_files_by_key, listed, require_folder, unpaired
from seamless_pr.datasets.image_files import find_image_files
from seamless_pr.datasets.images import read_bytes, read_stored_pixels
from seamless_pr.datasets.label_pngs import png_bits, read_palette_indices
from seamless_pr.datasets.label_spaces import made_color
from seamless_pr.datasets.panoptic_files import PanopticFiles, open_panoptic_files
from seamless_pr.datasets.panoptic_records import ImageRecord
from seamless_pr.datasets.raw_splits import RawImage, RawMap, RawSplit, measured_segments
from seamless_pr.id_maps.id_png import pack_ids
from seamless_pr.id_maps.segments import MAX_SEGMENT_ID
from seamless_pr.structures.faults import MAX_OF_ONE_PICTURE, Fault
from seamless_pr.structures.label_space import Category

# Stuff of a semantic picture lies above all numbers of objects.
FIRST_STUFF_ID = 1_000_000


def open_custom(dataset: CustomDataset, split: str) -> RawSplit | PanopticFiles:
    """A split of the description.

    Raises:
        FileNotFoundError: a folder or file is missing; the message names the description too.
        ValueError: no such split.
    """
    if split not in dataset.splits:
        raise ValueError(f"{dataset.path} has the splits {listed(dataset.splits)}; got '{split}'")
    try:
        return _open_split(dataset, split, dataset.splits[split])
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{dataset.path}: {error}") from error


def _open_split(
    dataset: CustomDataset, split: str, paths: Mapping[str, Path]
) -> RawSplit | PanopticFiles:
    images_dir = require_folder(paths["images"], f"'images' of split '{split}'")
    name = f"{dataset.name}_panoptic_{split}"
    if "panoptic" in paths:
        png_dir = paths.get("segments", paths["panoptic"].with_suffix(""))
        require_folder(png_dir, f"'segments' of split '{split}'")
        return open_panoptic_files(
            dataset.name,
            name,
            paths["panoptic"],
            png_dir,
            images_dir,
            lambda c: (tuple(c), _contradictions(c, dataset, paths["panoptic"])),
        )
    if "instances" in paths:
        return _open_instances(dataset, name, paths, images_dir)
    return _open_labels(dataset, name, paths["labels"], images_dir)


def _contradictions(
    categories: Sequence[Category], dataset: CustomDataset, file: Path
) -> list[Fault]:
    """Classes that a JSON of the dataset reads otherwise than the description."""
    found = contradictions(categories, dataset.categories, str(dataset.path))
    return [Fault(str(file), message) for message in found]


def _open_labels(dataset: CustomDataset, name: str, folder: Path, images_dir: Path) -> RawSplit:
    require_folder(folder, "'labels'")
    labels = image_files_by_key(folder, dataset.label_suffix)
    pictures = image_files_by_key(images_dir)
    fix = "labels and images must have the same names (less label_suffix)"
    faults = unpaired(pictures, labels, fix=fix)
    if not labels:
        faults.append(Fault(str(folder), f"no label pictures *{dataset.label_suffix}.png"))
    return RawSplit(
        dataset=dataset.name,
        name=name,
        categories=dataset.categories,
        images=tuple(
            _raw_image(key, (path,), pictures.get(key), images_dir) for key, path in labels.items()
        ),
        read_map=partial(
            read_label_map,
            categories=dataset.categories,
            divisor=dataset.divisor,
            void_ids=dataset.void_ids,
        ),
        images_dir=images_dir,
        settings=_settings(dataset),
        faults=tuple(faults),
    )


def _settings(dataset: CustomDataset) -> str:
    classes = ", ".join(
        f"{category.category_id} {category.name} {category.is_thing}"
        for category in dataset.categories
    )
    return f"divisor {dataset.divisor}; void {sorted(dataset.void_ids)}; {classes}"


def _raw_image(
    key: str, files: tuple[Path, ...], picture: Path | None, images_dir: Path
) -> RawImage:
    file_name = key if picture is None else picture.relative_to(images_dir).as_posix()
    return RawImage(key, files, f"{key.replace('/', '_')}.png", file_name, picture)


def read_label_map(
    image: RawImage,
    *,
    categories: tuple[Category, ...],
    divisor: int,
    void_ids: frozenset[int],
) -> RawMap:
    """The id map of a picture of class ids and object numbers; segment id = value + 1."""
    path = image.annotation_files[0]
    try:
        values = read_values(path)
    except (OSError, ValueError) as error:
        return RawMap.unreadable(Fault(str(path), str(error).removeprefix(f"{path} ")))
    largest = max((c.category_id for c in categories if c.is_thing), default=0) * divisor
    fault = _depth_fault(path, largest)
    if fault is not None:
        return RawMap.unreadable(fault)
    if values.max(initial=0) >= MAX_SEGMENT_ID:
        return RawMap.unreadable(Fault(str(path), f"values must be below {MAX_SEGMENT_ID}"))
    known = {category.category_id: category for category in categories}
    new_ids = np.zeros(int(values.max(initial=0)) + 1, np.int32)
    category_of: dict[int, int] = {0: 0}
    crowd_ids: set[int] = set()
    unknown: dict[int, int] = {}
    found, counts = np.unique(values, return_counts=True)
    for value, count in zip(found.tolist(), counts.tolist()):
        has_number = divisor > 1 and value >= divisor
        class_id = value // divisor if has_number else value
        category = known.get(class_id)
        if category is None:
            if class_id not in void_ids:
                unknown[class_id] = unknown.get(class_id, 0) + count
            continue
        # Object numbers of stuff mean nothing: its parts are one segment.
        segment_id = (value if category.is_thing else class_id) + 1
        new_ids[value] = segment_id
        category_of[segment_id] = class_id
        if category.is_thing and not has_number:
            crowd_ids.add(segment_id)
    if unknown:
        return RawMap.unreadable(*_unknown_classes(path, unknown))
    id_map = new_ids[values]
    return RawMap(id_map, measured_segments(id_map, category_of, crowd_ids))


def _unknown_classes(path: Path, unknown: Mapping[int, int]) -> Iterator[Fault]:
    """Of a photograph that lies among the labels any colour is a class."""
    for class_id, count in islice(unknown.items(), MAX_OF_ONE_PICTURE):
        message = f"class {class_id} ({count} pixels) is neither among 'classes' nor in 'void'"
        yield Fault(str(path), message)
    if len(unknown) > MAX_OF_ONE_PICTURE:
        yield Fault(str(path), f"{len(unknown)} classes are unknown; is it a picture of labels?")


def _depth_fault(path: Path, largest: int) -> Fault | None:
    """Values of the last thing class that the file's bits cannot hold."""
    bits = png_bits(path)
    channels = read_bytes(path)[25] & 2 if bits is not None else 0
    if bits is None or (channels and bits == 8) or largest < 2**bits:
        return None
    remedy = "save it with 16 bits" if largest < 2**16 else "save it as RGB: R + 256 G + 65536 B"
    return Fault(
        str(path),
        f"has {bits} bits a pixel, up to {2**bits - 1}; the classes and object_divisor need "
        f"values of {largest} and more: {remedy}",
    )


def read_values(path: Path) -> NDArray[np.int32]:
    """The values of a label picture: 8 or 16 bit grey, palette, or RGB = R + 256 G + 65536 B.

    Raises:
        FileNotFoundError, ValueError: no such file, or another kind of picture.
    """
    data = read_bytes(path)
    if data[25:26] == b"\x03" and png_bits(path) is not None:
        return read_palette_indices(path)
    pixels = read_stored_pixels(path)
    if pixels.ndim == 2 and pixels.dtype in (np.uint8, np.uint16):
        return pixels.astype(np.int32)
    if pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8:
        if path.suffix.lower() in (".jpg", ".jpeg"):
            raise ValueError(f"{path} is a JPEG, which changes values; save labels as PNG")
        return pack_ids(pixels).astype(np.int32)
    raise ValueError(
        f"{path} must be grey with 8 or 16 bits, or RGB with 8; got {pixels.dtype} with shape "
        f"{pixels.shape}"
    )


def _open_instances(
    dataset: CustomDataset, name: str, paths: Mapping[str, Path], images_dir: Path
) -> RawSplit:
    file, faults = read_instance_json(paths["instances"])
    things = _thing_categories(dataset, file.categories, str(paths["instances"]), faults)
    stuff = tuple(category for category in dataset.categories if not category.is_thing)
    faults += _contradictions(things, dataset, paths["instances"])
    records = [ImageRecord(i.image_id, i.file_name, i.height, i.width) for i in file.images]
    pictures, missing = find_image_files(records, images_dir)
    faults += missing
    semantics: dict[str, Path] = {}
    if "semantics" in paths:
        folder = require_folder(paths["semantics"], "'semantics'")
        semantics = image_files_by_key(folder, dataset.label_suffix)
    images = []
    for image in file.images:
        key = Path(image.file_name).with_suffix("").as_posix()
        picture = pictures.get(image.image_id)
        if "semantics" in paths and key not in semantics:
            faults.append(Fault(str(paths["semantics"]), f"no picture for {image.file_name}"))
        elif picture is not None:
            images.append(_instance_image(image, key, picture, images_dir, semantics))
    return RawSplit(
        dataset=dataset.name,
        name=name,
        categories=(*things, *stuff),
        images=tuple(images),
        read_map=partial(
            read_instance_map,
            things=things,
            stuff=stuff,
            void_ids=dataset.void_ids,
            file=str(paths["instances"]),
        ),
        images_dir=images_dir,
        settings=_settings(replace(dataset, categories=(*things, *stuff))),
        faults=tuple(faults),
    )


def _thing_categories(
    dataset: CustomDataset, raw: tuple[Any, ...], file: str, faults: list[Fault]
) -> tuple[Category, ...]:
    """The JSON's own categories; colours from the YAML where it has the same name."""
    colors = {category.name: category.color for category in dataset.categories}
    categories: list[Category] = []
    seen_ids: set[int] = set()
    for index, entry in enumerate(raw):
        values = entry if isinstance(entry, Mapping) else {}
        category_id = checked.whole(values.get("id"), 0, FIRST_STUFF_ID)
        name = checked.text(values.get("name"))
        if category_id is None or name is None:
            found = checked.shown(entry)
            message = f"categories[{index}] needs an id of at least 0 and a name; got {found}"
            faults.append(Fault(file, message))
            continue
        if category_id in seen_ids:
            message = f"categories[{index}]: id {category_id} occurs more than once"
            faults.append(Fault(file, message))
            continue
        seen_ids.add(category_id)
        color = colors.get(name, made_color(index))
        categories.append(Category(category_id, name, True, color))
    if not raw:
        faults.append(Fault(file, "'categories' is empty; it must name the classes"))
    return tuple(categories)


def _instance_image(
    image: InstanceImage, key: str, picture: Path, images_dir: Path, semantics: dict[str, Path]
) -> RawImage:
    files = (semantics[key],) if key in semantics else ()
    raw = _raw_image(key, files, picture, images_dir)
    return replace(raw, image_id=image.image_id, annotation_text=image.text())


def read_instance_map(
    image: RawImage,
    *,
    things: tuple[Category, ...],
    stuff: tuple[Category, ...],
    void_ids: frozenset[int],
    file: str,
) -> RawMap:
    """Objects of the JSON over the stuff of the semantic picture, where there is one."""
    thing_ids = {category.category_id for category in things}
    painted, found = paint_instances(image.annotation_text, thing_ids, file)
    if found:
        return RawMap.unreadable(*found)
    id_map, category_of = painted.id_map, dict(painted.category_of)
    if image.annotation_files:
        semantic = _stuff_map(image.annotation_files[0], stuff, thing_ids | void_ids)
        if semantic.faults:
            return semantic
        if semantic.id_map.shape != id_map.shape:
            sizes = f"{semantic.id_map.shape}, the JSON says {id_map.shape} (height, width)"
            return RawMap.unreadable(Fault(str(image.annotation_files[0]), f"size {sizes}"))
        id_map = np.where(id_map > 0, id_map, semantic.id_map)
        category_of |= {c.category_id + FIRST_STUFF_ID: c.category_id for c in stuff}
    return RawMap(id_map, measured_segments(id_map, category_of, painted.crowd_ids))


def _stuff_map(
    path: Path, stuff: tuple[Category, ...], left_out: set[int] | frozenset[int]
) -> RawMap:
    """Id map of the stuff of a picture of class ids; things and void become 0."""
    try:
        values = read_values(path)
    except (OSError, ValueError) as error:
        return RawMap.unreadable(Fault(str(path), str(error).removeprefix(f"{path} ")))
    stuff_ids = [category.category_id for category in stuff]
    unknown = sorted(set(np.unique(values).tolist()) - {*stuff_ids} - left_out)
    if unknown:
        message = f"classes {unknown[:10]} are neither among 'classes' nor in 'void'"
        return RawMap.unreadable(Fault(str(path), message))
    return RawMap(
        np.where(np.isin(values, stuff_ids), values + FIRST_STUFF_ID, 0).astype(np.int32), ()
    )
