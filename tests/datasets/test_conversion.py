"""The conversion engine: resumable, all faults at once, never a result that looks finished."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seamless_pr.datasets import conversion
from seamless_pr.datasets.coco_panoptic import read_panoptic_json
from seamless_pr.datasets.conversion import convert_split, convert_splits
from seamless_pr.datasets.manifest import check_manifest
from seamless_pr.datasets.raw_splits import (
    RawImage,
    RawMap,
    RawSplit,
    held_out_ids,
    measured_segments,
)
from seamless_pr.files import WriteError
from seamless_pr.id_maps.id_png_files import read_id_png
from seamless_pr.structures.faults import Fault, FaultyDataError
from seamless_pr.structures.seals import sealed, unsealed
from tests.support.panoptic_files import CATEGORIES, write_png

NUM_IMAGES = 4


def read_text_map(image: RawImage) -> RawMap:
    """An annotation is a text of digits; 9 is unreadable, the others segments of class road."""
    path = image.annotation_files[0]
    rows = [[int(digit) for digit in line] for line in path.read_text().split()]
    id_map = np.array(rows, np.int32)
    if (id_map == 9).any():
        return RawMap.unreadable(Fault(str(path), "holds a 9"))
    ids = np.unique(id_map).tolist()
    return RawMap(id_map, measured_segments(id_map, dict.fromkeys(ids, 7)))


@pytest.fixture
def split(tmp_path: Path) -> RawSplit:
    folder = tmp_path / "source"
    folder.mkdir()
    for index in range(NUM_IMAGES):
        (folder / f"{index}.txt").write_text(f"00{index + 1}\n222\n")
    images = tuple(
        RawImage(f"image{index}", (folder / f"{index}.txt",), f"{index}.png", f"{index}.jpg")
        for index in range(NUM_IMAGES)
    )
    return RawSplit("Toy", "toy_train", CATEGORIES, images, read_text_map)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the PNGs in the order in which they are written."""
    names: list[str] = []
    write = conversion.write_id_png

    def write_and_note(path: Path, id_map: np.ndarray) -> None:
        names.append(path.name)
        write(path, id_map)

    monkeypatch.setattr(conversion, "write_id_png", write_and_note)
    return names


def convert(split: RawSplit, output: Path) -> conversion.PreparedSplit:
    return convert_split(split, output, num_workers=0, show_progress=False)


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_split_becomes_json_pngs_and_manifest(split: RawSplit, tmp_path: Path) -> None:
    prepared = convert(split, tmp_path / "out")
    dataset = read_panoptic_json(prepared.json_path)
    assert [image.image_id for image in dataset.images] == [f"image{i}" for i in range(NUM_IMAGES)]
    id_map = read_id_png(prepared.png_dir / "2.png")
    assert id_map.tolist() == [[0, 0, 3], [2, 2, 2]]
    areas = {s.segment_id: s.area for s in dataset.annotations[2].segments}
    assert areas == {2: 3, 3: 1}
    manifest = json.loads((tmp_path / "out" / "toy_train.manifest.json").read_text())
    # Image 1 has no segment of its own: its digit is 2 as the row below.
    assert manifest["counts"]["images"] == NUM_IMAGES
    assert manifest["counts"]["segments"] == 2 * NUM_IMAGES - 1
    assert (manifest["counts"]["pixels"], manifest["counts"]["labelled_pixels"]) == (24, 16)
    assert manifest["counts"]["classes"]["road"]["pixels"] == 16
    assert set(manifest["sha256"]) == {f"{index}.png" for index in range(NUM_IMAGES)}


