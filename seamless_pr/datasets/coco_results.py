"""Results in COCO form: panoptic segments with their id picture, and instances as run lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamless_pr.id_maps.id_png_files import ids_to_rgb
from seamless_pr.id_maps.segments import measure_segments
from seamless_pr.ops.masks import mask_boxes
from seamless_pr.structures.instances import Instances, MaskCrop
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation

SCORE_DIGITS = 6


def to_coco(
    segmentation: PanopticSegmentation, *, scores: bool = True
) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    """One panoptic map as an id picture and the `segments_info` of its COCO annotation.

    Areas and boxes are counted on the map itself. A segment without a pixel is left out, because
    the official evaluators demand that both sides list the same ids.

    Args:
        segmentation: H x W map.
        scores: give each segment its "score" where it has one.

    Returns:
        picture [H, W, 3] uint8 RGB with id = R + 256 G + 65536 B (save it as PNG), and one dict a
        segment in the order of `segmentation.segments`: id, category_id, area in pixels, bbox
        (x, y, width, height), iscrowd, and score.

    Raises:
        ValueError: the map holds an id that is not among its segments, or does not fit 24 bits.
    """
    ids = segmentation.id_map.numpy()
    picture = ids_to_rgb(ids)
    measures = measure_segments(ids)
    row_of = {segment_id: row for row, segment_id in enumerate(measures.segment_ids.tolist())}
    known = {segment.segment_id for segment in segmentation.segments}
    unknown = sorted(row_of.keys() - known - {LabelSpace.VOID_SEGMENT_ID})
    if unknown:
        raise ValueError(f"ids {unknown[:10]} are in the map but not among its segments")
    categories = segmentation.label_space.categories
    segments_info: list[dict[str, Any]] = []
    for segment in segmentation.segments:
        row = row_of.get(segment.segment_id)
        if row is None:
            continue
        info: dict[str, Any] = {
            "id": segment.segment_id,
            "category_id": categories[segment.train_id].category_id,
            "area": int(measures.areas[row]),
            "bbox": measures.boxes_xywh[row].tolist(),
            "iscrowd": int(segment.is_crowd),
        }
        if scores and segment.score is not None:
            info["score"] = round(float(segment.score), SCORE_DIGITS)
        segments_info.append(info)
    return picture, segments_info


def to_coco_instances(
    instances: Instances,
    image_size: tuple[int, int],
    label_space: LabelSpace,
    image_id: str | int,
    *,
    mask_threshold: float = 0.5,
) -> list[dict[str, Any]]:
    """Objects of one image as COCO results, masks at the size of the image.

    Args:
        instances: with masks, in pixels of the image.
        image_size: (height, width).
        label_space: gives the category of each thing index.
        image_id: goes into every record.
        mask_threshold: probability that a pixel of the mask must exceed.

    Returns:
        One dict an object, best score first: image_id, category_id, bbox (x, y, width, height; of
        the mask where the network gives no boxes), score, and segmentation as compressed run
        lengths. A mask may be empty.

    Raises:
        ValueError: the instances have no masks.
    """
    instances = instances.best_first()
    masks = instances.require_masks()
    boxes = None if instances.boxes is None else instances.boxes.tolist()
    results: list[dict[str, Any]] = []
    for index, (score, thing_index) in enumerate(
        zip(instances.scores.tolist(), instances.thing_indices.tolist())
    ):
        crop = masks.crop(index, image_size, mask_threshold)
        x0, y0, x1, y1 = _mask_box(crop) if boxes is None else boxes[index]
        results.append(
            {
                "image_id": image_id,
                "category_id": label_space.thing_categories[thing_index].category_id,
                "bbox": [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)],
                "score": round(score, SCORE_DIGITS),
                "segmentation": encode_run_lengths(crop, image_size),
            }
        )
    return results


def _mask_box(crop: MaskCrop) -> list[float]:
    """xyxy of the set pixels; zeros for an empty mask."""
    x0, y0, x1, y1 = mask_boxes(crop.mask[None])[0].tolist() if crop.mask.numel() else (0.0,) * 4
    if x1 == 0:
        return [0.0, 0.0, 0.0, 0.0]
    return [x0 + crop.left, y0 + crop.top, x1 + crop.left, y1 + crop.top]


def encode_run_lengths(crop: MaskCrop, image_size: tuple[int, int]) -> dict[str, Any]:
    """COCO run lengths of a mask that is known inside a crop, at a cost of the crop's size only.

    Returns:
        {"size": [H, W], "counts": str}, equal to pycocotools' encoding of the full-size mask.
    """
    height, width = image_size
    # Column-major positions of the set pixels, ascending because the crop is transposed first.
    columns, rows = np.nonzero(crop.mask.cpu().numpy().T)
    positions = (columns + crop.left) * height + rows + crop.top
    if len(positions) == 0:
        counts = [height * width]
    else:
        breaks = np.flatnonzero(np.diff(positions) != 1)
        starts = positions[np.concatenate([[0], breaks + 1])]
        ends = positions[np.concatenate([breaks, [len(positions) - 1]])] + 1
        edges = np.concatenate([[0], np.stack([starts, ends], axis=1).ravel(), [height * width]])
        counts = np.diff(edges).tolist()
        if counts[-1] == 0:
            counts.pop()
    # Predictions without instances do without the package.
    from pycocotools import mask as coco_mask

    encoded = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}
