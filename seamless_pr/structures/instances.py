"""Objects found in one image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class MaskCrop:
    """A mask known only inside a rectangle of the image.

    Attributes:
        mask: [h, w] bool; may be empty.
        top, left: pixel of the image that `mask[0, 0]` covers.
    """

    mask: Tensor
    top: int
    left: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the image that the crop covers."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


class Masks(Protocol):
    """Masks of R objects, whatever they are stored as; `seamless_pr.ops.masks` has the kinds."""

    def __len__(self) -> int: ...

    def select(self, index: Tensor) -> Masks:
        """The rows of a bool mask or an index vector, in its order."""
        ...

    def scaled(self, scale_x: float, scale_y: float) -> Masks:
        """The same masks in an image resized by these factors."""
        ...

    def to(self, device: torch.device | str) -> Masks: ...

    def crop(
        self,
        index: int,
        image_size: tuple[int, int],
        threshold: float,
        *,
        includes_threshold: bool = False,
    ) -> MaskCrop:
        """One mask in pixels.

        Args:
            index: which.
            image_size: (height, width) of the image in whose pixels the masks are.
            threshold: probability that a pixel must exceed.
            includes_threshold: ... or reach.
        """
        ...

    def paste(
        self, image_size: tuple[int, int], threshold: float, *, includes_threshold: bool = False
    ) -> Tensor:
        """All masks in pixels, [R, H, W] bool, without a number that the host would read.

        Args:
            image_size, threshold, includes_threshold: as for `crop`.
        """
        ...


@dataclass(frozen=True)
class Instances:
    """Objects of one image; everything stays on its device until it is written.

    Attributes:
        scores: [R] float32 in [0, 1].
        thing_indices: [R] int64, `train_id - num_stuff`.
        boxes: [R, 4] float32 xyxy in pixels of the image whose size the producer names; None for
            networks that find masks without boxes.
        masks: of the same objects; None before the mask branch has run.
        box_scores: [R] scores of the boxes alone, where `scores` are these times how well each mask
            will match (mask scoring); None: masks were not scored.
    """

    scores: Tensor
    thing_indices: Tensor
    boxes: Tensor | None = None
    masks: Masks | None = None
    box_scores: Tensor | None = None

    def __post_init__(self) -> None:
        num_objects = len(self.scores)
        if self.scores.shape != (num_objects,) or self.thing_indices.shape != (num_objects,):
            raise ValueError(
                f"scores and thing_indices must be [R]; got {tuple(self.scores.shape)} and "
                f"{tuple(self.thing_indices.shape)}"
            )
        if self.boxes is not None and self.boxes.shape != (num_objects, 4):
            raise ValueError(f"boxes must be [{num_objects}, 4]; got {tuple(self.boxes.shape)}")
        if self.masks is not None and len(self.masks) != num_objects:
            raise ValueError(f"{num_objects} scores but {len(self.masks)} masks")
        if self.box_scores is not None and self.box_scores.shape != (num_objects,):
            raise ValueError(f"{num_objects} scores but {tuple(self.box_scores.shape)} box scores")

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, index: Tensor) -> Instances:
        """Keeps the rows of a bool mask or an index vector, in its order."""
        return Instances(
            self.scores[index],
            self.thing_indices[index],
            None if self.boxes is None else self.boxes[index],
            None if self.masks is None else self.masks.select(index),
            None if self.box_scores is None else self.box_scores[index],
        )

    def best_first(self) -> Instances:
        """The same objects by descending score; equals keep their order."""
        return self.select(self.scores.argsort(descending=True, stable=True))

    def scaled(self, scale_x: float, scale_y: float) -> Instances:
        """The same objects in an image resized by these factors."""
        boxes = self.boxes
        if boxes is not None:
            # Made on the device of the boxes; a list would be copied there.
            factors = torch.linspace(scale_x, scale_y, 2, dtype=boxes.dtype, device=boxes.device)
            boxes = boxes * factors.repeat(2)
        masks = None if self.masks is None else self.masks.scaled(scale_x, scale_y)
        return replace(self, boxes=boxes, masks=masks)

    def to(self, device: torch.device | str) -> Instances:
        return Instances(
            self.scores.to(device),
            self.thing_indices.to(device),
            None if self.boxes is None else self.boxes.to(device),
            None if self.masks is None else self.masks.to(device),
            None if self.box_scores is None else self.box_scores.to(device),
        )

    def split_scores(self) -> tuple[Tensor, Tensor]:
        """Scores of the boxes, and the factors of the masks in `scores`, [R] each."""
        if self.box_scores is None:
            return self.scores, torch.ones_like(self.scores)
        tiny = torch.finfo(self.scores.dtype).tiny
        return self.box_scores, self.scores / self.box_scores.clamp(min=tiny)

    def require_boxes(self) -> Tensor:
        """The boxes, [R, 4].

        Raises:
            ValueError: they come from a network without boxes.
        """
        if self.boxes is None:
            raise ValueError("these instances have no boxes; give those of a box branch")
        return self.boxes

    def require_masks(self) -> Masks:
        """The masks.

        Raises:
            ValueError: the mask branch has not run.
        """
        if self.masks is None:
            raise ValueError("these instances have no masks; run the mask branch first")
        return self.masks
