from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from seamless_pr.evaluation.evaluate import Evaluation, evaluate
from seamless_pr.evaluation.image_evaluation import EvaluationSettings
from seamless_pr.evaluation.results import evaluation_json
from seamless_pr.evaluation.sources import open_ground_truth, open_predictions
from seamless_pr.structures.faults import FaultyDataError
from seamless_pr.structures.label_space import LabelSpace
from tests.evaluation.files import PERSON, PanopticFiles, street
from tests.metrics.maps import STUFF_AND_THINGS, draw, fuzz_image, write_id_png
from tests.oracles.official_pq import official_scores


def _evaluate(
    files: PanopticFiles, settings: EvaluationSettings | None = None, num_workers: int = 1
) -> Evaluation:
    gt, pred = open_ground_truth(files.gt_json), open_predictions(files.pred_json)
    return evaluate(gt, pred, settings, num_workers=num_workers)


def _faults(files: PanopticFiles, settings: EvaluationSettings | None = None) -> list[str]:
    files.write()
    with pytest.raises(FaultyDataError) as caught:
        _evaluate(files, settings)
    return [str(fault) for fault in caught.value.faults]


@pytest.fixture
def files(tmp_path: Path) -> PanopticFiles:
    return PanopticFiles(tmp_path, street())


def test_files_score_as_the_official_evaluator_scores_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    images = [fuzz_image(rng) for _ in range(40)]
    scores = _evaluate(PanopticFiles(tmp_path, images)).panoptic
    official, _ = official_scores(images, STUFF_AND_THINGS, tmp_path / "official")
    for name, means in (("All", scores.all), ("Things", scores.things), ("Stuff", scores.stuff)):
        for key in ("pq", "sq", "rq"):
            assert getattr(means, key) == pytest.approx(official[name][key], abs=1e-12, rel=0)


