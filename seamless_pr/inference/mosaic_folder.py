"""Labels images of any size tile by tile into a prediction folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seamless_pr.datasets.coco_results import SCORE_DIGITS, encode_run_lengths
from seamless_pr.datasets.remote_files import file_state
from seamless_pr.datasets.windows import RowReader, open_rows
from seamless_pr.drawing.panoptic import draw_panoptic
from seamless_pr.id_maps.png_strips import IdPngWriter
from seamless_pr.inference.folders import ImageOutcome, write_image
from seamless_pr.inference.image_list import ImageItem
from seamless_pr.inference.mosaic import Measures, ThingTable, final_segments, join_tiles
from seamless_pr.inference.prediction_folder import PredictionFolder
from seamless_pr.inference.predictor import Predictor
from seamless_pr.inference.tile_grid import TileGrid, Tiling
from seamless_pr.inference.tile_labels import TileLabels, label_tile, min_stuff_area
from seamless_pr.structures.instances import MaskCrop
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation, Segment

# Longest side of the coloured picture of a mosaic; larger ones no viewer shows anyway.
LARGEST_OVERLAY = 4096

# Pixels of tiles -> their labels, in the same order.
LabelTiles = Callable[[Iterable[Tensor]], Iterator[TileLabels]]


def label_mosaics(
    predictor: Predictor,
    items: Sequence[ImageItem],
    folder: PredictionFolder,
    *,
    tiling: Tiling,
    label_tiles: LabelTiles | None = None,
) -> Iterator[ImageOutcome]:
    """Labels images tile by tile at the resolution of their files, one image after the other.

    Args:
        predictor: with the network.
        items: images to do.
        folder: where results go, semantic PNGs excepted.
        tiling: how images are cut.
        label_tiles: who labels tiles, for example other machines; None: this process.

    Yields:
        One outcome an image.
    """
    label = label_tiles or partial(_label_here, predictor)
    for item in items:
        try:
            state = file_state(item.path)
            with open_rows(item.path) as image:
                _label_mosaic(predictor, item, image, folder, tiling, label, state)
        except (OSError, ValueError) as error:
            yield write_image(ImageOutcome(item, str(error)), folder)
            continue
        yield ImageOutcome(item)


def _label_here(predictor: Predictor, tiles: Iterable[Tensor]) -> Iterator[TileLabels]:
    for tile in tiles:
        yield label_tile(predictor, tile)


def _label_mosaic(
    predictor: Predictor,
    item: ImageItem,
    image: RowReader,
    folder: PredictionFolder,
    tiling: Tiling,
    label_tiles: LabelTiles,
    source: Any,
) -> None:
    space = predictor.label_space
    grid = TileGrid.of(image.size, tiling.size, tiling.overlap)
    things, measures = ThingTable(), Measures({}, {})
    # Which things are one is known after the last strip only; until then codes lie on the disk.
    with tempfile.TemporaryFile(dir=folder.root) as codes:
        top, heights = 0, []
        strips = join_tiles(label_tiles(_tiles(image, grid)), grid, things, space.num_stuff)
        for strip in strips:
            measures.add(strip, top)
            codes.write(np.ascontiguousarray(strip).tobytes())
            top += len(strip)
            heights.append(len(strip))
        smallest = min_stuff_area(predictor.network, image.size)
        table, segments = final_segments(things, measures, space, smallest)
        segments_info = [_coco_segment(segment, box, space) for segment, box in segments]
        codes.flush()
        code_map = np.memmap(codes, np.int32, "r", shape=image.size)
        instances = overlay = None
        if folder.instances:
            found = zip(segments, segments_info, strict=True)
            instances = [
                _coco_instance(item, info, table, code_map)
                for (segment, _), info in found
                if space.is_thing(segment.train_id)
            ]
        if folder.overlays:
            overlay = _overlay(image, code_map, table, [segment for segment, _ in segments], space)
        with folder.writing_strips(
            item, image.size, segments_info, source, instances, overlay
        ) as file:
            writer = IdPngWriter(file, image.size)
            for strip in _split(code_map, heights):
                writer.write(table[strip])
            writer.close()


def _tiles(image: RowReader, grid: TileGrid) -> Iterator[Tensor]:
    for top in grid.vertical.starts:
        rows = image.rows(top, top + grid.vertical.size)
        for left in grid.horizontal.starts:
            yield rows[:, :, left : left + grid.horizontal.size].clone()


def _split(code_map: NDArray[np.int32], heights: Sequence[int]) -> Iterator[NDArray[np.int32]]:
    top = 0
    for height in heights:
        yield code_map[top : top + height]
        top += height


def _coco_instance(
    item: ImageItem,
    info: dict[str, Any],
    table: NDArray[np.int32],
    code_map: NDArray[np.int32],
) -> dict[str, Any]:
    """A COCO result out of a segment of a thing; its extent at a time is in memory."""
    x, y, width, height = info["bbox"]
    mask = table[code_map[y : y + height, x : x + width]] == info["id"]
    crop = MaskCrop(torch.from_numpy(mask), y, x)
    return {
        "image_id": item.image_id,
        "category_id": info["category_id"],
        "bbox": info["bbox"],
        "score": info["score"],
        "segmentation": encode_run_lengths(crop, (code_map.shape[0], code_map.shape[1])),
    }


def _overlay(
    image: RowReader,
    code_map: NDArray[np.int32],
    table: NDArray[np.int32],
    segments: Sequence[Segment],
    space: LabelSpace,
) -> NDArray[np.uint8]:
    """The coloured picture, [h, w, 3]: of a large image one pixel out of as many as fit."""
    step = -(-max(image.size) // LARGEST_OVERLAY)
    # The middle of each square of so many pixels.
    top, left = (min(step // 2, side - 1) for side in image.size)
    rows = range(top, image.size[0], step)
    pixels = [image.rows(row, row + 1)[:, 0, left::step].t().numpy() for row in rows]
    ids = table[code_map[top::step, left::step]]
    segmentation = PanopticSegmentation(torch.from_numpy(ids), tuple(segments), space)
    return draw_panoptic(np.stack(pixels), segmentation)


def _coco_segment(
    segment: Segment, box: tuple[int, int, int, int], space: LabelSpace
) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    return {
        "id": segment.segment_id,
        "category_id": space.categories[segment.train_id].category_id,
        "area": segment.area,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "iscrowd": 0,
        "score": round(segment.score or 0.0, SCORE_DIGITS),
    }
