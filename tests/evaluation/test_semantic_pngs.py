from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seamless_pr.evaluation.evaluate import Evaluation, evaluate
from seamless_pr.evaluation.image_counts import EvaluationSettings
from seamless_pr.evaluation.map_files import MapFile, Source
from seamless_pr.evaluation.semantic_pngs import find_label_pngs
from seamless_pr.evaluation.sources import open_ground_truth
from seamless_pr.metrics.semantic_iou import SemanticScores
from seamless_pr.structures.faults import FaultyDataError
from tests.evaluation.files import PanopticFiles, street
from tests.oracles.official_cityscapes import official_label_ious


def test_label_pngs_score_as_the_official_pixel_evaluator_scores_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    city = tmp_path / "gtFine" / "val" / "aachen"
    (tmp_path / "labels" / "aachen").mkdir(parents=True)
    city.mkdir(parents=True)
    confusion = np.zeros((34, 34), np.int64)
    for index in range(4):
        gt_labels = rng.choice([0, 4, 7, 8, 11, 24, 26, 29], (20, 30)).astype(np.uint16)
        pred = rng.choice([0, 7, 8, 11, 24, 26, 30, 33], (20, 30)).astype(np.uint8)
        pred = np.where(rng.random(pred.shape) < 0.5, gt_labels.astype(np.uint8), pred)
        is_object = (gt_labels >= 24) & (rng.random(gt_labels.shape) < 0.7)
        values = np.where(is_object, gt_labels * 1000 + 3, gt_labels).astype(np.uint16)
        name = f"aachen_{index:06d}_000019"
        Image.fromarray(values).save(city / f"{name}_gtFine_instanceIds.png")
        suffix = ["", "_leftImg8bit", "_pred_labels", "_x"][index]
        Image.fromarray(pred).save(tmp_path / "labels" / "aachen" / f"{name}{suffix}.png")
        np.add.at(confusion, (gt_labels.ravel(), pred.ravel()), 1)
    gt = open_ground_truth(city)
    assert gt.label_space is not None
    scores = _evaluate(gt, tmp_path / "labels").semantic_pngs
    assert scores is not None
    official = official_label_ious(confusion)
    present = [iou for iou in official.values() if not np.isnan(iou)]
    assert scores.mean_iou == pytest.approx(float(np.mean(present)), abs=1e-12)
    for category, iou in zip(gt.label_space.categories, scores.per_class):
        assert (iou is None) == bool(np.isnan(official[category.name]))
        if iou is not None:
            assert iou == pytest.approx(official[category.name], abs=1e-12)


def _evaluate(gt: Source, folder: Path) -> Evaluation:
    """Without panoptic predictions."""
    settings = EvaluationSettings(is_lenient=True, label_png_folder=folder)
    return evaluate(gt, Source("nothing", ()), settings)


def _score(tmp_path: Path) -> SemanticScores:
    scores = _evaluate(open_ground_truth(tmp_path / "gt.json"), tmp_path / "labels").semantic_pngs
    assert scores is not None
    return scores


def test_category_zero_is_a_class(tmp_path: Path) -> None:
    PanopticFiles(tmp_path, street())
    (tmp_path / "labels").mkdir()
    labels = [
        [[23, 23, 23, 23], [23, 24, 24, 23], [7, 7, 7, 7]],
        [[23, 23, 23, 23], [99, 0, 0, 0], [7, 7, 7, 7]],
    ]
    for index, rows in enumerate(labels):
        Image.fromarray(np.array(rows, np.uint8)).save(tmp_path / "labels" / f"image_{index}.png")
    scores = _score(tmp_path)
    assert scores.mean_iou == 1.0
    assert scores.per_class[4] == 1.0


def test_missing_and_misfit_pictures_are_all_listed(tmp_path: Path) -> None:
    PanopticFiles(tmp_path, [*street(), *street()])
    folder = tmp_path / "labels"
    folder.mkdir()
    Image.new("L", (5, 3)).save(folder / "image_1.png")
    Image.new("RGB", (4, 3)).save(folder / "image_2.png")
    (folder / "image_3.png").write_bytes(b"no picture")
    with pytest.raises(FaultyDataError) as caught:
        _score(tmp_path)
    messages = [fault.message for fault in caught.value.faults]
    assert messages == [
        "image 'image_0': no PNG of that name",
        "image 'image_1': the PNG is 3x5 pixels (height x width), the ground truth 3x4",
        "image 'image_2': expected one channel of category ids; got 3 channels of uint8",
        "image 'image_3': expected one channel of category ids; it cannot be read as an "
        "image (unknown format; expected one of BMP, GIF, JPEG, PNG, TIFF, WEBP); it is damaged or "
        "of another kind: copy it again, convert it to PNG or leave it out",
    ]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    PanopticFiles(tmp_path, street())
    with pytest.raises(FileNotFoundError, match=r"no folder .*labels"):
        _score(tmp_path)