def test_any_number_of_processes_gives_the_same_digits(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    files = PanopticFiles(tmp_path, [fuzz_image(rng) for _ in range(30)])
    settings = EvaluationSettings(boundary_ratio=0.05, trimap_widths=(2, 5))
    one, two = (evaluation_json(_evaluate(files, settings, workers)) for workers in (1, 2))
    assert one == two


def test_classes_come_from_the_ground_truth_in_any_order(files: PanopticFiles) -> None:
    expected = _evaluate(files)
    files.gt["categories"].reverse()
    files.write()
    reordered = _evaluate(files)
    assert reordered.panoptic.all == expected.panoptic.all
    assert [c.is_thing for c in reordered.label_space.categories] == [False] * 3 + [True] * 3


def test_colours_of_categories_are_optional(files: PanopticFiles) -> None:
    for category in files.gt["categories"]:
        del category["color"]
    files.write()
    assert _evaluate(files).panoptic.all.pq is not None


def test_stated_areas_and_crowd_of_predictions_are_not_needed(files: PanopticFiles) -> None:
    expected = _evaluate(files).panoptic
    for annotation in files.pred["annotations"]:
        for segment in annotation["segments_info"]:
            for key in ("area", "bbox", "iscrowd"):
                del segment[key]
    files.write()
    assert _evaluate(files).panoptic == expected


@pytest.mark.parametrize("side", ["gt", "pred"])
def test_ids_that_are_numbers_on_one_side_match_texts_with_a_note(
    files: PanopticFiles, side: str
) -> None:
    for index in range(2):
        files.gt["annotations"][index]["image_id"] = str(index)
        files.pred["annotations"][index]["image_id"] = str(index)
    getattr(files, side)["annotations"][0]["image_id"] = 0
    getattr(files, side)["annotations"][1]["image_id"] = 1
    files.write()
    evaluation = _evaluate(files)
    assert len(evaluation.images) == 2
    assert any("2 image ids are a number on one side" in note for note in evaluation.notes)


def test_predictions_of_other_images_are_unused_and_noted(files: PanopticFiles) -> None:
    expected = _evaluate(files).panoptic
    other = {"image_id": "another", "file_name": "missing.png", "segments_info": []}
    files.pred["annotations"].append(other)
    files.write()
    evaluation = _evaluate(files)
    assert evaluation.panoptic == expected
    assert evaluation.notes == ("1 predictions are of no image of the ground truth",)


def test_every_fault_of_every_image_is_listed_at_once(files: PanopticFiles) -> None:
    segments = files.pred["annotations"][0]["segments_info"]
    del segments[0]
    segments.append({"id": 99, "category_id": PERSON})
    (files.folder / "pred" / "1.png").write_bytes(b"")
    faults = _faults(files)
    assert len(faults) == 3
    path = files.folder / "pred"
    assert any(
        f"{path / '0.png'}: segment 18: image 'image_0': the id is in the PNG" in f for f in faults
    )
    assert any("segment 99: image 'image_0': the id is in the JSON and not" in f for f in faults)
    assert any(f"{path / '1.png'}: image 'image_1': empty file" in f for f in faults)


def test_a_missing_prediction_is_a_fault_that_names_the_image(files: PanopticFiles) -> None:
    del files.pred["annotations"][0]
    (files.folder / "pred" / "1.png").unlink()
    faults = _faults(files)
    assert "image 'image_0': no prediction for this image" in faults[0]
    assert "1.png: image 'image_1': no such file" in faults[1]


def test_lenient_counts_a_missing_prediction_as_empty_and_says_so(files: PanopticFiles) -> None:
    strict = _evaluate(files)
    del files.pred["annotations"][0]
    (files.folder / "pred" / "1.png").unlink()
    files.write()
    evaluation = _evaluate(files, EvaluationSettings(is_lenient=True))
    assert evaluation.notes == ("2 images have no prediction and count as empty",)
    assert evaluation.counts.pq.tp.sum() == evaluation.counts.pq.fp.sum() == 0
    assert evaluation.counts.pq.fn.sum() == strict.counts.pq.num_gt.sum() == 6


def test_lenient_leaves_out_segments_without_a_pixel(files: PanopticFiles) -> None:
    expected = _evaluate(files).panoptic
    files.pred["annotations"][0]["segments_info"].append({"id": 99, "category_id": PERSON})
    files.write()
    evaluation = _evaluate(files, EvaluationSettings(is_lenient=True))
    assert evaluation.panoptic == expected
    assert "1 predicted segments have no pixel and are left out" in evaluation.notes


def test_an_unknown_category_names_file_image_and_segment(files: PanopticFiles) -> None:
    files.pred["annotations"][1]["segments_info"][0]["category_id"] = 77
    (fault,) = _faults(files)
    assert "1.png: segment 18: image 'image_1': category 77 is not among the categories" in fault


def test_another_size_names_both_sizes(files: PanopticFiles) -> None:
    write_id_png(draw("rr\nrr"), files.folder / "pred" / "0.png")
    (fault,) = _faults(files)
    assert "2x2 pixels (height x width), the ground truth 3x4" in fault


def test_16_bit_and_grey_pngs_are_faults_that_say_what_to_write(files: PanopticFiles) -> None:
    folder = files.folder / "pred"
    cv2.imwrite(str(folder / "0.png"), np.zeros((3, 4), np.uint16))
    cv2.imwrite(str(folder / "1.png"), np.zeros((3, 4), np.uint8))
    faults = _faults(files)
    assert "got 16-bit greyscale; write the ids as RGB" in faults[0]
    assert "got 8-bit greyscale; write the ids as RGB" in faults[1]


def test_palette_pngs_of_optimisers_are_read(files: PanopticFiles) -> None:
    expected = _evaluate(files).panoptic
    path = files.folder / "pred" / "0.png"
    Image.open(path).quantize(16).save(path)
    assert Image.open(path).mode == "P"
    assert _evaluate(files).panoptic == expected


def test_a_truncated_png_is_a_fault(files: PanopticFiles) -> None:
    path = files.folder / "gt" / "0.png"
    path.write_bytes(path.read_bytes()[:-20])
    (fault,) = _faults(files)
    assert f"{path}: image 'image_0': truncated PNG" in fault


def test_a_true_area_that_differs_from_the_png_is_noted(files: PanopticFiles) -> None:
    files.gt["annotations"][0]["segments_info"][0]["area"] += 1
    files.write()
    (note,) = _evaluate(files).notes
    assert note.startswith("1 true segments have another area in the JSON than in the PNG")


def test_true_regions_that_the_json_does_not_list_are_noted(files: PanopticFiles) -> None:
    del files.gt["annotations"][0]["segments_info"][0]
    files.write()
    (note,) = _evaluate(files).notes
    assert note.startswith("1 regions of the true PNGs are not in the JSON")


def test_settings_are_checked() -> None:
    with pytest.raises(
        ValueError, match=r"no rules 'mine'; choose one of official, paper, seamseg"
    ):
        EvaluationSettings(rules="mine")
    with pytest.raises(ValueError, match=r"boundary_ratio must be in"):
        EvaluationSettings(boundary_ratio=0.0)
    with pytest.raises(ValueError, match=r"trimap_widths are pixels, at least 1"):
        EvaluationSettings(trimap_widths=(0,))


def test_cityscapes_annotations_are_read_as_downloaded(tmp_path: Path) -> None:
    values = np.array([[7, 7, 26000, 26001], [3, 26, 26000, 29000]], np.uint16)
    folder = tmp_path / "gtFine" / "val" / "aachen"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "aachen_000000_000019_gtFine_instanceIds.png"), values)
    source = open_ground_truth(tmp_path / "gtFine" / "val")
    (file,) = source.maps
    assert file.image_id == "aachen_000000_000019"
    loaded = file.load()
    assert loaded.id_map.tolist() == [[7, 7, 26000, 26001], [0, 26, 26000, 0]]
    assert loaded.segments.tolist() == [
        [7, 7, 2, 0],
        [26, 26, 1, 1],
        [26000, 26, 2, 0],
        [26001, 26, 1, 0],
    ]
    assert isinstance(source.label_space, LabelSpace)
    assert source.label_space.num_classes == 19


