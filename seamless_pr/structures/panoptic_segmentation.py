"""A finished panoptic map with its segments."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seamless_pr.structures.label_space import LabelSpace


@dataclass(frozen=True)
class Segment:
    """One region of a panoptic map.

    Attributes:
        segment_id: value of its pixels in the id map; at least 1.
        train_id: class.
        area: number of pixels; 0 is possible (an object fully hidden by others).
        score: confidence in [0, 1]; 1 for regions that come from the semantic branch; None for
            ground truth.
        is_crowd: a region of a thing class whose objects are not told apart.
    """

    segment_id: int
    train_id: int
    area: int
    score: float | None = None
    is_crowd: bool = False


@dataclass(frozen=True)
class PanopticSegmentation:
    """Every pixel's segment and every segment's class.

    Attributes:
        id_map: [H, W] int32 tensor on the CPU; 0 = void.
        segments: at most one per id; ids in the map are a subset of these.
        label_space: what the train ids mean.
    """

    id_map: Tensor
    segments: tuple[Segment, ...]
    label_space: LabelSpace

    def __post_init__(self) -> None:
        if self.id_map.ndim != 2 or self.id_map.dtype != torch.int32:
            raise ValueError(
                f"id_map must be [H, W] int32; got {tuple(self.id_map.shape)} {self.id_map.dtype}"
            )
        ids = {segment.segment_id for segment in self.segments}
        if len(ids) != len(self.segments) or LabelSpace.VOID_SEGMENT_ID in ids:
            raise ValueError("segment ids must be unique and not 0 (void)")

    @property
    def image_size(self) -> tuple[int, int]:
        return self.id_map.shape[0], self.id_map.shape[1]

    def semantic_map(self) -> Tensor:
        """[H, W] int64 train ids; void is `LabelSpace.IGNORE_TRAIN_ID`."""
        largest = max((segment.segment_id for segment in self.segments), default=0)
        lookup = torch.full((largest + 1,), LabelSpace.IGNORE_TRAIN_ID, dtype=torch.int64)
        for segment in self.segments:
            lookup[segment.segment_id] = segment.train_id
        return lookup[self.id_map.long()]

    def without_crowd(self) -> PanopticSegmentation:
        """The same map with crowd regions turned into void.

        In a prediction, crowd is what the semantic branch calls a thing and no object claims; the
        official evaluators know crowd in ground truth only.
        """
        crowd = [segment.segment_id for segment in self.segments if segment.is_crowd]
        if not crowd:
            return self
        segments = tuple(segment for segment in self.segments if not segment.is_crowd)
        id_map = self.id_map.clone()
        for segment_id in crowd:
            id_map[id_map == segment_id] = LabelSpace.VOID_SEGMENT_ID
        return replace(self, id_map=id_map, segments=segments)
