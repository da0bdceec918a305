"""Drawn street scenes: the same bytes for the same seed, the Cityscapes layout, honest truth."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from cityscapesscripts.helpers.annotation import Annotation
from cityscapesscripts.preparation.json2instanceImg import createInstanceImage
from cityscapesscripts.preparation.json2labelImg import createLabelImage
from PIL import Image, ImageDraw

from seamless_pr.datasets.label_spaces import load_label_space, load_labels
from seamless_pr.street_scenes.dataset import (
    CITIES,
    draw_street_scene,
    main,
    parse_size,
    scene_paths,
    write_street_scenes,
)
from seamless_pr.street_scenes.painting import PaintedScene

SMALL = (128, 256)
NUM_SCENES = 16
THING_IDS = {label.label_id for label in load_labels("cityscapes") if label.is_thing}
VOID_IDS = {label.label_id for label in load_labels("cityscapes") if label.is_ignored}


@pytest.fixture(scope="module")
def scenes() -> list[PaintedScene]:
    return [draw_street_scene(0, "train", index, SMALL) for index in range(NUM_SCENES)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    num_images = {"train": 2, "val": 2}
    write_street_scenes(root, num_images=num_images, size=SMALL, seed=3, progress=False)
    return root


def file_hashes(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def read_png(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image


def grown(mask: np.ndarray) -> np.ndarray:
    """The mask and its eight neighbours."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def is_at_border(label_map: np.ndarray) -> np.ndarray:
    """Pixels with another value among their eight neighbours."""
    values = label_map.astype(np.uint16)
    window = np.ones((3, 3), np.uint8)
    return cv2.dilate(values, window) != cv2.erode(values, window)


def test_the_same_arguments_give_the_same_scene():
    first, second = (draw_street_scene(5, "val", 1, SMALL) for _ in range(2))
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.instance_ids, second.instance_ids)
    assert [item.polygon.tolist() for item in first.objects] == [
        item.polygon.tolist() for item in second.objects
    ]


def test_seed_split_and_index_each_change_the_scene():
    base = draw_street_scene(0, "train", 0, SMALL).image
    for seed, split, index in ((1, "train", 0), (0, "val", 0), (0, "train", 6)):
        assert not np.array_equal(base, draw_street_scene(seed, split, index, SMALL).image)


def test_two_workers_write_what_one_writes(written: Path, tmp_path: Path):
    num_images = {"train": 2, "val": 2}
    drawn = write_street_scenes(
        tmp_path, num_images=num_images, size=SMALL, seed=3, workers=2, progress=False
    )
    assert drawn == 4
    assert file_hashes(tmp_path) == file_hashes(written)


def test_a_second_run_draws_only_what_is_missing_or_incomplete(tmp_path: Path):
    arguments = {"num_images": {"val": 3}, "size": (64, 128), "seed": 0, "progress": False}
    assert write_street_scenes(tmp_path, **arguments) == 3
    before = file_hashes(tmp_path)
    scene_paths(tmp_path, "val", 1).label_ids.unlink()
    scene_paths(tmp_path, "val", 2).polygons.unlink()
    assert write_street_scenes(tmp_path, **arguments) == 2
    assert file_hashes(tmp_path) == before


def test_files_lie_where_cityscapes_puts_them(written: Path):
    names = set(file_hashes(written))
    city = CITIES["train"][1]
    stem = f"{city}_000000_000019"
    assert f"leftImg8bit/train/{city}/{stem}_leftImg8bit.png" in names
    for suffix in ("labelIds.png", "instanceIds.png", "color.png", "polygons.json"):
        assert f"gtFine/train/{city}/{stem}_gtFine_{suffix}" in names
    assert len(names) == 5 * 4


