"""Small data sets in COCO panoptic files, sound and broken."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.metrics.maps import (
    STUFF_AND_THINGS,
    FuzzedImage,
    categories_json,
    draw,
    write_id_png,
)

ROAD, SKY, PERSON, CAR = 7, 23, 24, 0


def image(gt_text: str, pred_text: str, categories: dict[str, int], crowd: str = "") -> FuzzedImage:
    """An image drawn as text; letter -> category id."""
    maps = draw(gt_text), draw(pred_text)
    segments = []
    for id_map in maps:
        segments.append(
            [
                {
                    "id": ord(letter) - ord("a") + 1,
                    "category_id": category_id,
                    "area": int((id_map == ord(letter) - ord("a") + 1).sum()),
                    "iscrowd": int(letter in crowd),
                    "bbox": [0, 0, 1, 1],
                }
                for letter, category_id in categories.items()
                if (id_map == ord(letter) - ord("a") + 1).any()
            ]
        )
    return FuzzedImage(*maps, *segments)


def street() -> list[FuzzedImage]:
    """Two images: one person found of two, a car on a crowd."""
    names = {"r": ROAD, "s": SKY, "p": PERSON, "q": PERSON, "c": CAR}
    return [
        image("ssss\nspqs\nrrrr", "ssss\nsp.s\nrrrr", names),
        image("ssss\n.ccc\nrrrr", "ssss\nsccc\nrrrr", names, crowd="c"),
    ]


class PanopticFiles:
    """Ground truth and predictions in a folder; change `gt` and `pred`, then `write`."""

    def __init__(self, folder: Path, images: Sequence[FuzzedImage]) -> None:
        self.folder = folder
        self.gt: dict[str, Any] = {
            "images": [
                {
                    "id": f"image_{index}",
                    "file_name": f"{index}.jpg",
                    "height": item.gt_map.shape[0],
                    "width": item.gt_map.shape[1],
                }
                for index, item in enumerate(images)
            ],
            "annotations": [],
            "categories": categories_json(STUFF_AND_THINGS),
        }
        self.pred: dict[str, Any] = {"annotations": []}
        for index, item in enumerate(images):
            for side, name, id_map, segments in (
                (self.gt, "gt", item.gt_map, item.gt_segments),
                (self.pred, "pred", item.pred_map, item.pred_segments),
            ):
                write_id_png(id_map, folder / name / f"{index}.png")
                side["annotations"].append(
                    {
                        "image_id": f"image_{index}",
                        "file_name": f"{index}.png",
                        "segments_info": [dict(segment) for segment in segments],
                    }
                )
        self.write()

    @property
    def gt_json(self) -> Path:
        return self.folder / "gt.json"

    @property
    def pred_json(self) -> Path:
        return self.folder / "pred.json"

    def write(self) -> None:
        self.gt_json.write_text(json.dumps(self.gt))
        self.pred_json.write_text(json.dumps(self.pred))

    def arguments(self, *more: str) -> list[str]:
        return [
            "--ground-truth",
            str(self.gt_json),
            "--predictions",
            str(self.pred_json),
            "--workers",
            "1",
            *more,
        ]
