"""Loaded samples fit the ground truth and repeat bit for bit."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from seamless_pr.datasets.coco_panoptic import find_png_folder, read_panoptic_json
from seamless_pr.datasets.images import read_image
from seamless_pr.datasets.loader import (
    Batch,
    PanopticImages,
    collate,
    make_eval_loader,
    make_train_loader,
)
from seamless_pr.datasets.parts import PanopticPart
from seamless_pr.datasets.transforms import EvalTransform, TrainTransform
from seamless_pr.datasets.verification import verify_dataset
from seamless_pr.id_maps.id_png_files import write_id_png
from seamless_pr.structures.faults import FaultyDataError
from seamless_pr.structures.label_space import Category, LabelSpace
from tests.support.panoptic_files import CAR, ROAD, SKY, write_cityscapes, write_panoptic_dataset

LABEL_SPACE = LabelSpace("small", (ROAD, SKY, CAR))
CATEGORY_OF = {3: 26, 70000: 7, 9: 23}
RANDOM = TrainTransform(24, None, (0.5, 1.5), 0.5, (20, 20), 0.2)


def id_map(seed: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(seed).choice([0, 3, 9, 70000], size).astype(np.int32)


@pytest.fixture
def json_path(tmp_path: Path) -> Path:
    sizes = [(16, 24), (24, 16), (16, 32), (18, 30), (30, 20), (16, 20)]
    id_maps = {f"image_{index}": id_map(index, size) for index, size in enumerate(sizes)}
    return write_panoptic_dataset(tmp_path, id_maps, CATEGORY_OF)


def images(json_path: Path, transform: TrainTransform | EvalTransform = RANDOM) -> PanopticImages:
    return PanopticImages.from_files(
        json_path, json_path.parent / "images", LABEL_SPACE, transform, seed=5
    )


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second) > 0
    for (batch, targets), (other_batch, other_targets) in zip(first, second):
        assert batch.images.equal(other_batch.images)
        assert batch.image_sizes == other_batch.image_sizes
        for target, other in zip(targets, other_targets):
            assert target.image_key == other.image_key
            assert target.id_map.equal(other.id_map)
            assert target.train_ids.equal(other.train_ids)


def test_target_numbers_the_segments_of_the_json(json_path: Path) -> None:
    image, target = images(json_path, EvalTransform(16))[1]
    expected = id_map(1, (24, 16))
    assert target.image_key == "image_1"
    assert target.train_ids.tolist() == [2, 1, 0]
    for index, segment_id in enumerate((3, 9, 70000)):
        assert target.id_map.eq(index + 1).numpy().tolist() == (expected == segment_id).tolist()
    assert (
        target.semantic_map[0, 0]
        == {
            0: LabelSpace.IGNORE_TRAIN_ID,
            3: 2,
            9: 1,
            70000: 0,
        }[int(expected[0, 0])]
    )
    assert image.equal(read_image(json_path.parent / "images" / "image_1.png"))


def test_crowd_flags_come_from_the_json(json_path: Path) -> None:
    text = json_path.read_text(encoding="utf-8")
    json_path.write_text(text.replace('"iscrowd": 0', '"iscrowd": 1', 1), encoding="utf-8")
    target = images(json_path, EvalTransform(16))[0][1]
    assert target.is_crowd.tolist() == [True, False, False]


def test_samples_do_not_depend_on_the_number_of_loading_processes(json_path: Path) -> None:
    loaders = [
        make_train_loader(images(json_path), 2, seed=1, num_steps=6, num_workers=num_workers)
        for num_workers in (0, 2)
    ]
    assert_same(list(loaders[0]), list(loaders[1]))


def test_restart_repeats_the_samples_bit_for_bit(json_path: Path) -> None:
    whole = list(make_train_loader(images(json_path), 2, seed=1, num_steps=8, num_workers=0))
    rest = make_train_loader(images(json_path), 2, seed=1, num_steps=8, start_step=5, num_workers=0)
    assert_same(whole[5:], list(rest))


def test_an_image_is_changed_differently_each_time(json_path: Path) -> None:
    dataset = images(json_path)
    first, again, later = (dataset[0, draw_key] for draw_key in (3, 3, 4))
    assert first[0].equal(again[0])
    assert first[0].shape != later[0].shape or not first[0].equal(later[0])


def test_batch_is_padded_and_keeps_true_sizes(json_path: Path) -> None:
    dataset = images(json_path, EvalTransform(16))
    batch, targets = collate([dataset[0], dataset[2]])
    assert batch.images.shape == (2, 3, 16, 32)
    assert batch.image_sizes == ((16, 24), (16, 32))
    assert not batch.images[0, :, :, 24:].any()
    assert [target.image_size for target in targets] == [(16, 24), (16, 32)]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_evaluation_shows_every_image_once(json_path: Path, world_size: int) -> None:
    dataset = images(json_path, EvalTransform(8))
    keys = [
        target.image_key
        for rank in range(world_size)
        for _, targets in make_eval_loader(
            dataset, 2, rank=rank, world_size=world_size, num_workers=0
        )
        for target in targets
    ]
    assert sorted(keys) == [f"image_{index}" for index in range(6)]


def test_categories_outside_the_label_space_are_named(json_path: Path) -> None:
    train = Category(31, "train", True, (0, 80, 100))
    with pytest.raises(FaultyDataError) as error:
        PanopticImages.from_files(
            json_path,
            json_path.parent / "images",
            LabelSpace("other", (SKY, train)),
            RANDOM,
        )
    message = str(error.value)
    assert (
        "image_0.png: segment 3: category 26 ('car') is not in the label space 'other'" in message
    )
    assert "category 7 ('road')" in message
    assert "(6 segments; this is the first)" in message


def test_unknown_ids_of_a_png_are_named(json_path: Path) -> None:
    write_id_png(json_path.parent / "panoptic" / "image_0.png", np.full((16, 24), 41))
    with pytest.raises(ValueError, match=r"image_0\.png holds segment ids \[41\] that its JSON"):
        images(json_path)[0]


def test_an_image_that_would_grow_too_large_is_named(json_path: Path) -> None:
    with pytest.raises(ValueError, match=r"image_0\.png: an image of 16 x 24 pixels would grow to"):
        images(json_path, EvalTransform(10_000))[0]


def test_image_and_ids_of_different_size_are_named(json_path: Path) -> None:
    write_id_png(json_path.parent / "panoptic" / "image_0.png", np.full((16, 25), 3))
    with pytest.raises(ValueError, match=r"image_0\.png has size \(16, 24\), but .*\(16, 25\)"):
        images(json_path)[0]


def test_missing_parts_are_named(json_path: Path) -> None:
    folder = json_path.parent
    (folder / "images" / "image_3.png").unlink()
    with pytest.raises(FaultyDataError, match="image 'image_3' has no file"):
        images(json_path)
    (folder / "panoptic").rename(folder / "away")
    with pytest.raises(FileNotFoundError, match=r"no PNG that panoptic.json names is in "):
        images(json_path)
    with pytest.raises(FileNotFoundError, match=r"no image folder .*nowhere"):
        PanopticImages.from_files(
            json_path, folder / "nowhere", LABEL_SPACE, RANDOM, png_dir=folder / "away"
        )


def test_cityscapes_images_are_found_by_their_id(tmp_path: Path) -> None:
    from seamless_pr.datasets.cityscapes import open_cityscapes
    from seamless_pr.datasets.conversion import convert_split
    from seamless_pr.datasets.label_spaces import load_label_space

    write_cityscapes(tmp_path, {"val": ("bonn_000000_000019", "ulm_000000_000019")})
    split = open_cityscapes(tmp_path, "val")
    prepared = convert_split(split, tmp_path / "gtFine", num_workers=0, show_progress=False)
    json_path = prepared.json_path
    assert "gtFine_leftImg8bit" in read_panoptic_json(json_path).images[0].file_name
    dataset = PanopticImages.from_files(
        json_path,
        tmp_path / "leftImg8bit" / "val",
        load_label_space("cityscapes"),
        EvalTransform(24),
    )
    image, target = dataset[1]
    assert image.shape == (3, 24, 48)
    assert image.dtype == torch.uint8
    assert target.image_key == "ulm_000000_000019"
    assert target.num_segments > 0


def write_part(folder: Path, names: tuple[str, ...]) -> PanopticPart:
    id_map = np.zeros((24, 32), np.int32)
    id_map[:12], id_map[12:] = 7, 26
    id_map[20:, 20:] = 23
    maps = dict.fromkeys(names, id_map)
    json_path = write_panoptic_dataset(folder, maps, {7: 7, 26: 26, 23: 23})
    return PanopticPart(json_path, folder / "images")


def test_parts_follow_each_other_and_ids_may_repeat_between_them(tmp_path: Path) -> None:
    first = write_part(tmp_path / "one", ("a", "b"))
    second = write_part(tmp_path / "two", ("b", "c"))
    images = PanopticImages.from_parts([first, second], LABEL_SPACE, RANDOM)
    alone = PanopticImages.from_files(second.json_path, second.images_dir, LABEL_SPACE, RANDOM)
    assert [annotation.image_id for annotation in images.annotations] == ["a", "b", "b", "c"]
    assert len(images.image_sizes) == len(images) == 4
    assert [images[index][1].image_key for index in range(4)] == ["a", "b", "b", "c"]
    # What is done to an image of the first part does not depend on the others.
    assert torch.equal(
        PanopticImages.from_parts([second, first], LABEL_SPACE, RANDOM)[0][0], alone[0][0]
    )


def test_faults_of_all_parts_are_listed_together(tmp_path: Path) -> None:
    first = write_part(tmp_path / "one", ("a", "b"))
    second = write_part(tmp_path / "two", ("b", "c"))
    (tmp_path / "one" / "images" / "a.png").unlink()
    (tmp_path / "two" / "images" / "c.png").unlink()
    with pytest.raises(FaultyDataError) as error:
        PanopticImages.from_parts([first, second], LABEL_SPACE, RANDOM)
    assert [fault.message[:9] for fault in error.value.faults] == ["image 'a'", "image 'c'"]
    with pytest.raises(ValueError, match="needs at least one part; got none"):
        PanopticImages.from_parts([], LABEL_SPACE, RANDOM)


def test_a_number_that_means_another_class_is_refused_with_both_readings(tmp_path: Path) -> None:
    json_path = write_panoptic_dataset(
        tmp_path, {"a": np.full((8, 8), 1, np.int32)}, {1: ROAD.category_id}
    )
    content = json.loads(json_path.read_text())
    content["categories"][0] |= {"name": "crate", "isthing": 1}
    json_path.write_text(json.dumps(content))
    with pytest.raises(FaultyDataError) as error:
        PanopticImages.from_files(json_path, tmp_path / "images", LABEL_SPACE, EvalTransform(8, 8))
    assert "category 7 is 'crate' (a thing) here and 'road' (stuff) in the label space" in str(
        error.value
    )


def test_pngs_that_are_links_out_of_their_folder_are_refused(tmp_path: Path) -> None:
    json_path = write_panoptic_dataset(
        tmp_path / "data", {"a": np.full((8, 8), 1, np.int32)}, {1: ROAD.category_id}
    )
    png = tmp_path / "data" / "panoptic" / "a.png"
    png.rename(tmp_path / "elsewhere.png")
    png.symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(FaultyDataError, match=r"names 'a.png'.* is a link out of it"):
        PanopticImages.from_files(
            json_path, tmp_path / "data/images", LABEL_SPACE, EvalTransform(8, 8)
        )
    (fault,) = verify_dataset(json_path)
    assert "names 'a.png'" in fault.message
    assert "is a link out of it" in fault.message


def test_sizes_that_the_json_exchanges_are_those_of_the_png_when_batches_are_formed(
    json_path: Path,
) -> None:
    right = images(json_path).image_sizes
    content = json.loads(json_path.read_text())
    for image in content["images"]:
        image["height"], image["width"] = image["width"], image["height"]
    json_path.write_text(json.dumps(content))
    found = images(json_path)
    assert found.image_sizes == right
    # Batches are formed by the sizes: none mixes wide images with high ones.
    found = images(json_path, EvalTransform(16, 32))
    for batch, _ in make_train_loader(found, 2, num_steps=12, num_workers=0):
        assert len({height > width for height, width in batch.image_sizes}) == 1


def test_a_fingerprint_tells_other_data_of_the_same_names(json_path: Path) -> None:
    first = images(json_path).fingerprint()
    for path in ("images/image_2.png", "panoptic/image_2.png"):
        picture = json_path.parent / path
        content, times = picture.read_bytes(), picture.stat()
        for place in (0, len(content) // 2, len(content) - 1):
            other = bytearray(content)
            other[place] ^= 1
            picture.write_bytes(other)
            # Of the same size and time, as a copy that keeps times is.
            os.utime(picture, ns=(times.st_atime_ns, times.st_mtime_ns))
            assert images(json_path).fingerprint() != first, (path, place)
        picture.write_bytes(content)
        assert images(json_path).fingerprint() == first


def test_a_copy_elsewhere_and_of_another_time_has_the_same_fingerprint(json_path: Path) -> None:
    first = images(json_path).fingerprint()
    copy = json_path.parent.with_name("copy")
    shutil.copytree(json_path.parent, copy, copy_function=shutil.copyfile)
    assert images(copy / json_path.name).fingerprint() == first


def test_the_fingerprint_of_a_large_file_covers_its_beginning_middle_and_end(
    json_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seamless_pr.datasets.loader.SAMPLED_BYTES", 8)
    picture = json_path.parent / "images" / "image_2.png"
    content = picture.read_bytes()
    middle = (len(content) - 8) // 2
    first = images(json_path).fingerprint()
    for place, is_covered in ((7, True), (8, False), (middle, True), (len(content) - 8, True)):
        other = bytearray(content)
        other[place] ^= 1
        picture.write_bytes(other)
        assert (images(json_path).fingerprint() != first) == is_covered, place


def test_one_missing_png_does_not_send_all_others_to_another_folder(tmp_path: Path) -> None:
    id_maps = {name: np.full((8, 8), 3, np.int32) for name in ("a", "b")}
    json_path = write_panoptic_dataset(tmp_path, id_maps, CATEGORY_OF)
    # A photograph beside the JSON has the name of the PNG that is missing.
    (tmp_path / "panoptic" / "a.png").rename(tmp_path / "a.png")
    assert find_png_folder(json_path, ["a.png", "b.png"]) == tmp_path / "panoptic"
    (fault,) = verify_dataset(json_path, images_dir=tmp_path / "images")
    assert f"no id PNG at {tmp_path / 'panoptic' / 'a.png'}" in str(fault)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loading_processes_tell_an_error_in_the_same_sentence(
    json_path: Path, num_workers: int
) -> None:
    found = images(json_path, EvalTransform(16, 32))
    (json_path.parent / "images" / "image_0.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"image_0.png is empty") as error:
        list(make_eval_loader(found, num_workers=num_workers))
    assert "Traceback" not in str(error.value)
    assert "\n" not in str(error.value)
