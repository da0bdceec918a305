"""Ground truth is recognised from the folders that people have."""

from __future__ import annotations

from pathlib import Path

import pytest

from seamless_pr.datasets.catalog import DATASETS, open_ground_truth_folder
from seamless_pr.datasets.idd import OFFICIAL_SIZE
from tests.datasets.test_ade20k import write as write_ade20k
from tests.datasets.test_idd import SCENE, write_frame
from tests.support.panoptic_files import write_cityscapes
from tests.support.raw_datasets import write_coco, write_vistas


def test_cityscapes_and_idd_are_told_by_their_files(tmp_path: Path) -> None:
    write_cityscapes(tmp_path / "cs", {"val": ("bonn_000000_000019",)}, images=False)
    for folder in ("gtFine", "gtFine/val", "gtFine/val/bonn"):
        assert open_ground_truth_folder(tmp_path / "cs" / folder).dataset == "Cityscapes"
    write_frame(tmp_path / "idd", "0", "1", SCENE)
    split = open_ground_truth_folder(tmp_path / "idd" / "gtFine" / "train")
    assert (split.dataset, split.name, split.images[0].image_id) == (
        "IDD",
        "idd_panoptic_train",
        "0_1",
    )
    official = open_ground_truth_folder(tmp_path / "idd/gtFine/train", idd_size=OFFICIAL_SIZE)
    assert official.images[0].image_id == "0_1_gtFine_panopticlevel3Ids.png"


def test_several_splits_ask_for_one(tmp_path: Path) -> None:
    names = {"val": ("bonn_000000_000019",), "train": ("ulm_000000_000019",)}
    write_cityscapes(tmp_path, names, images=False)
    with pytest.raises(FileNotFoundError, match="holds several splits; give one of"):
        open_ground_truth_folder(tmp_path / "gtFine")


@pytest.mark.parametrize("nested", [False, True])
def test_a_split_of_vistas_is_told_by_its_panoptic_folder(tmp_path: Path, nested: bool) -> None:
    json_path = write_vistas(tmp_path, nested=nested)
    for folder in (tmp_path / "validation", json_path.parent):
        assert open_ground_truth_folder(folder).json_path == json_path
    if nested:
        write_vistas(tmp_path, "2.0", nested=True)
        with pytest.raises(ValueError, match="choose"):
            open_ground_truth_folder(tmp_path / "validation")
        assert open_ground_truth_folder(json_path.parent).json_path == json_path


def test_ade20k_and_coco_are_told_by_their_folders(tmp_path: Path) -> None:
    write_ade20k(tmp_path)
    folder = tmp_path / "ADEChallengeData2016" / "annotations" / "training"
    assert open_ground_truth_folder(folder).name == "ade20k_panoptic_train"
    assert open_ground_truth_folder(folder, stated_areas=True).settings == "stated areas"
    json_path = write_coco(tmp_path)
    assert open_ground_truth_folder(json_path.with_suffix("")).json_path == json_path


def test_a_folder_of_nothing_known_says_what_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="give the folder of the ground truth"):
        open_ground_truth_folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no ground truth that is known: give"):
        open_ground_truth_folder(tmp_path)


def test_every_dataset_of_the_catalog_starts_with_its_training_split() -> None:
    assert {known.splits[0] for known in DATASETS.values()} == {"train", "training"}
