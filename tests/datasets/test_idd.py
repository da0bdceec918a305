"""IDD from polygons: level-3 ids, shared counters, sizes, names, and a real file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from seamless_pr.datasets.coco_panoptic import read_panoptic_json
from seamless_pr.datasets.conversion import convert_split
from seamless_pr.datasets.idd import OFFICIAL_SIZE, open_idd
from seamless_pr.datasets.image_files import find_image_files
from seamless_pr.datasets.verification import verify_dataset
from seamless_pr.id_maps.id_png_files import read_id_png
from seamless_pr.structures.faults import FaultyDataError
from tests.support.panoptic_files import write_png

REAL_FILE = Path(__file__).parents[3] / "shared/real-files/idd/frame_gtFine_polygons.json"


def box(label: str, x0: float, y0: float, x1: float, y1: float, **more: object) -> dict:
    return {"label": label, "polygon": [[x0, y0], [x1, y0], [x1, y1], [x0, y1]], **more}


SCENE = [
    box("road", 0, 0, 15, 8),
    box("sky", 0, 0, 15, 1),
    box("person", 0, 2, 1, 3),
    box("animal", 3, 2, 4, 3),
    box("person", 6, 2, 7, 3, deleted=1),
    box("caravan", 6, 2, 7, 3),
    box("vehicle fallback", 9, 2, 10, 3),
    box("cargroup", 12, 2, 13, 3),
    box("ego vehicle", 0, 7, 15, 8),
    box("license plate", 12, 2, 12, 2),
    box("drivable fallback", 0, 5, 3, 6),
]


def write_frame(
    root: Path, drive: str, frame: str, objects: list[dict], *, suffix: str = "png",
    size: tuple[int, int] = (9, 16), split: str = "train",
) -> None:  # fmt: skip
    path = root / "gtFine" / split / drive / f"{frame}_gtFine_polygons.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"imgHeight": size[0], "imgWidth": size[1], "objects": objects}
    path.write_text(json.dumps(content))
    picture = root / "leftImg8bit" / split / drive / f"{frame}_leftImg8bit.{suffix}"
    write_png(picture, np.full((*size, 3), 90, np.uint8))


def convert(root: Path, **options: object) -> Path:
    split = open_idd(root, "train", **options)
    return convert_split(split, root / "out", num_workers=0, show_progress=False).json_path


def test_segments_are_level_3_classes_and_numbers_are_shared_between_labels(tmp_path: Path) -> None:
    write_frame(tmp_path, "12", "frame0014", SCENE, suffix="jpg")
    json_path = convert(tmp_path)
    dataset = read_panoptic_json(json_path)
    (image,), (annotation,) = dataset.images, dataset.annotations
    assert (image.image_id, image.file_name) == (
        "12_frame0014",
        "12/frame0014_leftImg8bit.jpg",
    )
    found = {(s.segment_id, s.category_id, s.is_crowd, s.area) for s in annotation.segments}
    # road, parking (drivable fallback), sky; person and animal share class 4 and its numbers, as
    # caravan and vehicle fallback do in 12; a group is crowd.
    assert found == {
        (1, 0, False, 52), (2, 1, False, 8), (26, 25, False, 32), (4001, 4, False, 4),
        (4002, 4, False, 4), (12001, 12, False, 4), (12002, 12, False, 4), (10, 9, True, 3),
    }  # fmt: skip
    id_map = read_id_png(json_path.with_suffix("") / annotation.file_name)
    assert id_map[2, 3] == 4002
    assert id_map[2, 12] == 0, "license plates are painted, and void"
    assert (id_map[7:] == 0).all(), "the ego vehicle is void"
    assert verify_dataset(json_path, images_dir=tmp_path / "leftImg8bit/train") == []


def test_categories_are_those_of_the_official_json(tmp_path: Path) -> None:
    write_frame(tmp_path, "0", "000001", SCENE)
    categories = read_panoptic_json(convert(tmp_path)).categories
    assert [category.category_id for category in categories] == list(range(26))
    assert sum(category.is_thing for category in categories) == 9
    assert (categories[6].name, categories[6].supercategory) == ("motorcycle", "2-wheeler")
    assert categories[12].supercategory == "large-vehicle"


def test_frames_of_the_same_name_are_told_by_their_drive(tmp_path: Path) -> None:
    for drive in ("0", "201"):
        write_frame(tmp_path, drive, "000001", SCENE)
    images = read_panoptic_json(convert(tmp_path)).images
    assert [image.image_id for image in images] == ["0_000001", "201_000001"]


def test_the_official_size_takes_the_nearest_pixel_and_the_official_names(tmp_path: Path) -> None:
    corners = [box("road", 0, 0, 1919, 1079), box("car", 100.4, 200, 731.7, 655.5)]
    write_frame(tmp_path, "3", "000007", corners, size=(1080, 1920))
    json_path = convert(tmp_path, size=OFFICIAL_SIZE)
    assert json_path.name == "train_panoptic.json"
    (image,) = read_panoptic_json(json_path).images
    name = "3_000007_gtFine_panopticlevel3Ids.png"
    assert (image.image_id, image.file_name, image.height, image.width) == (name, name, 720, 1280)
    native = read_id_png(convert(tmp_path).with_suffix("") / name)
    official = read_id_png(json_path.with_suffix("") / name)
    resized = Image.fromarray(native).resize((1280, 720), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(official, np.asarray(resized))
    # By hand: pixel x shows column (2 x + 1) * 1920 // 2560 of the native map.
    assert set(np.unique(official)) == {1, 9001}
    columns = (2 * np.arange(1280) + 1) * 1920 // 2560
    rows = (2 * np.arange(720) + 1) * 1080 // 1440
    np.testing.assert_array_equal(official, native[rows[:, None], columns])


def test_pictures_of_the_official_json_are_found_by_drive_and_frame(tmp_path: Path) -> None:
    for drive in ("0", "201"):
        write_frame(tmp_path, drive, "000001", SCENE)
    images = read_panoptic_json(convert(tmp_path, size=OFFICIAL_SIZE)).images
    files, faults = find_image_files(images, tmp_path / "leftImg8bit" / "train")
    assert faults == []
    assert [path.parent.name for path in files.values()] == ["0", "201"]


def test_everything_that_is_wrong_is_listed_at_once(tmp_path: Path) -> None:
    write_frame(tmp_path, "0", "000001", [*SCENE, box("spaceship", 1, 1, 2, 2)])
    write_frame(tmp_path, "0", "000002", [{"label": "car", "polygon": [[1, 1], [5, 5]]}])
    write_frame(tmp_path, "0", "000003", [box("car", 40, 1, 50, 5)])
    write_frame(tmp_path, "0", "000004", SCENE)
    (tmp_path / "leftImg8bit/train/0/000004_leftImg8bit.png").unlink()
    write_png(tmp_path / "leftImg8bit/train/0/000005_leftImg8bit.png", np.zeros((9, 16, 3)))
    write_frame(tmp_path, "0", "000006", SCENE)
    write_png(tmp_path / "leftImg8bit/train/0/000006_leftImg8bit.png", np.zeros((9, 15, 3)))
    with pytest.raises(FaultyDataError) as error:
        convert(tmp_path)
    text = str(error.value)
    for part in (
        "000001_gtFine_polygons.json: object 11 has the label 'spaceship', which no table knows",
        "000002_gtFine_polygons.json: object 0 ('car') has 2 corners",
        "000003_gtFine_polygons.json: object 0 ('car') lies outside of the image",
        "000004_gtFine_polygons.json: annotation without image",
        "000005_leftImg8bit.png: image without annotation",
        "000006_leftImg8bit.png: size 9x15 (height x width); its annotation has 9x16",
    ):
        assert part in text
    assert len(error.value.faults) == 6
    assert not list((tmp_path / "out").glob("*.json"))


def test_degenerate_polygons_can_be_taken_as_the_official_tool_does(tmp_path: Path) -> None:
    line = {"label": "car", "polygon": [[1, 1], [5, 1]]}
    write_frame(tmp_path, "0", "000002", [box("road", 0, 0, 15, 8), line, box("car", 40, 1, 50, 5)])
    (annotation,) = read_panoptic_json(convert(tmp_path, accept_degenerate=True)).annotations
    # The hidden car took number 1 of its own.
    assert [(s.segment_id, s.area) for s in annotation.segments] == [(1, 139), (9001, 5)]


def test_wrong_roots_are_answered_with_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--root must be the unpacked part of IDD"):
        open_idd(tmp_path / "nowhere", "train")
    write_frame(tmp_path / "IDD_Segmentation", "0", "000001", SCENE)
    with pytest.raises(FileNotFoundError, match="holds the parts IDD_Segmentation; give one"):
        open_idd(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match=r"folders there: train; .*test has no annotations"):
        open_idd(tmp_path / "IDD_Segmentation", "test")
    (tmp_path / "half" / "gtfine").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="rename it to gtFine/"):
        open_idd(tmp_path / "half", "train")


@pytest.mark.skipif(not REAL_FILE.is_file(), reason="IDD's terms keep its files out of here")
def test_a_real_file_is_painted_as_by_pillow(tmp_path: Path) -> None:
    content = json.loads(REAL_FILE.read_text())
    write_frame(tmp_path, "201", "frame0029", content["objects"], size=(1080, 1920))
    json_path = convert(tmp_path)
    (annotation,) = read_panoptic_json(json_path).annotations
    id_map = read_id_png(json_path.with_suffix("") / annotation.file_name)
    level3 = {
        "road": 0, "drivable fallback": 1, "non-drivable fallback": 3, "person": 4, "animal": 4,
        "rider": 5, "motorcycle": 6, "autorickshaw": 8, "car": 9, "truck": 10,
        "vehicle fallback": 12, "curb": 13, "billboard": 17, "pole": 20,
        "obs-str-bar-fallback": 21, "building": 22, "vegetation": 24, "sky": 25,
    }  # fmt: skip
    picture = Image.new("I", (1920, 1080), 0)
    numbers: Counter[int] = Counter()
    for entry in content["objects"]:
        if entry["deleted"]:
            continue
        value = level3[entry["label"]]
        if 4 <= value <= 12:
            numbers[value] += 1
            value = 1000 * value + numbers[value] - 1
        corners = [tuple(corner) for corner in entry["polygon"]]
        ImageDraw.Draw(picture).polygon(corners, fill=value + 1)
    np.testing.assert_array_equal(id_map, np.asarray(picture))
    assert numbers.total() > 40
