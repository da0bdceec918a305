"""A network that sees images of any size in tiles, for whoever has the pixels in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from seamless_pr.inference.mosaic import Measures, ThingTable, final_segments, join_tiles
from seamless_pr.inference.predictor import Predictor
from seamless_pr.inference.tile_grid import TileGrid, Tiling
from seamless_pr.inference.tile_labels import label_tile, min_stuff_area
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation
from seamless_pr.structures.prediction import Prediction


class TiledPredictor(Predictor):
    """Labels images at their own resolution, tile by tile; the maps of `predict --tile`."""

    def __init__(self, predictor: Predictor, tiling: Tiling) -> None:
        """Takes the network of another predictor.

        Args:
            predictor: may not be used any more.
            tiling: how images are cut.
        """
        super().__init__(
            predictor.network,
            shortest_side_pixels=predictor.shortest_side_pixels,
            longest_side_pixels=predictor.longest_side_pixels,
            device=predictor.device,
            rounded_sides=predictor.rounded_sides,
            batch_size=predictor.batch_size,
            amp=predictor.amp,
            settings=predictor.describe(),
        )
        self.tiling = tiling
        self.note(tile_pixels=tiling.size, overlap_pixels=tiling.overlap)

    def resize(self, image: Tensor) -> Tensor:
        """The image itself."""
        return image

    def predict_resized(
        self, images: Sequence[Tensor], original_sizes: Sequence[tuple[int, int]]
    ) -> list[Prediction]:
        """Labels images one after the other; panoptic maps alone.

        Args:
            images: N of [3, H, W] uint8.
            original_sizes: theirs.
        """
        return [Prediction(panoptic=self._label(image)) for image in images]

    def _label(self, image: Tensor) -> PanopticSegmentation:
        size = (image.shape[-2], image.shape[-1])
        grid = TileGrid.of(size, self.tiling.size, self.tiling.overlap)
        things, measures = ThingTable(), Measures({}, {})
        tiles = (label_tile(self, tile) for tile in _tiles(image, grid))
        codes, top = np.empty(size, np.int32), 0
        for strip in join_tiles(tiles, grid, things, self.label_space.num_stuff):
            measures.add(strip, top)
            codes[top : top + len(strip)] = strip
            top += len(strip)
        smallest = min_stuff_area(self.network, size)
        table, segments = final_segments(things, measures, self.label_space, smallest)
        return PanopticSegmentation(
            torch.from_numpy(table[codes]),
            tuple(segment for segment, _ in segments),
            self.label_space,
        )


def _tiles(image: Tensor, grid: TileGrid) -> Iterator[Tensor]:
    height, width = grid.vertical.size, grid.horizontal.size
    for top in grid.vertical.starts:
        for left in grid.horizontal.starts:
            yield image[:, top : top + height, left : left + width].clone()
