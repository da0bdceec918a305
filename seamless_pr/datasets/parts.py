"""The parts of a split: panoptic JSONs with their PNGs and pictures, read into one list."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seamless_pr.datasets.class_readings import contradictions
from seamless_pr.datasets.coco_panoptic import find_png_folder, find_pngs, read_panoptic_json
from seamless_pr.datasets.image_files import find_image_files
from seamless_pr.datasets.panoptic_records import (
    AnnotationRecord,
    PanopticDataset,
    SegmentRecord,
)
from seamless_pr.datasets.verification import with_sizes_put_right
from seamless_pr.structures.faults import Fault, FaultyDataError
from seamless_pr.structures.label_space import LabelSpace


@dataclass(frozen=True)
class PanopticPart:
    """Where one part lies.

    Attributes:
        json_path: COCO panoptic JSON.
        images_dir: folder of the RGB images, searched with its sub-folders.
        png_dir: folder of the id PNGs; None: see `find_png_folder`.
    """

    json_path: str | os.PathLike[str]
    images_dir: str | os.PathLike[str]
    png_dir: str | os.PathLike[str] | None = None


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image of a part.

    Attributes:
        annotation: its entry of the JSON.
        png_path: its id map.
        image_file: its pixels.
        size: (height, width) as in the JSON; of the id PNG where the JSON exchanges both.
        key: what its random changes depend on: the image id, in later parts with their number.
    """

    annotation: AnnotationRecord
    png_path: Path
    image_file: Path
    size: tuple[int, int]
    key: str


def read_parts(
    parts: Sequence[PanopticPart], label_space: LabelSpace
) -> tuple[AnnotatedImage, ...]:
    """All annotated images of the parts in their order; images without annotation are left out.

    Raises:
        ValueError: no part.
        FileNotFoundError: a JSON or a folder is missing.
        FaultyDataError: everything that is wrong with all parts, in one list: with the JSONs,
            images without a file, categories that the label space lacks or reads otherwise, links
            that lead out of the folder of the PNGs.
    """
    if not parts:
        raise ValueError("a split needs at least one part; got none")
    images: list[AnnotatedImage] = []
    faults: list[Fault] = []
    for number, part in enumerate(parts):
        try:
            images += _read_part(part, number, label_space)
        except FaultyDataError as error:
            faults += error.faults
    if faults:
        names = ", ".join(str(part.json_path) for part in parts)
        raise FaultyDataError(f"{names}: cannot be trained or evaluated on", faults)
    return tuple(images)


def _read_part(part: PanopticPart, number: int, label_space: LabelSpace) -> list[AnnotatedImage]:
    dataset = read_panoptic_json(part.json_path)
    png_dir = part.png_dir
    if png_dir is None:
        names = (annotation.file_name for annotation in dataset.annotations)
        png_dir = find_png_folder(Path(part.json_path), names)
    png_dir = Path(png_dir)
    if not png_dir.is_dir():
        raise FileNotFoundError(
            f"no folder {png_dir} with the id PNGs of {part.json_path}; convert the dataset again "
            "with pipelines/prepare.py, it goes on where it stopped"
        )
    image_files, faults = find_image_files(dataset.images, part.images_dir)
    found = contradictions(
        dataset.categories, label_space.categories, f"the label space '{label_space.name}'"
    )
    faults += [Fault(str(part.json_path), message) for message in found]
    faults += _category_faults(dataset, label_space)
    png_paths, png_faults = find_pngs(dataset.annotations, png_dir, Path(part.json_path))
    faults += png_faults
    if faults:
        raise FaultyDataError(f"{part.json_path} cannot be used", faults)
    right, _ = with_sizes_put_right(dataset, png_dir)
    size_of = {image.image_id: (image.height, image.width) for image in right}
    images = []
    for annotation in dataset.annotations:
        images.append(
            AnnotatedImage(
                annotation,
                png_paths[annotation.image_id],
                image_files[annotation.image_id],
                size_of[annotation.image_id],
                f"{number}:{annotation.image_id}" if number else str(annotation.image_id),
            )
        )
    return images


def _category_faults(dataset: PanopticDataset, label_space: LabelSpace) -> list[Fault]:
    """One fault per category that the label space lacks, at its first segment."""
    names = {category.category_id: category.name for category in dataset.categories}
    first: dict[int, tuple[AnnotationRecord, SegmentRecord]] = {}
    counts: Counter[int] = Counter()
    for annotation in dataset.annotations:
        for segment in annotation.segments:
            if segment.category_id not in label_space.train_id_of:
                counts[segment.category_id] += 1
                first.setdefault(segment.category_id, (annotation, segment))
    return [
        Fault(
            annotation.file_name,
            f"category {category_id} ('{names.get(category_id, 'unnamed')}') is not in the label "
            f"space '{label_space.name}' ({counts[category_id]} segments; this is the first)",
            segment.segment_id,
        )
        for category_id, (annotation, segment) in first.items()
    ]
