"""Lists of images and their ids."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from seamless_pr.inference.image_list import list_images


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def ids(root: Path, source: str = "", **options: str) -> list[str | int]:
    return [item.image_id for item in list_images(root / source, **options)]


def test_folder_is_searched_with_its_subfolders_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a.JPG", "köln/c d.jpeg", "köln/notes.txt", "d.json")
    assert ids(tmp_path) == ["a", "b", "köln/c d"]
    names = [item.name for item in list_images(tmp_path)]
    assert names == ["a", "b", "köln/c d"]


def test_ids_of_a_pattern_start_behind_its_fixed_part(tmp_path: Path) -> None:
    touch(tmp_path, "val/bonn/a.png", "val/ulm/b.png", "val/ulm/b.json", "train/ulm/c.png")
    assert ids(tmp_path, "val/*/*.png") == ["bonn/a", "ulm/b"]
    assert ids(tmp_path, "**/ulm/*") == ["train/ulm/c", "val/ulm/b"]


def test_a_pattern_follows_links_but_never_in_a_circle(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "images/x/y/b.png", "elsewhere/c.png", "images/[1]/d.png")
    for name in ("one", "two"):  # Of two circles 2 ** 40 ways lead to the file.
        (tmp_path / "images" / name).symlink_to(tmp_path / "images")
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "elsewhere")
    assert ids(tmp_path, "images/**/*.png") == ["[1]/d", "a", "linked/c", "x/y/b"]
    assert ids(tmp_path, "images/**") == ["[1]/d", "a", "linked/c", "x/y/b"]
    assert ids(tmp_path, "*/**/y/**/*.png") == ["images/x/y/b"]
    assert ids(tmp_path, "images/x/**/b.png") == ["y/b"]


def test_list_file_names_images_relative_to_itself_or_absolutely(tmp_path: Path) -> None:
    touch(tmp_path, "lists/a.png", "elsewhere/b.png")
    outside = tmp_path / "elsewhere" / "b.png"
    (tmp_path / "lists" / "some.txt").write_text(f"# two\na.png\n\n{outside}\nmissing.png\n")
    found = ids(tmp_path, "lists/some.txt")
    assert found == [str(outside.with_suffix("")).lstrip("/"), "a", "missing"]


def test_absolute_names_of_a_json_are_those_of_files_of_the_folder_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "images/ulm/a.png")
    monkeypatch.chdir(tmp_path)
    json_path = tmp_path / "ids.json"
    for name in (str(tmp_path / "images/ulm/a.png"), "ulm\\a.png"):
        json_path.write_text(json.dumps({"images": [{"id": 7, "file_name": name}]}))
        (item,) = list_images("images", id_from=str(json_path))
        assert (item.path, item.image_id, item.name) == (Path("images/ulm/a.png"), 7, "ulm/a")
    for name in ("/elsewhere/ulm/a.png", "../images/ulm/a.png", "C:\\ulm\\a.png"):
        json_path.write_text(json.dumps({"images": [{"id": 7, "file_name": name}]}))
        with pytest.raises(ValueError, match=r"ids\.json"):
            list_images("images", id_from=str(json_path))


def test_single_image_is_known_by_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.b.png")
    assert ids(tmp_path, "x/a.b.png") == ["a.b"]


def test_cityscapes_ids_come_from_names_without_their_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "ulm/ulm_000001_000019_leftImg8bit.png")
    found = ids(tmp_path, id_from="name", remove_suffix="_leftImg8bit")
    assert found == ["ulm_000001_000019"]


def test_json_gives_ids_and_chooses_images(tmp_path: Path) -> None:
    touch(tmp_path, "images/000000000139.jpg", "images/000000000285.jpg", "images/other.jpg")
    images = [
        {"id": 285, "file_name": "000000000285.jpg"},
        {"id": 139, "file_name": "000000000139.jpg"},
    ]
    json_path = tmp_path / "val.json"
    json_path.write_text(json.dumps({"images": images}))
    items = list_images(tmp_path / "images", id_from=str(json_path))
    assert [(item.image_id, item.name) for item in items] == [
        (139, "000000000139"),
        (285, "000000000285"),
    ]


def test_json_names_are_found_below_the_folder_even_if_their_names_repeat(tmp_path: Path) -> None:
    touch(tmp_path, "images/a/1.jpg", "images/b/1.jpg")
    json_path = tmp_path / "val.json"
    json_path.write_text(json.dumps({"images": [{"id": "x", "file_name": "b/1.jpg"}]}))
    (item,) = list_images(tmp_path / "images", id_from=str(json_path))
    assert item.path == tmp_path / "images/b/1.jpg"


def test_official_cityscapes_json_finds_files_by_id(tmp_path: Path) -> None:
    touch(tmp_path, "val/ulm/ulm_000001_000019_leftImg8bit.png")
    image = {"id": "ulm_000001_000019", "file_name": "ulm_000001_000019_gtFine_leftImg8bit.png"}
    json_path = tmp_path / "val.json"
    json_path.write_text(json.dumps({"images": [image]}))
    (item,) = list_images(tmp_path / "val", id_from=str(json_path))
    assert (item.image_id, item.name) == ("ulm_000001_000019", "ulm_000001_000019")
    assert item.path.name == "ulm_000001_000019_leftImg8bit.png"


def test_json_that_lists_missing_images_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg")
    json_path = tmp_path / "val.json"
    json_path.write_text(json.dumps({"images": [{"id": 1, "file_name": "b.jpg"}]}))
    with pytest.raises(ValueError, match=r"1 of 1 images of .*val.json cannot be found .*'b\.jpg'"):
        list_images(tmp_path / "images", id_from=str(json_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "bad.json: it is not JSON"),
        ("[]", "bad.json: expected an object with 'images'; got []"),
        ('{"images": []}', "bad.json: it has no 'images'"),
        ('{"images": [1]}', "images[0]: 'id' must be an integer or a text; got 1"),
        ('{"images": [{"id": 7.5, "file_name": "a.png"}]}', "images[0]: 'id' must be"),
        ('{"images": [{"id": null, "file_name": "a.png"}]}', "images[0]: 'id' must be"),
        ('{"images": [{"id": "", "file_name": "a.png"}]}', "images[0]: 'id' must be"),
        ('{"images": [{"id": "a\\u0000b", "file_name": "a.png"}]}', "images[0]: 'id' must be"),
        ('{"images": [{"id": 7, "file_name": null}]}', "images[0]: 'file_name' must be"),
        ('{"images": [{"id": 7, "file_name": 3}]}', "images[0]: 'file_name' must be"),
        ("\udcff", "bad.json: it is not JSON"),
    ],
)
def test_bad_json_is_named_with_its_entry(tmp_path: Path, content: str, message: str) -> None:
    touch(tmp_path, "a.png")
    json_path = tmp_path / "bad.json"
    json_path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=re.escape(message)):
        list_images(tmp_path, id_from=str(json_path))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_texts_with_marks_are_read(tmp_path: Path, encoding: str) -> None:
    touch(tmp_path, "köln.png")
    content = json.dumps({"images": [{"id": 7.0, "file_name": "köln.png"}]}, ensure_ascii=False)
    (tmp_path / "ids.json").write_bytes(content.encode(encoding))
    assert ids(tmp_path, id_from=str(tmp_path / "ids.json")) == [7]
    (tmp_path / "list.txt").write_bytes("köln.png\r\n".encode(encoding))
    assert ids(tmp_path, "list.txt") == ["köln"]


def test_a_list_in_another_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("a.png\nköln.png\n".encode("latin-1"))
    with pytest.raises(
        ValueError, match=r"list.txt is no text in UTF-8 \(line 2, byte 7\); save it"
    ):
        list_images(tmp_path / "list.txt")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-32-be"])
def test_a_list_with_zeros_is_named_with_its_line(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "list.txt").write_bytes(b"a.png\n" + "b.png\n".encode(encoding))
    with pytest.raises(ValueError, match=r"list.txt is no text in UTF-8 \(line 2 holds a NUL\)"):
        list_images(tmp_path / "list.txt")


def test_two_images_of_one_stem_keep_their_endings(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.jpg", "b.png")
    items = list_images(tmp_path)
    assert [(item.image_id, item.name) for item in items] == [
        ("a.jpg", "a.jpg"),
        ("a.png", "a.png"),
        ("b", "b"),
    ]
    content = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "a.jpg"}]
    (tmp_path / "ids.json").write_text(json.dumps({"images": content}))
    items = list_images(tmp_path, id_from=str(tmp_path / "ids.json"))
    assert [(item.image_id, item.name) for item in items] == [(2, "a.jpg"), (1, "a.png")]


def test_own_results_and_hidden_files_are_no_photographs(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "._a.png", ".ipynb_checkpoints/a-checkpoint.png", "out/b.png")
    touch(
        tmp_path, "old/run.json", "old/records/a.json", "old/panoptic/a.png", "old/overlays/a.jpg"
    )
    assert ids(tmp_path) == ["a", "out/b"]
    assert ids(tmp_path, "**/*.png") == ["a", "out/b"]
    uri = f"file://{tmp_path}"
    assert [item.image_id for item in list_images(uri)] == ["a", "out/b"]
    with pytest.raises(FileNotFoundError, match="no image files"):
        list_images(tmp_path / "old")


def test_file_names_keep_their_folders(tmp_path: Path) -> None:
    touch(tmp_path, "x/1.png", "y/1.png")
    assert [item.file_name for item in list_images(tmp_path)] == ["x/1.png", "y/1.png"]
    assert [item.file_name for item in list_images(tmp_path, remove_suffix="1")] == [
        "x/1.png",
        "y/1.png",
    ]


def test_unknown_source_of_ids_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    with pytest.raises(FileNotFoundError, match="'path', 'name' or a COCO JSON file"):
        list_images(tmp_path, id_from="nmae")


@pytest.mark.parametrize(
    ("names", "id_from"),
    [
        (("x/a.png", "y/a.png"), "name"),
        (("x/a.png", "x/A.png"), "path"),
    ],
)
def test_two_images_with_one_id_are_refused(
    tmp_path: Path, names: tuple[str, ...], id_from: str
) -> None:
    touch(tmp_path, *names)
    with pytest.raises(ValueError, match="two images have the id"):
        list_images(tmp_path, id_from=id_from)


def test_sources_without_images_are_errors(tmp_path: Path) -> None:
    touch(tmp_path, "notes.md")
    (tmp_path / "empty.txt").write_text("\n# nothing\n")
    with pytest.raises(FileNotFoundError, match=r"no image files in .* names ending in .bmp"):
        list_images(tmp_path)
    with pytest.raises(FileNotFoundError, match="no image files in"):
        list_images(tmp_path / "*.png")
    with pytest.raises(FileNotFoundError, match="lists no images"):
        list_images(tmp_path / "empty.txt")
    with pytest.raises(FileNotFoundError, match="neither a folder"):
        list_images(tmp_path / "nowhere")


@pytest.fixture
def bucket() -> Iterator[str]:
    """A folder on fsspec's storage in memory, which stands for a bucket."""
    files = fsspec.filesystem("memory")
    for name in ("val/ulm/b.png", "val/bonn/a.JPG", "val/ulm/notes.txt", "train/c.png"):
        files.pipe_file(f"/bucket/{name}", b"")
    yield "memory://bucket"
    files.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    "source, expected",
    [
        ("", ["train/c", "val/bonn/a", "val/ulm/b"]),
        ("/val/", ["bonn/a", "ulm/b"]),
        ("/val/*/*", ["bonn/a", "ulm/b"]),
        ("/*/ulm/b.*", ["val/ulm/b"]),
        ("/train/c.png", ["c"]),
    ],
)
def test_folders_patterns_and_images_may_be_uris(
    bucket: str, source: str, expected: list[str]
) -> None:
    items = list_images(bucket + source)
    assert [item.image_id for item in items] == expected
    assert all(str(item.path).startswith("memory://") for item in items)
    names = [item.image_id for item in list_images(bucket + source, id_from="name")]
    assert names == [name.rpartition("/")[2] for name in expected]