def test_files_have_the_types_and_colours_of_cityscapes(written: Path):
    paths = scene_paths(written, "train", 0)
    image, labels, instances, color = (
        read_png(path) for path in (paths.image, paths.label_ids, paths.instance_ids, paths.color)
    )
    assert (image.dtype, image.shape) == (np.uint8, (*SMALL, 3))
    assert (labels.dtype, labels.shape) == (np.uint8, SMALL)
    assert (instances.dtype, instances.shape) == (np.uint16, SMALL)
    road = load_label_space("cityscapes").categories[0]
    assert road.name == "road"
    assert np.array_equal(np.unique(color[labels == 7], axis=0), [[*road.color[::-1], 255]])


def test_image_files_hold_the_drawn_scene(written: Path):
    scene = draw_street_scene(3, "val", 0, SMALL)
    paths = scene_paths(written, "val", 0)
    assert np.array_equal(read_png(paths.image)[..., ::-1], scene.image)
    assert np.array_equal(read_png(paths.instance_ids), scene.instance_ids)


def test_cities_of_the_splits_are_not_shared():
    names = [name for cities in CITIES.values() for name in cities]
    assert len(names) == len(set(names))
    assert all(len(cities) > 1 for cities in CITIES.values())


def test_the_official_tools_repaint_the_label_maps_but_for_pixels_at_borders(written: Path):
    for split in ("train", "val"):
        paths = scene_paths(written, split, 1)
        annotation = Annotation()
        annotation.fromJsonFile(str(paths.polygons))
        assert (annotation.imgHeight, annotation.imgWidth) == SMALL
        for repaint, path in (
            (createLabelImage, paths.label_ids),
            (createInstanceImage, paths.instance_ids),
        ):
            stored, repainted = read_png(path), np.asarray(repaint(annotation, "ids"))
            differs = stored != repainted
            assert differs.mean() < 0.02
            assert is_at_border(stored)[differs].all()


def test_another_painter_differs_only_within_a_pixel_of_the_outline():
    for item in draw_street_scene(3, "val", 1, SMALL).objects:
        ours, outline = np.zeros(SMALL, np.uint8), np.zeros(SMALL, np.uint8)
        cv2.fillPoly(ours, [item.polygon], 1)
        cv2.polylines(outline, [item.polygon], True, 1)
        picture = Image.new("L", SMALL[::-1])
        ImageDraw.Draw(picture).polygon([tuple(corner) for corner in item.polygon.tolist()], fill=1)
        theirs = np.asarray(picture)
        assert grown(outline)[ours != theirs].all(), item.label


def test_polygons_carry_known_labels_and_corners_in_the_image(written: Path):
    content = json.loads(scene_paths(written, "train", 0).polygons.read_text())
    known = {label.name for label in load_labels("cityscapes")}
    for item in content["objects"]:
        assert item["label"].removesuffix("group") in known
        corners = np.asarray(item["polygon"])
        assert corners.shape[0] >= 3
        assert corners.min() >= 0
        assert (corners.max(0) < SMALL[::-1]).all()


