"""The one reader of COCO panoptic JSON: every value is checked, and every fault is listed once.

Training and verification take records, the evaluator columns: it is also given files of half a
gigabyte, so each annotation shrinks to four columns of integers while the file is being parsed.
Both rest on the same checks. A fault is told once: what follows from it (the segment is not listed,
the image has no annotation) is not, for which the result says what was refused.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamless_pr.datasets import checked_values as checked
from seamless_pr.datasets.label_spaces import parse_categories
from seamless_pr.datasets.panoptic_columns import MAX_AREA, Annotation, AnnotationReader, Refused
from seamless_pr.datasets.panoptic_records import ImageId, ImageRecord, PanopticDataset
from seamless_pr.input_files import read_regular
from seamless_pr.structures.faults import Fault
from seamless_pr.structures.label_space import Category, LabelSpace


@dataclass(frozen=True)
class StatedCategory:
    """A class as predictions name it: they may leave out all but the id."""

    category_id: int
    name: str | None
    is_thing: bool | None


@dataclass(frozen=True)
class ParsedPanoptic:
    """The usable part of a COCO panoptic JSON, and what is wrong with the rest.

    Attributes:
        images: in the order of the file.
        annotations: in the order of the file, one per image.
        categories: of ground truth, in the order of the file.
        stated_categories: the same as predictions state them.
        image_files: image id -> name of the picture, wherever `images` gives one.
        faults: everything that is wrong.
        refused_images: as in `PanopticDataset`.
    """

    images: tuple[ImageRecord, ...] = ()
    annotations: tuple[Annotation, ...] = ()
    categories: tuple[Category, ...] = ()
    stated_categories: tuple[StatedCategory, ...] = ()
    image_files: dict[ImageId, str] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    refused_images: frozenset[ImageId | None] = frozenset()

    def dataset(self) -> PanopticDataset:
        """The usable part as records."""
        annotations = tuple(annotation.record() for annotation in self.annotations)
        return PanopticDataset(self.images, annotations, self.categories, self.refused_images)


def parse_panoptic_json(
    path: Path,
    *,
    is_prediction: bool = False,
    needs_images: bool = False,
    keep_details: bool = False,
) -> ParsedPanoptic:
    """Reads and checks a COCO panoptic JSON of any size.

    Args:
        path: the file; UTF-8, or UTF-16 with its mark.
        is_prediction: `categories`, `area` and `iscrowd` may be missing, and a segment may have the
            id 0. In ground truth an area is needed; `iscrowd` may be missing and means 0.
        needs_images: `images` must be there, sound, and name every annotation's image. False: its
            sound entries are taken and the others passed over.
        keep_details: keep `bbox` and `score`.

    Raises:
        FileNotFoundError: no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no panoptic JSON at {path}; check the path, or make it with pipelines/prepare.py "
            "(a conversion that was cut off goes on where it stopped)"
        )
    annotations = AnnotationReader(
        str(path), is_prediction=is_prediction, keep_details=keep_details
    )
    reader = _FileReader(str(path), is_prediction, needs_images, annotations.faults)
    try:
        with _without_collector():
            top = json.loads(read_regular(path), object_hook=annotations.shrink)
    except OSError as error:
        reader.fault(f"cannot be read ({error.strerror}); check the path")
    except (ValueError, RecursionError) as error:
        reader.fault(f"not JSON, or only a part of the file ({error}); write or copy it again")
    else:
        return reader.finish(top)
    return ParsedPanoptic(faults=tuple(reader.faults))


