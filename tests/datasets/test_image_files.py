"""Which file is the picture of which image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from seamless_pr.datasets.image_files import find_image_files, list_image_files
from seamless_pr.datasets.panoptic_records import ImageId, ImageRecord


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def find(root: Path, images: dict[ImageId, str]) -> tuple[dict[ImageId, str], str]:
    records = [ImageRecord(image_id, name, 1, 1) for image_id, name in images.items()]
    files, faults = find_image_files(records, root)
    names = {image_id: path.relative_to(root).as_posix() for image_id, path in files.items()}
    return names, "\n".join(map(str, faults))


def test_a_missing_image_is_not_replaced_by_one_of_another_folder(tmp_path: Path) -> None:
    touch(tmp_path, "ulm/1.png", "bonn/2.png")
    files, faults = find(tmp_path, {"a": "bonn/1.png", "b": "bonn/2.jpg"})
    assert files == {"b": "bonn/2.png"}
    assert "image 'a' has no file among these images; looked for 'bonn/1.png'" in faults


def test_a_number_is_no_name_of_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "5.png", "6.png")
    files, faults = find(tmp_path, {5: "lost.png", 6: "5.png"})
    assert files == {6: "5.png"}
    assert "image 5 has no file among these images; looked for 'lost.png'" in faults


@pytest.mark.parametrize("other", ["a.png", "folder/a.png", "lost.png"])
def test_one_file_serves_one_image(tmp_path: Path, other: str) -> None:
    touch(tmp_path, "a.png")
    files, faults = find(tmp_path, {"x": "a.png", "a": other})
    if other == "a.png":
        assert not files
        assert "a.png: would serve several images: 'x', 'a'" in faults
    else:
        assert files == {"x": "a.png"}
        assert "image 'a' has no file" in faults


def test_two_images_that_fall_back_to_one_file_get_none(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    files, faults = find(tmp_path, {1: "x/a.png", 2: "y/a.png"})
    assert not files
    assert "a.png: would serve several images: 1, 2" in faults


def test_two_files_of_one_stem_are_told_apart_by_the_name(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.jpg")
    assert find(tmp_path, {1: "a.png", 2: "a.jpg"})[0] == {1: "a.png", 2: "a.jpg"}
    assert "several files could be image 1" in find(tmp_path, {1: "a.webp"})[1]


def test_folders_of_other_machines_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "images/ulm/1.png", "images/bonn/1.png")
    root = tmp_path / "images"
    names: dict[ImageId, str] = {1: "/elsewhere/images/ulm/1.png", 2: "images/bonn/1.png"}
    assert find(root, names)[0] == {1: "ulm/1.png", 2: "bonn/1.png"}
    monkeypatch.chdir(tmp_path)
    absolute = ImageRecord(1, str(root / "bonn/1.png"), 1, 1)
    files, faults = find_image_files([absolute], "images")
    assert (files, faults) == ({1: Path("images/bonn/1.png")}, [])


def test_hidden_and_system_files_are_no_images(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "._a.png", ".ipynb_checkpoints/a.png", "x/.b/c.png", "Thumbs.db")
    (tmp_path / "folder.png").mkdir()
    assert list_image_files(tmp_path) == [tmp_path / "a.png"]


def test_links_to_folders_are_followed_but_never_in_a_circle(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "elsewhere/b.png")
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images" / "circle").symlink_to(tmp_path / "images")
    names = [
        path.relative_to(tmp_path).as_posix() for path in list_image_files(tmp_path / "images")
    ]
    assert names == ["images/a.png", "images/linked/b.png"]


def test_a_file_behind_a_link_out_of_the_folder_serves_no_image(tmp_path: Path) -> None:
    touch(tmp_path, "data/a.png", "private/b.png", "private/c.png")
    (tmp_path / "data" / "b.png").symlink_to(tmp_path / "private" / "b.png")
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "private")
    (tmp_path / "data" / "inside.png").symlink_to(tmp_path / "data" / "a.png")
    (tmp_path / "images").symlink_to(tmp_path / "data")  # the folder itself may be one
    root = tmp_path / "images"
    files, faults = find(root, {1: "b.png", 2: "linked/c.png", 3: "inside.png"})
    assert files == {3: "inside.png"}
    for number, name in ((1, "b.png"), (2, "linked/c.png")):
        place = (root / name).resolve()
        assert f"{name}: image {number} lies behind a link out of this folder, at {place}" in faults


def test_a_file_and_a_link_to_it_are_one_file(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "c.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    files, faults = find(tmp_path, {1: "a.png", 2: "b.png", 3: "c.png"})
    assert files == {3: "c.png"}
    assert "a.png: would serve several images: 1, 2" in faults


def test_a_folder_that_cannot_be_opened_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.png", "closed/b.png")
    scan = os.scandir

    def refusing(path: str) -> object:
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert list_image_files(tmp_path) == [tmp_path / "a.png", tmp_path / "closed"]


def test_links_between_folders_make_no_more_files_than_there_are_links(tmp_path: Path) -> None:
    # Each of eight folders shows the seven others: 8! ways lead through them.
    for number in range(8):
        touch(tmp_path, f"{number}/a.png")
        for other in set(range(8)) - {number}:
            (tmp_path / str(number) / f"to_{other}").symlink_to(tmp_path / str(other))
    files = list_image_files(tmp_path)
    assert {tmp_path / f"{number}/a.png" for number in range(8)} <= set(files)
    assert {tmp_path / "0/to_1/a.png", tmp_path / "7/to_6/a.png"} <= set(files)
    assert len(files) <= 8 + 8 * 7 * 8
