"""Objects found in one image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Detections:
    """Final boxes of one image, with masks once the mask branch has run.

    Attributes:
        boxes: [R, 4] float32 xyxy in pixels of the image whose size the producer names.
        scores: [R] float32 in [0, 1].
        thing_indices: [R] int64, `train_id - num_stuff`.
        mask_logits: [R, M, M] float32 over the box, before sigmoid; None before the mask branch.
    """

    boxes: Tensor
    scores: Tensor
    thing_indices: Tensor
    mask_logits: Tensor | None = None

    def __post_init__(self) -> None:
        num_boxes = len(self.boxes)
        if self.boxes.shape != (num_boxes, 4):
            raise ValueError(f"boxes must be [R, 4]; got {tuple(self.boxes.shape)}")
        if self.scores.shape != (num_boxes,) or self.thing_indices.shape != (num_boxes,):
            raise ValueError(
                f"{num_boxes} boxes but scores {tuple(self.scores.shape)} and "
                f"thing_indices {tuple(self.thing_indices.shape)}"
            )
        if self.mask_logits is not None and len(self.mask_logits) != num_boxes:
            raise ValueError(f"{num_boxes} boxes but {len(self.mask_logits)} masks")

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, index: Tensor) -> Detections:
        """Keeps the rows of a bool mask or an index vector, in its order."""
        masks = None if self.mask_logits is None else self.mask_logits[index]
        return Detections(self.boxes[index], self.scores[index], self.thing_indices[index], masks)

    def scaled(self, scale_x: float, scale_y: float) -> Detections:
        """The same objects in an image resized by these factors."""
        factors = torch.tensor([scale_x, scale_y, scale_x, scale_y], device=self.boxes.device)
        return replace(self, boxes=self.boxes * factors)

    def to(self, device: torch.device | str) -> Detections:
        masks = None if self.mask_logits is None else self.mask_logits.to(device)
        return Detections(
            self.boxes.to(device), self.scores.to(device), self.thing_indices.to(device), masks
        )
