"""Submissions: judged by the official evaluators of Cityscapes; ids and sizes of the others."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from seamless_pr.datasets.cityscapes import open_cityscapes
from seamless_pr.datasets.coco_panoptic import read_panoptic_json, write_panoptic_json
from seamless_pr.datasets.conversion import convert_split
from seamless_pr.datasets.idd import OFFICIAL_SIZE, open_idd
from seamless_pr.datasets.submissions import read_predictions, submitted_id, write_submission
from seamless_pr.evaluation.evaluate import evaluate
from seamless_pr.evaluation.sources import open_ground_truth, open_predictions
from seamless_pr.id_maps.id_png_files import read_id_png
from seamless_pr.pipelines.export import main
from seamless_pr.street_scenes.dataset import write_street_scenes
from seamless_pr.structures.faults import FaultyDataError
from tests.datasets.test_idd import SCENE, write_frame
from tests.support.panoptic_files import write_panoptic_dataset
from tests.support.raw_datasets import write_coco, write_vistas


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drawn scenes of Cityscapes, converted; the conversion is the prediction as well."""
    root = tmp_path_factory.mktemp("scenes")
    write_street_scenes(root, num_images={"val": 2}, size=(192, 384), seed=4, progress=False)
    split = open_cityscapes(root, "val")
    convert_split(split, root / "gtFine", num_workers=0, show_progress=False)
    return root


def prediction_of(scenes: Path, folder: Path) -> Path:
    """A folder as pipelines/predict.py writes one: crowds are left out, things have scores."""
    json_path = scenes / "gtFine" / "cityscapes_panoptic_val.json"
    content = json.loads(json_path.read_text())
    instances = []
    for annotation in content["annotations"]:
        id_map = read_id_png(json_path.with_suffix("") / annotation["file_name"])
        # Other systems list segments in any order.
        annotation["segments_info"].reverse()
        for info in annotation["segments_info"]:
            info["score"] = 0.9
            if info["category_id"] >= 24 and not info["iscrowd"]:
                mask = np.asfortranarray((id_map == info["id"]).astype(np.uint8))
                runs = coco_mask.encode(mask)
                instances.append(
                    {
                        "image_id": annotation["image_id"],
                        "category_id": info["category_id"],
                        "score": 0.5,
                        "segmentation": {
                            "size": [*runs["size"]], "counts": runs["counts"].decode(),
                        },
                    }
                )  # fmt: skip
    (folder / "panoptic").mkdir(parents=True)
    for path in json_path.with_suffix("").iterdir():
        (folder / "panoptic" / path.name).write_bytes(path.read_bytes())
    (folder / "panoptic.json").write_text(json.dumps(content))
    (folder / "instances.json").write_text(json.dumps(instances))
    return folder


@pytest.fixture
def submitted(scenes: Path, tmp_path: Path) -> Path:
    folder = prediction_of(scenes, tmp_path / "prediction")
    output = tmp_path / "submission"
    arguments = ["submission", "cityscapes", "--predictions", str(folder), "--output", str(output)]
    assert main([*arguments, "--workers", "1"]) == 0
    return output


