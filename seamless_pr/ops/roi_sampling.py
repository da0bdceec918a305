"""Pooling of feature maps under boxes.

Letters: N images, C channels, H and W a feature map, R boxes of the batch, h and w the pooled map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from seamless_pr.ops.boxes import box_area
from seamless_pr.structures.settings import RoISettings

# Keeps the logarithm of an empty box's size finite (reference implementation).
_LEVEL_EPSILON = 1e-6


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
    map_height, map_width = features.shape[2:]
    zero_outside = padding == "zero"
    columns, column_weights = _axis_reads(boxes[:, 0::2], size[1], map_width, mode, zero_outside)
    rows, row_weights = _axis_reads(boxes[:, 1::2], size[0], map_height, mode, zero_outside)
    first_row = image_indices[:, None, None] * map_height
    # [R, h, 1, n, 1] and [R, 1, w, 1, n] -> one row of the table per read, n reads per axis
    indices = ((first_row + rows) * map_width)[:, :, None, :, None] + columns[:, None, :, None, :]
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
    table = _as_table(features)
    pooled = _weighted_rows(
        table, indices.flatten(3).flatten(0, 2), weights.flatten(3).flatten(0, 2), mode
    )
    return pooled.unflatten(0, (len(boxes), *size)).movedim(-1, 1)


def roi_levels(boxes: Tensor, settings: RoISettings) -> Tensor:
    """Level that each box [R, 4] (network input pixels) reads from, [R] int64; 0 is the finest.

    Feature Pyramid Networks, equation 1, with the epsilon of the reference inside the logarithm.
    """
    scale = box_area(boxes.float()).sqrt() / settings.canonical_size_pixels
    levels = (settings.canonical_level + (scale + _LEVEL_EPSILON).log2()).floor()
    return levels.clamp(0, settings.num_levels - 1).long()


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
    if settings.sampler not in ("seamless", "aligned"):
        raise ValueError(f"sampler must be 'seamless' or 'aligned'; got '{settings.sampler}'")
    all_boxes = torch.cat(list(boxes)).detach().float()
    counts = torch.tensor([len(image_boxes) for image_boxes in boxes], device=all_boxes.device)
    image_indices = torch.repeat_interleave(counts, output_size=len(all_boxes))
    levels = roi_levels(all_boxes, settings)
    finest_stride = round(padded_size[1] / features[0].shape[3])

    pooled, positions = [], []
    for level, level_features in enumerate(features[: settings.num_levels]):
        position = torch.nonzero(levels == level).flatten()
        # Level 0 is read even without a box, so that an empty result still has a gradient path.
        if level > 0 and len(position) == 0:
            continue
        positions.append(position)
        level_boxes, level_images = all_boxes[position], image_indices[position]
        if settings.sampler == "seamless":
            cells = _boxes_in_cells(level_boxes, level_features.shape[2:], padded_size)
            level_pooled = sample_rois(
                level_features, cells, level_images, (settings.size, settings.size)
            )
        else:
            level_pooled = _align_rois(
                level_features, level_boxes, level_images, finest_stride * 2**level, settings.size
            )
        pooled.append(level_pooled)
    if len(pooled) == 1:
        return pooled[0]
    # Rows of channels_last maps are contiguous, so reordering whole boxes is a plain copy.
    order = torch.cat(positions).argsort()
    return torch.cat([rois.movedim(1, -1) for rois in pooled])[order].movedim(-1, 1)


def _boxes_in_cells(boxes: Tensor, map_size: Sequence[int], padded_size: tuple[int, int]) -> Tensor:
    """Image boxes -> feature coordinates as in the reference: cell i sits at pixel i / scale + 0.5.

    The scale is the exact ratio of the sizes, not 1 / stride: a 327 px image has 82 cells.
    """
    scale_x, scale_y = map_size[1] / padded_size[1], map_size[0] / padded_size[0]
    scale = boxes.new_tensor([scale_x, scale_y, scale_x, scale_y])
    return (boxes - 0.5) * scale + 0.5


def _align_rois(
    features: Tensor, boxes: Tensor, image_indices: Tensor, stride: int, size: int
) -> Tensor:
    rois = torch.cat([image_indices[:, None].to(boxes.dtype), boxes], dim=1).to(features.dtype)
    return torchvision.ops.roi_align(
        features, rois, (size, size), spatial_scale=1 / stride, sampling_ratio=0, aligned=True
    )


def _axis_reads(
    intervals: Tensor, num_bins: int, length: int, mode: str, zero_outside: bool
) -> tuple[Tensor, Tensor]:
    """Cells and weights of the samples along one axis.

    Args:
        intervals: [R, 2] start and end of each box in cells.

    Returns:
        [R, num_bins, n] int64 cells inside the map and their float32 weights; n = 2 (bilinear) or
        1.
    """
    intervals = intervals.detach().float()
    start, end = intervals[:, :1], intervals[:, 1:]
    bins = torch.arange(num_bins, device=intervals.device, dtype=torch.float32) + 0.5
    samples = start + bins / num_bins * (end - start)
    if mode == "nearest":
        cells = samples.floor()[..., None]
        weights = torch.ones_like(cells)
    else:
        lower = (samples - 0.5).floor()
        upper_weight = samples - 0.5 - lower
        cells = torch.stack([lower, lower + 1], dim=-1)
        weights = torch.stack([1 - upper_weight, upper_weight], dim=-1)
    if zero_outside:
        weights = weights * ((cells >= 0) & (cells < length))
    return cells.clamp(0, length - 1).long(), weights


def _as_table(features: Tensor) -> Tensor:
    """[N, C, H, W] -> [N * H * W, C], one contiguous row per cell; a view if channels_last."""
    if features.shape[1] > 1:
        features = features.contiguous(memory_format=torch.channels_last)
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def _weighted_rows(table: Tensor, indices: Tensor, weights: Tensor, mode: str) -> Tensor:
    """Sums of weighted rows of a table: indices and weights [B, n] -> [B, C]."""
    if mode == "nearest":
        rows = table.index_select(0, indices[:, 0])
        return rows * weights.to(table.dtype)
    # An embedding bag never stores the reads one by one, in either direction.
    return F.embedding_bag(indices, table, mode="sum", per_sample_weights=weights.to(table.dtype))
