"""Typed records of a COCO panoptic JSON."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from seamless_pr.datasets.label_spaces import stuff_first
from seamless_pr.structures.label_space import Category, LabelSpace

ImageId = int | str
# Stands for the id of a segment that has none.
UNKNOWN_ID = -1


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One entry of `images`.

    Attributes:
        image_id: int or text; matched by equality, never converted.
        file_name: as in the JSON; Cityscapes' own converter writes names that do not exist.
        height, width: in pixels.
    """

    image_id: ImageId
    file_name: str
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """One entry of `segments_info`.

    Attributes:
        segment_id: value of its pixels in the id PNG; 1..2**24 - 1.
        category_id: the dataset's class number.
        area: pixels; None where predictions leave it out.
        bbox: (x, y, width, height) in pixels, or None.
        is_crowd: a group whose objects are not told apart.
        score: confidence of a prediction, or None.
    """

    segment_id: int
    category_id: int
    area: int | None = None
    bbox: tuple[float, float, float, float] | None = None
    is_crowd: bool = False
    score: float | None = None


@dataclass(frozen=True, slots=True)
class AnnotationRecord:
    """One entry of `annotations`.

    Attributes:
        image_id: int or text; matched by equality, never converted.
        file_name: the image's id PNG in the PNG folder.
        segments: in the order of the file.
        refused_ids: ids of segments that a reader left out because they have a fault, so that
            nobody reports them once more as not listed; `UNKNOWN_ID` among them stands for those
            whose very id has a fault.
    """

    image_id: ImageId
    file_name: str
    segments: tuple[SegmentRecord, ...]
    refused_ids: frozenset[int] = frozenset()


@dataclass(frozen=True)
class PanopticDataset:
    """A COCO panoptic JSON. Predictions may leave out `images` and `categories`.

    Attributes:
        images, annotations, categories: in the order of the file.
        refused_images: ids of images and annotations that a reader left out because of a fault;
            None among them stands for those whose very id has one.
    """

    images: tuple[ImageRecord, ...]
    annotations: tuple[AnnotationRecord, ...]
    categories: tuple[Category, ...]
    refused_images: frozenset[ImageId | None] = frozenset()

    @cached_property
    def image_of(self) -> dict[ImageId, ImageRecord]:
        """image_id -> image."""
        return {image.image_id: image for image in self.images}

    def label_space(self, name: str) -> LabelSpace:
        """The file's own categories, stuff first, else in file order."""
        return LabelSpace(name, stuff_first(self.categories))