def test_palette_pictures_are_read_as_indices(tmp_path: Path) -> None:
    PanopticFiles(tmp_path, street())
    (tmp_path / "labels").mkdir()
    for index in range(2):
        labels = np.full((3, 4), 23, np.uint8)
        labels[2] = 7
        picture = Image.fromarray(labels, "P")
        picture.putpalette([channel for value in range(256) for channel in (255 - value, 3, 7)])
        picture.save(tmp_path / "labels" / f"image_{index}.png")
    assert _score(tmp_path).per_class[0] == 1.0


def test_files_of_the_operating_system_are_no_label_pngs(tmp_path: Path) -> None:
    PanopticFiles(tmp_path, street())
    (tmp_path / "labels" / ".cache").mkdir(parents=True)
    for index in range(2):
        (tmp_path / "labels" / f"._image_{index}.png").write_bytes(b"x")
        (tmp_path / "labels" / ".cache" / f"image_{index}.png").write_bytes(b"x")
    with pytest.raises(FaultyDataError, match="no PNG of that name"):
        _score(tmp_path)


def test_the_scene_parsing_score_is_the_mean_of_accuracy_and_iou() -> None:
    scores = SemanticScores(mean_iou=0.4, pixel_accuracy=0.7, per_class=())
    assert scores.scene_parsing == pytest.approx(0.55)
    assert SemanticScores(None, None, ()).scene_parsing is None


def source(folder: Path, *images: tuple[int | str, str]) -> Source:
    """Ground truth by (id, name of the PNG)."""
    maps = (MapFile(image_id, folder / name, lambda path: None) for image_id, name in images)
    return Source("made up", tuple(maps))


def found(tmp_path: Path, gt: Source, *names: str) -> list[str | None]:
    for name in names:
        (tmp_path / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "labels" / name).touch()
    paths = find_label_pngs(tmp_path / "labels", gt)
    return [None if p is None else p.relative_to(tmp_path / "labels").as_posix() for p in paths]


def test_pictures_of_one_name_in_several_folders_are_told_apart(tmp_path: Path) -> None:
    gt = source(tmp_path / "gt", ("ulm/1", "ulm/1.png"), ("bonn/1", "bonn/1.png"))
    assert found(tmp_path, gt, "bonn/1.png", "ulm/1_pred.png") == ["ulm/1_pred.png", "bonn/1.png"]
    gt = source(tmp_path / "gt", (5, "ulm/1.png"), (6, "bonn/1.png"))
    assert found(tmp_path, gt) == ["ulm/1_pred.png", "bonn/1.png"]
    # Results may lie in a folder of their own.
    gt = source(tmp_path / "gt", ("ulm_1", "ulm_1_gt.png"))
    assert found(tmp_path, gt, "run_7/ulm_1.png") == ["run_7/ulm_1.png"]


def test_a_missing_picture_is_not_replaced_by_that_of_another_image(tmp_path: Path) -> None:
    gt = source(tmp_path / "gt", (7, "5.png"), (5, "lost.png"))
    assert found(tmp_path, gt, "5.png") == ["5.png", None]
    gt = source(tmp_path / "gt", ("ulm/1", "ulm/1.png"), ("bonn/1", "bonn/1.png"))
    assert found(tmp_path, gt, "ulm/1.png", "elsewhere/1.png") == ["ulm/1.png", None]


def test_an_exact_name_wins_and_several_of_one_rank_are_told(tmp_path: Path) -> None:
    gt = source(tmp_path / "gt", ("a", "a_gt.png"), ("a_b", "a_b_gt.png"))
    assert found(tmp_path, gt, "a_b_pred.png", "a_x.png", "a.png") == ["a.png", "a_b_pred.png"]
    with pytest.raises(
        FaultyDataError, match=r"a_b_pred\.png, .*a_b_x\.png: could all be image 'a_b'"
    ):
        found(tmp_path, gt, "a_b_x.png")
