"""Pictures of one image for the report: photograph, truth, prediction, errors, and segments to
point at.

h x w pixels as shown.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seamless_pr.datasets.images import read_image
from seamless_pr.drawing.pages import script_data, shown_size
from seamless_pr.evaluation.map_files import LoadedMap
from seamless_pr.evaluation.pairing import ImagePair
from seamless_pr.files import write_whole
from seamless_pr.id_maps.overlap import VOID_SEGMENT_ID, Overlap, count_overlap_of_runs
from seamless_pr.metrics.segment_confusion import mistaken_pairs
from seamless_pr.metrics.segment_matching import PQRules, SegmentMatches, match_segments
from seamless_pr.metrics.segment_table import SegmentTable
from seamless_pr.structures.faults import quoted
from seamless_pr.structures.label_space import LabelSpace

# Widest picture, and widest grid of segments to point at, in pixels.
PICTURE_WIDTH, GRID_WIDTH, THUMBNAIL_WIDTH = 1024, 512, 320
JPEG_QUALITY = 82
# Colours that a PNG with a palette can have.
PALETTE_SIZE = 256
# Okabe and Ito's colours, which colour-blind people tell apart.
NO_ERROR, MISSED, INVENTED, WRONG_CLASS, BORDER = range(5)
ERROR_COLORS = {
    MISSED: (213, 94, 0),
    INVENTED: (0, 114, 178),
    WRONG_CLASS: (204, 121, 167),
    BORDER: (240, 228, 66),
}
ERROR_NAMES = {
    MISSED: "missed",
    INVENTED: "invented",
    WRONG_CLASS: "wrong class",
    BORDER: "border",
}
VOID_COLOR = (24, 26, 30)


@dataclass(frozen=True)
class PictureWork:
    """One image to draw.

    Attributes:
        number: names the files.
        pair: the maps.
        photograph: None if there is none; then it stays grey.
    """

    number: int
    pair: ImagePair
    photograph: Path | None


def draw_pictures(
    work: PictureWork, folder: Path, label_space: LabelSpace, rules: PQRules
) -> dict[str, Any]:
    """Writes the layers of one image below `folder`.

    Files NUMBER.jpg (photograph), NUMBER_gt.png, NUMBER_pred.png, NUMBER_error.png (transparent
    where nothing is wrong), NUMBER_thumb.jpg, and NUMBER.js, which hands segments and their grid to
    the page (a script, because pages opened from disk may not read other files).

    Returns:
        number, width and height as shown, and why there is no photograph, empty if there is one.
    """
    gt = work.pair.gt.load()
    file = work.pair.pred
    # A missing prediction was scored as an empty one.
    is_there = file is not None and file.path.is_file()
    pred = file.load() if file is not None and is_there else LoadedMap.empty(gt.runs.image_size)
    tables = _table(gt, label_space), _table(pred, label_space)
    overlap = count_overlap_of_runs(gt.runs, pred.runs)
    matches = match_segments(overlap, *tables, label_space.num_classes, rules)
    shown = shown_size(gt.runs.image_size, PICTURE_WIDTH)
    positions = [
        table.find(_resized(side.id_map, shown).ravel().astype(np.int64)).reshape(shown)
        for table, side in zip(tables, (gt, pred))
    ]
    pairs = mistaken_pairs(overlap, *tables, matches)
    on_void = _resized(gt.id_map, shown) == VOID_SEGMENT_ID
    errors = error_map(positions[0], positions[1], on_void, tables, matches)
    photograph, reason = _read_photograph(work.photograph, shown)
    stem = folder / str(work.number)
    write_whole(stem.with_suffix(".jpg"), _jpeg(photograph))
    for name, table, places in (("gt", tables[0], positions[0]), ("pred", tables[1], positions[1])):
        write_whole(folder / f"{work.number}_{name}.png", _coloured_png(places, table, label_space))
    write_whole(folder / f"{work.number}_error.png", _error_png(errors))
    write_whole(folder / f"{work.number}_thumb.jpg", _jpeg(_thumbnail(photograph, errors)))
    details = {
        "gt": _gt_rows(tables[0], tables[1], overlap, matches, pairs, label_space),
        "pred": _pred_rows(tables[0], tables[1], overlap, matches, pairs, label_space),
        **_grid(positions),
    }
    text = script_data(details)
    write_whole(stem.with_suffix(".js"), f"report.receive({work.number},{text});\n".encode())
    return {
        "number": work.number,
        "width": shown[1],
        "height": shown[0],
        "no_photograph": reason,
    }


def error_map(
    gt_places: NDArray[np.int64],
    pred_places: NDArray[np.int64],
    on_void: NDArray[np.bool_],
    tables: tuple[SegmentTable, SegmentTable],
    matches: SegmentMatches,
) -> NDArray[np.uint8]:
    """What is wrong with each pixel.

    Args:
        gt_places, pred_places: [h, w] index into the segment tables, -1 = no segment.
        on_void: [h, w], void in the truth: nothing is wrong there.
        tables: true and predicted segments.
        matches: of the image.

    Returns:
        [h, w] uint8: NO_ERROR; MISSED: of a segment that is not found; WRONG_CLASS: the same where
        a false segment of another class lies; INVENTED: a false segment on one that is found;
        BORDER: pixels that a found segment loses.
    """
    gt, pred = tables
    is_missed, is_invented = np.zeros(len(gt) + 1, bool), np.zeros(len(pred) + 1, bool)
    is_missed[matches.missed_gt] = True
    is_invented[matches.invented_pred] = True
    partner = np.full(len(gt) + 1, -2)
    partner[matches.pair_gt[matches.pair_is_match]] = matches.pair_pred[matches.pair_is_match]
    gt_class, pred_class = np.append(gt.train_ids, -1), np.append(pred.train_ids, -1)
    missed, invented = is_missed[gt_places], is_invented[pred_places]
    is_found = partner[gt_places] >= 0
    errors = np.zeros(gt_places.shape, dtype=np.uint8)
    errors[is_found & (partner[gt_places] != pred_places)] = BORDER
    errors[invented & ~missed] = INVENTED
    errors[missed] = MISSED
    errors[missed & invented & (gt_class[gt_places] != pred_class[pred_places])] = WRONG_CLASS
    errors[on_void] = NO_ERROR
    return errors


def _table(loaded: LoadedMap, label_space: LabelSpace) -> SegmentTable:
    segment_ids, category_ids, areas, is_crowd = loaded.segments.T
    train_ids = [label_space.train_id_of[value] for value in category_ids.tolist()]
    return SegmentTable(
        np.ascontiguousarray(segment_ids),
        np.array(train_ids, dtype=np.int64),
        is_crowd == 1,
        None if (areas < 0).any() else np.ascontiguousarray(areas),
    )


def _resized(id_map: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Nearest neighbour, the pixel under the middle of each new one."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, id_map.shape)
    )
    return id_map[rows[:, None], columns]


def _read_photograph(path: Path | None, size: tuple[int, int]) -> tuple[NDArray[np.uint8], str]:
    """[h, w, 3], grey where there is none, and why there is none."""
    grey = np.full((*size, 3), 96, np.uint8)
    if path is None:
        return grey, "no file"
    try:
        photograph = Image.fromarray(read_image(path).permute(1, 2, 0).numpy())
    except (OSError, ValueError) as error:  # One of them must not cost the report.
        return grey, str(error)
    return np.asarray(photograph.resize((size[1], size[0]), Image.Resampling.BOX)), ""


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return cv2.imencode(".jpg", picture[..., ::-1], options)[1].tobytes()


def _coloured_png(
    places: NDArray[np.int64], segments: SegmentTable, label_space: LabelSpace
) -> bytes:
    """Class colours, borders of segments in white; a palette, if it fits, keeps the file small."""
    colors = [VOID_COLOR, (255, 255, 255), *(c.color for c in label_space.categories)]
    classes = np.append(segments.train_ids + 2, 0)[places]
    is_border = np.zeros(places.shape, bool)
    is_border[:, 1:] |= places[:, 1:] != places[:, :-1]
    is_border[1:] |= places[1:] != places[:-1]
    classes[is_border] = 1
    if len(colors) > PALETTE_SIZE:
        return _encoded_png(Image.fromarray(np.array(colors, np.uint8)[classes]))
    return _palette_png(classes.astype(np.uint8), colors)


def _error_png(errors: NDArray[np.uint8]) -> bytes:
    colors = [(0, 0, 0), *(ERROR_COLORS[kind] for kind in sorted(ERROR_COLORS))]
    return _palette_png(errors, colors, transparency=bytes([0] + [225] * len(ERROR_COLORS)))


def _palette_png(
    indices: NDArray[np.uint8], colors: list[tuple[int, int, int]], **options: Any
) -> bytes:
    image = Image.fromarray(indices, "P") if indices.size else Image.new("P", (1, 1))
    image.putpalette([channel for color in colors for channel in color])
    return _encoded_png(image, **options)


def _encoded_png(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def _thumbnail(photograph: NDArray[np.uint8], errors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The darkened photograph with its errors."""
    table = np.array([(0, 0, 0), *(ERROR_COLORS[kind] for kind in sorted(ERROR_COLORS))], np.uint8)
    picture = np.where((errors > 0)[..., None], table[errors], photograph // 2 + 32)
    size = shown_size((errors.shape[0], errors.shape[1]), THUMBNAIL_WIDTH, enlarge=True)
    return np.asarray(
        cv2.resize(picture.astype(np.uint8), size[::-1], interpolation=cv2.INTER_AREA),
        dtype=np.uint8,
    )


def _grid(positions: list[NDArray[np.int64]]) -> dict[str, Any]:
    """Runs of (length, true index, predicted index), row by row, at a size good enough to point."""
    size = shown_size((positions[0].shape[0], positions[0].shape[1]), GRID_WIDTH)
    gt, pred = (_resized(places, size).ravel() for places in positions)
    changes = (gt[1:] != gt[:-1]) | (pred[1:] != pred[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(np.append(starts, len(gt)))
    runs = np.stack([lengths, gt[starts], pred[starts]], axis=1)
    return {"grid": [size[1], size[0]], "runs": runs.ravel().tolist()}


def _gt_rows(
    gt: SegmentTable,
    pred: SegmentTable,
    overlap: Overlap,
    matches: SegmentMatches,
    pairs: NDArray[np.int64],
    label_space: LabelSpace,
) -> list[list[Any]]:
    """[id, class, pixels, outcome, IoU or null] of each true segment."""
    outcome = ["excused"] * len(gt)
    for index in np.flatnonzero(gt.is_crowd):
        outcome[index] = "crowd"
    for index in matches.missed_gt:
        outcome[index] = "missed"
    for gt_index, pred_index in pairs:
        outcome[gt_index] = _named("taken for", label_space, pred.train_ids[pred_index])
    iou = _best_iou(len(gt), matches.pair_gt, matches)
    for index in matches.pair_gt[matches.pair_is_match]:
        outcome[index] = "found"
    return _rows(gt, overlap.gt_ids, overlap, outcome, iou)


def _pred_rows(
    gt: SegmentTable,
    pred: SegmentTable,
    overlap: Overlap,
    matches: SegmentMatches,
    pairs: NDArray[np.int64],
    label_space: LabelSpace,
) -> list[list[Any]]:
    """The same of each predicted segment."""
    outcome = ["excused"] * len(pred)
    for index in matches.invented_pred:
        outcome[index] = "invented"
    for gt_index, pred_index in pairs:
        outcome[pred_index] = _named("is", label_space, gt.train_ids[gt_index])
    iou = _best_iou(len(pred), matches.pair_pred, matches)
    for index in matches.pair_pred[matches.pair_is_match]:
        outcome[index] = "right"
    return _rows(pred, overlap.pred_ids, overlap, outcome, iou)


def _named(words: str, label_space: LabelSpace, train_id: int) -> str:
    # Every segment says it: a long name would be there a thousand times.
    return f"{words} {quoted(label_space.categories[train_id].name)}"


def _best_iou(size: int, index: NDArray[np.int64], matches: SegmentMatches) -> NDArray[np.float64]:
    best = np.zeros(size)
    np.maximum.at(best, index, matches.pair_iou)
    return best


def _rows(
    segments: SegmentTable,
    ids: NDArray[np.int64],
    overlap: Overlap,
    outcome: list[str],
    iou: NDArray[np.float64],
) -> list[list[Any]]:
    place = segments.find(ids)
    pixels = np.bincount(
        place[place >= 0], weights=overlap.pixels[place >= 0], minlength=len(segments)
    )
    return [
        [segment_id, train_id, int(area), text, round(float(value), 4)]
        for segment_id, train_id, area, text, value in zip(
            segments.segment_ids.tolist(), segments.train_ids.tolist(), pixels, outcome, iou
        )
    ]
