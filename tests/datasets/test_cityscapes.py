"""The conversion of Cityscapes equals the official one and survives interruptions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seamless_pr.datasets import cityscapes
from seamless_pr.datasets.cityscapes import convert_cityscapes, panoptic_from_instance_ids
from seamless_pr.datasets.coco_panoptic import read_panoptic_json
from seamless_pr.id_maps.id_png_files import read_id_png
from seamless_pr.street_scenes.dataset import write_street_scenes
from seamless_pr.structures.faults import FaultyDataError
from tests.support.panoptic_files import write_cityscapes, write_png

NAMES = {
    "train": ("aachen_000000_000019", "aachen_000001_000019", "ulm_000003_000019"),
    "val": ("bonn_000000_000019",),
}


def convert(root: Path, output: Path, **options: object) -> None:
    options = {"splits": tuple(NAMES), "num_workers": 0, "show_progress": False, **options}
    convert_cityscapes(root, output, **options)  # type: ignore[arg-type]


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".records" not in path.as_posix()
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


def test_interrupted_conversion_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cityscapes(tmp_path, NAMES, images=False)
    written: list[str] = []
    write_id_png = cityscapes.write_id_png

    def write_until_killed(path: Path, id_map: np.ndarray) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        write_id_png(path, id_map)

    monkeypatch.setattr(cityscapes, "write_id_png", write_until_killed)
    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.json"))

    def write_and_count(path: Path, id_map: np.ndarray) -> None:
        written.append(path.name)
        write_id_png(path, id_map)

    monkeypatch.setattr(cityscapes, "write_id_png", write_and_count)
    convert(tmp_path, tmp_path / "out")
    assert len(written) == len(set(written)) == 4
    convert(tmp_path, tmp_path / "at_once")
    assert files_below(tmp_path / "out") == files_below(tmp_path / "at_once")


def test_changed_annotation_and_lost_png_are_converted_again(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, NAMES, images=False)
    convert(tmp_path, tmp_path / "out")
    folder = tmp_path / "out" / "cityscapes_panoptic_train"
    (folder / "aachen_000000_000019_gtFine_panoptic.png").unlink()
    changed = np.full((4, 4), 26005, np.uint16)
    write_png(
        tmp_path / "gtFine" / "train" / "ulm" / "ulm_000003_000019_gtFine_instanceIds.png", changed
    )
    convert(tmp_path, tmp_path / "out")
    assert (folder / "aachen_000000_000019_gtFine_panoptic.png").is_file()
    dataset = read_panoptic_json(tmp_path / "out" / "cityscapes_panoptic_train.json")
    assert [segment.segment_id for segment in dataset.annotations[2].segments] == [26005]


def test_all_unusable_annotations_are_listed_and_the_others_kept(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, NAMES, images=False)
    folder = tmp_path / "gtFine" / "train"
    unknown = folder / "aachen" / "aachen_000000_000019_gtFine_instanceIds.png"
    write_png(unknown, np.array([[7, 77, 50003]], np.uint16))
    truncated = folder / "ulm" / "ulm_000003_000019_gtFine_instanceIds.png"
    truncated.write_bytes(truncated.read_bytes()[:-20])
    with pytest.raises(FaultyDataError, match="repair them and run again") as error:
        convert(tmp_path, tmp_path / "out")
    listed = [str(fault) for fault in error.value.faults]
    assert listed[:2] == [
        f"{unknown}: segment 77: label 77 is none of Cityscapes' (1 pixels)",
        f"{unknown}: segment 50003: label 50 is none of Cityscapes' (1 pixels)",
    ]
    assert listed[2].startswith(f"{truncated}: is truncated")
    assert len(listed) == 3
    kept = tmp_path / "out" / "cityscapes_panoptic_train"
    assert (kept / "aachen_000001_000019_gtFine_panoptic.png").is_file()


def test_wrong_roots_are_answered_with_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere; --root must be the folder"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    write_cityscapes(tmp_path / "data", NAMES, images=False)
    with pytest.raises(FileNotFoundError, match=rf"give {tmp_path / 'data'} instead"):
        convert(tmp_path / "data" / "gtFine", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"test; folders there: train, val; unpack"):
        convert(tmp_path / "data", tmp_path / "out", splits=("test",))
    assert not (tmp_path / "out").exists()
