"""The countable objects of one image as whole masks, for heads that train on masks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seamless_pr.structures.panoptic_target import PanopticTarget


@dataclass(frozen=True)
class ObjectTruth:
    """Boxes, classes and masks of G objects; masks may overlap, where a source has such.

    Attributes:
        boxes: [G, 4] float32 xyxy.
        thing_indices: [G] int64.
        label_map: [H, W] integers: object g has the pixels of value `labels[g]`; or [G, H, W], one
            map per object.
        labels: [G] integers.
    """

    boxes: Tensor
    thing_indices: Tensor
    label_map: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def image_size(self) -> tuple[int, int]:
        return self.label_map.shape[-2], self.label_map.shape[-1]

    def mask(self, index: int) -> Tensor:
        """[H, W] bool, the pixels of one object; masks of all are never made at once."""
        label_map = self.label_map if self.label_map.ndim == 2 else self.label_map[index]
        return label_map == self.labels[index]

    @classmethod
    def of(cls, target: PanopticTarget) -> ObjectTruth:
        """The countable objects of a target: things, not crowd, with a pixel."""
        objects = target.object_indices
        return cls(
            target.boxes[objects],
            target.label_space.thing_index(target.train_ids[objects]),
            target.id_map,
            (objects + 1).int(),
        )

    @classmethod
    def from_masks(cls, boxes: Tensor, thing_indices: Tensor, masks: Tensor) -> ObjectTruth:
        """Objects whose masks [G, H, W] are given one by one."""
        return cls(boxes, thing_indices, masks.bool(), torch.ones_like(thing_indices).bool())
