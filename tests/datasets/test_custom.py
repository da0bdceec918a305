"""Data of one's own: the YAML, label pictures of every depth, COCO instances, COCO panoptic."""

from __future__ import annotations

import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from seamless_pr.datasets import custom, custom_description
from seamless_pr.datasets.coco_panoptic import read_panoptic_json
from seamless_pr.datasets.conversion import convert_split
from seamless_pr.datasets.custom import open_custom
from seamless_pr.datasets.custom_description import read_custom_yaml
from seamless_pr.datasets.panoptic_files import PanopticFiles
from seamless_pr.datasets.raw_splits import RawSplit
from seamless_pr.datasets.verification import verify_dataset
from seamless_pr.id_maps.id_png_files import ids_to_rgb, read_id_png
from seamless_pr.structures.faults import FaultyDataError
from tests.support.panoptic_files import write_panoptic_dataset, write_png

FLOOR, BOX, VOID = 1, 2, 0
CLASSES = [
    {"id": FLOOR, "name": "floor", "thing": False},
    {"id": BOX, "name": "box", "thing": True, "color": [200, 120, 40]},
]
DESCRIPTION = {
    "name": "yard",
    "classes": CLASSES,
    "object_divisor": 1000,
    "void": [VOID],
    "splits": {"train": {"images": "images", "labels": "labels"}},
}
# Floor, two boxes, boxes that are not told apart, void.
VALUES = np.array([[0, 1, 1, 2001], [1, 2003, 2003, 2]], np.int32)


def describe(root: Path, **changes: object) -> Path:
    path = root / "yard.yaml"
    path.write_text(yaml.safe_dump({**DESCRIPTION, **changes}))
    return path


def write_pair(root: Path, name: str, values: np.ndarray, suffix: str = "") -> None:
    write_png(root / "labels" / f"{name}{suffix}.png", values)
    write_png(root / "images" / f"{name}.jpg", np.full((*values.shape[:2], 3), 90, np.uint8))


def opened(path: Path, split: str = "train") -> RawSplit:
    found = open_custom(read_custom_yaml(path), split)
    assert isinstance(found, RawSplit)
    return found


def convert(path: Path) -> Path:
    split = opened(path)
    output = path.parent / "out"
    return convert_split(split, output, num_workers=0, show_progress=False).json_path


@pytest.mark.parametrize("kind", ["16 bit", "RGB"])
def test_label_pictures_become_segments(tmp_path: Path, kind: str) -> None:
    rgb = np.ascontiguousarray(ids_to_rgb(VALUES)[..., ::-1])
    write_pair(tmp_path, "a/1", VALUES.astype(np.uint16) if kind == "16 bit" else rgb)
    json_path = convert(describe(tmp_path))
    dataset = read_panoptic_json(json_path)
    assert (dataset.images[0].image_id, dataset.images[0].file_name) == ("a/1", "a/1.jpg")
    found = [
        (s.segment_id, s.category_id, s.area, s.is_crowd) for s in dataset.annotations[0].segments
    ]
    assert found == [
        (2, FLOOR, 3, False),
        (3, BOX, 1, True),
        (2002, BOX, 1, False),
        (2004, BOX, 2, False),
    ]
    assert [category.name for category in dataset.categories] == ["floor", "box"]
    assert verify_dataset(json_path, images_dir=tmp_path / "images") == []


@pytest.mark.parametrize("mode", ["L", "P"])
def test_eight_bits_are_enough_where_the_divisor_says_so(tmp_path: Path, mode: str) -> None:
    values = np.array([[0, 1, 33, 34]], np.uint8)
    write_pair(tmp_path, "a", values)
    picture = Image.fromarray(values)
    if mode == "P":
        picture = Image.fromarray(values, mode="P")
        picture.putpalette([255, 0, 0] * 256)
    picture.save(tmp_path / "labels" / "a.png")
    (annotation,) = read_panoptic_json(convert(describe(tmp_path, object_divisor=16))).annotations
    found = [(segment.segment_id, segment.category_id) for segment in annotation.segments]
    assert found == [(2, FLOOR), (34, BOX), (35, BOX)]


