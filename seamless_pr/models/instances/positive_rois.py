"""The boxes of a training batch that were matched to an object, and what their masks should be.

Letters: R boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seamless_pr.models.instances.box_branch import SampledRoIs
from seamless_pr.ops.mask_targets import mask_targets
from seamless_pr.structures.panoptic_target import PanopticTarget


@dataclass(frozen=True)
class PositiveRoIs:
    """Boxes of a batch that were matched to an object.

    Attributes:
        boxes: [R, 4] xyxy in pixels of the network input, in image order.
        image_indices: [R] int64.
        thing_indices: [R] int64 class of the matched object.
        segment_ids: [R] int32, its id in the image's id map.
        segment_boxes: [R, 4] its extent.
    """

    boxes: Tensor
    image_indices: Tensor
    thing_indices: Tensor
    segment_ids: Tensor
    segment_boxes: Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    def rois_per_image(self, num_images: int) -> list[int]:
        return torch.bincount(self.image_indices, minlength=num_images).tolist()


def positive_rois(
    sampled: Sequence[SampledRoIs], targets: Sequence[PanopticTarget]
) -> PositiveRoIs:
    """Collects the matched RoIs of all images."""
    boxes, images, things, ids, extents = [], [], [], [], []
    for image_index, (rois, target) in enumerate(zip(sampled, targets, strict=True)):
        positive = slice(rois.num_objects)
        segment = rois.matched_segment[positive]
        boxes.append(rois.boxes[positive])
        images.append(torch.full_like(segment, image_index))
        things.append(target.label_space.thing_index(target.train_ids[segment]))
        ids.append((segment + 1).int())
        extents.append(target.boxes[segment])
    return PositiveRoIs(
        torch.cat(boxes), torch.cat(images), torch.cat(things), torch.cat(ids), torch.cat(extents)
    )


def targets_of_masks(
    rois: PositiveRoIs, targets: Sequence[PanopticTarget], size: int, *, whole_pixels: bool
) -> Tensor:
    """What the mask of each box should be: [R, size, size] in {0, 1}.

    Args:
        rois: with `whole_pixels` their boxes end at the index of their last pixel.
        targets: of all images of the batch.
        size: cells along a side.
        whole_pixels: boxes are rows and columns of whole pixels, as in mmdetection 1.x.
    """
    rows = rois.boxes.new_zeros(len(rois), size, size)
    for image_index, target in enumerate(targets):
        row = torch.nonzero(rois.image_indices == image_index).flatten()
        rows[row] = mask_targets(
            target.id_map,
            rois.segment_ids[row],
            rois.boxes[row],
            rois.segment_boxes[row],
            size,
            whole_pixels=whole_pixels,
        )
    return rows
