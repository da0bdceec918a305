"""Id PNGs hold 24-bit ids and are written whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seamless_pr.id_maps.id_png_files import ids_to_rgb, read_id_png, write_id_png


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32])
def test_ids_of_the_whole_range_survive_a_round_trip(tmp_path: Path, dtype: type) -> None:
    ids = np.array([[0, 1, 255, 256], [65535, 65536, 26001, 2**24 - 1]], dtype)
    write_id_png(tmp_path / "new" / "ids.png", ids)
    read = read_id_png(tmp_path / "new" / "ids.png")
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, ids)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["ids.png"]


def test_colour_is_red_plus_256_green_plus_65536_blue(tmp_path: Path) -> None:
    write_id_png(tmp_path / "ids.png", np.array([[1 + 2 * 256 + 3 * 65536]], np.int32))
    picture = Image.open(tmp_path / "ids.png")
    assert picture.mode == "RGB"
    assert picture.getpixel((0, 0)) == (1, 2, 3)


def test_sixteen_bit_arithmetic_does_not_overflow() -> None:
    rgb = ids_to_rgb(np.array([[33999]], np.uint16))
    assert rgb.tolist() == [[[33999 % 256, 33999 // 256, 0]]]


@pytest.mark.parametrize("value", [-1, 2**24])
def test_ids_outside_24_bits_are_refused(tmp_path: Path, value: int) -> None:
    with pytest.raises(ValueError, match=r"must fit 24 bits .* number the segments"):
        write_id_png(tmp_path / "ids.png", np.array([[value]], np.int64))
    assert not (tmp_path / "ids.png").exists()


def test_floating_point_map_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be \[H, W\] integers; got \(2, 2\) float64"):
        ids_to_rgb(np.zeros((2, 2)))


def test_sixteen_bit_grey_and_missing_files_are_named(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 26001, np.uint16)).save(tmp_path / "instanceIds.png")
    with pytest.raises(ValueError, match=r"instanceIds\.png: expected an 8-bit RGB PNG"):
        read_id_png(tmp_path / "instanceIds.png")
    with pytest.raises(FileNotFoundError, match=r"no id PNG at .*absent\.png"):
        read_id_png(tmp_path / "absent.png")