@pytest.fixture
def old_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The official scripts call a function that NumPy 2.4 removed."""
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)


def test_the_official_panoptic_evaluator_finds_everything(
    scenes: Path, submitted: Path, tmp_path: Path
) -> None:
    tool = pytest.importorskip("cityscapesscripts.evaluation.evalPanopticSemanticLabeling")
    gt_json = scenes / "gtFine" / "cityscapes_panoptic_val.json"
    pred_json = submitted / "panoptic" / "cityscapes_panoptic_val.json"
    results = tmp_path / "results.json"
    scores = tool.evaluatePanoptic(
        str(gt_json), str(gt_json.with_suffix("")), str(pred_json),
        str(pred_json.with_suffix("")), str(results),
    )  # fmt: skip
    assert scores["All"]["pq"] == 1
    assert scores["All"]["n"] >= 12


@pytest.mark.usefixtures("old_numpy")
def test_the_official_semantic_evaluator_finds_everything(scenes: Path, submitted: Path) -> None:
    tool = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    truth = sorted((scenes / "gtFine" / "val").rglob("*_gtFine_labelIds.png"))
    names = [path.name.replace("_gtFine_labelIds", "_pred_labelIds") for path in truth]
    files = [str(submitted / "semantic" / name) for name in names]
    tool.args.quiet, tool.args.JSONOutput = True, False
    result = tool.evaluateImgLists(files, [str(path) for path in truth], tool.args)
    assert result["averageScoreClasses"] == 1


@pytest.mark.usefixtures("old_numpy")
def test_the_official_instance_evaluator_finds_everything(
    scenes: Path, submitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = pytest.importorskip("cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling")
    truth = sorted((scenes / "gtFine" / "val").rglob("*_gtFine_instanceIds.png"))
    names = [path.name.replace("_gtFine_instanceIds.png", "_pred.txt") for path in truth]
    files = [str(submitted / "instance" / name) for name in names]
    # Its cache of the ground truth cannot be written with today's NumPy.
    monkeypatch.setattr(tool, "writeDict2JSON", lambda *_: None)
    tool.args.predictionPath = str(submitted / "instance")
    tool.args.gtInstancesFile = str(tmp_path / "gtInstances.json")
    tool.args.JSONOutput, tool.args.quiet = False, True
    tool.setInstanceLabels(tool.args)
    result = tool.evaluateImgLists(files, [str(path) for path in truth], tool.args)
    assert result["averages"]["allAp"] == pytest.approx(1)


def test_the_zips_hold_what_the_folders_hold(submitted: Path) -> None:
    with zipfile.ZipFile(submitted / "cityscapes_panoptic_cityscapes_panoptic_val.zip") as archive:
        names = archive.namelist()
    assert "cityscapes_panoptic_val.json" in names
    assert sum(name.startswith("cityscapes_panoptic_val/") for name in names) == 2
    with zipfile.ZipFile(submitted / "cityscapes_instance_cityscapes_panoptic_val.zip") as archive:
        assert sum(name.endswith("_pred.txt") for name in archive.namelist()) == 2


def test_segments_with_scores_stand_in_for_missing_instances(scenes: Path, tmp_path: Path) -> None:
    folder = prediction_of(scenes, tmp_path / "prediction")
    (folder / "instances.json").unlink()
    options = {"kinds": ["instance"], "name": "x", "num_workers": 0, "show_progress": False}
    write_submission(read_predictions(folder), "cityscapes", tmp_path / "out", **options)
    (first, *_) = sorted((tmp_path / "out" / "instance").glob("*_pred.txt"))
    mask_name, label_id, score = first.read_text().splitlines()[0].split()
    assert (tmp_path / "out" / "instance" / mask_name).is_file()
    assert int(label_id) in range(24, 34)
    assert float(score) == 0.9
    content = json.loads((folder / "panoptic.json").read_text())
    for annotation in content["annotations"]:
        for info in annotation["segments_info"]:
            del info["score"]
    (folder / "panoptic.json").write_text(json.dumps(content))
    with pytest.raises(FaultyDataError, match="a thing without score; predict with --instances"):
        write_submission(read_predictions(folder), "cityscapes", tmp_path / "again", **options)


def test_predictions_of_another_label_space_are_refused(scenes: Path, tmp_path: Path) -> None:
    folder = prediction_of(scenes, tmp_path / "prediction")
    with pytest.raises(FaultyDataError, match="the network was trained on another dataset"):
        write_submission(
            read_predictions(folder), "coco", tmp_path / "out", kinds=["panoptic"], name="x"
        )
    assert not (tmp_path / "out").exists()


def test_idd_is_submitted_at_1280x720_with_the_official_names(tmp_path: Path) -> None:
    corners = [
        {"label": "road", "polygon": [[0, 0], [1919, 0], [1919, 1079], [0, 1079]]},
        {"label": "car", "polygon": [[100, 200], [900, 200], [900, 800], [100, 800]]},
        *[entry for entry in SCENE if entry["label"] == "person"],
    ]
    write_frame(tmp_path, "0", "000001", corners, size=(1080, 1920))
    split = open_idd(tmp_path, "train")
    prediction = convert_split(split, tmp_path / "native", num_workers=0, show_progress=False)
    output = tmp_path / "out"
    arguments = ["submission", "idd", "--predictions", str(prediction.json_path)]
    assert main([*arguments, "--output", str(output), "--workers", "1"]) == 0
    official = open_idd(tmp_path, "train", size=OFFICIAL_SIZE)
    gt = convert_split(official, tmp_path / "gt", num_workers=0, show_progress=False).json_path
    submitted = output / "panoptic" / "val_panoptic.json"
    scores = evaluate(open_ground_truth(gt), open_predictions(submitted), num_workers=0)
    assert scores.panoptic.all.pq == 1
    (png,) = (output / "panoptic" / "val_panoptic").iterdir()
    assert png.name == "0_000001_gtFine_panopticlevel3Ids.png"
    with Image.open(png) as picture:
        assert (picture.size, picture.mode) == ((1280, 720), "RGB")


def test_coco_and_vistas_keep_ids_and_sizes(tmp_path: Path) -> None:
    json_path = write_coco(tmp_path / "coco")
    arguments = ["submission", "coco", "--predictions", str(json_path), "--workers", "1"]
    assert main([*arguments, "--output", str(tmp_path / "c"), "--name", "test-dev2017_mine"]) == 0
    assert (tmp_path / "c" / "panoptic_test-dev2017_mine_results.zip").is_file()
    submitted = tmp_path / "c" / "panoptic" / "test-dev2017_mine.json"
    scores = evaluate(open_ground_truth(json_path), open_predictions(submitted), num_workers=0)
    assert scores.panoptic.all.pq == 1
    json_path = write_vistas(tmp_path / "vistas", "2.0")
    arguments = ["submission", "vistas", "--predictions", str(json_path), "--version", "2.0"]
    assert main([*arguments, "--output", str(tmp_path / "v"), "--workers", "1"]) == 0
    submitted = tmp_path / "v" / "panoptic" / "panoptic.json"
    scores = evaluate(open_ground_truth(json_path), open_predictions(submitted), num_workers=0)
    assert scores.panoptic.all.pq == 1


@pytest.mark.parametrize(
    ("dataset", "image_id", "expected"),
    [
        ("cityscapes", "bonn_000000_000019_leftImg8bit", "bonn_000000_000019"),
        ("cityscapes", "bonn/bonn_000000_000019", "bonn_000000_000019"),
        ("idd", "12/frame0014_leftImg8bit", "12_frame0014_gtFine_panopticlevel3Ids.png"),
        ("idd", "12_000014_gtFine_panopticlevel3Ids.png", "12_000014_gtFine_panopticlevel3Ids.png"),
        ("coco", "000000000139", 139),
        ("coco", 139, 139),
        ("vistas", "-1NxFJ7ocu5xR3pjGbAMOA", "-1NxFJ7ocu5xR3pjGbAMOA"),
    ],
)
def test_ids_become_those_of_the_evaluators(
    dataset: str, image_id: str | int, expected: str | int
) -> None:
    assert submitted_id(dataset, image_id) == expected


@pytest.mark.parametrize("name", ["..", "a/b", ".hidden", "n" * 201])
def test_a_name_that_no_file_has_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    json_path = write_coco(tmp_path / "coco")
    arguments = ["submission", "coco", "--predictions", str(json_path), "--name", name]
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--output", str(tmp_path / "c")])
    assert stopped.value.code == 2
    assert "--name is that of a file" in capsys.readouterr().err


def test_ids_that_no_evaluator_knows_are_all_listed(tmp_path: Path) -> None:
    maps = {"one": np.array([[7]], np.int32), "two": np.array([[7]], np.int32)}
    json_path = write_panoptic_dataset(tmp_path, maps, {7: 7})
    write_panoptic_json(json_path, read_panoptic_json(json_path))
    with pytest.raises(FaultyDataError) as error:
        write_submission(
            read_predictions(json_path), "cityscapes", tmp_path / "out", kinds=["panoptic"],
            name="x",
        )  # fmt: skip
    assert [fault.file for fault in error.value.faults] == ["one", "two"]
    assert not (tmp_path / "out").exists()


def change(folder: Path, image: int = 0, **values: object) -> None:
    """Changes an annotation of a folder of predictions."""
    content = json.loads((folder / "panoptic.json").read_text())
    content["annotations"][image] |= values
    (folder / "panoptic.json").write_text(json.dumps(content))


def submit(folder: Path, output: Path, *kinds: str, dataset: str = "cityscapes") -> list[Path]:
    options = {"kinds": kinds, "name": "x", "num_workers": 0, "show_progress": False}
    return write_submission(read_predictions(folder), dataset, output, **options)


def test_a_submission_holds_what_was_predicted_now(scenes: Path, tmp_path: Path) -> None:
    folder, output = prediction_of(scenes, tmp_path / "prediction"), tmp_path / "out"
    submit(folder, output, "semantic")
    # Of an earlier export, and of others.
    (output / "semantic" / "ulm_000000_000019_pred_labelIds.png").write_bytes(b"old")
    (output / "semantic" / "secret").symlink_to(folder)
    (path,) = submit(folder, output, "semantic")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    ids = [a.image_id for a in read_predictions(folder).records.annotations]
    assert sorted(names) == sorted(f"{image_id}_pred_labelIds.png" for image_id in ids)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"file_name": "../photo.png"}, "'file_name' must be the name of a PNG below its folder"),
        ({"file_name": "/photo.png"}, "'file_name' must be the name of a PNG below its folder"),
        ({"file_name": "link.png"}, "is a link out of it"),
        ({"image_id": "/elsewhere/photo"}, "Cityscapes' ids are <city>_<sequence>_<frame>"),
        ({"image_id": "x/.._000000_000019"}, "an id that can be the name of a file is needed"),
        ({"image_id": "a_0_0/"}, "an id that can be the name of a file is needed"),
        ({"image_id": f"a_0_{'0' * 300}"}, "an id that can be the name of a file is needed"),
        ({"segments_info": []}, "are in the PNG alone"),
        ({"file_name": "missing.png"}, "no id PNG at"),
    ],
)
def test_names_lead_nowhere_else_and_maps_are_those_of_their_segments(
    scenes: Path, tmp_path: Path, values: dict[str, object], message: str
) -> None:
    folder = prediction_of(scenes, tmp_path / "prediction")
    photo = next((folder / "panoptic").iterdir()).read_bytes()
    (tmp_path / "photo.png").write_bytes(photo)
    (folder / "photo.png").write_bytes(photo)
    (folder / "panoptic" / "link.png").symlink_to(tmp_path / "photo.png")
    (folder / "instances.json").unlink()
    change(folder, **values)
    for kind in ("panoptic", "semantic", "instance"):
        with pytest.raises(FaultyDataError) as error:
            submit(folder, tmp_path / "out", kind)
        assert message in str(error.value)
        assert not list((tmp_path / "out").rglob("*.zip"))
    assert (folder / "photo.png").read_bytes() == photo


def test_results_are_not_written_among_the_predictions(scenes: Path, tmp_path: Path) -> None:
    folder = prediction_of(scenes, tmp_path / "prediction")
    with pytest.raises(ValueError, match="holds the predictions; give another --output"):
        submit(folder, folder, "panoptic")


def test_results_are_not_written_through_links(scenes: Path, tmp_path: Path) -> None:
    folder = prediction_of(scenes, tmp_path / "prediction")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "instance").mkdir(parents=True)
    (tmp_path / "out" / "instance" / "masks").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FaultyDataError, match="is a link out of it"):
        submit(folder, tmp_path / "out", "instance")
    assert not any((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_id": "of nobody"}, "image 'of nobody' is not in panoptic.json"),
        ({"image_id": None}, "'image_id' must be an integer or a text; got None"),
        ({"score": "high"}, "'score' must be a number; got 'high'"),
        ({"category_id": 7}, "an instance of class 7 .* expected a thing of cityscapes"),
        ({"segmentation": {"size": [2, 2], "counts": [4]}}, "and size \\(2, 2\\)"),
    ],
)
def test_instances_are_checked_value_by_value(
    scenes: Path, tmp_path: Path, values: dict[str, object], message: str
) -> None:
    folder = prediction_of(scenes, tmp_path / "prediction")
    instances = json.loads((folder / "instances.json").read_text())
    instances[0] |= values
    (folder / "instances.json").write_text(json.dumps(instances))
    with pytest.raises(FaultyDataError, match=message) as refusal:
        submit(folder, tmp_path / "out", "instance")
    # Which of the two files of which folder.
    assert str(folder) in str(refusal.value)
    assert "instances.json" in str(refusal.value)


def test_classes_of_another_kind_are_refused_with_both_readings(
    scenes: Path, tmp_path: Path
) -> None:
    folder = prediction_of(scenes, tmp_path / "prediction")
    content = json.loads((folder / "panoptic.json").read_text())
    content["categories"][0]["isthing"] = 1
    (folder / "panoptic.json").write_text(json.dumps(content))
    with pytest.raises(FaultyDataError, match=r"'road' \(a thing\) here and 'road' \(stuff\) in"):
        submit(folder, tmp_path / "out", "panoptic")


def test_the_segment_0_is_a_segment(tmp_path: Path) -> None:
    maps = {"a_0_0": np.array([[0, 7, 7], [0, 7, 7]], np.int32)}
    json_path = write_panoptic_dataset(tmp_path, maps, {7: 7})
    content = json.loads(json_path.read_text())
    content["annotations"][0]["segments_info"].append({"id": 0, "category_id": 23})
    json_path.write_text(json.dumps(content))
    submit(json_path, tmp_path / "out", "panoptic", "semantic")
    with Image.open(tmp_path / "out" / "semantic" / "a_0_0_pred_labelIds.png") as picture:
        assert np.array(picture).tolist() == [[23, 7, 7], [23, 7, 7]]
    (annotation,) = read_panoptic_json(
        tmp_path / "out" / "panoptic" / "x.json", is_prediction=True
    ).annotations
    id_map = read_id_png(tmp_path / "out" / "panoptic" / "x" / annotation.file_name)
    assert id_map.tolist() == [[1, 7, 7], [1, 7, 7]]
    assert {s.segment_id: s.category_id for s in annotation.segments} == {7: 7, 1: 23}
