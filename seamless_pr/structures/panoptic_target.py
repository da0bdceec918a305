"""Ground truth of one image, everything derived from one map of segment ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.label_space import LabelSpace


@dataclass(frozen=True)
class PanopticTarget:
    """Segments of one image.

    Attributes:
        id_map: [H, W] int32; 0 = void, s + 1 = the segment at index s of the vectors below. A
            segment may have no pixel (cropped away).
        train_ids: [S] int64; class of each segment.
        is_crowd: [S] bool; group regions: class is known, objects are not counted.
        label_space: gives the number of stuff classes.
        image_key: names the image in messages and keys its random draws.
    """

    id_map: Tensor
    train_ids: Tensor
    is_crowd: Tensor
    label_space: LabelSpace
    image_key: str = ""

    def __post_init__(self) -> None:
        if self.id_map.ndim != 2 or self.id_map.dtype != torch.int32:
            raise ValueError(
                f"id_map must be [H, W] int32; got {tuple(self.id_map.shape)} {self.id_map.dtype}"
            )
        if self.train_ids.shape != self.is_crowd.shape or self.train_ids.ndim != 1:
            raise ValueError(
                f"train_ids and is_crowd must be [S]; got {tuple(self.train_ids.shape)} and "
                f"{tuple(self.is_crowd.shape)}"
            )

    @property
    def image_size(self) -> tuple[int, int]:
        return self.id_map.shape[0], self.id_map.shape[1]

    @property
    def num_segments(self) -> int:
        return len(self.train_ids)

    @cached_property
    def boxes(self) -> Tensor:
        """[S, 4] float32 xyxy: first column and row, last column + 1 and row + 1.

        -1 everywhere for a segment without a pixel.
        """
        height, width = self.image_size
        ids = self.id_map.long()
        num_ids = self.num_segments + 1
        # Presence of each id per row and per column, without a stack of masks.
        rows = ids.new_zeros(height, num_ids, dtype=torch.bool)
        rows.scatter_(1, ids, True)
        columns = ids.new_zeros(width, num_ids, dtype=torch.bool)
        columns.scatter_(1, ids.t(), True)
        first_row, end_row = _extent(rows[:, 1:])
        first_column, end_column = _extent(columns[:, 1:])
        boxes = torch.stack([first_column, first_row, end_column, end_row], dim=1)
        return torch.where(rows[:, 1:].any(0)[:, None], boxes, -torch.ones_like(boxes))

    @cached_property
    def object_indices(self) -> Tensor:
        """Indices of countable objects: things, not crowd, with a pixel; ascending int64."""
        is_thing = self.train_ids >= self.label_space.num_stuff
        return torch.nonzero(is_thing & ~self.is_crowd & (self.boxes[:, 0] >= 0)).flatten()

    @cached_property
    def semantic_map(self) -> Tensor:
        """[H, W] int64 train ids; void is `LabelSpace.IGNORE_TRAIN_ID`; crowd keeps its class."""
        void = self.train_ids.new_full((1,), LabelSpace.IGNORE_TRAIN_ID)
        return torch.cat([void, self.train_ids])[self.id_map.long()]

    @cached_property
    def crowd_mask(self) -> Tensor:
        """[H, W] bool; pixels of crowd segments of thing classes."""
        is_thing_crowd = self.is_crowd & (self.train_ids >= self.label_space.num_stuff)
        return torch.cat([is_thing_crowd.new_zeros(1), is_thing_crowd])[self.id_map.long()]

    @cached_property
    def has_crowd(self) -> bool:
        """Whether any segment is crowd; a target on its way to a GPU looks before it leaves."""
        return bool(self.is_crowd.any())

    def to(self, device: torch.device | str) -> PanopticTarget:
        moved = PanopticTarget(
            self.id_map.to(device, non_blocking=True),
            self.train_ids.to(device, non_blocking=True),
            self.is_crowd.to(device, non_blocking=True),
            self.label_space,
            self.image_key,
        )
        moved.__dict__["has_crowd"] = self.has_crowd
        return moved

    def pin_memory(self) -> PanopticTarget:
        """The target in page-locked memory, from where it is copied to a GPU in the background."""
        return PanopticTarget(
            self.id_map.pin_memory(),
            self.train_ids.pin_memory(),
            self.is_crowd.pin_memory(),
            self.label_space,
            self.image_key,
        )


def _extent(present: Tensor) -> tuple[Tensor, Tensor]:
    """[L, S] bool -> first position and last position + 1 along L, each [S] float32."""
    length = present.shape[0]
    first = present.int().argmax(0)
    end = length - present.flip(0).int().argmax(0)
    return first.float(), end.float()


# What a network learns from: images, and the ground truth of each.
Batch = tuple[ImageBatch, Sequence[PanopticTarget]]
