"""Panoptic segmentations as `supervision` holds detections, for its annotators and sinks.

Needs `pip install supervision`; nothing else here does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from seamless_pr.structures.panoptic_segmentation import PanopticSegmentation


def to_supervision(segmentation: PanopticSegmentation, *, stuff: bool = True) -> Any:
    """Every segment as a detection with a mask.

    Args:
        segmentation: of one image.
        stuff: also the segments of stuff; False: objects alone.

    Returns:
        `supervision.Detections`: masks [S, H, W], boxes around them (last column and row included,
        as supervision has it), the train id as `class_id`, the score as `confidence`, 1 where there
        is none. `data` holds `class_name`, `segment_id` and `is_thing` of each. Segments without a
        pixel are left out.

    Raises:
        ModuleNotFoundError: supervision is not installed.
    """
    try:
        import supervision
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "to_supervision needs supervision; install it: pip install supervision"
        ) from error
    space = segmentation.label_space
    id_map = segmentation.id_map.numpy()
    present = set(np.unique(id_map).tolist())
    segments = [
        segment
        for segment in segmentation.segments
        if segment.segment_id in present and (stuff or space.is_thing(segment.train_id))
    ]
    if not segments:
        return supervision.Detections.empty()
    ids = np.array([segment.segment_id for segment in segments])
    masks = id_map[None] == ids[:, None, None]
    return supervision.Detections(
        xyxy=supervision.mask_to_xyxy(masks).astype(np.float32),
        mask=masks,
        confidence=np.array(
            [1.0 if segment.score is None else segment.score for segment in segments], np.float32
        ),
        class_id=np.array([segment.train_id for segment in segments]),
        data={
            "class_name": np.array([space.categories[s.train_id].name for s in segments]),
            "segment_id": ids,
            "is_thing": np.array([space.is_thing(s.train_id) for s in segments]),
        },
    )
