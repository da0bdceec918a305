"""The prepare command converts, verifies, and says by its exit code whether all is well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seamless_pr.id_maps.id_png_files import read_id_png, write_id_png
from seamless_pr.pipelines.prepare import main, report
from seamless_pr.structures.faults import Fault
from tests.datasets.test_ade20k import write as write_ade20k
from tests.datasets.test_custom import VALUES, describe, write_pair
from tests.datasets.test_future3d import write as write_future3d
from tests.datasets.test_idd import SCENE, write_frame
from tests.support.panoptic_files import write_cityscapes
from tests.support.raw_datasets import write_coco, write_vistas

NAMES = {"train": ("aachen_000000_000019",), "val": ("bonn_000000_000019",)}


def test_sound_dataset_is_converted_and_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cityscapes(tmp_path, NAMES)
    assert main(["cityscapes", "--root", str(tmp_path), "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert out.count("complete and consistent") == 2
    json_path = tmp_path / "gtFine" / "cityscapes_panoptic_val.json"
    images = tmp_path / "leftImg8bit" / "val"
    arguments = ["verify", "--json", str(json_path), "--images", str(images), "--workers", "1"]
    assert main(arguments) == 0


def test_faults_are_listed_nothing_looks_finished_and_the_exit_code_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cityscapes(tmp_path, NAMES)
    missing = tmp_path / "leftImg8bit" / "val" / "bonn" / "bonn_000000_000019_leftImg8bit.png"
    missing.unlink()
    arguments = ["cityscapes", "--root", str(tmp_path), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--workers", "1"]) == 1
    captured = capsys.readouterr()
    assert "bonn_000000_000019_gtFine_instanceIds.png: annotation without image" in captured.err
    assert not (tmp_path / "out" / "cityscapes_panoptic_val.json").exists()


def test_missing_root_is_one_line_not_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cityscapes", "--root", str(tmp_path / "nowhere")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: no folder {tmp_path / 'nowhere'}; --root must be the folder")
    assert "Traceback" not in error


def test_each_dataset_has_its_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_frame(tmp_path / "idd", "0", "000001", SCENE)
    arguments = ["--splits", "train", "--workers", "1"]
    assert main(["idd", "--root", str(tmp_path / "idd"), *arguments]) == 0
    json_path = tmp_path / "idd" / "gtFine" / "idd_panoptic_train.json"
    assert f"  json: {json_path}" in capsys.readouterr().out
    assert main(["idd", "--root", str(tmp_path / "idd"), "--size", "1280x720", *arguments]) == 0
    assert (tmp_path / "idd" / "gtFine" / "train_panoptic.json").is_file()
    write_ade20k(tmp_path / "ade")
    for areas in ("counted", "stated"):
        command = ["ade20k", "--root", str(tmp_path / "ade"), "--areas", areas, *arguments]
        assert main(command) == 0
    write_future3d(tmp_path / "future")
    assert main(["future3d", "--root", str(tmp_path / "future"), *arguments]) == 0
    write_coco(tmp_path / "coco")
    command = ["coco", "--root", str(tmp_path / "coco"), "--splits", "val", "--workers", "1"]
    assert main(command) == 0


def test_a_checked_dataset_says_what_a_config_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    json_path = write_vistas(tmp_path, keys=("a", "b", "c"), exchanged=True)
    arguments = ["vistas", "--root", str(tmp_path), "--splits", "validation", "--workers", "1"]
    assert main([*arguments, "--holdout", "1"]) == 0
    out = capsys.readouterr().out
    assert "note: " in out
    assert f"  json: {tmp_path / 'vistas_v1_2_validation_holdout.json'}" in out
    assert f"  segments: {json_path.parent}" in out
    (json_path.parent / "a.png").unlink()
    assert main(arguments) == 1
    assert "a.png" in capsys.readouterr().err


def test_a_holdout_parts_the_training_split_only(tmp_path: Path) -> None:
    names = {"train": tuple(f"ulm_00000{i}_000019" for i in range(4)), "val": NAMES["val"]}
    write_cityscapes(tmp_path, names)
    arguments = ["cityscapes", "--root", str(tmp_path), "--workers", "1", "--holdout", "1"]
    assert main(arguments) == 0
    made = {path.name for path in (tmp_path / "gtFine").glob("*.json")}
    assert {name for name in made if "manifest" not in name} == {
        "cityscapes_panoptic_train_rest.json",
        "cityscapes_panoptic_train_holdout.json",
        "cityscapes_panoptic_val.json",
    }


def test_data_of_ones_own_is_prepared_and_later_changes_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pair(tmp_path, "a", VALUES.astype(np.uint16))
    description = describe(tmp_path)
    assert main(["custom", "--description", str(description), "--workers", "1"]) == 0
    json_path = tmp_path / "yard_panoptic_train.json"
    verify = ["verify", "--json", str(json_path), "--workers", "1"]
    assert main(verify) == 0
    png = tmp_path / "yard_panoptic_train" / "a.png"
    content = png.read_bytes()
    write_id_png(png, read_id_png(png)[::-1])
    assert main(verify) == 1
    assert "changed since it was converted" in capsys.readouterr().err
    png.write_bytes(content)
    assert main(verify) == 0


def test_a_terminal_obeys_no_name_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    report(Path("a.json"), [Fault("x\x1b[2J.png", "is no picture")])
    assert "x\\x1b[2J.png: is no picture" in capsys.readouterr().err
