"""Masks of boxes and of images: targets from id maps, and pasting.

Letters: R boxes, M mask side, H, W image size. Boxes are xyxy in pixels of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import roi_align


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


def paste_mask(
    mask_probs: Tensor,
    box: tuple[float, float, float, float],
    image_size: tuple[int, int],
    threshold: float,
    *,
    includes_threshold: bool = False,
) -> MaskCrop:
    """Resizes a mask to its box and keeps the part inside the image, as the released code does.

    The probability at a pixel centre is the bilinear read of the mask at
    `M * (x + 0.5 - x0) / (x1 - x0) - 0.5`, zero outside the mask; a pixel is set when it exceeds
    the threshold. Boxes are neither rounded nor grown.

    Args:
        mask_probs: [M, M] float in [0, 1].
        box: x0, y0, x1, y1 in pixels of the image.
        image_size: (height, width).
        threshold: in (0, 1); at 0.5 and above no pixel whose centre is outside the box can be set.
        includes_threshold: a pixel that just reaches the threshold is set, too.
    """
    x0, y0, x1, y1 = box
    top, bottom = _pixel_range(y0, y1, image_size[0])
    left, right = _pixel_range(x0, x1, image_size[1])
    if bottom <= top or right <= left:
        return MaskCrop(mask_probs.new_zeros(0, 0, dtype=torch.bool), 0, 0)
    rows = _read_along(mask_probs, y0, y1, top, bottom)
    values = _read_along(rows.t(), x0, x1, left, right).t()
    mask = values >= threshold if includes_threshold else values > threshold
    return MaskCrop(mask, top, left)


def _pixel_range(start: float, end: float, limit: int) -> tuple[int, int]:
    """First pixel and end pixel whose centres lie in [start, end], inside the image."""
    if not end > start:
        return 0, 0
    first = max(int(-(-(start - 0.5) // 1)), 0)
    last = min(int((end - 0.5) // 1), limit - 1)
    return first, last + 1


def _read_along(values: Tensor, start: float, end: float, first: int, stop: int) -> Tensor:
    """[M, L] -> [stop - first, L]: linear reads along dimension 0 at pixel centres, else 0."""
    side = len(values)
    pixel = torch.arange(first, stop, dtype=torch.float32, device=values.device)
    position = side * (pixel + 0.5 - start) / (end - start) - 0.5
    lower = position.floor()
    fraction = (position - lower)[:, None]
    cell = lower.long()
    padded = torch.nn.functional.pad(values, (0, 0, 1, 1))
    below = padded[(cell + 1).clamp(0, side + 1)]
    above = padded[(cell + 2).clamp(0, side + 1)]
    return torch.lerp(below, above, fraction)


def nearest_mask_targets(
    id_map: Tensor, ids: Tensor, boxes: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Mask targets of the 4-convolution head (facts of the released code, item 29).

    Cell (r, c) of a box reads the id at pixel `floor(y0 + (r + 0.5) / size * h)`, clamped to the
    image; its own id is 1, another id 0, and void pixels are not counted.

    Args:
        id_map: [H, W] int32, 0 = void.
        ids: [R] id of each box's object.
        boxes: [R, 4].
        size: M.

    Returns:
        targets [R, M, M] float32 in {0, 1} and valid [R, M, M] bool (False = void).
    """
    height, width = id_map.shape
    steps = (torch.arange(size, device=boxes.device, dtype=torch.float32) + 0.5) / size
    x0, y0, x1, y1 = boxes.unbind(1)
    columns = (x0[:, None] + steps * (x1 - x0)[:, None]).floor().long().clamp(0, width - 1)
    rows = (y0[:, None] + steps * (y1 - y0)[:, None]).floor().long().clamp(0, height - 1)
    found = id_map[rows[:, :, None], columns[:, None, :]]
    return (found == ids[:, None, None]).float(), found != 0


def aligned_mask_targets(
    id_map: Tensor, ids: Tensor, boxes: Tensor, segment_boxes: Tensor, size: int
) -> Tensor:
    """Targets of the coarse PointRend head: RoIAlign of each object's bit mask, then >= 0.5.

    As released PointRend (aligned=True, adaptive sampling), but on a crop around the object instead
    of a stack of full-size masks: outside the object's own box the mask is 0, and RoIAlign reads 0
    there too.

    Args:
        id_map: [H, W] int32.
        ids: [R] id of each box's object.
        boxes: [R, 4].
        segment_boxes: [R, 4] extent of each row's object (integer-valued).
        size: M.

    Returns:
        [R, M, M] float32 in {0, 1}.
    """
    height, width = id_map.shape
    targets = boxes.new_zeros(len(boxes), size, size)
    for object_id in ids.unique().tolist():
        row = torch.nonzero(ids == object_id).flatten()
        x0, y0, x1, y1 = (int(v) for v in segment_boxes[row[0]].tolist())
        # One pixel of zeros on each side that is not the image border keeps RoIAlign's border rule.
        left, top = max(x0 - 1, 0), max(y0 - 1, 0)
        right, bottom = min(x1 + 1, width), min(y1 + 1, height)
        mask = (id_map[top:bottom, left:right] == object_id).to(boxes.dtype)[None, None]
        shifted = boxes[row] - boxes.new_tensor([left, top, left, top])
        targets[row] = roi_align(mask, [shifted], size, aligned=True)[:, 0]
    return (targets >= 0.5).to(boxes.dtype)
