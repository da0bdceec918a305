"""Image files of all kinds are read upright, as 8-bit RGB."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from fsspec import filesystem
from PIL import EpsImagePlugin, Image, UnidentifiedImageError
from torch import Tensor

from seamless_pr.datasets.images import (
    FORMATS,
    MAX_SCANS,
    read_image,
    read_label_image,
    read_stored_pixels,
)
from seamless_pr.ops.resize import resize_image
from tests.support.memory import forget_peak, memory_status

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)
EXIF_ORIENTATION = 0x0112
ROTATE_RIGHT = 6


def as_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


@pytest.mark.parametrize("extension", ["png", "bmp", "tif"])
def test_lossless_colour_file_is_read_exactly(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"straße ü 街.{extension}"
    Image.fromarray(PICTURE).save(path)
    image = read_image(path)
    assert image.is_contiguous()
    torch.testing.assert_close(image, as_tensor(PICTURE), rtol=0, atol=0)


def test_jpeg_is_read_as_pillow_reads_it(tmp_path: Path) -> None:
    smooth = cv2.resize(PICTURE, (90, 60), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    expected = as_tensor(np.asarray(Image.open(tmp_path / "a.jpg")))
    torch.testing.assert_close(read_image(tmp_path / "a.jpg"), expected, rtol=0, atol=2)


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "RGBA", "CMYK"])
def test_every_mode_becomes_three_channels(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    source = Image.fromarray(PICTURE).convert(mode)
    source.save(path)
    expected = as_tensor(np.asarray(source.convert("RGB")))
    torch.testing.assert_close(read_image(path), expected, rtol=0, atol=1)


def test_alpha_is_dropped_and_does_not_darken(tmp_path: Path) -> None:
    transparent = np.dstack([PICTURE, np.full(PICTURE.shape[:2], 10, np.uint8)])
    Image.fromarray(transparent).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").equal(as_tensor(PICTURE))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, channels: int) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    pixels = values if channels == 1 else np.repeat(values[..., None], channels, axis=2)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    image = read_image(tmp_path / "a.png")
    assert image.dtype == torch.uint8
    assert image[:, 0].tolist() == [[0, 0, 1, 1, 128, 255]] * 3


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
def test_exif_orientation_is_applied(tmp_path: Path, extension: str) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = ROTATE_RIGHT
    half_white = np.zeros((8, 16, 3), np.uint8)
    half_white[:, 8:] = 255
    options = {"lossless": True} if extension == "webp" else {}
    Image.fromarray(half_white).save(tmp_path / f"a.{extension}", exif=exif, **options)
    image = read_image(tmp_path / f"a.{extension}")
    assert image.shape == (3, 16, 8)
    assert image[:, 0].float().mean() < 5 < 250 < image[:, -1].float().mean()


def test_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((4, 5), value, np.uint8)) for value in (40, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif").unique().tolist() == [40]


@pytest.mark.parametrize("extension", ["png", "jpg"])
@pytest.mark.parametrize("share", [0.4, 0.9])
def test_truncated_file_is_an_error_that_names_it(
    tmp_path: Path, extension: str, share: float
) -> None:
    path = tmp_path / f"half.{extension}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=rf"half\.{extension} cannot be read .*: copy it again"):
        read_image(path)


def test_missing_empty_and_foreign_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no image file at .*absent\.png"):
        read_image(tmp_path / "absent.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match=r"empty\.png is empty"):
        read_image(tmp_path / "empty.png")
    (tmp_path / "text.jpg").write_text("not a picture")
    with pytest.raises(ValueError, match=r"text\.jpg cannot be read as an image"):
        read_image(tmp_path / "text.jpg")


def test_files_behind_a_uri_are_read_and_told_apart_like_others(tmp_path: Path) -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    bucket = filesystem("memory")
    contents = {"a.png": content, "half.png": content[: len(content) // 2], "empty.png": b""}
    for name, data in contents.items():
        bucket.pipe_file(f"/pictures/{name}", data)
    image = read_image("memory://pictures/a.png")
    assert torch.equal(image, torch.from_numpy(pixels).permute(2, 0, 1))
    with pytest.raises(ValueError, match=r"memory://pictures/half.png cannot be read as an image"):
        read_image("memory://pictures/half.png")
    with pytest.raises(ValueError, match=r"memory://pictures/empty.png is empty"):
        read_image("memory://pictures/empty.png")
    with pytest.raises(FileNotFoundError, match=r"memory://pictures/none.png"):
        read_image("memory://pictures/none.png")
    with pytest.raises(OSError, match=r"s4://a.png cannot be read"):
        read_image("s4://a.png")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.int16, np.int32])
def test_pictures_of_other_numbers_are_refused(tmp_path: Path, dtype: type) -> None:
    cv2.imwrite(str(tmp_path / "a.tif"), np.ones((4, 4, 3), dtype))
    with pytest.raises(ValueError, match=r"a\.tif has \w+ pixels; expected 8 or 16 bits"):
        read_image(tmp_path / "a.tif")


def test_label_picture_keeps_its_sixteen_bits(tmp_path: Path) -> None:
    labels = np.array([[0, 7, 26000], [33999, 255, 256]], np.uint16)
    cv2.imwrite(str(tmp_path / "labels.png"), labels)
    read = read_label_image(tmp_path / "labels.png")
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, labels)


def test_coloured_or_truncated_label_picture_is_refused(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "color.png")
    with pytest.raises(ValueError, match=r"color\.png must be a one-channel picture"):
        read_label_image(tmp_path / "color.png")
    # One value of 32 bits, and tables over all values would take 8 GB.
    Image.fromarray(np.full((2, 3), 2**31 - 2, np.int32)).save(tmp_path / "wide.png", "TIFF")
    with pytest.raises(ValueError, match=r"wide\.png must be a one-channel picture of 8 or 16"):
        read_label_image(tmp_path / "wide.png")
    data = (tmp_path / "color.png").read_bytes()
    (tmp_path / "half.png").write_bytes(data[:-20])
    with pytest.raises(ValueError, match=r"half\.png is truncated"):
        read_label_image(tmp_path / "half.png")


Image.init()
# Written by Pillow, so that each is a good file of its kind; an MPO is a JPEG, a DIB half a BMP.
OTHER_FORMATS = sorted(Image.SAVE.keys() - {*FORMATS, "MPO", "BUFR", "GRIB", "HDF5", "WMF"})


@pytest.mark.parametrize("kind", OTHER_FORMATS)
def test_other_formats_are_refused_whatever_the_file_is_called(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("a program was run"))
    # Writing SPIDER makes its format that of the file's ending for the rest of the process.
    monkeypatch.setattr(Image, "EXTENSION", dict(Image.EXTENSION))
    path = tmp_path / "a.png"
    for mode in ("RGB", "L", "1", "P"):
        try:
            Image.fromarray(PICTURE).convert(mode).save(path, kind)
            break
        except (OSError, ValueError, KeyError):  # It writes other modes.
            continue
    assert path.stat().st_size > 0
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image \(unknown format"):
        read_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Of Pillow, about the damage.
@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_are_named_and_no_decoder_has_its_way(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.kron(PICTURE, np.ones((4, 4, 1), np.uint8))).save(path, kind)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    generator = np.random.default_rng(0)
    refused = read = 0
    for _ in range(150):
        damaged = whole.copy()
        places = generator.integers(4, len(whole), generator.integers(1, 9))
        damaged[places] = generator.integers(0, 256, len(places))
        path.write_bytes(damaged[: generator.integers(len(whole) // 2, len(whole) + 1)].tobytes())
        try:
            image = read_image(path, max_pixels=10**6)
        except ValueError as error:
            refused += str(path) in str(error)
            continue
        assert image.dtype == torch.uint8
        read += len(image) == 3
    # Each is read or refused by name.
    assert refused + read == 150
    assert refused > 50


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG"])
def test_a_picture_that_is_too_large_is_refused_before_it_takes_memory(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (1000, 700)).save(tmp_path / "a.png", kind)
    assert read_image(tmp_path / "a.png", max_pixels=700_000).shape == (3, 700, 1000)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=r"a\.png has 1000 x 700 pixels, more than 0\.69 million"):
        read_image(tmp_path / "a.png", max_pixels=690_000)


def test_what_pillow_does_not_open_has_a_limit_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    # Three channels of floats, which Pillow's table of TIFFs lacks.
    cv2.imwrite(str(tmp_path / "a.tif"), np.zeros((30, 40, 3), np.float32))
    data = (tmp_path / "a.tif").read_bytes()
    path.write_bytes(data)
    with pytest.raises(UnidentifiedImageError):
        Image.open(path)
    with pytest.raises(ValueError, match="has float32 pixels"):
        read_image(path)
    with monkeypatch.context() as patch:
        patch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
        with pytest.raises(ValueError, match=r"a\.png has 40 x 30 pixels, more than 0\.001 mill"):
            read_image(path, max_pixels=1000)
        # No directory of tags.
        path.write_bytes(data[:4] + b"\xff" * 4 + data[8:])
        with pytest.raises(ValueError, match=r"a\.png cannot be read as an image \(unknown format"):
            read_image(path)

    # A profile that is none.
    cv2.imwrite(str(path), PICTURE)
    data = path.read_bytes()
    profile = b"iCCPname\0\5"
    chunk = struct.pack(">I", 6) + profile + struct.pack(">I", zlib.crc32(profile))
    path.write_bytes(data[:33] + chunk + data[33:])
    with pytest.raises(UnidentifiedImageError):
        Image.open(path)
    assert np.array_equal(read_image(path).permute(1, 2, 0).flip(-1), PICTURE)
    with pytest.raises(ValueError, match="more than 1e-06 million"):
        read_image(path, max_pixels=1)


def test_a_jpeg_of_endless_scans_is_refused_and_chance_bytes_are_no_scans(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(PICTURE).save(path, progressive=True)
    data = path.read_bytes()
    end = data.rindex(b"\xff\xd9")
    scan = data[data.rindex(b"\xff\xda") : end]
    num_scans = data.count(b"\xff\xda")
    expected = read_image(path)
    for more, is_read in ((MAX_SCANS - num_scans, True), (MAX_SCANS - num_scans + 1, False)):
        path.write_bytes(data[:end] + more * scan + data[end:])
        if is_read:
            assert read_image(path).shape == expected.shape
        else:
            with pytest.raises(ValueError, match=r"a\.jpg cannot be .* \(more than 100 scans"):
                read_image(path)
    # A note before the picture and a video behind it.
    chance = MAX_SCANS * b"\xff\xda\0\1"
    note = b"\xff\xfe" + (len(chance) + 2).to_bytes(2, "big") + chance
    path.write_bytes(data[:2] + note + data[2:] + chance + b"\xff\xd9")
    assert torch.equal(read_image(path), expected)


@pytest.mark.parametrize("length", [1_500_000_000, 2**31 - 1, 2**32 - 1])
def test_no_room_is_made_for_a_chunk_that_claims_more_than_the_file_has(
    tmp_path: Path, length: int
) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), PICTURE)
    data = bytearray(path.read_bytes())
    data[33:37] = length.to_bytes(4, "big")
    path.write_bytes(data)
    forget_peak()
    before = memory_status("VmHWM")
    # Pillow takes what is there, and its stream of pixels is whole.
    assert np.array_equal(read_image(path).permute(1, 2, 0).flip(-1), PICTURE)
    with pytest.raises(ValueError, match=r"a\.png is truncated"):
        read_stored_pixels(path)
    assert memory_status("VmHWM") - before < 500_000_000


def test_every_sixteen_bit_value_is_rounded_to_the_nearest_eight_bit_one(tmp_path: Path) -> None:
    values = np.arange(1 << 16, dtype=np.uint16).reshape(512, 128)
    cv2.imwrite(str(tmp_path / "a.png"), values)
    expected = np.rint(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0].numpy(), expected)


def test_pixels_are_resized_alike_plane_by_plane_and_pixel_by_pixel() -> None:
    generator = torch.Generator().manual_seed(0)
    for size, new_size in (((37, 64), (18, 32)), ((40, 31), (77, 90)), ((9, 200), (30, 41))):
        pixels = torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8)
        interleaved = pixels.permute(2, 0, 1)
        planes = interleaved.contiguous()
        assert resize_image(planes, new_size).equal(resize_image(interleaved, new_size))
