"""Joins the tiles of a large image into one panoptic map, strip by strip, in bounded memory.

Letters: S stuff classes, H, W a tile, L the width of the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seamless_pr.id_maps.segments import measure_segments
from seamless_pr.inference.tile_grid import TileGrid
from seamless_pr.inference.tile_labels import TileLabels
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.panoptic_segmentation import Segment

# Codes of a strip: void, stuff classes by train id + 1, then things.
FIRST_THING = LabelSpace.IGNORE_TRAIN_ID + 1
# Two things of one class are one if they share this much of their pixels in the shared band.
SAME_THING_IOU = 0.5


class ThingTable:
    """Things of all tiles, and which of them are one; codes count from `FIRST_THING`."""

    def __init__(self) -> None:
        self.train_ids: list[int] = []
        self.scores: list[float] = []
        self._parents: list[int] = []

    def add(self, tile: TileLabels) -> int:
        """Enters the things of a tile; returns the code of the first."""
        first = FIRST_THING + len(self._parents)
        self._parents += range(len(self._parents), len(self._parents) + len(tile.train_ids))
        self.train_ids += tile.train_ids
        self.scores += tile.scores
        return first

    def root(self, code: int) -> int:
        """The code that stands for all codes of one thing."""
        index = code - FIRST_THING
        while self._parents[index] != index:
            self._parents[index] = self._parents[self._parents[index]]
            index = self._parents[index]
        return index + FIRST_THING

    def join(self, code: int, other: int) -> None:
        """Makes two codes one thing."""
        first, second = sorted((self.root(code) - FIRST_THING, self.root(other) - FIRST_THING))
        self._parents[second] = first

    def train_id(self, code: int) -> int:
        return self.train_ids[code - FIRST_THING]

    def __len__(self) -> int:
        return len(self._parents)


@dataclass
class Measures:
    """Area and extent of each code in all strips.

    Attributes:
        areas: pixels by code.
        boxes: (x0, y0, x1, y1) by code.
    """

    areas: dict[int, int]
    boxes: dict[int, tuple[int, int, int, int]]

    def add(self, strip: NDArray[np.int32], top: int) -> None:
        """Counts the pixels of a strip that starts at the row `top`."""
        found = measure_segments(strip)
        for code, area, (x, y, width, height) in zip(
            found.segment_ids.tolist(), found.areas.tolist(), found.boxes_xywh.tolist(), strict=True
        ):
            self.merge(code, area, (x, top + y, x + width, top + y + height))

    def merge(self, code: int, area: int, box: tuple[int, int, int, int]) -> None:
        """Adds pixels to a code."""
        self.areas[code] = self.areas.get(code, 0) + area
        x0, y0, x1, y1 = self.boxes.get(code, box)
        self.boxes[code] = (min(x0, box[0]), min(y0, box[1]), max(x1, box[2]), max(y1, box[3]))


def join_tiles(
    tiles: Iterable[TileLabels], grid: TileGrid, things: ThingTable, num_stuff: int
) -> Iterator[NDArray[np.int32]]:
    """Strips of codes from top to bottom, [rows, L] int32, as soon as no tile can change them.

    Scores of stuff are added, each tile's weighed by its distance from its seams. A pixel belongs
    to the thing of the tile that sees it best, but a thing that its tile sees whole goes before one
    that a seam cuts off, and before nothing. Things of one class that overlap in the band that both
    tiles see become one; whatever is one with the same thing is one, too.

    Args:
        tiles: of the grid, row by row; may be made as they are asked for.
        grid: of the image.
        things: filled with all things; which of them are one is known after the last strip.
        num_stuff: S.
    """
    vertical, horizontal = grid.vertical, grid.horizontal
    height, length = vertical.size, horizontal.length
    labels = np.zeros((height, length), np.int32)
    ranks = np.zeros((height, length), np.float32)
    carried = np.zeros((num_stuff + 1, 0, length), np.float32)
    tiles = iter(tiles)
    for row, top in enumerate(vertical.starts):
        num_rows = vertical.end_of_owned(row) - top
        classes = np.zeros((num_rows, length), np.int32)
        next_carried = np.zeros((num_stuff + 1, height - num_rows, length), np.float32)
        beside = np.zeros((num_stuff + 1, height, 0), np.float32)
        for column, left in enumerate(horizontal.starts):
            tile, weights = next(tiles), grid.weights(row, column).numpy()
            window = (slice(None), slice(left, left + horizontal.size))
            scores = tile.stuff_scores.astype(np.float32) * weights
            # From the row above, but for the columns that the tile to the left has taken over.
            num_shared = beside.shape[2]
            scores[:, : carried.shape[1], num_shared:] += carried[:, :, window[1]][
                :, :, num_shared:
            ]
            scores[:, :, :num_shared] += beside
            num_columns = horizontal.end_of_owned(column) - left
            done = slice(left, left + num_columns)
            classes[:, done] = scores[:, :num_rows, :num_columns].argmax(0)
            next_carried[:, :, done] = scores[:, num_rows:, :num_columns]
            beside = scores[:, :, num_columns:]
            first = things.add(tile)
            for band in (np.s_[: carried.shape[1]], np.s_[:, :num_shared]):
                _join_things(tile.things[band], first, labels[window][band], things)
            edges = grid.inner_edges(row, column)
            _place(tile, first, weights, edges, labels[window], ranks[window])
        stuff = np.where(classes < num_stuff, classes + 1, 0)
        done_labels = labels[:num_rows]
        yield np.where(done_labels > 0, done_labels, stuff)
        carried = next_carried
        for buffer in (labels, ranks):
            buffer[: height - num_rows] = buffer[num_rows:].copy()
            buffer[height - num_rows :] = 0


def _join_things(
    here: NDArray[np.int32], first: int, before: NDArray[np.int32], things: ThingTable
) -> None:
    """Finds which things of a tile are those that its neighbours see in the same band.

    Args:
        here: [h, w] part of `TileLabels.things` that neighbours on one side see, too.
        first: code of the first thing of the tile.
        before: [h, w] codes of the neighbours.
    """
    # As what they are together: a thing may have come from several tiles.
    codes, places = np.unique(before, return_inverse=True)
    roots = np.array([things.root(code) if code else 0 for code in codes.tolist()], np.int32)
    pairs = np.stack([roots[places.ravel()], here.ravel()])
    areas_before, areas_here = _counts(pairs[0]), _counts(pairs[1])
    found, common = np.unique(pairs[:, (pairs > 0).all(0)], axis=1, return_counts=True)
    for (code, index), num_common in zip(found.T.tolist(), common.tolist(), strict=True):
        new = first + index - 1
        union = areas_before[code] + areas_here[index] - num_common
        is_same_class = things.train_id(code) == things.train_id(new)
        if is_same_class and num_common >= SAME_THING_IOU * union:
            things.join(code, new)


def _counts(values: NDArray[np.int32]) -> dict[int, int]:
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _place(
    tile: TileLabels,
    first: int,
    weights: NDArray[np.float32],
    inner_edges: tuple[bool, bool, bool, bool],
    labels: NDArray[np.int32],
    ranks: NDArray[np.float32],
) -> None:
    """Enters a tile into labels and their ranks, [H, W] each; works in place."""
    is_whole = np.ones(len(tile.train_ids) + 1, bool)
    is_whole[0] = False
    above, below, left, right = inner_edges
    sides = ((above, 0, 0), (below, 0, -1), (left, 1, 0), (right, 1, -1))
    for is_inner, axis, index in sides:
        if is_inner:
            is_whole[tile.things.take(index, axis)] = False
    rank = weights + is_whole[tile.things]
    wins = rank > ranks
    codes = np.where(tile.things > 0, tile.things + (first - 1), 0)
    labels[wins] = codes[wins]
    ranks[wins] = rank[wins]


def final_segments(
    things: ThingTable, measures: Measures, space: LabelSpace, smallest_stuff: float
) -> tuple[NDArray[np.int32], list[tuple[Segment, tuple[int, int, int, int]]]]:
    """What the codes of a joined image are, after its last strip.

    Args:
        things: of all tiles.
        measures: of all strips.
        space: classes.
        smallest_stuff: pixels below which a stuff class becomes void.

    Returns:
        Table from codes to segment ids; and the segments, things first as in the maps of images
        that are seen whole, with their boxes (x0, y0, x1, y1).
    """
    joined = Measures({}, {})
    scores: dict[int, float] = {}
    for code, area in measures.areas.items():
        root = things.root(code) if code >= FIRST_THING else code
        joined.merge(root, area, measures.boxes[code])
    for index, score in enumerate(things.scores):
        root = things.root(FIRST_THING + index)
        scores[root] = max(score, scores.get(root, 0.0))
    table = np.zeros(FIRST_THING + len(things), np.int32)
    segments: list[tuple[Segment, tuple[int, int, int, int]]] = []
    for root in sorted(joined.areas, key=lambda code: (code < FIRST_THING, code)):
        is_stuff, area = root < FIRST_THING, joined.areas[root]
        if root == LabelSpace.VOID_SEGMENT_ID or (is_stuff and area < smallest_stuff):
            continue
        table[root] = len(segments) + 1
        train_id = root - 1 if is_stuff else things.train_id(root)
        score = 1.0 if is_stuff else scores[root]
        segments.append((Segment(len(segments) + 1, train_id, area, score), joined.boxes[root]))
    for index in range(len(things)):
        table[FIRST_THING + index] = table[things.root(FIRST_THING + index)]
    return table, segments