def test_a_folder_of_several_splits_is_refused(tmp_path: Path) -> None:
    for split in ("train", "val"):
        folder = tmp_path / split / "aachen"
        folder.mkdir(parents=True)
        (folder / "aachen_000000_000019_gtFine_instanceIds.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds several splits; give one of .*train, .*val"):
        open_ground_truth(tmp_path)


def test_a_prediction_folder_is_read(tmp_path: Path) -> None:
    files = PanopticFiles(tmp_path, street())
    expected = _evaluate(files).panoptic
    output = tmp_path / "predictions"
    (tmp_path / "pred").rename(output.parent / "moved")
    output.mkdir()
    (tmp_path / "moved").rename(output / "panoptic")
    files.pred_json.rename(output / "panoptic.json")
    scores = evaluate(open_ground_truth(files.gt_json), open_predictions(output)).panoptic
    assert scores == expected


def test_pngs_beside_the_json_are_found(tmp_path: Path) -> None:
    files = PanopticFiles(tmp_path, street())
    expected = _evaluate(files).panoptic
    for path in (tmp_path / "pred").iterdir():
        path.rename(tmp_path / path.name)
    assert _evaluate(files).panoptic == expected


def test_places_that_hold_nothing_say_what_to_give(files: PanopticFiles, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(
        FileNotFoundError,
        match=r"no file .*nowhere.json; give a COCO .*, or a folder of City",
    ):
        open_ground_truth(tmp_path / "nowhere.json")
    with pytest.raises(
        FileNotFoundError,
        match=r"nothing in .*empty is ground truth; give a",
    ):
        open_ground_truth(empty)
    with pytest.raises(FileNotFoundError, match=r"has no panoptic.json"):
        open_predictions(empty)
    with pytest.raises(FileNotFoundError, match=r"no folder .*nothing"):
        open_predictions(files.pred_json, tmp_path / "nothing")
    (tmp_path / "gt").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"name the folder of its PNGs"):
        open_ground_truth(files.gt_json)
    assert len(open_ground_truth(files.gt_json, tmp_path / "elsewhere").maps) == 2


def test_links_out_of_the_folder_of_the_pngs_are_refused(files: PanopticFiles) -> None:
    path = files.folder / "pred" / "0.png"
    path.rename(files.folder / "elsewhere.png")
    path.symlink_to(files.folder / "elsewhere.png")
    with pytest.raises(FaultyDataError, match=r"image 'image_0': .*is a link out of it"):
        open_predictions(files.pred_json)
