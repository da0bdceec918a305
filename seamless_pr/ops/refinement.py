"""PointRend's procedures, for boxes and whole images: points drawn, read and refined.

Letters: N images, C channels of the fine map, K classes, R rows (boxes or images), P points of a
row.
Source: PointRend (CVPR 2020), section 3; where the released code differs, it is the default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.ops.points import PointReader, points_to_image, sample_points


def refine(
    logits: Tensor,
    predict: Callable[[Tensor], Tensor],
    uncertainty: Callable[[Tensor], Tensor],
    num_points: int,
    num_steps: int,
) -> Tensor:
    """Doubles the resolution, then recomputes the least certain points (PointRend, section 3.1).

    Args:
        logits: [R, K, h, w].
        predict: [R, P, 2] points, (x, y) in [0, 1] of the map -> [R, P, K] logits.
        uncertainty: [R, K, h, w] -> [R, h, w], larger = less sure.
        num_points: N, points recomputed in each step; all of them where the map has fewer.
        num_steps: doublings.

    Returns:
        [R, K, h * 2^steps, w * 2^steps].
    """
    for _ in range(num_steps):
        logits = F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
        logits = logits.contiguous()
        height, width = logits.shape[-2:]
        if len(logits) == 0:
            continue
        scores = uncertainty(logits).flatten(1)
        indices = scores.topk(min(num_points, scores.shape[1]), dim=1, sorted=False).indices
        column, row = indices % width, indices.div(width, rounding_mode="floor")
        coords = torch.stack([(column + 0.5) / width, (row + 0.5) / height], dim=-1)
        values = predict(coords).transpose(1, 2).to(logits.dtype)
        logits.flatten(2).scatter_(2, indices[:, None].expand_as(values), values)
    return logits


def gather_point_features(
    reader: PointReader,
    coarse_logits: Tensor,
    point_coords: Tensor,
    boxes: Tensor,
    image_indices: Tensor,
) -> tuple[Tensor, Tensor]:
    """What the point head sees of boxes, alike in training and inference.

    Args:
        reader: of the fine maps.
        coarse_logits: [R, K, h, w], one map per row.
        point_coords: [R, P, 2], (x, y) in [0, 1] of the row's box.
        boxes: [R, 4] xyxy in pixels of the network input.
        image_indices: [R] int64, the image of each row.

    Returns:
        fine [R * P, C] and coarse [R * P, K].
    """
    num_rows, num_points, _ = point_coords.shape
    points_image = points_to_image(point_coords, boxes)
    rows = torch.arange(num_rows, device=point_coords.device).repeat_interleave(num_points)
    fine = reader.read(points_image.flatten(0, 1), image_indices.repeat_interleave(num_points))
    coarse = sample_points(coarse_logits, point_coords.flatten(0, 1), rows)
    return fine, coarse


def uniform_drawer(
    rows_per_image: Sequence[int], generators: Sequence[torch.Generator], device: torch.device
) -> Callable[[int], Tensor]:
    """Uniform points for each row, drawn from the generator of the row's image."""

    def draw(num_points: int) -> Tensor:
        drawn = [
            torch.rand(num_rows, num_points, 2, generator=generator)
            for num_rows, generator in zip(rows_per_image, generators)
        ]
        return torch.cat(drawn).to(device, non_blocking=True)

    return draw


def num_subdivision_steps(start: int, end: int) -> int:
    """How often `start` must double to reach `end`.

    Raises:
        ValueError: `end` is not `start` times a power of two.
    """
    steps = round(math.log2(end / start))
    if steps < 0 or start * 2**steps != end:
        raise ValueError(
            f"a {start}-cell start cannot double into output_size {end}; "
            f"use {start} times a power of two"
        )
    return steps
