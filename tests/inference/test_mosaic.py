"""Tiles joined into one map: seams, bounded memory, and equality with what is seen whole."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from seamless_pr.id_maps.id_png_files import read_id_png
from seamless_pr.id_maps.png_strips import IdPngWriter
from seamless_pr.inference.mosaic import FIRST_THING, ThingTable, join_tiles
from seamless_pr.inference.tile_grid import Axis, TileGrid
from seamless_pr.inference.tile_labels import TileLabels

STUFF = 2
THING = FIRST_THING


def world(things: np.ndarray, stuff: np.ndarray, grid: TileGrid, train_ids: dict[int, int]):
    """What a network that sees everything right says about each tile of a world."""
    for top in grid.vertical.starts:
        for left in grid.horizontal.starts:
            window = (
                slice(top, top + grid.vertical.size),
                slice(left, left + grid.horizontal.size),
            )
            seen, classes = things[window], stuff[window]
            ids = [value for value in np.unique(seen).tolist() if value]
            tile = np.zeros(seen.shape, np.int32)
            for index, value in enumerate(ids):
                tile[seen == value] = index + 1
            scores = np.stack([classes == c for c in range(STUFF)] + [seen > 0])
            yield TileLabels(
                tile,
                tuple(train_ids[value] for value in ids),
                tuple(0.5 + value / 100 for value in ids),
                scores.astype(np.float16),
            )


def joined(tiles, grid):
    table = ThingTable()
    strips = list(join_tiles(tiles, grid, table, STUFF))
    codes = np.concatenate(strips)
    roots = np.array([table.root(c) if c >= FIRST_THING else c for c in range(codes.max() + 1)])
    return roots[codes], table, [len(strip) for strip in strips]


def same_partition(ours: np.ndarray, theirs: np.ndarray) -> bool:
    pairs = np.unique(np.stack([ours.ravel(), theirs.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


@pytest.mark.parametrize("size, overlap", [(24, 8), (30, 0), (17, 5), (24, 16), (200, 20)])
def test_a_world_that_is_seen_right_comes_out_as_it_is(size, overlap):
    rng = np.random.default_rng(0)
    stuff = np.kron(rng.integers(0, STUFF, (9, 12)), np.ones((10, 10), int))[:83, :119]
    things = np.zeros_like(stuff)
    things[40:44, 3:115] = 40  # Through all columns of tiles,
    things[3:80, 60:64] = 40  # and all rows: one thing by way of many tiles.
    for value in range(1, 40):
        y, x = rng.integers(0, 80), rng.integers(0, 110)
        place = things[y : y + 5, x : x + 5]
        if not place.any():
            place[:] = value
    train_ids = {value: STUFF + value % 2 for value in range(1, 41)}
    grid = TileGrid.of(stuff.shape, size, overlap)
    found, table, heights = joined(world(things, stuff, grid, train_ids), grid)
    expected = np.where(things > 0, FIRST_THING + things, stuff + 1)
    assert np.array_equal(found[things == 0], expected[things == 0])
    if overlap:
        assert same_partition(found, expected)
        for value in np.unique(things[things > 0]).tolist():
            assert table.train_id(int(found[things == value][0])) == train_ids[value]
    assert sum(heights) == len(stuff)
    assert max(heights) <= size


def tile(things, train_ids, classes=None):
    things = np.array([[int(c) for c in line] for line in things.split()], np.int32)
    classes = np.zeros_like(things) if classes is None else classes
    scores = np.stack([classes == 0, classes == 1, things > 0]).astype(np.float16)
    return TileLabels(things, tuple(train_ids), (0.9,) * len(train_ids), scores)


def test_things_of_other_classes_or_of_little_overlap_stay_apart():
    grid = TileGrid.of((1, 10), 6, 2)
    assert grid.horizontal.starts == (0, 4)
    one, _, _ = joined([tile("000011", [2]), tile("110000", [2])], grid)
    assert one[0].tolist() == [1, 1, 1, 1, THING, THING, 1, 1, 1, 1]
    two, _, _ = joined([tile("001111", [2]), tile("111000", [3])], grid)
    assert two[0].tolist() == [1, 1, THING, THING, THING, THING + 1, THING + 1, 1, 1, 1]


def test_a_thing_that_only_one_tile_sees_whole_is_kept_over_the_seam():
    grid = TileGrid.of((1, 10), 7, 4)
    assert grid.horizontal.starts == (0, 3)
    found, _, _ = joined([tile("0000110", [2]), tile("0000000", [])], grid)
    assert found[0].tolist() == [1, 1, 1, 1, THING, THING, 1, 1, 1, 1]
    cut_off, _, _ = joined([tile("0000011", [2]), tile("0000000", [])], grid)
    assert (cut_off == 1).all()


def test_scores_of_stuff_are_added_by_the_distance_from_the_seam():
    grid = TileGrid.of((1, 10), 7, 4)
    left, right = (tile("0000000", [], np.full((1, 7), c)) for c in (0, 1))
    found, _, _ = joined([left, right], grid)
    assert found[0].tolist() == [1] * 5 + [2] * 5


def test_tiles_cover_a_side_evenly_and_overlap_at_least_as_asked():
    for length in range(1, 90):
        axis = Axis.of(length, 20, 6)
        ends = [start + axis.size for start in axis.starts]
        assert axis.starts[0] == 0
        assert ends[-1] == length
        assert all(end - start >= 6 for end, start in zip(ends, axis.starts[1:]))
    with pytest.raises(ValueError, match="from 0 to 19"):
        Axis.of(50, 20, 20)


def test_a_png_grows_strip_by_strip(tmp_path):
    ids = np.random.default_rng(0).integers(0, 2**24, (23, 31))
    with (tmp_path / "ids.png").open("wb") as file:
        writer = IdPngWriter(file, (23, 31))
        for start in range(0, 23, 5):
            writer.write(ids[start : start + 5])
        with pytest.raises(ValueError, match="at most 0 rows"):
            writer.write(ids[:1])
        writer.close()
    assert np.array_equal(read_id_png(tmp_path / "ids.png"), ids)
    with (tmp_path / "short.png").open("wb") as file, pytest.raises(ValueError, match="3 rows"):
        IdPngWriter(file, (3, 3)).close()


def test_memory_follows_the_strip_and_not_the_image():
    """A map of 1 x 40 tiles and one of 40 x 1: the second needs what one tile needs."""
    size = 64

    def peak(image_size):
        grid = TileGrid.of(image_size, size, 16)
        nothing = np.zeros((size, size), np.int32)
        blank = TileLabels(nothing, (), (), np.zeros((STUFF + 1, size, size), np.float16))
        count = len(grid.vertical.starts) * len(grid.horizontal.starts)
        tracemalloc.start()
        for strip in join_tiles((blank for _ in range(count)), grid, ThingTable(), STUFF):
            assert strip.shape[1] == image_size[1]
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak((64 * 40, 64)) < 1.5 * peak((64 * 2, 64))
