"""COCO panoptic 2017 as unpacked, its inner zips, and real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seamless_pr.datasets.coco import open_coco
from tests.support.raw_datasets import write_coco


def test_a_split_is_found_and_its_classes_get_colours(tmp_path: Path) -> None:
    json_path = write_coco(tmp_path)
    files = open_coco(tmp_path, "val")
    assert (files.json_path, files.png_dir) == (json_path, json_path.with_suffix(""))
    assert files.images_dir == tmp_path / "val2017"
    assert files.check(num_workers=0, show_progress=False) == []
    assert len(files.records.categories) == 133
    assert files.records.categories[0].color == (220, 20, 60)


def test_png_folders_may_lie_beside_the_annotations(tmp_path: Path) -> None:
    folder = write_coco(tmp_path).with_suffix("")
    folder.rename(tmp_path / folder.name)
    assert open_coco(tmp_path, "val").png_dir == tmp_path / folder.name


def test_an_inner_zip_is_named_with_the_command(tmp_path: Path) -> None:
    folder = write_coco(tmp_path).with_suffix("")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    with pytest.raises(FileNotFoundError, match=r"holds the PNGs in a further zip, .*unpack both"):
        open_coco(tmp_path, "val")
    inner = folder.with_suffix(".zip")
    inner.write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=rf"unzip {inner} -d {tmp_path / 'annotations'}"):
        open_coco(tmp_path, "val")


def test_the_archive_of_another_task_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"annotations_trainval2017\.zip is another one"):
        open_coco(tmp_path, "train")
    json_path = write_coco(tmp_path)
    content = json.loads(json_path.read_text())
    content["categories"] = content["categories"][:80]
    json_path.write_text(json.dumps(content))
    found = [fault.message for fault in open_coco(tmp_path, "val").faults]
    assert any("80 categories, COCO panoptic has 133 (missing: banner" in text for text in found)


def test_other_classes_are_refused(tmp_path: Path) -> None:
    json_path = write_coco(tmp_path)
    content = json.loads(json_path.read_text())
    content["categories"][2]["name"] = "autorickshaw"
    json_path.write_text(json.dumps(content))
    (fault,) = open_coco(tmp_path, "val").faults
    assert "category 3 ('autorickshaw') is not as in COCO panoptic 2017" in fault.message


def test_real_files_are_complete_and_consistent() -> None:
    root = Path(__file__).parents[1] / "golden" / "real_files" / "coco"
    files = open_coco(root, "val")
    assert files.check(num_workers=0, show_progress=False) == []
    assert len(files.records.categories) == 133
    segments = [s for annotation in files.records.annotations for s in annotation.segments]
    assert any(segment.is_crowd for segment in segments)
