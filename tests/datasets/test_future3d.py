"""3D-FUTURE: names without extension, no categories, no crowds; things only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from seamless_pr.datasets.coco_panoptic import read_panoptic_json
from seamless_pr.datasets.conversion import convert_split
from seamless_pr.datasets.future3d import open_future3d
from seamless_pr.datasets.loader import PanopticImages
from seamless_pr.datasets.transforms import EvalTransform
from seamless_pr.datasets.verification import verify_dataset
from seamless_pr.structures.faults import FaultyDataError
from tests.support.panoptic_files import write_png

SQUARE = [[1, 1, 5, 1, 5, 4, 1, 4]]


def write(root: Path, layout: str = "annotations", **changes: object) -> None:
    annotations = [
        {"id": 1, "image_id": 7, "category_id": 17, "segmentation": SQUARE, "area": 12,
         "bbox": [1, 1, 4, 3], "model_id": "x", "style": None},
        {"id": 2, "image_id": 7, "category_id": 34,
         "segmentation": {"size": [6, 8], "counts": [46, 2]}},
    ]  # fmt: skip
    content = {
        "images": [{"id": 7, "file_name": "0000007", "height": 6, "width": 8}],
        "annotations": annotations,
        **changes,
    }
    path = root / layout / "train_set.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    folder = "images/train" if layout == "annotations" else "train/image"
    write_png(root / folder / "0000007.jpg", np.full((6, 8, 3), 90, np.uint8))


@pytest.mark.parametrize("layout", ["annotations", "GT"])
def test_a_split_becomes_things_without_stuff_that_can_be_trained_on(
    tmp_path: Path, layout: str
) -> None:
    write(tmp_path, layout)
    split = open_future3d(tmp_path, "train")
    prepared = convert_split(split, tmp_path / "out", num_workers=0, show_progress=False)
    assert verify_dataset(prepared.json_path, images_dir=prepared.images_dir) == []
    dataset = read_panoptic_json(prepared.json_path)
    assert dataset.images[0].file_name == "0000007.jpg"
    found = [(s.category_id, s.is_crowd) for s in dataset.annotations[0].segments]
    assert found == [(17, False), (34, False)]
    assert (split.label_space.num_stuff, split.label_space.num_things) == (0, 34)
    assert prepared.images_dir is not None
    images = PanopticImages.from_files(
        prepared.json_path, prepared.images_dir, split.label_space, EvalTransform(6)
    )
    _, target = images[0]
    assert target.train_ids.tolist() == [16, 33]


def test_a_changed_annotation_in_the_shared_json_is_converted_again(tmp_path: Path) -> None:
    write(tmp_path)
    out = tmp_path / "out"
    convert_split(open_future3d(tmp_path, "train"), out, num_workers=0, show_progress=False)
    again = convert_split(open_future3d(tmp_path, "train"), out, num_workers=0, show_progress=False)
    assert again.num_kept == 1
    write(tmp_path, annotations=[])
    changed = convert_split(
        open_future3d(tmp_path, "train"), out, num_workers=0, show_progress=False
    )
    assert changed.num_kept == 0
    assert read_panoptic_json(changed.json_path).annotations[0].segments == ()


def test_missing_files_and_unknown_classes_are_listed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"--root must hold annotations/<split>_set\.json"):
        open_future3d(tmp_path, "val")
    other = {"id": 3, "image_id": 7, "category_id": 35, "segmentation": SQUARE}
    write(tmp_path, annotations=[other])
    write_png(tmp_path / "images" / "train" / "0000009.jpg", np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(FaultyDataError) as error:
        convert_split(
            open_future3d(tmp_path, "train"), tmp_path / "out", num_workers=0, show_progress=False
        )
    text = str(error.value)
    assert "0000009.jpg: image without annotation" in text
    assert "annotation 3: category 35 is not known" in text
