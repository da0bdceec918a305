"""Panoptic fusion: instances by score, then semantics where no instance is (Seamless, section 4).

Letters: K classes, h, w size of the logits, H, W size of the finished map.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.models.fusion.on_device import FixedFusion, fuse_fixed
from seamless_pr.ops.class_maps import best_classes
from seamless_pr.structures.instances import Instances
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment
from seamless_pr.structures.prediction import Prediction
from seamless_pr.structures.settings import FusionSettings

# What is looked up for whole rows takes as many at a time, for the sake of the memory.
_STRIP_ROWS = 1024
# While an image is painted, segments of instances are numbered behind all classes.
_FIRST_INSTANCE = LabelSpace.IGNORE_TRAIN_ID + 1


@dataclass(frozen=True)
class FrameSizes:
    """The three sizes of an image on its way through a network, each (height, width).

    Attributes:
        padded: of the network input.
        image: of its valid part.
        original: of the image file.
    """

    padded: tuple[int, int]
    image: tuple[int, int]
    original: tuple[int, int]


@dataclass(frozen=True)
class _Frame:
    """What is put together, at the size where pixels are decided.

    Attributes:
        classes: [H, W] int16 train ids.
        fused: instances in pixels of `classes`.
        in_file: the same in pixels of the image file.
        semantic_map: at the size of the file.
    """

    classes: Tensor
    fused: Instances | None
    in_file: Instances | None
    semantic_map: Tensor | None


class ScoreFusion:
    """One image's instances and semantics, put together best score first.

    Args:
        label_space: tells stuff from things.
        settings: thresholds, and the size at which pixels are decided.
    """

    def __init__(self, label_space: LabelSpace, settings: FusionSettings) -> None:
        self.label_space = label_space
        self.settings = settings

    def __call__(
        self,
        semantic_logits: Tensor | None,
        instances: Instances | None,
        sizes: FrameSizes,
        *,
        merged_things: bool = False,
    ) -> Prediction:
        """Fuses one image.

        Args:
            semantic_logits: [K, h, w] covering the padded image; None: what is no object is void.
            instances: with masks, in pixels of the network input; None: no objects.
            sizes: of this image.
            merged_things: the last logit stands for all things, so there is no semantic map.

        Returns:
            Everything at the size of the file.
        """
        frame = self._frame(semantic_logits, instances, sizes, merged_things)
        segmentation = fuse(frame.classes, frame.fused, self.label_space, self.settings)
        segmentation = resized_segmentation(segmentation, sizes.original)
        return Prediction(segmentation, frame.semantic_map, frame.in_file)

    def fixed(
        self,
        semantic_logits: Tensor | None,
        instances: Instances | None,
        count: Tensor | None,
        sizes: FrameSizes,
        *,
        merged_things: bool = False,
    ) -> tuple[FixedFusion, Prediction]:
        """The same where the logits are, in shapes that depend on no number; nothing is read.

        Args:
            semantic_logits, sizes, merged_things: as for a call.
            instances: best first.
            count: so many of them are objects, int64 scalar; None: all.

        Returns:
            The panoptic map, and everything else, with all rows of instances.
        """
        frame = self._frame(semantic_logits, instances, sizes, merged_things)
        fused = fuse_fixed(
            frame.classes, frame.fused, count, self.label_space, self.settings, sizes.original
        )
        return fused, Prediction(None, frame.semantic_map, frame.in_file)

    def _frame(
        self,
        semantic_logits: Tensor | None,
        instances: Instances | None,
        sizes: FrameSizes,
        merged_things: bool,
    ) -> _Frame:
        at_network_size = self.settings.size == "network"
        fusion_size = sizes.image if at_network_size else sizes.original
        in_file = None
        if instances is not None:
            scale_y, scale_x = (
                original / valid for original, valid in zip(sizes.original, sizes.image)
            )
            in_file = instances.scaled(scale_x, scale_y)
        semantic_map = None
        if semantic_logits is not None:
            classes = best_classes(semantic_logits, sizes.padded, sizes.image, fusion_size)
            semantic_map = None if merged_things else _nearest(classes, sizes.original)
        else:
            device = "cpu" if instances is None else instances.scores.device
            void = LabelSpace.IGNORE_TRAIN_ID
            classes = torch.full(fusion_size, void, dtype=torch.int16, device=device)
        return _Frame(classes, instances if at_network_size else in_file, in_file, semantic_map)


def fuse(
    class_map: Tensor,
    instances: Instances | None,
    label_space: LabelSpace,
    settings: FusionSettings,
) -> PanopticSegmentation:
    """Merges masks and classes into one map; every pixel gets at most one segment.

    Instances above the score threshold are taken best first. One whose pixels are for more than
    `overlap_threshold` already taken is dropped; of the others the free part becomes a segment. An
    instance whose mask is empty keeps its segment with area 0. The rest of the image takes its
    semantic class: regions smaller than the area limit become void, and so that nothing is
    invented, regions of thing classes become crowd segments: they say what is there, but not which
    object, and count as void in panoptic maps that are written (released code; the paper makes
    them void, as `semantic_things="void"` does).

    Args:
        class_map: [H, W] integer train ids, best class of each pixel; pixels with the ignore id
            become void where no instance is.
        instances: with masks, in pixels of the class map; None: none.
        label_space: tells stuff from things.
        settings: thresholds.

    Returns:
        Segments: instances by descending score, then classes ascending, numbered from 1; on the
            CPU.
    """
    # Train ids, over which instances are painted.
    canvas = class_map.cpu().to(torch.int32, copy=True)
    segments: list[Segment] = []
    if instances is not None:
        _paint_instances(canvas, segments, instances, label_space, settings)
    _number_segments(canvas, segments, label_space, settings)
    return PanopticSegmentation(canvas, tuple(segments), label_space)


def _paint_instances(
    canvas: Tensor,
    segments: list[Segment],
    instances: Instances,
    label_space: LabelSpace,
    settings: FusionSettings,
) -> None:
    """Gives the free pixels of every instance a segment, best score first; works in place.

    They are numbered from `_FIRST_INSTANCE` on.
    """
    instances.require_masks()
    chosen = instances.select(instances.scores > settings.score_threshold).best_first().to("cpu")
    masks = chosen.require_masks()
    image_size = (canvas.shape[0], canvas.shape[1])
    unpainted = torch.ones(image_size, dtype=torch.bool)
    for index, (score, thing_index) in enumerate(
        zip(chosen.scores.tolist(), chosen.thing_indices.tolist())
    ):
        crop = masks.crop(
            index,
            image_size,
            settings.mask_threshold,
            includes_threshold=settings.mask_threshold_included,
        )
        window = unpainted[crop.window]
        free = crop.mask & window
        num_pixels, num_free = int(crop.mask.sum()), int(free.sum())
        if num_pixels and (num_pixels - num_free) / num_pixels > settings.overlap_threshold:
            continue
        canvas[crop.window].masked_fill_(free, _FIRST_INSTANCE + len(segments))
        window ^= free
        train_id = label_space.thing_train_id(thing_index)
        segments.append(Segment(len(segments) + 1, train_id, num_free, score))


def _number_segments(
    canvas: Tensor,
    segments: list[Segment],
    label_space: LabelSpace,
    settings: FusionSettings,
) -> None:
    """Makes every large enough class region a segment, and the canvas a map of ids, in place."""
    min_area = settings.stuff_area_pixels or settings.stuff_area_fraction * canvas.numel()
    leaves_things = settings.semantic_things == "void"
    num_filled = label_space.num_stuff if leaves_things else label_space.num_classes
    areas = canvas.flatten().bincount(minlength=num_filled)
    table = torch.zeros(_FIRST_INSTANCE + len(segments), dtype=torch.int32)
    table[_FIRST_INSTANCE:] = torch.arange(1, len(segments) + 1)
    for train_id, area in enumerate(areas[:num_filled].tolist()):
        if area == 0 or area < min_area:
            continue
        segment_id = len(segments) + 1
        table[train_id] = segment_id
        is_crowd = label_space.is_thing(train_id)
        segments.append(Segment(segment_id, train_id, area, 1.0, is_crowd))
    for strip in canvas.split(_STRIP_ROWS):
        strip.copy_(table.index_select(0, strip.flatten()).view_as(strip))


def _nearest(label_map: Tensor, output_size: tuple[int, int]) -> Tensor:
    """[h, w] of any integer dtype -> [output_size], by nearest neighbour."""
    if tuple(label_map.shape) == tuple(output_size):
        return label_map
    resized = F.interpolate(label_map[None, None].float(), size=output_size, mode="nearest-exact")
    return resized[0, 0].to(label_map.dtype)


def resized_segmentation(
    segmentation: PanopticSegmentation, output_size: tuple[int, int]
) -> PanopticSegmentation:
    """Resizes a finished map by nearest neighbour; areas are counted anew."""
    if segmentation.image_size == tuple(output_size):
        return segmentation
    id_map = _nearest(segmentation.id_map, output_size)
    areas = torch.bincount(
        id_map.flatten().long(), minlength=len(segmentation.segments) + 1
    ).tolist()
    segments = tuple(replace(s, area=areas[s.segment_id]) for s in segmentation.segments)
    return PanopticSegmentation(id_map, segments, segmentation.label_space)
