"""One split of a dataset as it was downloaded: its images, classes, and how to read an id map.

Every dataset has a function that opens such a split. Converting, inspecting and scoring go on from
here and do not know the dataset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seamless_pr.datasets.label_spaces import stuff_first
from seamless_pr.datasets.panoptic_records import ImageId, SegmentRecord
from seamless_pr.id_maps.segments import measure_segments
from seamless_pr.structures.faults import Fault
from seamless_pr.structures.label_space import Category, LabelSpace


@dataclass(frozen=True)
class RawImage:
    """One annotated image.

    Attributes:
        image_id: int or text, as the dataset's own panoptic JSON has it.
        annotation_files: everything that its id map is made of.
        png_name: name of its id PNG below the PNG folder.
        file_name: name of the RGB image for `images` of the JSON.
        image_file: the RGB image; None if the dataset was given without them.
        annotation_text: the image's part of a file that annotates many, as JSON; empty where every
            image has files of its own.
    """

    image_id: ImageId
    annotation_files: tuple[Path, ...]
    png_name: str
    file_name: str
    image_file: Path | None = None
    annotation_text: str = ""


@dataclass(frozen=True)
class RawMap:
    """The annotation of one image.

    Attributes:
        id_map: [H, W] int32; 0 is void.
        segments: by ascending id.
        faults: why the map cannot be used; empty if it can.
        ignored_objects: [H, W] bool, objects of classes that are not evaluated, where the
            official evaluators of instances treat them unlike void; None if there are none.
    """

    id_map: NDArray[np.int32]
    segments: tuple[SegmentRecord, ...]
    faults: tuple[Fault, ...] = ()
    ignored_objects: NDArray[np.bool_] | None = None

    @classmethod
    def unreadable(cls, *faults: Fault) -> RawMap:
        """No map, and why."""
        return cls(np.zeros((0, 0), np.int32), (), faults)


@dataclass(frozen=True)
class RawSplit:
    """All annotated images of a split.

    Attributes:
        dataset: name of the dataset, for people.
        name: name without extension of the JSON that a conversion writes, and of its PNG folder.
        categories: evaluated classes in the dataset's own order.
        images: sorted.
        read_map: reads one image's map; picklable; faults are in its result, never raised.
        images_dir: folder of the RGB images, or None.
        settings: every choice that changes what `read_map` returns, as text: an id map that was
            made with other settings is made again.
        faults: what is wrong with the folder already, such as images without annotation.
        json_indent: of the written JSON; where an official tool writes one, as it does.
    """

    dataset: str
    name: str
    categories: tuple[Category, ...]
    images: tuple[RawImage, ...]
    read_map: Callable[[RawImage], RawMap]
    images_dir: Path | None = None
    settings: str = ""
    faults: tuple[Fault, ...] = ()
    json_indent: int | None = None

    @cached_property
    def label_space(self) -> LabelSpace:
        """The classes, stuff first."""
        return LabelSpace(self.name, stuff_first(self.categories))

    def hold_out(self, num_images: int, seed: int) -> tuple[RawSplit, RawSplit]:
        """The split in two: `<name>_rest` and `<name>_holdout` with `num_images` images.

        Raises:
            ValueError: the split has too few images.
        """
        held = held_out_ids([image.image_id for image in self.images], num_images, seed)
        parts = {
            "rest": tuple(image for image in self.images if image.image_id not in held),
            "holdout": tuple(image for image in self.images if image.image_id in held),
        }
        rest, holdout = (
            replace(self, name=f"{self.name}_{part}", images=images)
            for part, images in parts.items()
        )
        return rest, holdout


def held_out_ids(image_ids: list[ImageId], num_images: int, seed: int) -> set[ImageId]:
    """Which images are set aside: a function of the seed and each id, not of their order.

    Raises:
        ValueError: `num_images` is not in 1..number of images - 1.
    """
    if not 0 < num_images < len(image_ids):
        raise ValueError(
            f"cannot hold out {num_images} of {len(image_ids)} images; give a number in "
            f"1..{len(image_ids) - 1}"
        )

    def rank(image_id: ImageId) -> bytes:
        return hashlib.sha256(f"{seed}:{image_id}".encode(errors="surrogateescape")).digest()

    return set(sorted(image_ids, key=rank)[:num_images])


def measured_segments(
    id_map: NDArray[np.int32], category_of: dict[int, int], crowd_ids: set[int] | None = None
) -> tuple[SegmentRecord, ...]:
    """The segments of a map, areas and boxes counted.

    Args:
        id_map: [H, W]; 0 is void.
        category_of: segment id -> category id; ids without pixels are left out.
        crowd_ids: segments that are groups.
    """
    measures = measure_segments(id_map)
    return tuple(
        SegmentRecord(
            segment_id=segment_id,
            category_id=category_of[segment_id],
            area=area,
            bbox=(bbox[0], bbox[1], bbox[2], bbox[3]),
            is_crowd=segment_id in (crowd_ids or ()),
        )
        for segment_id, area, bbox in zip(
            measures.segment_ids.tolist(), measures.areas.tolist(), measures.boxes_xywh.tolist()
        )
        if segment_id != LabelSpace.VOID_SEGMENT_ID
    )
