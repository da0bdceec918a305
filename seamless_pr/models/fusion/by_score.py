"""Panoptic fusion: instances by score, then semantics where no instance is (Seamless, section 4).

Letters: K classes, h, w size of the logits, H, W size of the finished map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.ops.masks import paste_mask
from seamless_pr.structures.detections import Detections
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment
from seamless_pr.structures.settings import FusionSettings

# Above this share of undecided pixels one dense pass is cheaper than gathering them.
_DENSE_FRACTION = 0.25


def fuse(
    class_map: Tensor,
    detections: Detections,
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
        detections: with mask logits; boxes in pixels of the class map.
        label_space: tells stuff from things.
        settings: thresholds.

    Returns:
        Segments: instances by descending score, then classes ascending, numbered from 1; on the
            CPU.
    """
    height, width = class_map.shape
    if detections.mask_logits is None:
        raise ValueError("fusion needs detections with mask_logits; run the mask branch first")
    id_map = torch.zeros(height, width, dtype=torch.int32)
    segments: list[Segment] = []
    chosen = detections.select(detections.scores > settings.score_threshold)
    chosen = chosen.select(chosen.scores.argsort(descending=True, stable=True)).to("cpu")
    assert chosen.mask_logits is not None
    for box, score, thing_index, logits in zip(
        chosen.boxes.tolist(),
        chosen.scores.tolist(),
        chosen.thing_indices.tolist(),
        chosen.mask_logits,
    ):
        crop = paste_mask(
            logits.sigmoid(),
            box,
            (height, width),
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
    _fill_from_classes(id_map, segments, class_map.cpu(), label_space, settings)
    return PanopticSegmentation(id_map, tuple(segments), label_space)


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
    areas = torch.bincount(class_map[free].long(), minlength=label_space.num_classes)
    lookup = torch.zeros(label_space.IGNORE_TRAIN_ID + 1, dtype=torch.int32)
    leaves_things = settings.semantic_things == "void"
    num_filled = label_space.num_stuff if leaves_things else label_space.num_classes
    for train_id, area in enumerate(areas[:num_filled].tolist()):
        if area == 0 or area < min_area:
            continue
        segment_id = len(segments) + 1
        lookup[train_id] = segment_id
        is_crowd = label_space.is_thing(train_id)
        segments.append(Segment(segment_id, train_id, area, 1.0, is_crowd))
    id_map += lookup[class_map.long()] * free


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
        [H, W] int64 class indices.
    """
    num_classes, height, width = logits.shape
    device = logits.device
    top, bottom, v = _neighbours(height, grid.output_size[0], grid.cells_per_pixel[0], device)
    left, right, u = _neighbours(width, grid.output_size[1], grid.cells_per_pixel[1], device)
    cell_classes = _argmax_classes(logits)
    above, below = cell_classes[top], cell_classes[bottom]
    classes = above[:, left]
    disagree = (
        (above[:, right] != classes) | (below[:, left] != classes) | (below[:, right] != classes)
    )
    rows, columns = disagree.nonzero(as_tuple=True)
    if len(rows) > _DENSE_FRACTION * disagree.numel():
        return _dense_classes(logits, (top, bottom, v), (left, right, u))
    cells = logits.permute(1, 2, 0).reshape(height * width, num_classes).float()
    y, x = torch.stack([top[rows], bottom[rows]]), torch.stack([left[columns], right[columns]])
    index = torch.stack(
        [y[0] * width + x[0], y[0] * width + x[1], y[1] * width + x[0], y[1] * width + x[1]], 1
    )
    fy, fx = v[rows], u[columns]
    weights = torch.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], 1)
    if len(rows):
        mixed = F.embedding_bag(index, cells, per_sample_weights=weights, mode="sum")
        classes[rows, columns] = mixed.argmax(1)
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
    """[K, h, w] -> [h, w] int64 first largest class; a running comparison beats argmax."""
    best, classes = logits[0].clone(), torch.zeros_like(logits[0], dtype=torch.int64)
    for index in range(1, len(logits)):
        larger = logits[index] > best
        classes.masked_fill_(larger, index)
        torch.maximum(best, logits[index], out=best)
    return classes


def _dense_classes(
    logits: Tensor,
    vertical: tuple[Tensor, Tensor, Tensor],
    horizontal: tuple[Tensor, Tensor, Tensor],
) -> Tensor:
    """Class by class, so that the full-size logits never exist together."""
    top, bottom, v = vertical
    left, right, u = horizontal
    best = logits.new_full((len(top), len(left)), float("-inf"), dtype=torch.float32)
    classes = torch.zeros_like(best, dtype=torch.int64)
    for index, values in enumerate(logits.float()):
        rows = torch.lerp(values[top], values[bottom], v[:, None])
        resized = torch.lerp(rows[:, left], rows[:, right], u)
        larger = resized > best
        classes.masked_fill_(larger, index)
        torch.maximum(best, resized, out=best)
    return classes


def resized_segmentation(
    segmentation: PanopticSegmentation, output_size: tuple[int, int]
) -> PanopticSegmentation:
    """Resizes a finished map by nearest neighbour; areas are counted anew."""
    if segmentation.image_size == tuple(output_size):
        return segmentation
    id_map = F.interpolate(
        segmentation.id_map[None, None].float(), size=output_size, mode="nearest-exact"
    )[0, 0].int()
    areas = torch.bincount(
        id_map.flatten().long(), minlength=len(segmentation.segments) + 1
    ).tolist()
    segments = tuple(
        Segment(s.segment_id, s.train_id, areas[s.segment_id], s.score, s.is_crowd)
        for s in segmentation.segments
    )
    return PanopticSegmentation(id_map, segments, segmentation.label_space)
