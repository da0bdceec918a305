"""Prediction over image files into a folder."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from seamless_pr.datasets.coco_panoptic import read_panoptic_json
from seamless_pr.datasets.verification import verify_dataset
from seamless_pr.evaluation.evaluate import evaluate
from seamless_pr.evaluation.semantic_pngs import _read_labels
from seamless_pr.evaluation.sources import open_ground_truth, open_predictions
from seamless_pr.files import WriteError
from seamless_pr.id_maps.id_png_files import read_id_png
from seamless_pr.inference import folders, prediction_folder
from seamless_pr.inference.folders import (
    ImageOutcome,
    _category_ids,
    predict_folder,
    predict_images,
)
from seamless_pr.inference.image_list import ImageItem, list_images
from seamless_pr.inference.prediction_folder import PredictionFolder
from seamless_pr.inference.predictor import Predictor
from seamless_pr.models.networks.views import ViewedNet
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.prediction import Prediction
from seamless_pr.structures.views import View
from tests.support.color_network import BLUE, GREEN, RED, TOY_SPACE, ColorNetwork
from tests.support.kills import is_killed, listing
from tests.support.tiny_maskformer import tiny_per_pixel


def write_image(path: Path, height: int = 32, width: int = 64) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2] = GREEN
    image[height // 2 :] = RED
    image[height * 3 // 4 :, width // 4 : width // 2] = BLUE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())


def make_predictor(**options: object) -> Predictor:
    settings = {"shortest_side_pixels": 32, "settings": {"weights_sha256": "1"}, **options}
    return Predictor(ColorNetwork(), **settings)  # type: ignore[arg-type]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    write_image(folder / "a.png")
    write_image(folder / "straße" / "b.png", 48, 40)
    write_image(folder / "straße" / "c.png")
    return folder


def test_every_image_gets_its_map_at_its_own_size(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    summary = predict_folder(make_predictor(batch_size=2), list_images(images), output)
    assert (summary.num_images, summary.failures) == (3, ())
    dataset = read_panoptic_json(output / "panoptic.json")
    assert [image.image_id for image in dataset.images] == ["a", "straße/b", "straße/c"]
    assert dataset.categories == TOY_SPACE.categories
    for image, annotation in zip(dataset.images, dataset.annotations, strict=True):
        ids = read_id_png(output / "panoptic" / annotation.file_name)
        assert ids.shape == (image.height, image.width)
        assert {segment.segment_id for segment in annotation.segments} == set(
            np.unique(ids).tolist()
        ) - {0}
        for segment in annotation.segments:
            assert segment.area == int((ids == segment.segment_id).sum())
    assert not (output / "errors.jsonl").exists()
    assert not (output / "instances.json").exists()
    assert not list(output.rglob("*.partial"))


def test_an_overlay_that_no_jpeg_holds_has_every_second_pixel(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png", 65_502, 40)
    output = tmp_path / "out"
    summary = predict_folder(
        make_predictor(), list_images(tmp_path / "images"), output, overlays=True
    )
    assert summary.failures == ()
    with Image.open(output / "overlays" / "a.jpg") as picture:
        assert picture.size == (20, 32_751 + 40)  # The legend below.


def test_instances_and_overlays_are_written_when_wanted(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    predict_folder(make_predictor(), list_images(images), output, instances=True, overlays=True)
    instances = json.loads((output / "instances.json").read_text(encoding="utf-8"))
    assert [instance["image_id"] for instance in instances] == ["a", "straße/b", "straße/c"]
    assert {instance["category_id"] for instance in instances} == {26}
    overlays = sorted(
        path.relative_to(output).as_posix() for path in output.glob("overlays/**/*.jpg")
    )
    assert overlays == ["overlays/a.jpg", "overlays/straße/b.jpg", "overlays/straße/c.jpg"]


def test_broken_images_are_listed_and_the_others_done(images: Path, tmp_path: Path) -> None:
    (images / "broken.png").write_bytes((images / "a.png").read_bytes()[:40])
    (images / "empty.jpg").write_bytes(b"")
    output = tmp_path / "out"
    items = list_images(images)
    summary = predict_folder(make_predictor(batch_size=2), items, output)
    assert summary.num_images == 3
    lines = (output / "errors.jsonl").read_text(encoding="utf-8").splitlines()
    errors = [json.loads(line) for line in lines]
    assert [error["image_id"] for error in errors] == ["broken", "empty"]
    assert "broken.png cannot be read as an image" in errors[0]["reason"]
    assert str(images / "empty.jpg") in errors[1]["reason"]

    write_image(images / "broken.png")
    (images / "empty.jpg").unlink()
    seen: list[ImageOutcome] = []
    predict_folder(make_predictor(), list_images(images), output, on_image=seen.append)
    assert [outcome.item.image_id for outcome in seen] == ["broken"]
    assert not (output / "errors.jsonl").exists()


def test_one_bad_file_of_any_kind_stops_nothing(images: Path, tmp_path: Path) -> None:
    good = (images / "a.png").read_bytes()
    kinds = ("DDS", "EPS", "PDF", "ICO", "PPM", "TGA", "SGI", "PCX")
    for kind in kinds:
        Image.new("RGB", (20, 20)).save(images / f"b_{kind}.png", kind)
    # A header that no decoder of DDS knows what to do with.
    (images / "b_odd.png").write_bytes(b"DDS " + bytes(range(124)))
    os.mkfifo(images / "b_pipe.png")
    names, unnamed = ["l" * 251, "ß" * 125], "half letter \udcff"
    for name in [*names, unnamed]:
        (images / f"{name}.png").write_bytes(good)
    items = list_images(images)
    output = tmp_path / "out"
    summary = predict_folder(make_predictor(batch_size=2), items, output, overlays=True)
    assert summary.num_images == 3 + len(names)
    bad = sorted(Path(file).stem for file, _ in summary.failures)
    assert bad == [*(f"b_{kind}" for kind in sorted(kinds)), "b_odd", "b_pipe", unnamed]
    lines = (output / "errors.jsonl").read_text(encoding="utf-8").splitlines()
    assert [Path(json.loads(line)["file"]).stem for line in lines] == bad
    content = json.loads((output / "panoptic.json").read_text(encoding="utf-8"))
    assert {*names} <= {image["id"] for image in content["images"]}
    for annotation in content["annotations"]:
        assert read_id_png(output / "panoptic" / annotation["file_name"]).shape in (
            (32, 64),
            (48, 40),
        )
    # All of it is known to be finished.
    predict_folder(make_predictor(), items[:3], output, overlays=True)
    assert all(
        PredictionFolder(output, instances=False, overlays=True).is_finished(item)
        for item in items
        if Path(item.path).stem not in bad
    )


def test_another_file_of_a_finished_name_is_done_anew(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"

    def outcome_ids(folder: Path) -> list[str | int]:
        seen: list[ImageOutcome] = []
        items = list_images(folder)
        predict_folder(make_predictor(), items, output, on_image=seen.append)
        return sorted(outcome.item.image_id for outcome in seen)

    assert outcome_ids(images) == ["a", "straße/b", "straße/c"]
    assert outcome_ids(images) == []
    # The same size and bytes, another time; then the same time, which may be that of another file.
    for _ in range(2):
        os.utime(images / "a.png", ns=(1, 1))
        assert outcome_ids(images) == ["a"]
    # Another folder with the same names and times.
    shutil.copytree(images, tmp_path / "others", copy_function=shutil.copy2)
    assert outcome_ids(tmp_path / "others") == ["a", "straße/b", "straße/c"]
    write_image(tmp_path / "others" / "a.png", 48, 40)
    assert outcome_ids(tmp_path / "others") == ["a"]
    dataset = read_panoptic_json(output / "panoptic.json")
    assert (dataset.images[0].height, dataset.images[0].width) == (48, 40)


def test_a_file_whose_storage_tells_neither_time_nor_version_is_done_anew(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state(path: Path) -> tuple[str, int, str]:
        return str(path), 1, ""

    for module in (folders, prediction_folder):
        monkeypatch.setattr(module, "file_state", state)
    output, items = tmp_path / "out", list_images(images)[:1]
    for _ in range(2):
        seen: list[ImageOutcome] = []
        predict_folder(make_predictor(), items, output, on_image=seen.append)
        assert len(seen) == 1


def test_results_name_the_folders_of_their_images(images: Path, tmp_path: Path) -> None:
    shutil.copy(images / "a.png", images / "straße" / "a.png")
    predict_folder(make_predictor(), list_images(images), tmp_path / "out")
    json_path = tmp_path / "out" / "panoptic.json"
    names = [image.file_name for image in read_panoptic_json(json_path).images]
    assert names == ["a.png", "straße/a.png", "straße/b.png", "straße/c.png"]
    # What was written can be checked, and scored against itself.
    assert verify_dataset(json_path, tmp_path / "out" / "panoptic", images) == []
    evaluation = evaluate(open_ground_truth(json_path), open_predictions(json_path.parent))
    assert len(evaluation.images) == 4
    assert evaluation.panoptic.all.pq == 1


def test_links_in_the_output_are_not_followed_out_of_it(images: Path, tmp_path: Path) -> None:
    before = (images / "straße" / "b.png").read_bytes()
    (tmp_path / "out" / "panoptic").mkdir(parents=True)
    predictor = make_predictor()
    PredictionFolder(tmp_path / "new", instances=False, overlays=False).open(predictor.describe())
    shutil.copy(tmp_path / "new" / "run.json", tmp_path / "out" / "run.json")
    (tmp_path / "out" / "panoptic" / "straße").symlink_to(images / "straße")
    with pytest.raises(ValueError, match=r"names 'straße/b.png'.* is a link out of it"):
        predict_folder(predictor, list_images(images), tmp_path / "out")
    assert (images / "straße" / "b.png").read_bytes() == before


def test_a_folder_that_is_removed_meanwhile_is_told_with_advice_that_works(
    images: Path, tmp_path: Path
) -> None:
    output, items = tmp_path / "out", list_images(images)
    predictor = make_predictor()
    predict = predictor.predict_resized

    def predict_while_somebody_cleans_up(*arguments):
        shutil.rmtree(output, ignore_errors=True)
        return predict(*arguments)

    predictor.predict_resized = predict_while_somebody_cleans_up  # type: ignore[method-assign]
    with pytest.raises(WriteError, match=r"out was removed .* delete what is left .* same command"):
        predict_folder(predictor, items, output)
    shutil.rmtree(output, ignore_errors=True)
    assert predict_folder(make_predictor(), items, output).num_images == 3


def test_a_kill_at_any_file_operation_costs_no_result_and_leaves_no_rubbish(
    images: Path, tmp_path: Path
) -> None:
    items = list_images(images)[:2]
    (images / "broken.png").touch()
    items += [item for item in list_images(images) if item.image_id == "broken"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def predict(output: Path) -> None:
        predict_folder(make_predictor(), items, output, instances=True, num_threads=1)

    predict(whole)
    operation = 0
    while is_killed(lambda: predict(killed), killed, operation):
        predict(killed)
        assert listing(killed) == listing(whole), operation
        for path in whole.rglob("*.*"):
            assert (killed / path.relative_to(whole)).read_bytes() == path.read_bytes()
        shutil.rmtree(killed)
        operation += 4
    assert operation > 40


def test_a_disk_that_is_full_is_told_before_the_first_image(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = list_images(images)
    nearly_full = shutil._ntuple_diskusage(10**9, 10**9, 20_000)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: nearly_full)
    seen: list[ImageOutcome] = []
    with pytest.raises(WriteError, match=rf"results of {len(items)} images takes"):
        predict_folder(make_predictor(), items, tmp_path / "out", on_image=seen.append)
    assert seen == []


def test_killed_run_continues_with_the_images_not_finished(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    items = list_images(images)
    folder = PredictionFolder(output, instances=False, overlays=False)
    folder.open(make_predictor().describe())
    next(predict_images(make_predictor(), items[:1], folder))
    # What a kill between the picture and the record leaves: a picture without a record.
    (output / "panoptic" / "straße").mkdir(parents=True)
    (output / "panoptic" / "straße" / "b.png").write_bytes(b"half")
    counts: list[tuple[int, int]] = []
    predict_folder(make_predictor(), items, output, on_start=lambda *n: counts.append(n))
    assert counts == [(2, 1)]

    whole = tmp_path / "whole"
    predict_folder(make_predictor(), items, whole)
    for path in sorted(whole.rglob("*")):
        if path.is_file():
            assert (output / path.relative_to(whole)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record.pop("image"),
        lambda record: record["annotation"].update(segments_info=[]),
        lambda record: record["image"].update(height="48"),
        lambda record: record.pop("seal"),
    ],
)
def test_an_image_whose_record_was_changed_is_done_again(
    images: Path, tmp_path: Path, damage: Callable[[dict[str, Any]], Any]
) -> None:
    output, items = tmp_path / "out", list_images(images)
    predict_folder(make_predictor(), items, output)
    path = output / "records" / "a.json"
    sound, joined = path.read_bytes(), (output / "panoptic.json").read_bytes()
    record = json.loads(sound)
    damage(record)
    path.write_text(json.dumps(record))
    counts: list[tuple[int, int]] = []
    predict_folder(make_predictor(), items, output, on_start=lambda *n: counts.append(n))
    assert counts == [(1, 2)]
    assert path.read_bytes() == sound
    assert (output / "panoptic.json").read_bytes() == joined


def test_run_that_wants_more_results_does_the_images_again(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    items = list_images(images)
    predict_folder(make_predictor(), items, output)
    counts: list[tuple[int, int]] = []
    for wanted in ({"overlays": True}, {"instances": True}, {}):
        predict_folder(
            make_predictor(), items, output, on_start=lambda *n: counts.append(n), **wanted
        )
    assert counts == [(3, 0), (3, 0), (0, 3)]


def test_fp16_on_a_cpu_is_refused_before_the_folder_is_made(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'fp16' needs a GPU"):
        predict_folder(make_predictor(amp="fp16"), list_images(images), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_few_large_images_wait_in_memory_and_many_small_ones(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(12):
        write_image(images / f"{index:02d}.png")
    alive: list[int] = []
    load, write = folders.load_image, folders.write_image

    def counted_load(*arguments):
        alive.append(1)
        return load(*arguments)

    def slow_write(labelled, folder):
        outcome = write(labelled, folder)
        time.sleep(0.02)
        most.append(len(alive))
        alive.pop()
        return outcome

    monkeypatch.setattr(folders, "load_image", counted_load)
    monkeypatch.setattr(folders, "write_image", slow_write)
    found = {}
    for waiting_pixels in (32 * 64, 10**9):
        monkeypatch.setattr(folders, "WAITING_PIXELS", waiting_pixels)
        most: list[int] = []
        output = tmp_path / str(waiting_pixels)
        predict_folder(make_predictor(), list_images(images), output, overlays=True)
        # The first ones are loaded before their size is known.
        found[waiting_pixels] = max(most[6:])
    assert found[32 * 64] <= 5 < found[10**9]


def test_folder_of_other_weights_is_refused_by_name_of_the_difference(
    images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    items = list_images(images)
    predict_folder(make_predictor(), items, output)
    other = make_predictor(settings={"weights_sha256": "2"}, shortest_side_pixels=16)
    with pytest.raises(
        ValueError,
        match=r"shortest_side_pixels was 32 and is 16; weights_sha256 was '1' and is '2'.*--output",
    ):
        predict_folder(other, items, output)


def test_folder_with_something_else_in_it_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not empty and not a prediction folder"):
        predict_folder(make_predictor(), list_images(images), images)
    assert sorted(path.name for path in images.iterdir()) == ["a.png", "straße"]


def test_folder_cannot_be_joined_before_all_images_are_done(images: Path, tmp_path: Path) -> None:
    folder = PredictionFolder(tmp_path / "out", instances=False, overlays=False)
    folder.open({})
    with pytest.raises(ValueError, match=r"no result for .*a.png; run the prediction again"):
        folder.join(list_images(images), TOY_SPACE)


def test_shards_by_several_workers_join_to_the_same_file(images: Path, tmp_path: Path) -> None:
    items = list_images(images)
    predict_folder(make_predictor(), items, tmp_path / "one")
    folder = PredictionFolder(tmp_path / "many", instances=False, overlays=False)
    folder.open(make_predictor().describe())
    for shard in (items[1:], items[:1]):
        assert all(o.error is None for o in predict_images(make_predictor(), shard, folder))
    folder.join(items, TOY_SPACE)
    one = (tmp_path / "one" / "panoptic.json").read_bytes()
    assert (tmp_path / "many" / "panoptic.json").read_bytes() == one


def test_images_of_many_sizes_wait_for_a_full_batch_in_bounded_numbers(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for index in range(12):
        write_image(images / f"{index:02d}.png", 32, 40 + 8 * index)
    for index in range(12, 16):
        write_image(images / f"{index:02d}.png", 32, 64)
    predictor = make_predictor(batch_size=2)
    predict_folder(predictor, list_images(images), tmp_path / "out")
    batches = predictor._network.batches
    assert sum(num_images for num_images, *_ in batches) == 16
    assert [width for num_images, _, width in batches if num_images == 2] == [64, 64]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried\nException raised"),
    ],
    ids=["GPU", "CPU"],
)
def test_image_too_large_for_the_device_is_listed_alone(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    predictor = make_predictor(batch_size=2)
    predict = predictor.predict_resized

    def small_memory(resized: list[torch.Tensor], sizes: list[tuple[int, int]]) -> object:
        if len(resized) > 1 or sizes[0] == (48, 40):
            raise error
        return predict(resized, sizes)

    monkeypatch.setattr(predictor, "predict_resized", small_memory)
    summary = predict_folder(predictor, list_images(images), tmp_path / "out")
    assert summary.num_images == 2
    ((file, reason),) = summary.failures
    assert file.endswith("b.png")
    assert str(file) in reason
    assert "lower longest_side_pixels" in reason
    assert "\n" not in reason


def test_an_image_that_settings_would_blow_up_is_listed_by_name(
    images: Path, tmp_path: Path
) -> None:
    predictor = make_predictor(shortest_side_pixels=7000)
    summary = predict_folder(predictor, list_images(images), tmp_path / "out")
    assert len(summary.failures) == 3
    for file, reason in summary.failures:
        assert reason.startswith(f"{file}: an image of ")
        assert "would grow to" in reason
    # A network that enlarges what it is given: its views do.
    network = ColorNetwork()
    network.loss_names = ()
    network = ViewedNet(network, [View(shortest_side_pixels=7000)])
    viewed = Predictor(network, shortest_side_pixels=32)
    summary = predict_folder(viewed, list_images(images), tmp_path / "views")
    assert [reason for _, reason in summary.failures] == [
        f"{file}: an image of {size} pixels would grow to {larger}, more than 52000000 in all; "
        "lower shortest_side_pixels or longest_side_pixels of the data"
        for (file, _), size, larger in zip(
            summary.failures,
            ("32 x 64", "38 x 32", "32 x 64"),
            ("7000 x 14000", "8312 x 7000", "7000 x 14000"),
            strict=True,
        )
    ]


def test_full_disk_stops_the_run(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError("no space left on device")

    folder = PredictionFolder(tmp_path / "out", instances=False, overlays=False)
    folder.open({})
    monkeypatch.setattr(PredictionFolder, "write", full_disk)
    with pytest.raises(OSError, match="no space left"):
        list(predict_images(make_predictor(), list_images(images), folder))


def test_reading_runs_ahead_by_a_bounded_number_of_images(images: Path, tmp_path: Path) -> None:
    taken = 0

    def stream() -> object:
        nonlocal taken
        for index in range(1000):
            taken += 1
            yield ImageItem(images / "a.png", str(index), str(index))

    folder = PredictionFolder(tmp_path / "out", instances=False, overlays=False)
    folder.open({})
    outcomes = predict_images(make_predictor(), stream(), folder, num_threads=2)  # type: ignore[arg-type]
    next(outcomes)
    assert taken < 30
    outcomes.close()  # type: ignore[attr-defined]


def test_a_folder_is_seen_at_the_sizes_of_single_images(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png", 32, 63)
    for rounded, width in ((False, 31), (True, 32)):
        predictor = make_predictor(shortest_side_pixels=16, rounded_sides=rounded)
        predict_folder(predictor, list_images(tmp_path / "images"), tmp_path / f"out {rounded}")
        predictor.predict([tmp_path / "images" / "a.png"])
        network = predictor.network
        assert isinstance(network, ColorNetwork)
        assert network.batches == [(1, 16, width)] * 2


@pytest.mark.parametrize("step, dtype", [(1, np.uint8), (100, np.uint16)])
def test_networks_for_semantics_write_the_category_of_every_pixel(
    images: Path, tmp_path: Path, step: int, dtype: type
) -> None:
    network = tiny_per_pixel(queries=False)
    categories = [
        replace(category, category_id=7 + step * place)
        for place, category in enumerate(network.label_space.categories)
    ]
    network.label_space = LabelSpace("spread", tuple(categories))
    predictor = Predictor(network, shortest_side_pixels=32, batch_size=2)
    items, output = list_images(images), tmp_path / "out"
    assert predict_folder(predictor, items, output, semantic_pngs=True).failures == ()
    ids = torch.tensor([category.category_id for category in categories])
    for item in items:
        (prediction,) = predictor.predict([item.path])
        # As the evaluator reads them.
        found = _read_labels(output / "semantic" / f"{item.name}.png")
        assert found.dtype == dtype
        assert prediction.semantic_map is not None
        assert np.array_equal(found, ids[prediction.semantic_map].numpy())
    # What is missing is made again.
    (output / "semantic" / "a.png").unlink()
    folder = PredictionFolder(output, instances=False, overlays=False, semantic_pngs=True)
    assert [folder.is_finished(item) for item in items] == [False, True, True]


def test_pixels_of_no_class_are_255_and_classes_that_fit_nowhere_are_refused(
    images: Path, tmp_path: Path
) -> None:
    predict_folder(make_predictor(), list_images(images), tmp_path / "out", semantic_pngs=True)
    (prediction,) = make_predictor().predict([images / "straße" / "b.png"])
    assert prediction.semantic_map is not None
    with Image.open(tmp_path / "out" / "semantic" / "straße" / "b.png") as picture:
        is_void = np.array(picture) == 255
    assert np.array_equal(is_void, (prediction.semantic_map >= 3).numpy())
    assert is_void.any()
    with pytest.raises(ValueError, match="no class of every pixel; leave out --semantic-pngs"):
        _category_ids(Prediction(), TOY_SPACE)
    first, *others = TOY_SPACE.categories
    far = LabelSpace("far", (replace(first, category_id=65535), *others))
    with pytest.raises(ValueError, match="from 0 to 65534; the network's go from"):
        _category_ids(prediction, far)
