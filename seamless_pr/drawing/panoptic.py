"""Drawing panoptic maps: colours over the image, contours, hatched void, and a legend."""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from seamless_pr.ops.images import ImageLike, image_tensor
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation

Picture = NDArray[np.uint8]

BACKGROUND = (27, 29, 33)
TEXT = (232, 234, 237)
FAINT_TEXT = (154, 160, 168)
OBJECT_CONTOUR = (255, 255, 255)
REGION_CONTOUR = (16, 18, 22)
OBJECT_CONTOUR_OPACITY = 0.9
REGION_CONTOUR_OPACITY = 0.45
# Multiples of 1 / g and 1 / g^2 (g = 1.3247, the real root of g^3 = g + 1), modulo 1, spread
# evenly over a square, so that the first few shades differ most.
HUE_STEP, LIGHTNESS_STEP = 0.7548777, 0.5698403
HUE_SPREAD = 0.09
# Upward more than downward: many class colours are dark.
DARKER, LIGHTER = 0.08, 0.16
GAP_PIXELS = 6
MAX_TABLE_ID = 1 << 16
STRIP_ROWS = 256


def draw_panoptic(
    image: ImageLike,
    segmentation: PanopticSegmentation,
    *,
    alpha: float = 0.55,
    contours: bool = True,
    legend: bool = True,
) -> Picture:
    """Draws a panoptic map over its image.

    Each class has its colour, each object a shade of it; objects have light contours, other
    borders dark ones; void pixels keep the darkened image under diagonal lines.

    Args:
        image: see `ops.images.image_tensor`.
        segmentation: of the same size.
        alpha: opacity of the colours, in [0, 1].
        contours: draw the borders of the segments.
        legend: add a strip with the names of the classes present below the image.

    Returns:
        [H, W, 3] uint8 RGB; taller than the image by the strip of the legend.

    Raises:
        ValueError: sizes differ, or alpha is outside [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1]; got {alpha}")
    pixels = image_tensor(image).permute(1, 2, 0).cpu().numpy()
    if pixels.shape[:2] != segmentation.image_size:
        raise ValueError(
            f"image is {pixels.shape[:2]} but segmentation {segmentation.image_size} "
            "(height, width); draw a map over the image it was made of"
        )
    segmentation = _with_small_ids(segmentation)
    picture = _coloured(pixels, segmentation, alpha)
    if contours:
        picture = _with_contours(picture, segmentation)
    if legend:
        strip = _legend(picture.shape[1], [segmentation], _scale(picture.shape[1]))
        picture = np.concatenate([picture, strip])
    return picture


def draw_comparison(
    image: ImageLike,
    segmentations: Mapping[str, PanopticSegmentation],
    *,
    alpha: float = 0.55,
    columns: int | None = None,
    show_image: bool = True,
) -> Picture:
    """Draws the image and several maps of it (ground truth, prediction, ...) side by side.

    Args:
        image: see `ops.images.image_tensor`.
        segmentations: title -> map of the size of the image; drawn in order.
        alpha: as in `draw_panoptic`.
        columns: panels in a row; all in one row if None.
        show_image: the first panel is the image itself.

    Returns:
        [H, W, 3] uint8 RGB: titled panels and one legend below them.
    """
    pixels = image_tensor(image).permute(1, 2, 0).cpu().numpy()
    panels = {"Image": pixels} if show_image else {}
    for title, segmentation in segmentations.items():
        panels[title] = draw_panoptic(pixels, segmentation, alpha=alpha, legend=False)
    grid = draw_grid(panels, columns=columns)
    scale = _scale(pixels.shape[1]) * _zoom(min(columns or len(panels), len(panels)))
    shown = [_with_small_ids(segmentation) for segmentation in segmentations.values()]
    return np.concatenate([grid, _legend(grid.shape[1], shown, scale)])


def draw_grid(panels: Mapping[str, Picture], *, columns: int | None = None) -> Picture:
    """Puts pictures of one size beside each other, each under its title.

    Args:
        panels: title -> [H, W, 3] uint8.
        columns: panels in a row; all in one row if None.

    Returns:
        [H', W', 3] uint8 RGB.
    """
    if not panels:
        raise ValueError("a grid needs at least one panel")
    if len({panel.shape for panel in panels.values()}) != 1:
        raise ValueError("panels of a grid must have one size; resize them before")
    columns = min(columns or len(panels), len(panels))
    titled = [_titled(title, panel, _zoom(columns)) for title, panel in panels.items()]
    height, width = titled[0].shape[:2]
    rows = -(-len(titled) // columns)
    grid = _canvas(
        rows * height + (rows - 1) * GAP_PIXELS, columns * width + (columns - 1) * GAP_PIXELS
    )
    for index, panel in enumerate(titled):
        top = index // columns * (height + GAP_PIXELS)
        left = index % columns * (width + GAP_PIXELS)
        grid[top : top + height, left : left + width] = panel
    return grid


def segment_colors(segmentation: PanopticSegmentation) -> dict[int, tuple[int, int, int]]:
    """segment_id -> RGB: the colour of the class for stuff, a shade of it for each object."""
    colors: dict[int, tuple[int, int, int]] = {}
    seen: Counter[int] = Counter()
    label_space = segmentation.label_space
    for segment in segmentation.segments:
        color = label_space.categories[segment.train_id].color
        if label_space.is_thing(segment.train_id) and not segment.is_crowd:
            color = _shade(color, seen[segment.train_id])
            seen[segment.train_id] += 1
        colors[segment.segment_id] = color
    return colors


def _with_small_ids(segmentation: PanopticSegmentation) -> PanopticSegmentation:
    """The same map with ids small enough to be positions in a table; COCO's have 24 bits."""
    ids = segmentation.id_map.numpy()
    if ids.size == 0 or ids.max() <= MAX_TABLE_ID:
        return segmentation
    order = sorted(segment.segment_id for segment in segmentation.segments)
    compact = np.searchsorted([LabelSpace.VOID_SEGMENT_ID, *order], ids).astype(np.int32)
    segments = tuple(
        replace(segment, segment_id=order.index(segment.segment_id) + 1)
        for segment in segmentation.segments
    )
    return PanopticSegmentation(torch.from_numpy(compact), segments, segmentation.label_space)