def test_an_interrupted_run_goes_on_where_it_stopped(
    split: RawSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: list[str]
) -> None:
    note = conversion.write_id_png

    def write_until_killed(path: Path, id_map: np.ndarray) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        note(path, id_map)

    monkeypatch.setattr(conversion, "write_id_png", write_until_killed)
    with pytest.raises(KeyboardInterrupt):
        convert(split, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.json"))
    monkeypatch.setattr(conversion, "write_id_png", note)
    assert convert(split, tmp_path / "out").num_kept == 2
    assert written == ["0.png", "1.png", "2.png", "3.png"]
    convert(split, tmp_path / "at_once")
    assert files_below(tmp_path / "out") == files_below(tmp_path / "at_once")


def rewrite_source(split: RawSplit, output: Path) -> None:
    split.images[1].annotation_files[0].write_text("555\n555\n")


def rewrite_source_of_equal_size_and_time(split: RawSplit, output: Path) -> None:
    path = split.images[1].annotation_files[0]
    stat = path.stat()
    path.write_text(path.read_text().replace("222", "555"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def lose_png(split: RawSplit, output: Path) -> None:
    (output / "toy_train" / "1.png").unlink()


def damage_png(split: RawSplit, output: Path) -> None:
    path = output / "toy_train" / "1.png"
    path.write_bytes(path.read_bytes()[:-3])


def damage_record(split: RawSplit, output: Path) -> None:
    path = output / ".toy_train.records" / "1.png.json"
    path.write_bytes(path.read_bytes()[:-3])


def change_record(split: RawSplit, output: Path) -> None:
    """As a bad block of a disk may: still JSON, of the same source and the same PNG."""
    path = output / ".toy_train.records" / "1.png.json"
    record = json.loads(path.read_bytes())
    record["segments"][0]["category_id"] = 11
    path.write_text(json.dumps(record))


def lose_entry_of_record(split: RawSplit, output: Path) -> None:
    path = output / ".toy_train.records" / "1.png.json"
    record = json.loads(path.read_bytes())
    del record["image"], record["segments"]
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    "change",
    [
        rewrite_source,
        rewrite_source_of_equal_size_and_time,
        lose_png,
        damage_png,
        damage_record,
        change_record,
        lose_entry_of_record,
    ],
)
def test_only_the_changed_image_is_converted_again(
    split: RawSplit, tmp_path: Path, written: list[str], change: Callable[[RawSplit, Path], None]
) -> None:
    convert(split, tmp_path / "out")
    written.clear()
    change(split, tmp_path / "out")
    assert convert(split, tmp_path / "out").num_kept == NUM_IMAGES - 1
    assert written == ["1.png"]
    convert(split, tmp_path / "fresh")
    for name, content in files_below(tmp_path / "fresh").items():
        if "records" not in name:
            assert files_below(tmp_path / "out")[name] == content


@pytest.mark.parametrize("last", [1, NUM_IMAGES - 1])
def test_an_output_that_is_removed_meanwhile_is_told_with_advice_that_works(
    split: RawSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: list[str], last: int
) -> None:
    write = conversion.write_id_png

    def write_after_somebody_cleaned_up(path: Path, id_map: np.ndarray) -> None:
        if len(written) == last:
            shutil.rmtree(tmp_path / "out")
        write(path, id_map)

    monkeypatch.setattr(conversion, "write_id_png", write_after_somebody_cleaned_up)
    with pytest.raises(WriteError, match=r"cannot write .*0\.png: .*removed meanwhile: .* again"):
        convert(split, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.json"))
    monkeypatch.setattr(conversion, "write_id_png", write)
    convert(split, tmp_path / "out")
    convert(split, tmp_path / "fresh")
    assert files_below(tmp_path / "out") == files_below(tmp_path / "fresh")


def test_a_file_that_was_only_touched_is_kept(
    split: RawSplit, tmp_path: Path, written: list[str]
) -> None:
    convert(split, tmp_path / "out")
    written.clear()
    for image in split.images:
        os.utime(image.annotation_files[0], ns=(1, 1))
    assert convert(split, tmp_path / "out").num_kept == NUM_IMAGES
    assert written == []


def test_other_settings_convert_everything_again(
    split: RawSplit, tmp_path: Path, written: list[str]
) -> None:
    convert(split, tmp_path / "out")
    written.clear()
    convert(replace(split, settings="size 1280x720"), tmp_path / "out")
    assert len(written) == NUM_IMAGES


def test_all_faults_are_listed_and_an_older_json_is_gone(split: RawSplit, tmp_path: Path) -> None:
    convert(split, tmp_path / "out")
    for index in (0, 3):
        split.images[index].annotation_files[0].write_text("999\n")
    faulty = replace(split, faults=(Fault("a.jpg", "image without annotation"),))
    with pytest.raises(FaultyDataError, match="what is right is kept") as error:
        convert(faulty, tmp_path / "out")
    assert [fault.message for fault in error.value.faults] == [
        "image without annotation",
        "holds a 9",
        "holds a 9",
    ]
    assert not list((tmp_path / "out").glob("*.json"))


def test_faults_of_all_splits_come_together_and_a_right_split_is_finished(
    split: RawSplit, tmp_path: Path
) -> None:
    wrong = replace(split, name="toy_val", faults=(Fault("x", "is wrong"),))
    also_wrong = replace(split, name="toy_test", faults=(Fault("y", "is wrong too"),))
    with pytest.raises(FaultyDataError) as error:
        convert_splits([wrong, also_wrong, split], tmp_path, num_workers=0, show_progress=False)
    assert [fault.file for fault in error.value.faults] == ["x", "y"]
    assert sorted(path.name for path in tmp_path.glob("*.json")) == [
        "toy_train.json",
        "toy_train.manifest.json",
    ]


def test_a_missing_source_is_a_fault_of_its_image(split: RawSplit, tmp_path: Path) -> None:
    split.images[2].annotation_files[0].unlink()
    with pytest.raises(FaultyDataError, match=r"2\.txt: cannot be read"):
        convert(split, tmp_path / "out")


def test_pictures_that_do_not_fit_are_faults_and_are_looked_at_again_when_they_change(
    split: RawSplit, tmp_path: Path, written: list[str]
) -> None:
    pictures = [tmp_path / f"{index}.png" for index in range(NUM_IMAGES)]
    for path in pictures:
        write_png(path, np.zeros((2, 3, 3), np.uint8))
    write_png(pictures[1], np.zeros((3, 2, 3), np.uint8))
    pictures[2].write_bytes(pictures[2].read_bytes()[:-20])
    images = tuple(
        replace(image, image_file=path) for image, path in zip(split.images, pictures, strict=True)
    )
    split = replace(split, images=images)
    with pytest.raises(FaultyDataError) as error:
        convert(split, tmp_path / "out")
    wrong_size, cut_off = error.value.faults
    assert wrong_size.message.startswith("size 3x2 (height x width); its annotation has 2x3")
    assert (cut_off.file, cut_off.message) == (
        str(pictures[2]),
        "the end of the file is missing; copy it again",
    )
    for path in pictures[1:3]:
        write_png(path, np.zeros((2, 3, 3), np.uint8))
    convert(split, tmp_path / "out")
    written.clear()
    pictures[0].unlink()
    with pytest.raises(FaultyDataError, match=r"0\.png: no image file"):
        convert(split, tmp_path / "out")
    assert written == []


def test_two_processes_write_what_one_writes(split: RawSplit, tmp_path: Path) -> None:
    convert(split, tmp_path / "one")
    convert_split(split, tmp_path / "two", num_workers=2, show_progress=False)
    assert files_below(tmp_path / "one") == files_below(tmp_path / "two")


def test_the_manifest_tells_a_png_that_was_changed_later(split: RawSplit, tmp_path: Path) -> None:
    prepared = convert(split, tmp_path)
    assert check_manifest(prepared.json_path, prepared.png_dir) == []
    (prepared.png_dir / "3.png").write_bytes((prepared.png_dir / "0.png").read_bytes())
    (fault,) = check_manifest(prepared.json_path, prepared.png_dir)
    assert fault.file.endswith("3.png")


def test_held_out_images_depend_on_seed_and_id_only(split: RawSplit) -> None:
    ids = [f"image{index}" for index in range(40)]
    held = held_out_ids(ids, 10, seed=3)
    assert len(held) == 10
    assert held == held_out_ids(ids[::-1], 10, seed=3)
    assert held != held_out_ids(ids, 10, seed=4)
    # A larger set holds the smaller one, and an image that is added displaces one at most.
    assert held < held_out_ids(ids, 11, seed=3)
    assert len(held & held_out_ids([*ids, "new"], 10, seed=3)) >= 9
    rest, holdout = split.hold_out(1, seed=0)
    assert (rest.name, holdout.name) == ("toy_train_rest", "toy_train_holdout")
    assert sorted([*rest.images, *holdout.images], key=lambda i: i.png_name) == list(split.images)


@pytest.mark.parametrize(
    "changes",
    [
        {"image": ["image0", "0.jpg", "2", 3]},
        {"image": None},
        {"segments": [{"id": 1}]},
        {"segments": 7},
        {"sources": [["0.txt"]]},
        {"picture": ...},
    ],
)
def test_a_record_of_somebody_is_not_believed(
    split: RawSplit, tmp_path: Path, changes: dict[str, object]
) -> None:
    output = tmp_path / "out"
    convert_split(split, output, num_workers=0, show_progress=False)
    record_path = output / ".toy_train.records" / "0.png.json"
    record = unsealed(json.loads(record_path.read_text())) | changes
    kept = {key: value for key, value in record.items() if value is not ...}
    record_path.write_text(json.dumps(sealed(kept)))
    prepared = convert_split(split, output, num_workers=0, show_progress=False)
    assert (prepared.num_images, prepared.num_kept) == (NUM_IMAGES, NUM_IMAGES - 1)


@pytest.mark.parametrize("name", ["toy_train", ".toy_train.records"])
def test_a_link_leads_no_result_out_of_the_output(
    split: RawSplit, tmp_path: Path, name: str
) -> None:
    for folder in ("elsewhere", "out"):
        (tmp_path / folder).mkdir()
    (tmp_path / "out" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=rf"{name} is a link out of .*out, to .*elsewhere"):
        convert_split(split, tmp_path / "out", num_workers=0, show_progress=False)
    assert not [*(tmp_path / "elsewhere").iterdir()]


def test_names_that_are_no_text_can_be_held_out() -> None:
    assert len(held_out_ids(["\udcff", "a", "b"], 1, seed=0)) == 1


@pytest.mark.parametrize("number", [0, 4, 5])
def test_a_holdout_leaves_images_on_both_sides(split: RawSplit, number: int) -> None:
    with pytest.raises(ValueError, match=rf"cannot hold out {number} of 4 images; give .* 1\.\.3"):
        split.hold_out(number, seed=0)


def test_names_that_are_no_utf_8_are_listed_and_the_rest_is_done(
    split: RawSplit, tmp_path: Path, written: list[str]
) -> None:
    odd = os.fsdecode(b"caf\xe9")
    images = (*split.images, replace(split.images[0], image_id=odd, png_name=f"{odd}.png"))
    with pytest.raises(FaultyDataError) as error:
        convert(replace(split, images=images), tmp_path / "out")
    (fault,) = error.value.faults
    assert "is a name that is no UTF-8; rename the file" in fault.message
    assert len(written) == NUM_IMAGES
    assert convert(split, tmp_path / "out").num_kept == NUM_IMAGES
