"""Reading feature maps at points, and choosing the points where reading pays (PointRend).

Letters: N maps, C channels, R boxes, P points of a box, M = all points of a call, K classes.
Point coordinates are (x, y) in [0, 1] of a box or of a map; the centre of cell i of n is
(i + 0.5) / n.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seamless_pr.ops.fixed_shapes import needs_fixed_shapes
from seamless_pr.ops.vectors import vector


def sample_points(maps: Tensor, point_coords: Tensor, map_indices: Tensor) -> Tensor:
    """Reads maps at points, bilinearly; what lies outside a map reads as 0.

    The value at the map position `u * W - 0.5`, as the released PointRend has it. Each point
    gathers four rows of the channels-last map in one fused kernel, so nothing of the size M x 4 x C
    is ever written.

    Args:
        maps: [N, C, H, W] floating; fastest when its memory format is channels_last.
        point_coords: [M, 2], (x, y) in [0, 1] of the map, float32; values outside are allowed.
        map_indices: [M] int64, which map each point reads.

    Returns:
        [M, C] in the dtype of `maps`; differentiable in `maps`.
    """
    _, num_channels, height, width = maps.shape
    rows = maps.permute(0, 2, 3, 1).reshape(-1, num_channels)
    cells, weights = _bilinear_cells(point_coords, height, width)
    cells = torch.add(cells, map_indices[:, None], alpha=height * width)
    if len(rows) == 0 or len(cells) == 0:
        return maps.sum() * 0 + maps.new_zeros(len(cells), num_channels)
    return F.embedding_bag(cells, rows, per_sample_weights=weights.to(rows.dtype), mode="sum")


@dataclass(frozen=True)
class PointReader:
    """Reads one or more maps of the same images at the same points.

    Attributes:
        maps: [N, C_l, H_l, W_l] each.
        extents: (height, width) in pixels of the network input that each map spans; more than the
            input where its cells reach beyond it.
    """

    maps: tuple[Tensor, ...]
    extents: tuple[tuple[float, float], ...]

    @classmethod
    def of_levels(cls, maps: Sequence[Tensor], strides: Sequence[int]) -> PointReader:
        """For maps whose cells cover `strides` pixels each."""
        extents = [
            (level.shape[-2] * stride, level.shape[-1] * stride)
            for level, stride in zip(maps, strides, strict=True)
        ]
        return cls(tuple(maps), tuple(extents))

    def read(self, points_image: Tensor, map_indices: Tensor) -> Tensor:
        """[M, C_1 + C_2 + ...], what the maps say, one after the other.

        Args:
            points_image: [M, 2] (x, y) in pixels of the network input.
            map_indices: [M] int64, the image of each point.
        """
        parts = [
            sample_points(level, points_image / vector([width, height], points_image), map_indices)
            for level, (height, width) in zip(self.maps, self.extents, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def sample_membership(
    id_maps: Sequence[Tensor], ids: Tensor, points_image: Tensor, map_indices: Tensor
) -> Tensor:
    """Soft mask labels at points, read from id maps: no full-size mask is ever made.

    Equals the bilinear sample of each segment's bit mask (zeros outside the image): of the four
    pixels around a point, the weight of those that carry the segment's id.

    Args:
        id_maps: one [H, W] int32 map per image.
        ids: [R] id whose mask row r is about.
        points_image: [R, P, 2] (x, y) in pixels of the image; pixel i covers [i, i + 1).
        map_indices: [R] int64, the image of each row, ascending.

    Returns:
        [R, P] float32 in [0, 1].
    """
    labels = points_image.new_zeros(points_image.shape[:2], dtype=torch.float32)
    for image_index, id_map in enumerate(id_maps):
        row = torch.nonzero(map_indices == image_index).flatten()
        height, width = id_map.shape
        size = vector([width, height], points_image)
        cells, weights = _bilinear_cells((points_image[row] / size).flatten(0, 1), height, width)
        # Both lengths given: an image may have no row.
        grid = (len(row), points_image.shape[1])
        own = id_map.flatten()[cells].unflatten(0, grid) == ids[row, None, None]
        labels[row] = (own * weights.unflatten(0, grid)).sum(-1)
    return labels


def sample_windows(images: Tensor, point_coords: Tensor, map_indices: Tensor, side: int) -> Tensor:
    """Colours of the pixels around points, from -2 to 2; the edge is repeated beyond itself.

    Args:
        images: [N, 3, H, W] uint8.
        point_coords: [M, 2] (x, y) in [0, 1] of the image.
        map_indices: [M] int64, which image each point reads.
        side: of the square of pixels, whose middle is the pixel nearest to the point; odd.

    Returns:
        [M, 3 * side * side] float32.
    """
    height, width = images.shape[-2:]
    offsets = torch.arange(side, device=images.device) - side // 2
    cells = _nearest_pixels(point_coords, height, width)[:, :, None] + offsets
    columns, rows = cells[:, 0].clamp(0, width - 1), cells[:, 1].clamp(0, height - 1)
    flat = torch.add(columns[:, None, :], rows[:, :, None], alpha=width)
    pixels = images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])
    found = pixels[torch.add(flat.flatten(1), map_indices[:, None], alpha=height * width)]
    return found.flatten(1).float() / 64 - 2


def sample_labels(label_map: Tensor, point_coords: Tensor) -> Tensor:
    """Class ids at points, nearest pixel.

    Args:
        label_map: [H, W] integers.
        point_coords: [P, 2] (x, y) in [0, 1] of the map.

    Returns:
        [P] in the dtype of `label_map`.
    """
    column, row = _nearest_pixels(point_coords, *label_map.shape).unbind(1)
    return label_map[row, column]


def _nearest_pixels(point_coords: Tensor, height: int, width: int) -> Tensor:
    """Columns and rows, int64 [P, 2]; half to even at the pixel position, as grid sampling does."""
    size = vector([width, height], point_coords)
    pixels = (point_coords * size - 0.5).round()
    return torch.minimum(pixels.clamp(min=0), size - 1).long()


def _bilinear_cells(point_coords: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """[M, 2] -> flat cell indices [M, 4] and weights [M, 4]; weight 0 outside the map."""
    size = vector([width, height], point_coords)
    position = point_coords.float() * size - 0.5
    lower = position.floor()
    upper_weight = position - lower
    # [M, 2 axes, lower and upper]
    cells = torch.stack([lower, lower + 1], dim=-1)
    weights = torch.stack([1 - upper_weight, upper_weight], dim=-1)
    inside = torch.minimum(cells.clamp(min=0), (size - 1)[:, None])
    weights = weights * (cells == inside)
    columns, rows = inside.long().unbind(1)
    flat = torch.add(columns[:, None, :], rows[:, :, None], alpha=width)
    products = weights[:, 1, :, None] * weights[:, 0, None, :]
    return flat.flatten(1), products.flatten(1)


def regular_grid(size: int, device: torch.device | None = None) -> Tensor:
    """Cell centres of a size x size grid: [size * size, 2], (x, y) in [0, 1], row by row."""
    centres = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def points_to_image(point_coords: Tensor, boxes: Tensor) -> Tensor:
    """Pixels (x, y) of the image, [R, P, 2], of points in [0, 1] of boxes [R, 4] xyxy."""
    origin, end = boxes[:, None, :2], boxes[:, None, 2:]
    return origin + point_coords * (end - origin)


def uncertain_coords(
    sample_uncertainty: Callable[[Tensor], Tensor],
    num_rows: int,
    num_points: int,
    oversample_ratio: float,
    importance_fraction: float,
    draw: Callable[[int], Tensor],
) -> Tensor:
    """Draws training points, most of them where the coarse prediction is unsure.

    PointRend, section 3.1 (k = oversample_ratio, beta = importance_fraction). Uncertainty is
    measured on the sampled logits, not on the grid: between two cells of logits -1 and 1 the
    sampled value is 0.

    Args:
        sample_uncertainty: [R, P', 2] candidate points -> [R, P'] uncertainty, larger = less sure.
        num_rows: R; may be 0.
        num_points: P, at least 1.
        oversample_ratio: candidates per kept point; >= 1.
        importance_fraction: share of P taken from the most uncertain candidates; in [0, 1].
        draw: number of points n -> [R, n, 2] uniform in [0, 1].

    Returns:
        [R, P, 2], (x, y) in [0, 1], float32, no gradient.

    Raises:
        ValueError: ratio below 1 or fraction outside [0, 1].
    """
    if oversample_ratio < 1:
        raise ValueError(f"oversample_ratio must be at least 1; got {oversample_ratio}")
    if not 0 <= importance_fraction <= 1:
        raise ValueError(f"importance_fraction must lie in [0, 1]; got {importance_fraction}")
    num_uncertain = int(importance_fraction * num_points)
    candidates = draw(int(oversample_ratio * num_points))
    uniform = draw(num_points - num_uncertain)
    if num_rows == 0 or num_uncertain == 0:
        return torch.cat([candidates[:, :num_uncertain], uniform], dim=1)
    with torch.no_grad():
        indices = sample_uncertainty(candidates).topk(num_uncertain, dim=1).indices
    chosen = candidates.gather(1, indices[:, :, None].expand(-1, -1, 2))
    return torch.cat([chosen, uniform], dim=1)


def mask_uncertainty(logits: Tensor) -> Tensor:
    """Minus the distance of a binary logit to 0, of any shape (PointRend, section 3.1)."""
    return -logits.abs()


def class_uncertainty(logits: Tensor, dim: int) -> Tensor:
    """Minus the gap between the two best class logits along `dim`; at most 0 (supplement)."""
    first, second = _two_largest(logits, dim)
    return second - first


def _two_largest(logits: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The two largest values along `dim`; running maxima beat a top-k by far on the CPU."""
    if needs_fixed_shapes(logits):
        best = logits.max(dim, keepdim=True)
        others = logits.scatter(dim, best.indices, float("-inf"))
        return best.values.squeeze(dim), others.amax(dim)
    slices = logits.unbind(dim)
    first, second = slices[0], torch.full_like(slices[0], float("-inf"))
    for values in slices[1:]:
        second = torch.maximum(second, torch.minimum(first, values))
        first = torch.maximum(first, values)
    return first, second
