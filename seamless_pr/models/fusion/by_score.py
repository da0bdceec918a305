"""Panoptic fusion: instances by score, then semantics where no instance is (Seamless, section 4).

Letters: K classes, h, w size of the logits, H, W size of the finished map.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.structures.instances import Instances
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment
from seamless_pr.structures.prediction import Prediction
from seamless_pr.structures.settings import FusionSettings

# Above this share of undecided pixels one dense pass is cheaper than gathering them.
_DENSE_FRACTION = 0.25
# Of a large photograph not all rows are computed at once, for the sake of the memory.
_STRIP_ROWS = 1024


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
        at_network_size = self.settings.size == "network"
        fusion_size = sizes.image if at_network_size else sizes.original
        in_file = None
        if instances is not None:
            scale_y, scale_x = (
                original / valid for original, valid in zip(sizes.original, sizes.image)
            )
            in_file = instances.scaled(scale_x, scale_y)
        classes = torch.full(fusion_size, LabelSpace.IGNORE_TRAIN_ID, dtype=torch.int16)
        semantic_map = None
        if semantic_logits is not None:
            classes = best_classes(semantic_logits, sizes.padded, sizes.image, fusion_size)
            semantic_map = None if merged_things else _nearest(classes, sizes.original)
        segmentation = fuse(
            classes, instances if at_network_size else in_file, self.label_space, self.settings
        )
        segmentation = resized_segmentation(segmentation, sizes.original)
        return Prediction(segmentation, semantic_map, in_file)


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
    id_map = torch.zeros(class_map.shape, dtype=torch.int32)
    segments: list[Segment] = []
    if instances is not None:
        _paint_instances(id_map, segments, instances, label_space, settings)
    _fill_from_classes(id_map, segments, class_map.cpu(), label_space, settings)
    return PanopticSegmentation(id_map, tuple(segments), label_space)


def _paint_instances(
    id_map: Tensor,
    segments: list[Segment],
    instances: Instances,
    label_space: LabelSpace,
    settings: FusionSettings,
) -> None:
    """Gives the free pixels of every instance a segment, best score first; works in place."""
    instances.require_masks()
    chosen = instances.select(instances.scores > settings.score_threshold).best_first().to("cpu")
    masks = chosen.require_masks()
    image_size = (id_map.shape[0], id_map.shape[1])
    for index, (score, thing_index) in enumerate(
        zip(chosen.scores.tolist(), chosen.thing_indices.tolist())
    ):
        crop = masks.crop(
            index,
            image_size,
            settings.mask_threshold,
            includes_threshold=settings.mask_threshold_included,
        )
        window = id_map[crop.window]
        free = crop.mask & (window == 0)
        num_pixels, num_free = int(crop.mask.sum()), int(free.sum())
        if num_pixels and (num_pixels - num_free) / num_pixels > settings.overlap_threshold:
            continue
        segment_id = len(segments) + 1
        window.masked_fill_(free, segment_id)
        train_id = label_space.thing_train_id(thing_index)
        segments.append(Segment(segment_id, train_id, num_free, score))


def _fill_from_classes(
    id_map: Tensor,
    segments: list[Segment],
    class_map: Tensor,
    label_space: LabelSpace,
    settings: FusionSettings,
) -> None:
    """Gives the free pixels of every large enough class region a segment; works in place."""
    min_area = settings.stuff_area_pixels or settings.stuff_area_fraction * class_map.numel()
    free = id_map == 0
    # Counts and indices take 64 bits a pixel, so a strip at a time.
    parts = list(zip(*(whole.split(_STRIP_ROWS) for whole in (id_map, class_map, free))))
    num_ids = label_space.IGNORE_TRAIN_ID + 1
    areas = torch.zeros(num_ids, dtype=torch.int64)
    for _, classes, is_free in parts:
        areas += torch.bincount(classes[is_free], minlength=num_ids)
    lookup = torch.zeros(num_ids, dtype=torch.int32)
    leaves_things = settings.semantic_things == "void"
    num_filled = label_space.num_stuff if leaves_things else label_space.num_classes
    for train_id, area in enumerate(areas[:num_filled].tolist()):
        if area == 0 or area < min_area:
            continue
        segment_id = len(segments) + 1
        lookup[train_id] = segment_id
        is_crowd = label_space.is_thing(train_id)
        segments.append(Segment(segment_id, train_id, area, 1.0, is_crowd))
    for ids, classes, is_free in parts:
        ids += lookup[classes.long()] * is_free


@dataclass(frozen=True)
class ResampleGrid:
    """Where the pixels of an output image lie on a map of logits, as bilinear resizing sees it.

    Attributes:
        output_size: (H, W).
        cells_per_pixel: (vertical, horizontal) map cells for one output pixel.
    """

    output_size: tuple[int, int]
    cells_per_pixel: tuple[float, float]


def resample_grid(
    map_size: tuple[int, int],
    padded_size: tuple[int, int],
    image_size: tuple[int, int],
    output_size: tuple[int, int],
) -> ResampleGrid:
    """The part of a map that the valid image covers, seen at another size.

    Args:
        map_size: cells (h, w) of the logits, which cover the padded image.
        padded_size, image_size: network input and the valid part of it, in pixels.
        output_size: size of the result, for instance that of the image file.
    """
    vertical, horizontal = (
        cells * valid / (padded * output)
        for cells, padded, valid, output in zip(map_size, padded_size, image_size, output_size)
    )
    return ResampleGrid(output_size, (vertical, horizontal))


def resampled_classes(logits: Tensor, grid: ResampleGrid) -> Tensor:
    """The best class of every output pixel, as if all logits had been resized bilinearly.

    The resizing is that of align_corners=False. Between four cells whose best class is the same,
    every convex combination has that best class too, so only pixels between cells that disagree
    are computed: a small share of a real scene, at the same result.

    Args:
        logits: [K, h, w] on any device.
        grid: where the output pixels lie.

    Returns:
        [H, W] int16 class indices.
    """
    _, height, width = logits.shape
    device = logits.device
    vertical = _neighbours(height, grid.output_size[0], grid.cells_per_pixel[0], device)
    horizontal = _neighbours(width, grid.output_size[1], grid.cells_per_pixel[1], device)
    cell_classes = _argmax_classes(logits)
    cells = logits.flatten(1).T.float().contiguous()
    strips = zip(*(part.split(_STRIP_ROWS) for part in vertical), strict=True)
    return torch.cat(
        [_strip_classes(logits, cells, cell_classes, strip, horizontal) for strip in strips]
    )


_Neighbours = tuple[Tensor, Tensor, Tensor]


def _strip_classes(
    logits: Tensor,
    cells: Tensor,
    cell_classes: Tensor,
    vertical: _Neighbours,
    horizontal: _Neighbours,
) -> Tensor:
    """`resampled_classes` of some rows.

    Args:
        logits: [K, h, w].
        cells: the same, [h * w, K] float32.
        cell_classes: [h, w] best class of each cell.
        vertical, horizontal: of `_neighbours`, for these rows and all columns.
    """
    width = logits.shape[-1]
    (top, bottom, v), (left, right, u) = vertical, horizontal
    above, below = cell_classes[top], cell_classes[bottom]
    classes = above[:, left]
    disagree = (
        (above[:, right] != classes) | (below[:, left] != classes) | (below[:, right] != classes)
    )
    rows, columns = disagree.nonzero(as_tuple=True)
    if len(rows) > _DENSE_FRACTION * disagree.numel():
        return _dense_classes(logits, vertical, horizontal)
    y, x = torch.stack([top[rows], bottom[rows]]), torch.stack([left[columns], right[columns]])
    index = torch.stack(
        [y[0] * width + x[0], y[0] * width + x[1], y[1] * width + x[0], y[1] * width + x[1]], 1
    )
    fy, fx = v[rows], u[columns]
    weights = torch.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], 1)
    if len(rows):
        mixed = F.embedding_bag(index, cells, per_sample_weights=weights, mode="sum")
        classes[rows, columns] = mixed.argmax(1).to(classes.dtype)
    return classes


def _neighbours(
    cells: int, pixels: int, cells_per_pixel: float, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Lower cell, upper cell and weight of the upper one for each output pixel of an axis."""
    centre = torch.arange(pixels, dtype=torch.float32, device=device) + 0.5
    position = (centre * cells_per_pixel - 0.5).clamp(min=0)
    lower = position.floor().long().clamp(max=cells - 1)
    return lower, (lower + 1).clamp(max=cells - 1), position - lower