def _shade(color: tuple[int, int, int], index: int) -> tuple[int, int, int]:
    """The index-th variation of a colour; the colour itself at 0, all of one family."""
    if index == 0:
        return color
    hue, lightness, saturation = colorsys.rgb_to_hls(*(channel / 255 for channel in color))
    hue += HUE_SPREAD * ((index * HUE_STEP) % 1 - 0.5)
    step = (index * LIGHTNESS_STEP) % 1
    lightness = float(np.clip(lightness - DARKER + (DARKER + LIGHTER) * step, 0.12, 0.85))
    red, green, blue = colorsys.hls_to_rgb(hue % 1, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


def _coloured(pixels: Picture, segmentation: PanopticSegmentation, alpha: float) -> Picture:
    colors = segment_colors(segmentation)
    table = np.zeros((max(colors, default=0) + 1, 3), np.uint8)
    for segment_id, color in colors.items():
        table[segment_id] = color
    ids = segmentation.id_map.numpy()
    picture = np.empty(pixels.shape, np.uint8)
    for rows in _strips(len(ids)):
        strip = np.ascontiguousarray(pixels[rows])
        picture[rows] = cv2.addWeighted(table[ids[rows]], alpha, strip, 1 - alpha, 0)
        void = ids[rows] == LabelSpace.VOID_SEGMENT_ID
        if void.any():
            picture[rows][void] = _hatched(strip, rows.start)[void]
    return picture


def _strips(height: int) -> list[slice]:
    """Rows that are drawn together: of a large picture not all, for the sake of the memory."""
    return [slice(top, min(top + STRIP_ROWS, height)) for top in range(0, height, STRIP_ROWS)]


def _hatched(pixels: Picture, top: int) -> Picture:
    """The darkened image, whose first row is row `top` of all, under thin diagonal lines."""
    height, width = pixels.shape[:2]
    period = max(10, round(_scale(width) * 12))
    diagonal = np.add.outer(np.arange(top, top + height), np.arange(width)) % period
    # Distance to the line in pixels, so that its edge is soft.
    distance = np.minimum(diagonal, period - diagonal) / np.sqrt(2)
    line = np.clip(1.2 * _scale(width) - distance + 0.5, 0, 1)[..., None] * 0.35
    dark = pixels * 0.5
    return (dark + line * (190 - dark)).astype(np.uint8)


def _with_contours(picture: Picture, segmentation: PanopticSegmentation) -> Picture:
    """Soft lines along the borders: light around objects, dark between other regions."""
    ids = segmentation.id_map.numpy()
    is_object = np.zeros(int(ids.max(initial=0)) + 1, bool)
    for segment in segmentation.segments:
        if segment.segment_id < len(is_object):
            is_object[segment.segment_id] = segmentation.label_space.is_thing(segment.train_id)
    result = picture.copy()
    margin = _line_reach(_scale(picture.shape[1]))
    for rows in _strips(len(ids)):
        # A border is seen from the row above it, and a line reaches beyond its own row.
        seen = slice(max(0, rows.start - margin), min(len(ids), rows.stop + margin))
        inner = slice(rows.start - seen.start, rows.stop - seen.start)
        result[rows] = _strip_with_contours(picture[seen], ids[seen], is_object)[inner]
    return result


def _strip_with_contours(
    picture: Picture, ids: NDArray[np.int32], is_object: NDArray[np.bool_]
) -> Picture:
    borders = _borders(ids)
    if not borders.any():
        return picture
    objects = cv2.dilate(is_object[ids].astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    scale = _scale(picture.shape[1])
    result = picture.astype(np.float32)
    for line, color, opacity in (
        (borders & ~objects, REGION_CONTOUR, REGION_CONTOUR_OPACITY),
        (borders & objects, OBJECT_CONTOUR, OBJECT_CONTOUR_OPACITY),
    ):
        coverage = opacity * _soft_line(line, scale)[..., None]
        result += coverage * (np.array(color, np.float32) - result)
    return np.rint(result).astype(np.uint8)


def _borders(ids: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Pixels whose right or lower neighbour belongs to another segment."""
    borders = np.zeros(ids.shape, bool)
    borders[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    borders[:-1] |= ids[:-1] != ids[1:]
    return borders


def _soft_line(line: NDArray[np.bool_], scale: float) -> NDArray[np.float32]:
    """Blurs a one-pixel staircase into an anti-aliased line; 1 on a straight line, 0 far away."""
    sigma = _line_sigma(scale)
    blurred = cv2.GaussianBlur(line.astype(np.float32), (0, 0), sigma)
    # A straight line of one pixel keeps erf(1 / (2 sqrt(2) sigma)) of its height.
    peak = float(cv2.getGaussianKernel(2 * int(4 * sigma) + 3, sigma).max())
    return np.minimum(blurred / peak, 1)


def _line_sigma(scale: float) -> float:
    return 0.6 * max(scale, 0.9)


def _line_reach(scale: float) -> int:
    """Rows beyond which a border has no influence: OpenCV's kernel, and what its finding needs."""
    return int(4 * _line_sigma(scale)) + 4


def _scale(width: int) -> float:
    """Size of lines and letters: 1 for a picture 1024 pixels wide."""
    return float(np.clip(width / 1024, 0.75, 4))


def _canvas(height: int, width: int) -> Picture:
    return np.full((height, width, 3), BACKGROUND, np.uint8)


def _font(size: float) -> Any:
    return ImageFont.load_default(size)


def _zoom(columns: int) -> float:
    """Wide grids are looked at from further away, so their letters are larger."""
    return float(np.sqrt(columns))


def _titled(title: str, panel: Picture, zoom: float) -> Picture:
    size = 13.5 * _scale(panel.shape[1]) * zoom
    bar = Image.fromarray(_canvas(round(1.9 * size), panel.shape[1]))
    ImageDraw.Draw(bar).text(
        (round(0.6 * size), bar.height / 2), title, TEXT, _font(size), anchor="lm"
    )
    return np.concatenate([np.asarray(bar), panel])


def _legend(width: int, segmentations: Sequence[PanopticSegmentation], scale: float) -> Picture:
    """Swatches and names of the classes present, in rows that fit the width."""
    entries = _legend_entries(segmentations)
    size = 13.5 * scale
    font = _font(size)
    swatch, space, row_height = round(1.05 * size), round(0.45 * size), round(1.75 * size)
    margin, gap = round(0.7 * size), round(1.3 * size)
    places: list[tuple[int, int]] = []
    left, row = margin, 0
    for _, name, count in entries:
        length = swatch + space + round(font.getlength(name + count))
        if left > margin and left + length > width - margin:
            left, row = margin, row + 1
        places.append((left, row))
        left += length + gap
    strip = Image.fromarray(_canvas((row + 1) * row_height + margin, width))
    draw = ImageDraw.Draw(strip)
    for (left, row), (color, name, count) in zip(places, entries, strict=True):
        middle = margin / 2 + (row + 0.5) * row_height
        top = round(middle - swatch / 2)
        box = (left, top, left + swatch - 1, top + swatch - 1)
        if color is None:
            strip.paste(
                Image.fromarray(_hatched(np.full((swatch, swatch, 3), 90, np.uint8), 0)), box[:2]
            )
        else:
            draw.rectangle(box, fill=color)
        text_left = left + swatch + space
        draw.text((text_left, middle), name, TEXT, font, anchor="lm")
        draw.text((text_left + font.getlength(name), middle), count, FAINT_TEXT, font, anchor="lm")
    return np.asarray(strip)


def _legend_entries(
    segmentations: Sequence[PanopticSegmentation],
) -> list[tuple[tuple[int, int, int] | None, str, str]]:
    """(colour, name, number of objects) of each class present, by train id; void last."""
    counts: Counter[int] = Counter()
    has_void = False
    for segmentation in segmentations:
        areas = np.bincount(segmentation.id_map.numpy().ravel())
        visible = [
            segment.train_id
            for segment in segmentation.segments
            if segment.segment_id < len(areas) and areas[segment.segment_id]
        ]
        # Of several maps of one image, the legend shows the larger number of objects.
        counts |= Counter(visible)
        has_void |= bool(areas[LabelSpace.VOID_SEGMENT_ID])
    entries: list[tuple[tuple[int, int, int] | None, str, str]] = []
    for train_id in sorted(counts):
        label_space = segmentations[0].label_space
        category = label_space.categories[train_id]
        show_count = label_space.is_thing(train_id) and len(segmentations) == 1
        count = f" {counts[train_id]}" if show_count else ""
        entries.append((category.color, category.name, count))
    if has_void:
        entries.append((None, "void", ""))
    return entries