def test_lines_of_a_list_may_be_uris(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text(f"{bucket}/val/ulm/b.png\na.png\n")
    items = list_images(tmp_path / "some.txt")
    assert {(item.image_id, str(item.path)) for item in items} == {
        ("a", str(tmp_path / "a.png")),
        ("bucket/val/ulm/b", f"{bucket}/val/ulm/b.png"),
    }


def test_storage_without_images_or_backend_is_refused_with_a_reason(
    bucket: str, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="no image files in memory://bucket/test"):
        list_images(f"{bucket}/test")
    with pytest.raises(OSError, match=r"s4://bucket cannot be read .*s4"):
        list_images("s4://bucket")
    (tmp_path / "val.json").write_text(json.dumps({"images": [{"id": 1, "file_name": "a.png"}]}))
    with pytest.raises(ValueError, match="memory://bucket is a URI: mount it"):
        list_images(bucket, id_from=str(tmp_path / "val.json"))


def test_a_suffix_that_is_the_whole_name_stays(tmp_path: Path) -> None:
    touch(tmp_path, "ulm/_leftImg8bit.png", "ulm/a_leftImg8bit.png")
    for id_from, folder in (("name", ""), ("path", "ulm/")):
        found = ids(tmp_path, id_from=id_from, remove_suffix="_leftImg8bit")
        assert found == [f"{folder}_leftImg8bit", f"{folder}a"]


def test_long_names_get_result_files_that_fit_the_disk_and_keep_their_ids(tmp_path: Path) -> None:
    names = ["n" * 250 + letter for letter in "ab"] + ["ß" * 124 + "a"]
    touch(tmp_path, *(f"{name}.png" for name in names))
    items = list_images(tmp_path)
    assert [item.image_id for item in items] == sorted(names)
    results = [item.name for item in items]
    assert len(set(results)) == 3
    assert all(len(name.encode()) <= 240 for name in results)
    # The same on every run.
    assert [item.name for item in list_images(tmp_path)] == results


@pytest.mark.parametrize("image_id", ["../../evil", "/etc/evil", "C:\\evil"])
def test_ids_that_would_leave_the_output_are_refused_with_their_file(
    tmp_path: Path, image_id: str
) -> None:
    touch(tmp_path, "images/a.png")
    (tmp_path / "gt.json").write_text(
        json.dumps({"images": [{"id": image_id, "file_name": "a.png"}]})
    )
    with pytest.raises(ValueError, match=r"gt\.json names .*, which must lie below OUTPUT"):
        list_images(tmp_path / "images", id_from=str(tmp_path / "gt.json"))
