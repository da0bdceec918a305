"""The conversion of Cityscapes equals the official one and survives interruptions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seamless_pr.datasets.cityscapes import open_cityscapes, panoptic_from_instance_ids
from seamless_pr.datasets.conversion import convert_splits
from seamless_pr.id_maps.id_png_files import read_id_png
from seamless_pr.street_scenes.dataset import write_street_scenes
from seamless_pr.structures.faults import FaultyDataError
from tests.support.panoptic_files import write_cityscapes, write_png

NAMES = {
    "train": ("aachen_000000_000019", "aachen_000001_000019", "ulm_000003_000019"),
    "val": ("bonn_000000_000019",),
}


def convert(
    root: Path, output: Path, splits: tuple[str, ...] = tuple(NAMES), num_workers: int = 0
) -> None:
    opened = [open_cityscapes(root, split) for split in splits]
    convert_splits(opened, output, num_workers=num_workers, show_progress=False)


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".records" not in path.as_posix() and ".manifest" not in path.name
    }


def convert_officially(root: Path, output: Path) -> None:
    tool = pytest.importorskip("cityscapesscripts.preparation.createPanopticImgs")
    output.mkdir()
    tool.convert2panoptic(str(root / "gtFine"), str(output), False, list(NAMES))


def test_every_file_equals_that_of_the_official_tool(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, NAMES, images=False)
    convert(tmp_path, tmp_path / "ours", num_workers=2)
    convert_officially(tmp_path, tmp_path / "official")
    ours, official = files_below(tmp_path / "ours"), files_below(tmp_path / "official")
    assert len(official) == 6
    # Bytes of PNGs may differ with the version of zlib; their content may not.
    assert {name: data for name, data in ours.items() if name.endswith(".json")} == {
        name: data for name, data in official.items() if name.endswith(".json")
    }
    assert ours.keys() == official.keys()
    for name in ours:
        if name.endswith(".png"):
            np.testing.assert_array_equal(
                read_id_png(tmp_path / "ours" / name), read_id_png(tmp_path / "official" / name)
            )


@pytest.mark.slow
def test_drawn_scenes_are_converted_as_by_the_official_tool(tmp_path: Path) -> None:
    num_images = {"train": 2, "val": 1}
    write_street_scenes(tmp_path, num_images=num_images, size=(128, 256), seed=0, progress=False)
    convert(tmp_path, tmp_path / "ours")
    convert_officially(tmp_path, tmp_path / "official")
    ours, official = files_below(tmp_path / "ours"), files_below(tmp_path / "official")
    assert len(official) == 5
    assert ours.keys() == official.keys()
    assert [ours[name] for name in ours if name.endswith(".json")] == [
        official[name] for name in official if name.endswith(".json")
    ]


def test_groups_are_crowd_and_ignored_labels_are_void() -> None:
    values = np.array([[7, 7, 26, 26001], [29000, 0, 26, 24000]], np.int32)
    id_map, segments, faults = panoptic_from_instance_ids(values, "a.png")
    assert faults == []
    assert id_map.tolist() == [[7, 7, 26, 26001], [0, 0, 26, 24000]]
    found = [(record.segment_id, record.category_id, record.is_crowd) for record in segments]
    assert found == [(7, 7, False), (26, 26, True), (24000, 24, False), (26001, 26, False)]
    assert (segments[1].area, segments[1].bbox) == (2, (2, 0, 1, 2))


def test_picture_of_void_only_has_no_segments(tmp_path: Path) -> None:
    id_map, segments, faults = panoptic_from_instance_ids(np.zeros((2, 3), np.int32), "a.png")
    assert (id_map.any(), segments, faults) == (False, (), [])


def test_all_unusable_annotations_are_listed_and_the_others_kept(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, NAMES, images=False)
    folder = tmp_path / "gtFine" / "train"
    unknown = folder / "aachen" / "aachen_000000_000019_gtFine_instanceIds.png"
    write_png(unknown, np.array([[7, 77, 50003]], np.uint16))
    truncated = folder / "ulm" / "ulm_000003_000019_gtFine_instanceIds.png"
    truncated.write_bytes(truncated.read_bytes()[:-20])
    saved_again = folder / "aachen" / "aachen_000001_000019_gtFine_instanceIds.png"
    write_png(saved_again, np.array([[7, 26]], np.uint8))
    with pytest.raises(FaultyDataError, match="repair what is listed") as error:
        convert(tmp_path, tmp_path / "out")
    listed = [str(fault) for fault in error.value.faults]
    assert listed[:2] == [
        f"{unknown}: segment 77: label 77 is none of Cityscapes' (1 pixels)",
        f"{unknown}: segment 50003: label 50 is none of Cityscapes' (1 pixels)",
    ]
    assert listed[2].startswith(f"{saved_again}: has 8 bits a pixel where 16 are needed")
    assert listed[3].startswith(f"{truncated}: is truncated")
    assert len(listed) == 4
    finished = sorted(path.name for path in (tmp_path / "out").glob("*.json"))
    assert finished == ["cityscapes_panoptic_val.json", "cityscapes_panoptic_val.manifest.json"]


def test_images_without_annotation_the_reverse_and_wrong_case_are_listed(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, {"val": ("bonn_000000_000019", "bonn_000001_000019")})
    pictures = tmp_path / "leftImg8bit" / "val" / "bonn"
    (pictures / "bonn_000000_000019_leftImg8bit.png").unlink()
    write_png(pictures / "bonn_000002_000019_leftImg8bit.png", np.zeros((24, 48, 3), np.uint8))
    shouted = tmp_path / "gtFine" / "val" / "bonn" / "bonn_000003_000019_gtFine_INSTANCEIDS.png"
    write_png(shouted, np.full((4, 4), 7, np.uint16))
    with pytest.raises(FaultyDataError) as error:
        convert(tmp_path, tmp_path / "out", ("val",))
    listed = [str(fault) for fault in error.value.faults]
    assert "rename it to bonn_000003_000019_gtFine_instanceIds.png" in listed[0]
    assert "bonn_000002_000019_leftImg8bit.png: image without annotation" in listed[1]
    assert "bonn_000000_000019_gtFine_instanceIds.png: annotation without image" in listed[2]
    assert len(listed) == 3
    assert not list((tmp_path / "out").glob("*.json"))


def test_wrong_roots_are_answered_with_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere; --root must be the folder"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    write_cityscapes(tmp_path / "data", NAMES, images=False)
    with pytest.raises(FileNotFoundError, match=rf"give {tmp_path / 'data'} instead"):
        convert(tmp_path / "data" / "gtFine", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"test; folders there: train, val; unpack"):
        convert(tmp_path / "data", tmp_path / "out", splits=("test",))
    assert not (tmp_path / "out").exists()


def test_of_a_picture_of_noise_the_first_values_are_told_and_their_number() -> None:
    values = np.arange(2**16, dtype=np.int32).reshape(256, 256)
    _, _, faults = panoptic_from_instance_ids(values, "a.png")
    assert len(faults) == 101
    assert "of its values have no label" in faults[-1].message
