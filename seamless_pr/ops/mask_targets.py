"""What the masks of boxes are trained for, read from id maps.

Letters: R boxes, M mask side, H, W image size. Boxes are xyxy in pixels of the image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from seamless_pr.ops.opencv_resize import resize_mask


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


def pixel_mask_targets(id_map: Tensor, ids: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Targets as in mmdetection 1.x: masks cut out at whole pixels, resized as OpenCV does.

    Args:
        id_map: [H, W] int32.
        ids: [R] id of each box's object.
        boxes: [R, 4]; they end at the index of their last pixel. Where one reaches beyond the image
            its crop does, too, and holds no object there.
        size: M.

    Returns:
        [R, M, M] float32 in {0, 1}.
    """
    targets = boxes.new_zeros(len(boxes), size, size)
    height, width = id_map.shape
    corners = boxes.int().tolist()
    for row, (object_id, (left, top, right, bottom)) in enumerate(zip(ids.tolist(), corners)):
        crop = id_map[top : max(bottom, top) + 1, left : max(right, left) + 1] == object_id
        beyond = (0, max(right + 1 - width, 0), 0, max(bottom + 1 - height, 0))
        crop = F.pad(crop, beyond)
        targets[row] = resize_mask(crop, (size, size)).to(boxes.dtype)
    return targets


def mask_targets(
    id_map: Tensor,
    ids: Tensor,
    boxes: Tensor,
    segment_boxes: Tensor,
    size: int,
    *,
    whole_pixels: bool,
) -> Tensor:
    """`pixel_mask_targets` or `aligned_mask_targets`, [R, M, M]."""
    if whole_pixels:
        return pixel_mask_targets(id_map, ids, boxes, size)
    return aligned_mask_targets(id_map, ids, boxes, segment_boxes, size)