@contextmanager
def _without_collector() -> Iterator[None]:
    """Parsing makes many short-lived containers, which the cycle collector would walk in vain."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _FileReader:
    """Checks what stands around the segments; the annotations are shrunk already."""

    def __init__(
        self, file: str, is_prediction: bool, needs_images: bool, faults: list[Fault]
    ) -> None:
        self.file = file
        self.is_prediction = is_prediction
        self.needs_images = needs_images
        self.faults = faults
        self.refused_images: set[ImageId | None] = set()

    def fault(self, message: str, segment_id: int | None = None) -> None:
        self.faults.append(Fault(self.file, message, segment_id))

    def finish(self, top: Any) -> ParsedPanoptic:
        """Checks what only the whole file shows."""
        if not isinstance(top, dict):
            is_one = isinstance(top, Annotation | Refused)
            found = "one annotation" if is_one else f"a {type(top).__name__}"
            self.fault(
                f"expected an object with 'annotations'; got {found}: results of another COCO task?"
            )
            return ParsedPanoptic(faults=tuple(self.faults))
        images = self._images(top)
        annotations = self._annotations(top)
        categories: tuple[Category, ...] = ()
        stated: tuple[StatedCategory, ...] = ()
        if self.is_prediction:
            stated = self._stated_categories(top.get("categories"))
        else:
            categories = self._categories(top)
            annotations = self._of_known_categories(annotations, categories)
        if self.needs_images and images:
            known = {image.image_id for image in images} | self.refused_images
            for annotation in annotations if None not in known else ():
                if annotation.image_id not in known:
                    self.fault(f"image {annotation.image_id!r} of an annotation is not in 'images'")
        return ParsedPanoptic(
            images,
            annotations,
            categories,
            stated,
            self._image_files(top.get("images")),
            tuple(self.faults),
            frozenset(self.refused_images),
        )

    def _annotations(self, top: dict[str, Any]) -> tuple[Annotation, ...]:
        annotations: dict[ImageId, Annotation] = {}
        for index, entry in enumerate(self._entries(top, "annotations")):
            refused = entry if isinstance(entry, Refused) else None
            if isinstance(entry, Annotation):
                if entry.image_id in annotations:
                    self.fault(f"image {entry.image_id!r} has more than one annotation")
                else:
                    annotations[entry.image_id] = entry
                continue
            if refused is None:
                refused = self._not_panoptic(entry)
            place = "" if refused.image_id is None else f" (image {refused.image_id!r})"
            self.fault(f"annotations[{index}]{place}: {refused.message}")
            self.refused_images.add(refused.image_id)
        return tuple(annotations.values())

    def _not_panoptic(self, entry: Any) -> Refused:
        if not isinstance(entry, dict):
            return Refused(None, f"it must be an object; got {checked.shown(entry)}")
        hint = "; this looks like an instance annotation" if "bbox" in entry else ""
        image_id = checked.image_id(entry.get("image_id"))
        return Refused(image_id, f"'segments_info' is missing{hint}")

    def _categories(self, top: dict[str, Any]) -> tuple[Category, ...]:
        raw = self._entries(top, "categories")
        messages: list[str] = []
        categories = parse_categories(raw, messages)
        for category in categories:
            if abs(category.category_id) > checked.MAX_CATEGORY_ID:
                number = checked.shown(category.category_id)
                messages.append(f"the category id {number} has more than 31 bits")
            if checked.text(category.name) is None:
                messages.append(f"the category name {category.name!r} is no text of Unicode")
        for message in messages:
            self.fault(message)
        if len(categories) > LabelSpace.MAX_CATEGORIES:
            self.fault(
                f"'categories' names {len(categories)} classes; at most "
                f"{LabelSpace.MAX_CATEGORIES} are counted: merge some, or leave out what has no "
                "segment"
            )
            return ()
        if isinstance(top.get("categories"), list) and not raw:
            self.fault("'categories' is empty; a ground truth must name its classes")
        return () if messages else categories

    def _of_known_categories(
        self, annotations: tuple[Annotation, ...], categories: tuple[Category, ...]
    ) -> tuple[Annotation, ...]:
        """Leaves out segments of categories that the file does not list, each with its fault."""
        if not categories:
            return annotations
        known = {category.category_id for category in categories}
        kept = []
        for annotation in annotations:
            is_known = np.array([c in known for c in annotation.segments[:, 1].tolist()], bool)
            if not is_known.all():
                annotation = self._without_unknown(annotation, is_known)
            kept.append(annotation)
        return tuple(kept)

    def _without_unknown(self, annotation: Annotation, is_known: NDArray[np.bool_]) -> Annotation:
        unknown = annotation.segments[~is_known, :2].tolist()
        for segment_id, category_id in unknown:
            message = (
                f"image {annotation.image_id!r}: category {category_id} is not in 'categories'"
            )
            self.fault(message, segment_id)
        details = annotation.details
        if details is not None:
            details = tuple(detail for detail, keep in zip(details, is_known) if keep)
        return Annotation(
            annotation.image_id,
            annotation.file_name,
            annotation.segments[is_known],
            details,
            annotation.refused_ids | {segment_id for segment_id, _ in unknown},
        )

    def _stated_categories(self, entries: Any) -> tuple[StatedCategory, ...]:
        if entries is None:
            return ()
        if not isinstance(entries, list):
            self.fault(f"'categories' must be a list; got {checked.shown(entries)}")
            return ()
        limit = checked.MAX_CATEGORY_ID
        stated: dict[int, StatedCategory] = {}
        for index, entry in enumerate(entries):
            place = f"categories[{index}]"
            values = entry if isinstance(entry, dict) else {}
            category_id = checked.whole(values.get("id"), -limit, limit)
            if category_id is None:
                self.fault(f"{place} needs an integer 'id'; got {checked.shown(entry)}")
                continue
            if category_id in stated:
                self.fault(f"{place}: id {category_id} occurs more than once")
            name, is_thing = values.get("name"), values.get("isthing")
            if name is not None and checked.text(name) is None:
                self.fault(f"{place}: 'name' must be a text; got {checked.shown(name)}")
            if is_thing is not None and checked.flag(is_thing) is None:
                self.fault(f"{place}: 'isthing' must be 0 or 1; got {checked.shown(is_thing)}")
            stated[category_id] = StatedCategory(
                category_id, checked.text(name), checked.flag(is_thing)
            )
        return tuple(stated.values())

    def _images(self, top: dict[str, Any]) -> tuple[ImageRecord, ...]:
        if self.needs_images:
            return self._checked_images(self._entries(top, "images"))
        entries = top.get("images")
        passed_over = _FileReader(self.file, self.is_prediction, True, [])
        return passed_over._checked_images(entries if isinstance(entries, list) else [])

    def _image_files(self, entries: Any) -> dict[ImageId, str]:
        """The names alone; entries without a size have one, too."""
        names: dict[ImageId, str] = {}
        for entry in entries if isinstance(entries, list) else ():
            values = entry if isinstance(entry, dict) else {}
            image_id = checked.image_id(values.get("id"))
            name = checked.file_name(values.get("file_name"))
            if image_id is not None and name is not None:
                names[image_id] = name
        return names

    def _checked_images(self, entries: Iterable[Any]) -> tuple[ImageRecord, ...]:
        images: dict[ImageId, ImageRecord] = {}
        for index, entry in enumerate(entries):
            values = entry if isinstance(entry, dict) else {}
            image_id = checked.image_id(values.get("id"))
            if image_id is None:
                found = checked.shown(values.get("id") if values else entry)
                self.fault(f"images[{index}]: 'id' must be an integer or a text; got {found}")
                self.refused_images.add(None)
                continue
            if image_id in images:
                self.fault(f"image {image_id!r} occurs more than once in 'images'")
                continue
            name = checked.file_name(values.get("file_name"))
            height, width = (checked.whole(values.get(k), 1, MAX_AREA) for k in ("height", "width"))
            for key, taken, expected in (
                ("file_name", name, "the name of a picture"),
                ("height", height, "a positive integer"),
                ("width", width, "a positive integer"),
            ):
                if taken is None:
                    found = checked.shown(values.get(key))
                    self.fault(f"image {image_id!r}: '{key}' must be {expected}; got {found}")
                    self.refused_images.add(image_id)
            if name is not None and height is not None and width is not None:
                images[image_id] = ImageRecord(image_id, name, height, width)
        return tuple(images.values())

    def _entries(self, top: dict[str, Any], key: str) -> list[Any]:
        if key not in top:
            self.fault(f"'{key}' is missing; a COCO panoptic JSON has it at the top level")
            return []
        if not isinstance(top[key], list):
            self.fault(f"'{key}' must be a list; got {checked.shown(top[key])}")
            return []
        return top[key]
