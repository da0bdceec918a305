"""What queries should find in an image: masks with classes, kept as one map of ids.

Letters: T target masks, H, W image size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.panoptic_target import PanopticTarget

# In no list of ids: pixels of padding belong to no mask.
_PADDING = -1


@dataclass(frozen=True)
class MaskTargets:
    """Target masks of one image; mask t is where `id_map` is `ids[t]`.

    No mask is ever made for all targets at full size: a map and a few comparisons say the same.

    Attributes:
        id_map: [H, W] int32; pixels with any other id belong to no mask.
        ids: [T] int32, distinct.
        train_ids: [T] int64; class of each mask.
    """

    id_map: Tensor
    ids: Tensor
    train_ids: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def padded_to(self, size: tuple[int, int]) -> MaskTargets:
        """The same masks in an image that is padded at the bottom and the right."""
        height, width = self.id_map.shape
        padding = (0, size[1] - width, 0, size[0] - height)
        return MaskTargets(F.pad(self.id_map, padding, value=_PADDING), self.ids, self.train_ids)

    def resized_to(self, size: tuple[int, int]) -> MaskTargets:
        """The same masks at another size: the pixel at floor(i * in / out) along both axes."""
        ids = F.interpolate(self.id_map[None, None].float(), size, mode="nearest")
        return MaskTargets(ids[0, 0].int(), self.ids, self.train_ids)

    def masks(self, dtype: torch.dtype, index: Tensor | slice = slice(None)) -> Tensor:
        """[t, H, W] of 0 and 1, of all targets or those of an index."""
        return (self.id_map == self.ids[index][:, None, None]).to(dtype)


def segment_targets(target: PanopticTarget) -> MaskTargets:
    """One mask per segment that is not crowd, in their order; also those without a pixel.

    MaskFormer trains on segments that a crop has emptied as on any other.
    """
    kept = torch.nonzero(~target.is_crowd).flatten()
    return MaskTargets(target.id_map, (kept + 1).int(), target.train_ids[kept])


def class_targets(target: PanopticTarget) -> MaskTargets:
    """One mask per class that has a pixel, ascending; void belongs to none."""
    semantic_map = target.semantic_map
    present = semantic_map.unique()
    present = present[present != LabelSpace.IGNORE_TRAIN_ID]
    return MaskTargets(semantic_map.int(), present.int(), present)
