"""The prepare command converts, verifies, and says by its exit code whether all is well."""

from __future__ import annotations

from pathlib import Path

import pytest

from seamless_pr.pipelines.prepare import main
from tests.support.panoptic_files import write_cityscapes

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
