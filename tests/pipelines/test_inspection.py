"""The page of a dataset: numbers and pictures, from files as downloaded or converted."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from seamless_pr.datasets.conversion import convert_split
from seamless_pr.datasets.idd import open_idd
from seamless_pr.pipelines.prepare import main
from tests.datasets.test_idd import SCENE, box, write_frame
from tests.support.panoptic_files import write_png
from tests.support.raw_datasets import write_vistas


def inspect(tmp_path: Path, dataset: Path, *more: str) -> str:
    page = tmp_path / "page.html"
    arguments = ["inspect", "--dataset", str(dataset), "--output", str(page), "--workers", "1"]
    assert main([*arguments, *more]) == 0
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize("as_downloaded", [True, False])
def test_the_page_shows_counts_and_a_contact_sheet(tmp_path: Path, as_downloaded: bool) -> None:
    for frame in ("000001", "000002"):
        write_frame(tmp_path, "0", frame, SCENE)
    dataset = tmp_path / "gtFine" / "train"
    if not as_downloaded:
        split = open_idd(tmp_path, "train")
        prepared = convert_split(split, tmp_path / "out", num_workers=0, show_progress=False)
        dataset = prepared.json_path
    page = inspect(tmp_path, dataset, "--images", str(tmp_path / "leftImg8bit" / "train"))
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    # Road fills 52 of 144 pixels, the car group 3; the ego vehicle and a plate are void.
    assert "road stuff 36.11% 2 2 0" in text
    assert "car thing 2.08% 2 0 2" in text
    assert "person thing 5.56% 2 4 0 2 px" in text
    assert "classes that do not occur (20)" in text
    pictures = re.findall(r'data:image/jpeg;base64,([^"]+)"', page)
    assert len(pictures) == 2
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(pictures[0]), np.uint8), 1)
    assert picture.shape[1] == 16


def test_names_are_escaped_and_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    write_frame(tmp_path, "<b>", "000001", SCENE)
    page = inspect(tmp_path, tmp_path / "gtFine" / "train")
    assert "<b>" not in page
    assert "http" not in re.sub(r"data:image[^\"]*", "", page)
    assert "No images were given" in page


def test_pictures_of_another_size_are_no_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_frame(tmp_path, "0", "000001", SCENE)
    pictures = tmp_path / "leftImg8bit" / "train"
    write_png(pictures / "0" / "000001_leftImg8bit.png", np.zeros((4, 16, 3), np.uint8))
    command = ["inspect", "--dataset", str(tmp_path / "gtFine" / "train"), "--images"]
    page = ["--output", str(tmp_path / "page.html"), "--workers", "1"]
    assert main([*command, str(pictures), *page]) == 1
    assert "leftImg8bit.png has 4x16 pixels (height x width), its" in capsys.readouterr().err


def test_the_sheet_is_as_long_as_wanted(tmp_path: Path) -> None:
    json_path = write_vistas(tmp_path, keys=("a", "b", "c"), exchanged=True)
    page = inspect(tmp_path, tmp_path / "validation", "--pictures", "1")
    assert page.count("data:image/jpeg") == 1
    assert "height and width are exchanged" in page
    assert inspect(tmp_path, json_path, "--pictures", "0").count("data:image/jpeg") == 0


def test_a_broken_dataset_is_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_frame(tmp_path, "0", "1", [box("spaceship", 1, 1, 2, 2)])
    page = tmp_path / "page.html"
    command = ["inspect", "--dataset", str(tmp_path / "gtFine" / "train"), "--output", str(page)]
    assert main([*command, "--workers", "1"]) == 1
    assert "'spaceship', which no table knows" in capsys.readouterr().err
    assert not page.exists()
