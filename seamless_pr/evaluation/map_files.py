"""The maps of one side of an evaluation: where each lies, and how it is read, one at a time.

H x W pixels, S segments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seamless_pr.datasets.panoptic_reader import StatedCategory
from seamless_pr.datasets.panoptic_records import ImageId
from seamless_pr.id_maps.id_png import IdRuns
from seamless_pr.structures.label_space import LabelSpace


@dataclass(frozen=True)
class LoadedMap:
    """One id map in memory.

    Attributes:
        runs: the map.
        segments: [S, 4] int64: segment id, category id, area (-1: not stated), crowd (0 or 1).
        ignored_objects: [H, W] bool, objects of classes that are not evaluated (Cityscapes' caravan
            and trailer): void for PQ, and yet no void for Cityscapes' AP; None if there are none.
    """

    runs: IdRuns
    segments: NDArray[np.int64]
    ignored_objects: NDArray[np.bool_] | None = None

    @cached_property
    def id_map(self) -> NDArray[np.uint32]:
        """[H, W] segment ids; written out only if somebody needs pixels."""
        return self.runs.to_map()

    @classmethod
    def empty(cls, image_size: tuple[int, int]) -> LoadedMap:
        """A map of void."""
        nothing = np.zeros(image_size, dtype=np.uint32)
        return cls(IdRuns.from_map(nothing), np.zeros((0, 4), dtype=np.int64))


@dataclass(frozen=True)
class MapFile:
    """One image of a source.

    Attributes:
        image_id: int or text.
        path: file of the id map.
        read: path -> map; picklable.
    """

    image_id: ImageId
    path: Path
    read: Callable[[Path], LoadedMap]

    def load(self) -> LoadedMap:
        """Reads the map.

        Raises:
            FileNotFoundError: no such file.
            PngError: not a map of segment ids.
        """
        return self.read(self.path)


@dataclass(frozen=True)
class Source:
    """All maps of one side of an evaluation.

    Attributes:
        name: what the user gave.
        maps: one per image.
        label_space: classes of ground truth; None in predictions.
        image_files: image id -> file name of the picture, where known.
        stated_categories: the classes as predictions name them; empty where they do not.
    """

    name: str
    maps: tuple[MapFile, ...]
    label_space: LabelSpace | None = None
    image_files: dict[ImageId, str] = field(default_factory=dict)
    stated_categories: tuple[StatedCategory, ...] = ()