def test_labels_may_carry_an_ending(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", VALUES.astype(np.uint16), suffix="_labels")
    (image,) = read_panoptic_json(convert(describe(tmp_path, label_suffix="_labels"))).images
    assert image.image_id == "a"


def test_everything_that_is_wrong_with_pictures_is_listed(tmp_path: Path) -> None:
    write_pair(tmp_path, "eight", np.array([[1, 1]], np.uint8))
    write_pair(tmp_path, "unknown", np.array([[7, 9005, 1]], np.uint16))
    write_pair(tmp_path, "fine", VALUES.astype(np.uint16))
    write_pair(tmp_path, "alone", VALUES.astype(np.uint16))
    (tmp_path / "images" / "alone.jpg").unlink()
    write_png(tmp_path / "images" / "other.jpg", np.zeros((2, 4, 3), np.uint8))
    write_pair(tmp_path, "alpha", np.zeros((2, 2, 4), np.uint8))
    jpeg = tmp_path / "labels" / "lossy.jpg"
    write_png(jpeg, np.zeros((2, 2, 3), np.uint8))
    write_png(tmp_path / "images" / "lossy.jpg", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(FaultyDataError) as error:
        convert(describe(tmp_path))
    text = str(error.value)
    for part in (
        "eight.png: has 8 bits a pixel, up to 255; the classes and object_divisor need values of "
        "2000 and more: save it with 16 bits",
        "unknown.png: class 7 (1 pixels) is neither among 'classes' nor in 'void'",
        "unknown.png: class 9 (1 pixels)",
        "alone.png: annotation without image",
        "other.jpg: image without annotation",
        "alpha.png: must be grey with 8 or 16 bits, or RGB with 8",
        "lossy.jpg: is a JPEG, which changes values",
    ):
        assert part in text
    assert len(error.value.faults) == 7
    assert not list((tmp_path / "out").glob("*.json"))


def test_ids_above_16_bits_ask_for_rgb(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", VALUES.astype(np.uint16))
    classes = [CLASSES[0], {"id": 70, "name": "box", "thing": True}]
    with pytest.raises(FaultyDataError, match=r"up to 65535; .* values of 70000 .* save it as RGB"):
        convert(describe(tmp_path, classes=classes))


def test_every_mistake_of_the_description_is_listed(tmp_path: Path) -> None:
    path = describe(
        tmp_path,
        name="my data",
        classes=[
            {"id": 1, "name": "floor"},
            {"id": -1, "name": "sky", "thing": False},
            {"id": 3, "name": "box", "thing": True, "color": [1, 2]},
            {"id": 4, "name": "crate", "thing": True, "colour": "red"},
            {"id": 5, "name": "cone", "thing": True},
            {"id": 5, "name": "post", "thing": True},
        ],
        object_divisor=5,
        void="none",
        splits={"train": {"images": "a", "labels": "b", "panoptic": "c"}, "val": {"labels": "b"}},
        devisor=3,
    )
    with pytest.raises(FaultyDataError) as error:
        read_custom_yaml(path)
    text = str(error.value)
    for part in (
        "unknown keys devisor; known are",
        "'name' must be a word",
        "class 'floor' needs 'thing: true' (countable) or 'thing: false'",
        "classes[1] needs an id of at least 0",
        "class 'box': color must be",
        "classes[3] must have color, id, name, thing",
        "class 'post': id 5 occurs more than once",
        "'void' must be a list",
        "split 'train' needs one of labels, instances and panoptic",
        "split 'val' needs 'images'",
    ):
        assert part in text
    path.write_text("name: [")
    with pytest.raises(FaultyDataError, match="cannot be read"):
        read_custom_yaml(path)


def test_things_without_numbers_and_ids_beyond_the_divisor_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FaultyDataError, match="need 'object_divisor', or no object has a number"):
        read_custom_yaml(describe(tmp_path, object_divisor=1))
    with pytest.raises(FaultyDataError, match=r"ids must be below object_divisor = 2; got 2"):
        read_custom_yaml(describe(tmp_path, object_divisor=2))


def write_instances(root: Path) -> Path:
    content = {
        "images": [{"id": 11, "file_name": "1.jpg", "height": 4, "width": 6}],
        "annotations": [
            {"id": 1, "image_id": 11, "category_id": 5, "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]},
        ],
        "categories": [{"id": 5, "name": "box", "supercategory": "thing"}],
    }
    path = root / "instances.json"
    path.write_text(json.dumps(content))
    write_png(root / "images" / "1.jpg", np.full((4, 6, 3), 90, np.uint8))
    return path


def test_coco_instances_lie_over_the_stuff_of_semantic_pictures(tmp_path: Path) -> None:
    write_instances(tmp_path)
    semantic = np.full((4, 6), FLOOR, np.uint8)
    semantic[0], semantic[3, 5] = VOID, 5
    write_png(tmp_path / "semantics" / "1.png", semantic)
    split = {"images": "images", "instances": "instances.json", "semantics": "semantics"}
    path = describe(tmp_path, splits={"train": split}, classes=CLASSES[:1])
    json_path = convert(path)
    dataset = read_panoptic_json(json_path)
    assert dataset.images[0].image_id == 11
    found = [(s.category_id, s.area) for s in dataset.annotations[0].segments]
    assert found == [(5, 6), (FLOOR, 11)]
    id_map = read_id_png(json_path.with_suffix("") / dataset.annotations[0].file_name)
    # A box where the semantic picture has one too, yet no object: void.
    assert (id_map[0] == 0).all()
    assert id_map[3, 5] == 0
    assert verify_dataset(json_path, images_dir=tmp_path / "images") == []


def test_coco_instances_alone_are_things_only(tmp_path: Path) -> None:
    write_instances(tmp_path)
    split = {"images": "images", "instances": "instances.json"}
    path = describe(tmp_path, splits={"train": split}, classes=[])
    dataset = read_panoptic_json(convert(path))
    assert [(c.category_id, c.name, c.is_thing) for c in dataset.categories] == [(5, "box", True)]


def test_missing_semantic_pictures_and_shared_ids_are_listed(tmp_path: Path) -> None:
    write_instances(tmp_path)
    (tmp_path / "semantics").mkdir()
    split = {"images": "images", "instances": "instances.json", "semantics": "semantics"}
    classes = [{"id": 5, "name": "floor", "thing": False}]
    with pytest.raises(FaultyDataError) as error:
        convert(describe(tmp_path, splits={"train": split}, classes=classes))
    messages = [fault.message for fault in error.value.faults]
    assert any("no picture for 1.jpg" in message for message in messages)
    found = "category 5 is 'box' (a thing) here and 'floor' (stuff) in"
    assert any(message.startswith(found) for message in messages)


@pytest.mark.parametrize(
    ("kind", "classes", "expected"),
    [
        (
            "instances",
            {"id": 5, "name": "dog", "thing": True},
            "5 is 'box' (a thing) here and 'dog'",
        ),
        (
            "panoptic",
            {"id": 26, "name": "car", "thing": False},
            "'car' (a thing) here and 'car' (s",
        ),
        ("panoptic", {"id": 7, "name": "lawn", "thing": False}, "7 is 'road' (stuff) here and 'la"),
    ],
)
def test_a_json_that_contradicts_the_description_is_refused_with_both_readings(
    tmp_path: Path, kind: str, classes: dict[str, object], expected: str
) -> None:
    if kind == "instances":
        write_instances(tmp_path)
    else:
        id_map = np.array([[7, 7, 0], [26, 26, 23]], np.int32)
        write_panoptic_dataset(tmp_path, {"one": id_map}, {7: 7, 23: 23, 26: 26})
    split = {"images": "images", kind: f"{kind}.json"}
    path = describe(tmp_path, splits={"train": split}, classes=[classes])
    (fault,) = open_custom(read_custom_yaml(path), "train").faults
    assert expected in fault.message
    assert fault.message.endswith(f"in {path}")


def test_two_categories_of_one_id_are_told(tmp_path: Path) -> None:
    write_instances(tmp_path)
    content = json.loads((tmp_path / "instances.json").read_text())
    content["categories"] += [{"id": 5, "name": "crate"}, {"id": 10**30, "name": "x"}, [1]]
    (tmp_path / "instances.json").write_text(json.dumps(content))
    split = {"images": "images", "instances": "instances.json"}
    path = describe(tmp_path, splits={"train": split}, classes=[])
    messages = [fault.message for fault in open_custom(read_custom_yaml(path), "train").faults]
    assert messages[0] == "categories[1]: id 5 occurs more than once"
    assert len(messages) == 3


def test_a_coco_panoptic_folder_is_checked_and_not_converted(tmp_path: Path) -> None:
    id_map = np.array([[7, 7, 0], [26, 26, 23]], np.int32)
    write_panoptic_dataset(tmp_path, {"one": id_map}, {7: 7, 23: 23, 26: 26})
    split = {"images": "images", "panoptic": "panoptic.json", "segments": "panoptic"}
    files = open_custom(read_custom_yaml(describe(tmp_path, splits={"train": split})), "train")
    assert isinstance(files, PanopticFiles)
    assert files.check(num_workers=0, show_progress=False) == []
    damaged = cv2.imread(str(tmp_path / "panoptic" / "one.png"))
    write_png(tmp_path / "panoptic" / "one.png", damaged[:1])
    assert files.check(num_workers=0, show_progress=False)


@pytest.mark.parametrize("key", ["images", "labels", "instances"])
@pytest.mark.parametrize(
    "path, message",
    [
        ("0" * 400, "is too long for a file name; got '0{59}"),
        ("a\0", "holds a NUL"),
        ("nowhere", "no (folder|instance JSON)"),
        ("/dev/null", "is no folder|no instance JSON"),
    ],
)
def test_a_path_that_leads_nowhere_is_named_with_the_description(
    tmp_path: Path, key: str, path: str, message: str
) -> None:
    write_pair(tmp_path, "a", VALUES.astype(np.uint16))
    paths = {"images": "images", "labels": "labels", key: path}
    if key == "instances":
        del paths["labels"]
    description = describe(tmp_path, splits={"train": paths})
    with pytest.raises((ValueError, FileNotFoundError), match=rf"yard\.yaml.*\s.*({message})"):
        opened(description)


@pytest.mark.parametrize("name", ["n" * 101, "../yard"])
def test_a_name_that_files_cannot_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FaultyDataError, match="'name' must be a word"):
        read_custom_yaml(describe(tmp_path, name=name))


def test_an_unknown_split_names_the_others(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has the splits train; got 'val'"):
        open_custom(read_custom_yaml(describe(tmp_path)), "val")
    with pytest.raises(FileNotFoundError, match=r"'images' of split 'train'"):
        opened(describe(tmp_path))


def test_pictures_whose_results_would_lose_one_another_are_refused(tmp_path: Path) -> None:
    for name in ("a/b", "a_b"):
        write_pair(tmp_path, name, VALUES.astype(np.uint16))
    with pytest.raises(FaultyDataError, match=r"a_b.png: its result would have the name 'a_b.png'"):
        convert(describe(tmp_path))
    write_png(tmp_path / "images" / "a_b.png", np.zeros((2, 4, 3), np.uint8))
    with pytest.raises(FaultyDataError, match=r"a_b.png: a_b.jpg beside it has the same name"):
        opened(describe(tmp_path))


def test_hidden_files_of_archives_are_no_data(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", VALUES.astype(np.uint16))
    for folder in ("labels", "images"):
        (tmp_path / folder / "._a.png").write_bytes(b"\0\5\26\7")
        (tmp_path / folder / ".ipynb_checkpoints").mkdir()
        (tmp_path / folder / ".ipynb_checkpoints" / "a.png").write_bytes(b"")
    assert [image.image_id for image in opened(describe(tmp_path)).images] == ["a"]


def test_a_missing_picture_of_coco_instances_is_not_replaced_by_a_namesake(tmp_path: Path) -> None:
    path = write_instances(tmp_path)
    content = json.loads(path.read_text())
    content["images"].append({**content["images"][0], "id": 12, "file_name": "lost/1.jpg"})
    path.write_text(json.dumps(content))
    split = opened(
        describe(
            tmp_path, splits={"train": {"images": "images", "instances": path.name}}, classes=[]
        )
    )
    assert [image.image_id for image in split.images] == [11]
    assert any(
        "image 12 has no file among these images; looked for 'lost/1.jpg'" in f.message
        for f in split.faults
    )


def test_names_of_splits_never_lead_out_of_the_folder(tmp_path: Path) -> None:
    splits = {"../../out": {"images": "images", "labels": "labels"}}
    with pytest.raises(FaultyDataError, match=r"split '../../out' must be a word of letters"):
        read_custom_yaml(describe(tmp_path, splits=splits))


def test_of_a_photograph_among_the_labels_the_first_colours_are_told_and_their_number(
    tmp_path: Path,
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    write_pair(tmp_path, "a", noise)
    split = opened(describe(tmp_path))
    raw = split.read_map(split.images[0])
    assert len(raw.faults) == 101
    assert "classes are unknown; is it a picture of labels?" in raw.faults[-1].message


def test_many_classes_are_read_as_fast_as_few(tmp_path: Path) -> None:
    classes = [{"id": number, "name": "a", "thing": False} for number in range(40_000)]
    start = time.process_time()
    assert len(custom_description._parse_classes(classes, [])) == 40_000
    dataset = read_custom_yaml(describe(tmp_path))
    assert len(custom._thing_categories(dataset, tuple(classes), "a.json", [])) == 40_000
    # Of a set made anew for each class: half a minute.
    assert time.process_time() - start < 3
