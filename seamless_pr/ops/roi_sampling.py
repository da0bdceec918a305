"""Pooling of feature maps under boxes.

Letters: N images, C channels, H and W a feature map, R boxes of the batch, h and w the pooled map.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from seamless_pr.ops.boxes import box_area
from seamless_pr.ops.fixed_shapes import needs_fixed_shapes
from seamless_pr.ops.vectors import image_indices as indices_of_images
from seamless_pr.ops.vectors import vector
from seamless_pr.structures.settings import RoISettings

SAMPLERS = ("seamless", "aligned", "unaligned")


def sample_rois(
    features: Tensor,
    boxes: Tensor,
    image_indices: Tensor,
    size: tuple[int, int],
    mode: str = "bilinear",
    padding: str = "border",
) -> Tensor:
    """Reads one sample at the centre of each of the h x w bins of every box.

    This is the RoI sampling of the Seamless reference. A cell with index i covers [i, i + 1) and
    its centre is i + 0.5. There is no smallest box, and boxes may lie outside the map.

    Args:
        features: [N, C, H, W]; any layout, channels_last is the fastest. Integers only with
            "nearest".
        boxes: [R, 4] xyxy in cells of the feature map; gets no gradient.
        image_indices: [R] int64 in 0..N-1.
        size: (h, w).
        mode: "bilinear", or "nearest": the cell that contains the sample.
        padding: what a read outside the map gives: "border" the nearest cell, "zero" 0.

    Returns:
        [R, C, h, w] of the features' dtype, in channels_last layout; R may be 0.

    Raises:
        ValueError: unknown mode or padding.
    """
    if mode not in ("bilinear", "nearest"):
        raise ValueError(f"mode must be 'bilinear' or 'nearest'; got '{mode}'")
    if padding not in ("border", "zero"):
        raise ValueError(f"padding must be 'border' or 'zero'; got '{padding}'")
    height, width = features.shape[2:]
    map_sizes = vector([height, width], image_indices)[None].expand(len(boxes), 2)
    first_rows = image_indices * (height * width)
    return _sample_table(_as_table(features), first_rows, map_sizes, boxes, size, mode, padding)


def roi_levels(boxes: Tensor, settings: RoISettings) -> Tensor:
    """Level that each box [R, 4] (network input pixels) reads from, [R] int64; 0 is the finest.

    Feature Pyramid Networks, equation 1; the epsilon keeps the logarithm of an empty box finite.
    """
    scale = box_area(boxes.float()).sqrt() / settings.canonical_size_pixels
    levels = (settings.canonical_level + (scale + settings.level_epsilon).log2()).floor()
    # Clamped as whole numbers: a box that is not finite has a level as well.
    return levels.long().clamp(0, settings.num_levels - 1)


def pool_rois(
    features: Sequence[Tensor],
    boxes: Sequence[Tensor],
    padded_size: tuple[int, int],
    settings: RoISettings,
) -> Tensor:
    """Pools each box from the level of its size.

    Args:
        features: [N, C, H_l, W_l] per level, finest first; levels beyond `settings.num_levels` are
            not read.
        boxes: [R_n, 4] per image in pixels of the padded batch.
        padded_size: (height, width) of the batch that the features come from.
        settings: sampler, level rule and size S.

    Returns:
        [R_1 + ... + R_N, C, S, S] in the order of images and boxes; gradients flow to the features.

    Raises:
        ValueError: fewer levels than `settings.num_levels`, or an unknown sampler.
    """
    if len(features) < settings.num_levels:
        raise ValueError(
            f"RoI pooling reads {settings.num_levels} levels; got features of {len(features)}; "
            "lower num_levels or pass more levels"
        )
    if settings.sampler not in SAMPLERS:
        raise ValueError(f"sampler must be one of {SAMPLERS}; got '{settings.sampler}'")
    all_boxes = torch.cat(list(boxes)).detach().float()
    image_indices = indices_of_images([len(rows) for rows in boxes], all_boxes.device)
    levels = roi_levels(all_boxes, settings)
    used = features[: settings.num_levels]
    # A copy of all levels as one table gives the boxes in their order. Below that many reads, it is
    # cheaper to pool level by level and to reorder the results; but which boxes a level has, a GPU
    # would have to tell the host.
    num_reads = len(all_boxes) * settings.size**2
    num_cells = sum(level.shape[0] * level.shape[2] * level.shape[3] for level in used)
    is_fixed = needs_fixed_shapes(all_boxes)
    if settings.sampler == "seamless" and (is_fixed or 2 * num_reads > num_cells):
        return _pool_table(used, all_boxes, image_indices, levels, padded_size, settings.size)
    if is_fixed:
        return _pool_every_level(used, all_boxes, image_indices, levels, padded_size, settings)
    return _pool_per_level(used, all_boxes, image_indices, levels, padded_size, settings)


def _pool_table(
    features: Sequence[Tensor],
    boxes: Tensor,
    image_indices: Tensor,
    levels: Tensor,
    padded_size: tuple[int, int],
    size: int,
) -> Tensor:
    """Seamless sampling of all boxes at once."""
    tables = [_as_table(level) for level in features]
    map_sizes = torch.stack([vector(level.shape[2:], levels) for level in features])
    first_rows = vector([0, *accumulate(len(table) for table in tables[:-1])], levels)
    box_map_sizes = map_sizes[levels]
    box_first_rows = first_rows[levels] + image_indices * box_map_sizes.prod(1)
    cells = _boxes_in_cells(boxes, box_map_sizes, padded_size)
    return _sample_table(
        torch.cat(tables), box_first_rows, box_map_sizes, cells, (size, size), "bilinear", "border"
    )


def _pool_per_level(
    features: Sequence[Tensor],
    boxes: Tensor,
    image_indices: Tensor,
    levels: Tensor,
    padded_size: tuple[int, int],
    settings: RoISettings,
) -> Tensor:
    """Either sampler on the boxes of one level after the other."""
    size = (settings.size, settings.size)
    finest_stride = round(padded_size[1] / features[0].shape[3])
    pooled, positions = [], []
    for level, level_features in enumerate(features):
        position = torch.nonzero(levels == level).flatten()
        # Level 0 is read even without a box, so that an empty result still has a gradient path.
        if level > 0 and len(position) == 0:
            continue
        positions.append(position)
        level_boxes, level_images = boxes[position], image_indices[position]
        if settings.sampler == "seamless":
            map_size = vector(level_features.shape[2:], levels)[None]
            cells = _boxes_in_cells(level_boxes, map_size, padded_size)
            pooled.append(sample_rois(level_features, cells, level_images, size))
        else:
            rois = torch.cat([level_images[:, None].to(boxes.dtype), level_boxes], dim=1)
            scale = 1 / (finest_stride * 2**level)
            pooled.append(align_rois(level_features, rois, scale, settings))
    if len(pooled) == 1:
        return pooled[0]
    # Rows of channels_last maps are contiguous, so reordering whole boxes is a plain copy.
    order = torch.cat(positions).argsort()
    return torch.cat([rois.movedim(1, -1) for rois in pooled])[order].movedim(-1, 1)


def _pool_every_level(
    features: Sequence[Tensor],
    boxes: Tensor,
    image_indices: Tensor,
    levels: Tensor,
    padded_size: tuple[int, int],
    settings: RoISettings,
) -> Tensor:
    """The other samplers on all boxes at each level; those of other levels shrink to a point."""
    finest_stride = round(padded_size[1] / features[0].shape[3])
    pooled: Tensor | None = None
    for level, level_features in enumerate(features):
        is_here = (levels == level)[:, None]
        here = torch.where(is_here, boxes, torch.zeros_like(boxes))
        rois = torch.cat([image_indices[:, None].to(boxes.dtype), here], dim=1)
        found = align_rois(level_features, rois, 1 / (finest_stride * 2**level), settings)
        pooled = found if pooled is None else torch.where(is_here[..., None, None], found, pooled)
    assert pooled is not None
    return pooled


def align_rois(features: Tensor, rois: Tensor, scale: float, settings: RoISettings) -> Tensor:
    """RoIAlign of one level by the "aligned" or the "unaligned" sampler.

    Args:
        features: [N, C, H, W].
        rois: [R, 5], image index and xyxy in pixels.
        scale: cells per pixel.
        settings: sampler, samples and size S.

    Returns:
        [R, C, S, S].
    """
    if settings.sampler == "unaligned":
        # Half a cell on, which takes back the shift that comes with having no smallest box.
        rois = rois + vector([0, *[0.5 / scale] * 4], rois)
    return torchvision.ops.roi_align(
        features,
        rois.to(features.dtype),
        settings.size,
        scale,
        sampling_ratio=settings.num_samples,
        aligned=True,
    )


def _boxes_in_cells(boxes: Tensor, map_sizes: Tensor, padded_size: tuple[int, int]) -> Tensor:
    """Image boxes -> feature coordinates as in the reference: cell i sits at pixel i / scale + 0.5.

    The scale is the exact ratio of the sizes, not 1 / stride: a 327 px image has 82 cells.

    Args:
        boxes: [R, 4].
        map_sizes: [R, 2] or [1, 2] (height, width) of the feature map of each box.
        padded_size: (height, width).
    """
    scale = map_sizes / vector(padded_size, map_sizes)
    return (boxes - 0.5) * scale.flip(1).repeat(1, 2) + 0.5


def _sample_table(
    table: Tensor,
    first_rows: Tensor,
    map_sizes: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    mode: str,
    padding: str,
) -> Tensor:
    """Samples boxes from maps that are stored as rows of one table.

    Args:
        table: [B, C], the cells of all maps.
        first_rows: [R] row of the first cell of each box's map.
        map_sizes: [R, 2] (height, width) of each box's map.
        boxes: [R, 4] in cells of that map.

    Returns:
        [R, C, h, w] in channels_last layout.
    """
    boxes = boxes.detach().float()
    heights, widths = map_sizes[:, :1], map_sizes[:, 1:]
    zero_outside = padding == "zero"
    rows, row_weights = _axis_reads(boxes[:, 1::2], size[0], heights, mode, zero_outside)
    columns, column_weights = _axis_reads(boxes[:, 0::2], size[1], widths, mode, zero_outside)
    # [R, h, n] and [R, w, n] -> the n * n reads of every bin
    rows = rows * widths[..., None] + first_rows[:, None, None]
    indices = rows[:, :, None, :, None] + columns[:, None, :, None, :]
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
    indices, weights = indices.flatten(0, 2).flatten(1), weights.flatten(0, 2).flatten(1)
    if mode == "nearest":
        pooled = table.index_select(0, indices[:, 0]) * weights.to(table.dtype)
    else:
        # An embedding bag never stores the reads one by one, in either direction.
        weights = weights.to(table.dtype)
        pooled = F.embedding_bag(indices.int(), table, mode="sum", per_sample_weights=weights)
    return pooled.unflatten(0, (len(boxes), *size)).movedim(-1, 1)


def _axis_reads(
    intervals: Tensor, num_bins: int, lengths: Tensor, mode: str, zero_outside: bool
) -> tuple[Tensor, Tensor]:
    """Cells and weights of the samples along one axis.

    Args:
        intervals: [R, 2] start and end of each box in cells.
        lengths: [R, 1] number of cells of each box's map.

    Returns:
        [R, num_bins, n] int64 cells inside the map and their float32 weights; n is 2 for bilinear
        and 1 for nearest reads.
    """
    start, end = intervals[:, :1], intervals[:, 1:]
    bins = torch.arange(num_bins, device=intervals.device) + 0.5
    samples = start + bins / num_bins * (end - start)
    if mode == "nearest":
        cells = samples.floor()[..., None]
        weights = torch.ones_like(cells)
    else:
        lower = (samples - 0.5).floor()
        upper_weight = samples - 0.5 - lower
        cells = torch.stack([lower, lower + 1], dim=-1)
        weights = torch.stack([1 - upper_weight, upper_weight], dim=-1)
    last = lengths[..., None] - 1
    if zero_outside:
        weights = weights * ((cells >= 0) & (cells <= last))
    return torch.minimum(cells.clamp(min=0).long(), last), weights


def _as_table(features: Tensor) -> Tensor:
    """[N, C, H, W] -> [N * H * W, C], one contiguous row per cell; a view if channels_last."""
    if features.shape[1] > 1:
        features = features.contiguous(memory_format=torch.channels_last)
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