def test_instance_ids_follow_the_rule_of_cityscapes(scenes: list[PaintedScene]):
    for scene in scenes:
        values = np.unique(scene.instance_ids).astype(int)
        numbers: dict[int, list[int]] = {}
        for value in values[values >= 1000]:
            numbers.setdefault(value // 1000, []).append(value % 1000)
        assert set(numbers) <= THING_IDS
        # Nothing is fully hidden, so the numbers of a class have no gaps.
        assert all(found == list(range(len(found))) for found in numbers.values())
        classes = np.where(
            scene.instance_ids >= 1000, scene.instance_ids // 1000, scene.instance_ids
        )
        assert np.array_equal(classes, scene.label_ids)


def test_every_evaluated_class_occurs(scenes: list[PaintedScene]):
    share = Counter(value for scene in scenes for value in np.unique(scene.label_ids).tolist())
    for category in load_label_space("cityscapes").categories:
        assert share[category.category_id] >= 2, category.name


def test_every_scene_has_five_to_sixty_instances():
    for index in range(6):
        scene = draw_street_scene(0, "val", index, (256, 512))
        assert 5 <= (np.unique(scene.instance_ids) >= 1000).sum() <= 60


def test_no_instance_is_a_crumb(scenes: list[PaintedScene]):
    for scene in scenes:
        values, areas = np.unique(scene.instance_ids, return_counts=True)
        assert areas[values >= 1000].min() >= 4


def test_crowds_and_void_occur(scenes: list[PaintedScene]):
    crowds, voids = Counter(), Counter()
    for scene in scenes:
        values = set(np.unique(scene.instance_ids).tolist())
        crowds.update(values & THING_IDS)
        voids.update(values & VOID_IDS)
        groups = {item.label_id for item in scene.objects if item.is_group}
        assert values & THING_IDS <= groups
    assert crowds.total() >= 2
    assert {1, 2, 4} <= set(voids), "ego vehicle, rectification border and static things"


def test_every_pixel_belongs_to_an_outline(scenes: list[PaintedScene]):
    assert all((scene.label_ids > 0).all() for scene in scenes)


def test_labels_are_not_smoothed_but_the_image_is():
    scene = draw_street_scene(0, "train", 2, SMALL)
    assert set(np.unique(scene.label_ids)) <= {
        label.label_id for label in load_labels("cityscapes")
    }
    assert len(np.unique(scene.image.reshape(-1, 3), axis=0)) > 5000


@pytest.mark.parametrize("size", [(64, 128), (200, 300), (256, 256)])
def test_any_size_can_be_drawn(size: tuple[int, int]):
    scene = draw_street_scene(0, "train", 1, size)
    assert scene.image.shape == (*size, 3)
    assert scene.instance_ids.shape == size
    assert {7, 11, 23} <= set(np.unique(scene.label_ids))


def test_a_size_changes_the_sharpness_but_not_the_street():
    small, large = (draw_street_scene(0, "train", 4, size) for size in ((128, 256), (256, 512)))
    agreement = (large.label_ids[::2, ::2] == small.label_ids).mean()
    assert agreement > 0.9


def test_wrong_arguments_are_refused_with_the_remedy(tmp_path: Path):
    with pytest.raises(ValueError, match="one of train, val, test; got 'validation'"):
        write_street_scenes(tmp_path, num_images={"validation": 1}, size=SMALL, seed=0)
    with pytest.raises(ValueError, match="at least 64x64 pixels; got 32x64"):
        draw_street_scene(0, "train", 0, (32, 64))
    with pytest.raises(ValueError, match="must not be negative; got -1 for 'val'"):
        write_street_scenes(tmp_path, num_images={"val": -1}, size=SMALL, seed=0)


def test_the_command_line_writes_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["--root", str(tmp_path), "--val", "1", "--size", "64x128", "--workers", "1"])
    assert scene_paths(tmp_path, "val", 0).are_complete()
    assert "1 images drawn, 0 were there" in capsys.readouterr().out


def test_a_size_is_height_times_width():
    assert parse_size("256x512") == (256, 512)
    with pytest.raises(Exception, match="HEIGHTxWIDTH, as in 256x512; got '256'"):
        parse_size("256")


def test_near_scenes_show_large_objects():
    sides = []
    for index in range(3):
        instances = draw_street_scene(0, "train", index, (128, 256), near=True).instance_ids
        for value in np.unique(instances[instances >= 1000]):
            rows, columns = np.nonzero(instances == value)
            sides.append(np.sqrt((np.ptp(rows) + 1) * (np.ptp(columns) + 1)))
    assert len(sides) >= 6
    assert np.median(sides) > 128 / 4


def test_near_scenes_are_for_the_layout_of_cityscapes(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--root", str(tmp_path), "--near", "--layout", "idd"])
    assert "--near is for --layout cityscapes" in capsys.readouterr().err