def _argmax_classes(logits: Tensor) -> Tensor:
    """[K, h, w] -> [h, w] int16 first largest class; a running comparison beats argmax."""
    best, classes = logits[0].clone(), torch.zeros_like(logits[0], dtype=torch.int16)
    for index in range(1, len(logits)):
        larger = logits[index] > best
        classes.masked_fill_(larger, index)
        torch.maximum(best, logits[index], out=best)
    return classes


def _dense_classes(logits: Tensor, vertical: _Neighbours, horizontal: _Neighbours) -> Tensor:
    """Class by class, so that the full-size logits never exist together."""
    (top, bottom, v), (left, right, u) = vertical, horizontal
    best = logits.new_full((len(top), len(left)), float("-inf"), dtype=torch.float32)
    classes = torch.zeros_like(best, dtype=torch.int16)
    for index, values in enumerate(logits.float()):
        rows = torch.lerp(values[top], values[bottom], v[:, None])
        resized = torch.lerp(rows[:, left], rows[:, right], u)
        larger = resized > best
        classes.masked_fill_(larger, index)
        torch.maximum(best, resized, out=best)
    return classes


def best_classes(
    logits: Tensor,
    padded_size: tuple[int, int],
    image_size: tuple[int, int],
    output_size: tuple[int, int],
) -> Tensor:
    """[output_size] int16 best classes of the valid part of [K, h, w] logits of a padded image."""
    map_size = (logits.shape[-2], logits.shape[-1])
    if map_size == padded_size:
        # Cropped, so that the last pixels are not mixed with the padding.
        logits = logits[:, : image_size[0], : image_size[1]]
        map_size = padded_size = image_size
    return resampled_classes(logits, resample_grid(map_size, padded_size, image_size, output_size))


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
